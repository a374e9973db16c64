"""The nearest choice to what a user wrote, and texts of others made harmless."""

import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st

from bocb_tune.backbones import list_backbones
from bocb_tune.core.names import nearest, plain
from bocb_tune.optimizers import OPTIMIZERS
from bocb_tune.training.recipes import DEFAULTS


@pytest.mark.parametrize("name", ["SGD", "AdamW", "adamW", "ADAM", "adam-w", "LaMb"])
def test_case_and_separators_do_not_matter(name: str) -> None:
    wanted = "".join(letter for letter in name.lower() if letter.isalpha())
    assert nearest(name, OPTIMIZERS) == wanted


@pytest.mark.parametrize(
    ("name", "choices", "meant"),
    [
        ("bs", ["base", *DEFAULTS], "batch_size"),
        ("warmup", DEFAULTS, "warmup_epochs"),
        ("ConvNeXt-T", ["convnext_tiny_in22k", "convnext_small", "convnext_tiny"], "convnext_tiny"),
        ("rigde", ["bowl", "ridge"], "ridge"),
        ("Rigde", ["bowl", "Ridge"], "Ridge"),
        ("planet", ["bowl", "ridge"], None),
        ("", ["bowl"], None),
    ],
)
def test_beginnings_and_initials_come_before_similar_spellings(name: str, choices: list[str], meant: str) -> None:
    assert nearest(name, choices) == meant


def test_a_family_leads_to_its_own_models_not_to_one_that_ends_alike() -> None:
    found = nearest("vit_tiny", list_backbones())
    assert found in timm.list_models("vit_tiny*")


@given(st.text(st.sampled_from("\x1b[]0;1mJab\n\t\r\x07\x08\x9b\x7f é")))
def test_plain_text_keeps_its_words_and_no_control_but_tabs_and_line_ends(text: str) -> None:
    left = plain(text)
    assert all(character.isprintable() or character in "\n\t" for character in left)
    assert plain(left) == left
    assert plain(text.replace("\x1b", "")) == "".join(c for c in text if c.isprintable() or c in "\n\t")
