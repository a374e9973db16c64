"""No text of a run folder's files leads out of it: whatever they say, nothing beside the folder changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bocb_tune.analysis.patterns.checkpoints import find_kept
from bocb_tune.analysis.sources.load import load
from bocb_tune.cli.launch import cell_plans, claim_folder, read_status, recorded_trial
from bocb_tune.core.journal import JournalError, read_journal
from bocb_tune.spec.model import load_spec
from tests.support.simulated import Simulation, make_cells, make_plan

PLAN = make_plan(design=2, search=1, repeats_best=0, repeats_default=0, rungs=(), sampler="random")
OUTSIDE = "../../victim"
"""From the checkpoints of a run folder, and from its journals, to a folder beside it."""
SPEC = """\
name: small
task: {name: synthetic, noise: 0.5}
dataset: synthetic
backbones: [bowl]
optimizers: [sgd]
recipe: digits
budget: {epochs: 9, trials_per_cell: 4}
search: {design: 2, asha: null, sampler: random}
repeats: {best: 0, default: 0}
"""


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder beside that of the run; both are in a folder that nothing else is in."""
    folder = tmp_path / "home" / "victim"
    folder.mkdir(parents=True)
    (folder / "latest.pt").write_bytes(b"precious")
    return folder


def begun(run: Path) -> Path:
    """Return the journal of a run that ended after its first trial, which scored less than all others will."""
    Simulation(run, make_cells(PLAN, ("bowl",), ("sgd",))).run()
    (run / "checkpoints").mkdir()
    (journal,) = (run / "cells").glob("*.jsonl")
    lines = journal.read_text().splitlines()
    end = next(place for place, line in enumerate(lines) if '"end"' in line)
    lines[end] = json.dumps(json.loads(lines[end]) | {"score": -100.0})
    journal.write_text("\n".join(lines[: end + 1]) + "\n")
    return journal


@pytest.mark.parametrize(
    "name", [OUTSIDE, "ABSOLUTE", "..", ".", "", "a/b", "0" * 17, "ABCDEF0123456789", "0" * 16 + "\n"]
)
def test_a_trial_whose_name_is_no_digest_is_refused_and_no_folder_is_removed(victim: Path, name: str) -> None:
    run = victim.parent / "run"
    journal = begun(run)
    name = str(victim) if name == "ABSOLUTE" else name
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    journal.write_text("".join(json.dumps(line | {"trial": name}) + "\n" for line in lines))
    (problem, *_) = read_journal(journal).problems
    assert (problem.file, problem.line) == (journal, 2)
    assert repr(name) in problem.message
    with suppress(JournalError):
        Simulation(run, make_cells(PLAN, ("bowl",), ("sgd",))).run()
    assert (victim / "latest.pt").read_bytes() == b"precious"
    assert (run / "checkpoints").is_dir()


def texts(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of each text, and of each name of a field, within a JSON value."""
    if isinstance(value, str):
        yield place
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from texts(item, (*place, key))


def changed(value: Any, place: tuple[Any, ...], text: str) -> Any:
    """Return a JSON value with another text at a place."""
    if not place:
        return text
    copy = value.copy()
    copy[place[0]] = changed(value[place[0]], place[1:], text)
    return copy


def files_beside(run: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in run.parent.rglob("*") if run not in path.parents and path.is_file()
    }


def use(run: Path, spec: Path) -> None:
    """Do with a run folder all that the commands do, but for training on Ray."""
    steps: list[Callable[[], object]] = [
        lambda: claim_folder(load_spec(spec), run),
        lambda: Simulation(run, cell_plans(load_spec(spec), folder=run)).run(),
        lambda: read_status(run),
        lambda: recorded_trial(run, OUTSIDE[:2]),
        lambda: find_kept(run, load(str(run))),
    ]
    for step in steps:
        with suppress(ValueError):
            step()


def test_no_text_of_a_run_folder_leads_out_of_it(victim: Path, tmp_path: Path) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(SPEC)
    first = json.loads(begun(victim.parent / "first").read_text().splitlines()[0])
    places = [(0, *place) for place in texts(first)]
    assert len(places) > 8
    for number, place in enumerate([*places, (1, "phase"), (1, "trial"), (-1, "status"), (-1, "message")]):
        run = victim.parent / f"run{number}"
        journal = begun(run)
        (run / "spec.yaml").write_text(SPEC)
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        lines[place[0]] = changed(lines[place[0]], place[1:], OUTSIDE)
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
        before = files_beside(run)
        use(run, spec)
        assert files_beside(run) == before, place
