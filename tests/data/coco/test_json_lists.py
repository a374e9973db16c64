"""Pieces of a JSON object: what `json` reads at once, however small the blocks and pieces are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bocb_tune.data.coco.json_lists import json_lists

texts = st.text(alphabet='ab"\\[]{},:é\n/', max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
entries = st.lists(st.dictionaries(texts, values, max_size=3), max_size=6)


@settings(deadline=None, max_examples=200)
@given(
    content=st.fixed_dictionaries({"images": entries, "annotations": entries, "info": values}),
    block=st.integers(1, 40),
    piece=st.integers(1, 60),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_lists_are_read_as_json_does(
    tmp_path_factory: pytest.TempPathFactory, content: Any, block: int, piece: int, indent: int | None, ascii_only: bool
) -> None:
    path = tmp_path_factory.mktemp("json") / "x.json"
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    lists = json_lists(path, block, piece)
    for key in ("images", "annotations"):
        assert [entry for part in lists.pieces(key) for entry in part] == content[key]


def test_a_large_list_comes_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"images": [{"id": number} for number in range(100)]}))
    parts = list(json_lists(path, 64, 100).pieces("images"))
    assert len(parts) > 5
    assert [entry["id"] for part in parts for entry in part] == list(range(100))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON"),
        ("[]", "holds a JSON list"),
        ('{"images": [{"id": 1}', "is no JSON: it ends within a list or an object; is the file complete"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        json_lists(path)


def test_a_fault_within_a_list_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"images": [{"id": 1}, {"id": NaN}]}')
    with pytest.raises(ValueError, match=r"x.json: is no JSON, from byte 12 on"):
        list(json_lists(path).pieces("images"))
