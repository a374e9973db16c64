"""What is kept on disk gives the same report, is made anew when anything it depends on changes, and may be broken."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bocb_tune.analysis.cell import modelling
from bocb_tune.analysis.cell.modelling import model_cells
from bocb_tune.analysis.core.cache import Cache, fingerprint
from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.findings.collect import find
from bocb_tune.analysis.findings.metrics_file import to_json
from bocb_tune.analysis.landscape.surface import Domain
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.table import TrialTable
from tests.analysis.findings.test_findings import DIMS, rows_of
from tests.support.coverage.landscapes import BOWL, RIDGE, simulate
from tests.support.fakes import FakeRun, write_run

NAME = "0" * 64


@dataclass(frozen=True)
class Entry:
    values: Any


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", (Entry, Estimate, Counts, Reason, Domain))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TrialTable:
    rows = [
        row
        for seed, (backbone, planted) in enumerate({"bowl": BOWL, "ridge": RIDGE, "poor": BOWL}.items())
        for row in rows_of(backbone, "sgd", simulate(planted, 10 if backbone == "poor" else 40, seed))
    ]
    path = tmp_path_factory.mktemp("table") / "trials.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    loaded = load(str(path))
    return replace(loaded, objective=replace(loaded.objective, floor=1.0), spaces={"sgd": DIMS})


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of trials of each cell that is modelled."""
    calls: list[int] = []
    model = modelling._model

    def counted(job: Any) -> Any:
        calls.append(len(job.trials.lr))
        return model(job)

    monkeypatch.setattr(modelling, "_model", counted)
    return calls


def moved(table: TrialTable, backbone: str) -> TrialTable:
    """The same trials, one score of a backbone a little higher."""
    place = table.curves.index[table.curves["backbone"] == backbone][0]
    curves = table.curves.copy()
    curves.loc[place, "score"] += 0.01
    return replace(table, curves=curves)


def test_a_report_from_the_cache_is_the_report(table: TrialTable, tmp_path: Path, fitted: list[int]) -> None:
    texts = [json.dumps(to_json(find(table, folder))) for folder in (None, tmp_path, tmp_path)]
    assert texts[0] == texts[1] == texts[2]
    assert sorted(fitted) == [10, 10, 10, 40, 40, 40, 40]


def test_only_what_changed_is_modelled_again(table: TrialTable, tmp_path: Path, fitted: list[int]) -> None:
    model_cells(table, tmp_path)
    fitted.clear()
    model_cells(moved(table, "bowl"), tmp_path)
    assert sorted(fitted) == [10, 40]
    assert len(list((tmp_path / "models").iterdir())) == 2
    fitted.clear()
    model_cells(replace(table, num_images=10_000.0), tmp_path)
    assert sorted(fitted) == [10, 40, 40]


def test_values_come_back_as_they_were(cache: Cache) -> None:
    domain = Domain(lr=(-3.0, 0.1), weight_decay=(-5.0, float("-inf")), zero_mass=0.1)
    refused = Estimate(value=None, reason=Reason.ISOTROPIC, method="none")
    value = Entry(
        {("a", 1): [domain, refused, (True, None, 1 / 3)], "text": "名\n", "array": np.array([[1.5, np.nan]])}
    )
    cache.put(NAME, value)
    found = cache.get(NAME)
    assert found.values[("a", 1)] == value.values[("a", 1)]
    assert isinstance(found.values[("a", 1)][1].reason, Reason)
    np.testing.assert_array_equal(found.values["array"], value.values["array"])


@pytest.mark.parametrize("place", [0, 200, 700])
@pytest.mark.parametrize("broken", [b"", b"x"])
def test_what_cannot_be_read_is_not_there(cache: Cache, place: int, broken: bytes) -> None:
    """Cut off at the place, or with one byte changed there, an entry is made anew."""
    cache.put(NAME, Entry(np.arange(100.0)))
    path = cache.folder / f"{NAME}.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + broken + (whole[place + 1 :] if broken else b""))
    assert cache.get(NAME) is None


def test_pickles_and_foreign_files_are_not_read(cache: Cache) -> None:
    cache.folder.mkdir()
    np.savez(cache.folder / f"{NAME}.npz", json=np.array([Entry(1)], dtype=object))
    assert cache.get(NAME) is None
    (cache.folder / "notes.txt").write_text("mine")
    cache.put("1" * 64, Entry(1))
    cache.keep_only([])
    assert [path.name for path in cache.folder.iterdir()] == ["notes.txt"]


def test_the_fingerprint_tells_values_apart() -> None:
    values = [None, 0, 0.0, "0", (0,), [0], ((0,),), ("0", ""), ("", "0"), np.zeros(1), np.zeros((1, 1)), {0: 0}]
    values += [np.zeros(1, np.float32), Entry(0), Entry((0,)), np.array(["0"]), np.array(["0"], dtype=object)]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint(Entry(np.arange(3))) == fingerprint(Entry(np.arange(3)))


def test_journals_from_the_cache_make_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bocb_tune.analysis.sources.load.FEWEST_PARALLEL", 9)
    monkeypatch.setattr("bocb_tune.analysis.core.parallel.os.cpu_count", lambda: 1)
    run, cache = write_run(tmp_path, FakeRun(trials=4)), tmp_path / "cache"
    plain, first = load(str(run)), load(str(run), cache=cache)
    monkeypatch.setattr("bocb_tune.analysis.sources.load.read_journal", None)
    again = load(str(run), cache=cache)
    for table in (first, again):
        for name in ("trials", "curves", "refined"):
            pd.testing.assert_frame_equal(getattr(table, name), getattr(plain, name))
        assert replace(table, trials=plain.trials, curves=plain.curves, refined=plain.refined) == plain
