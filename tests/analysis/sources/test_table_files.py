"""Files as spreadsheets and people write them: what can be read is read, and what cannot says what to do."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.table import SourceError
from tests.support.tables import HEADER, write

ROWS = "a,b,61.5\na,c,72\n"


def put(path: Path, content: str, encoding: str = "utf-8") -> str:
    path.write_bytes(content.encode(encoding))
    return str(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends_of_spreadsheets(tmp_path: Path, encoding: str, line_end: str) -> None:
    text = f"{HEADER}\n{ROWS}".replace("a,", "café,").replace("\n", line_end)
    table = load(put(tmp_path / "t.csv", text, encoding))
    assert (table.backbones, sorted(table.trials["score"])) == (("café",), [61.5, 72])


def test_an_encoding_that_is_not_known_says_what_to_save_it_as(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"t\.csv: not a table in UTF-8 \(.*\); save it as 'CSV UTF-8'"):
        load(put(tmp_path / "t.csv", f"{HEADER}\n{ROWS}".replace("a,", "café,"), "cp1252"))


def test_a_first_line_that_names_the_separator_is_no_header(tmp_path: Path) -> None:
    text = f"sep=;\n{HEADER}\n{ROWS}".replace(",", ";")
    assert sorted(load(put(tmp_path / "t.csv", text)).trials["score"]) == [61.5, 72]
    with pytest.raises(SourceError, match=r"row 4, column 'score': '7x2' is not a number"):
        load(put(tmp_path / "t.csv", text.replace("72", "7x2")))


def test_columns_without_a_name_are_named_by_their_place_or_left_out_empty(tmp_path: Path) -> None:
    lines = [f",{HEADER},", *(f"{number},{row}," for number, row in enumerate(ROWS.split()))]
    table = load(write(tmp_path / "t.csv", *lines))
    assert sorted(table.trials["score"]) == [61.5, 72]
    assert [note for note in table.notes if "not used" in note] == ["Columns not used: column 1."]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([f"{HEADER},score", "a,b,1,2"], r"t\.csv: columns 3 and 4 are both named 'score'; keep one"),
        ([f"lr,{HEADER},lr", "1,a,b,1,2"], r"t\.csv: columns 1 and 5 are both named 'lr'; keep one"),
        (["my sweep,,", HEADER, *ROWS.split()], r"Row 2 looks like the header: remove what stands above it"),
        (["# by me", HEADER, *ROWS.split()], r"the first line must be the header, with a name for each column"),
        (["", "", ""], r"the first line is empty; it must name the columns"),
        (["backbone,sgd,adamw", "a,60,61"], r"One row per trial is needed, not one column per optimizer"),
    ],
)
def test_a_header_that_is_none_is_told_from_one_that_lacks_a_column(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        load(write(tmp_path / "t.csv", *lines))


def test_a_column_that_is_not_used_may_stand_twice(tmp_path: Path) -> None:
    assert len(load(write(tmp_path / "t.csv", f"{HEADER},tag,tag", "a,b,1,x,y")).trials) == 1


def test_lists_mappings_and_truths_of_parquet(tmp_path: Path) -> None:
    cells = {"backbone": ["a", "b"], "optimizer": ["x", "x"], "score": [61.5, 72.0]}
    pd.DataFrame(cells | {"betas": [[0.9, 0.99], [0.9]], "config": [{"k": 1}, {"k": 2}]}).to_parquet(
        tmp_path / "t.parquet"
    )
    assert sorted(load(str(tmp_path / "t.parquet")).trials["score"]) == [61.5, 72]
    pd.DataFrame(cells | {"score": [True, False]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(SourceError, match=r"row 2, column 'score': True is not a number"):
        load(str(tmp_path / "t.parquet"))


def test_names_that_seem_to_mean_the_same_are_kept_apart_with_a_word(tmp_path: Path) -> None:
    rows = ["R-50,SGD,60", "resnet50,sgd,61", "☃,my own,62", "☃☃,lion,63"]
    table = load(write(tmp_path / "t.csv", HEADER, *rows))
    assert len(table.backbones) == len(table.optimizers) == 4
    assert [caution.partition(", which")[0] for caution in table.cautions] == [
        "Column 'backbone' has 'R-50' and 'resnet50'",
        "Column 'optimizer' has 'SGD' and 'sgd'",
    ]


@pytest.mark.parametrize(
    ("name", "cell", "field"),
    [
        ("log_lr", "-3", "learning rate"),
        ("hp lr max", "1e-3", "learning rate"),
        ("Learning rate of the head", "1e-3", "learning rate"),
        ("l2_decay", "0.1", "weight decay"),
        ("lr_scheduler", "cosine", None),
        ("colour", "3", None),
    ],
)
def test_a_column_that_may_hold_a_hyper_parameter_is_asked_about(
    tmp_path: Path, name: str, cell: str, field: str | None
) -> None:
    table = load(write(tmp_path / "t.csv", f"{HEADER},{name}", f"a,b,60,{cell}", f"a,c,61,{cell}"))
    asked = [caution for caution in table.cautions if "No column is read as the" in caution]
    assert [f"read as the {field}. If {name!r} holds it" in caution for caution in asked] == [True] * bool(field)
