"""Running again is resuming: whatever a crash leaves of the journals, the run ends as if nothing had happened."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bocb_tune.analysis.sources.load import load
from bocb_tune.cli.time_left import work_of
from bocb_tune.core.journal import JournalError, JournalWriter, fold, read_headers, read_run
from bocb_tune.core.types import Phase, TrialRecord, TrialSpec, TrialStatus
from bocb_tune.engine.design import superseded
from bocb_tune.engine.policy import HOPELESS_TRIALS, worth_keeping
from bocb_tune.training.context import Context
from tests.support import simulated
from tests.support.processes.runs import count_lines
from tests.support.simulated import Simulation, essence, make_cells, make_plan, records_of


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[object, ...]]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, essence(Simulation(folder, make_cells(make_plan())).run())


def test_the_run_has_every_outcome_that_resuming_must_survive(
    undisturbed: tuple[Path, dict[str, tuple[object, ...]]],
) -> None:
    statuses = {record[6] for record in undisturbed[1].values()}
    assert statuses == {TrialStatus.completed, TrialStatus.stopped, TrialStatus.diverged}


def test_killed_after_any_event_the_run_ends_with_the_same_records(
    tmp_path: Path, undisturbed: tuple[Path, dict[str, tuple[object, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expected = undisturbed
    append = JournalWriter.append
    lines = count_lines(folder)
    assert lines > 150
    for fatal in range(0, lines, 7):
        written = Counter[str]()

        def dying(
            self: JournalWriter, event: object, *, durable: bool, written: Counter[str] = written, fatal: int = fatal
        ) -> None:
            if written["lines"] == fatal:
                self._file.write('{"event":"mea')  # and the line in hand is torn
                self._file.flush()
                raise Killed
            written["lines"] += 1
            append(self, event, durable=durable)  # type: ignore[arg-type]

        run = tmp_path / str(fatal)
        monkeypatch.setattr(JournalWriter, "append", dying)
        with pytest.raises(Killed):
            Simulation(run, make_cells(make_plan())).run()
        monkeypatch.setattr(JournalWriter, "append", append)
        assert essence(Simulation(run, make_cells(make_plan())).run()) == expected, f"killed at event {fatal}"
        shutil.rmtree(run)


def test_one_checkpoint_a_cell_is_kept_whatever_event_was_the_last_before_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = make_cells(make_plan(), ("bowl",), ("sgd",))
    append, written = JournalWriter.append, Counter[str]()

    def dying(self: JournalWriter, event: Mapping[str, Any], *, durable: bool) -> None:
        append(self, event, durable=durable)
        written["ends"] += event["event"] == "end"
        if event["event"] == "end" and written["ends"] == fatal:
            raise Killed

    for fatal in range(1, len(Simulation(tmp_path / "whole", cells).run())):
        run = tmp_path / str(fatal)
        written.clear()
        with monkeypatch.context() as mortal:
            mortal.setattr(JournalWriter, "append", dying)
            with pytest.raises(Killed):
                Simulation(run, cells, checkpoints=True).run()
        (best,) = worth_keeping(Simulation(run, cells, checkpoints=True).run().values())
        assert [path.name for path in (run / "checkpoints").iterdir()] == [best.id], f"killed at end {fatal}"


def test_rungs_rebuilt_from_the_journal_equal_those_before(tmp_path: Path) -> None:
    first = Simulation(tmp_path, make_cells(make_plan()), slots=3)
    first.run()
    again = Simulation(tmp_path, make_cells(make_plan()), slots=3)
    for key, rungs in first.rungs.items():
        assert rungs.table() == again.rungs[key].table()
        assert any(rungs.table().values())


def test_a_finished_run_owes_nothing(undisturbed: tuple[Path, dict[str, tuple[object, ...]]], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(undisturbed[0], folder)
    lines = count_lines(folder)
    assert essence(Simulation(folder, make_cells(make_plan())).run()) == undisturbed[1]
    assert count_lines(folder) == lines


@pytest.mark.parametrize("slots", [2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_every_cell_gets_every_phase_whatever_the_order_of_arrival(tmp_path: Path, slots: int, seed: int) -> None:
    plan = make_plan()
    records = Simulation(tmp_path, make_cells(plan), slots=slots, seed=seed).run().values()
    counts = Counter((record.cell.key, record.phase) for record in records)
    for cell in make_cells(plan):
        found = {phase: counts[cell.cell.key, phase] for phase in Phase}
        assert found == {Phase.default: 1, Phase.design: 4, Phase.search: 5, Phase.refine: 0, Phase.repeat: 3}


def test_more_trials_repeats_and_cells_extend_a_run(tmp_path: Path) -> None:
    before = Simulation(tmp_path, make_cells(make_plan())).run()
    larger = make_plan(search=8, repeats_default=2)
    after = Simulation(tmp_path, make_cells(larger, optimizers=("sgd", "adamw", "lion"))).run()
    old = essence(before)
    assert {key: value for key, value in essence(after).items() if key in old} == old
    for cell in make_cells(larger, optimizers=("sgd", "adamw", "lion")):
        records = [record for record in after.values() if record.cell == cell.cell]
        assert sum(record.phase == Phase.search for record in records) == 8
        assert sum(record.hparams == cell.space.default for record in records if record.phase == Phase.repeat) >= 2


def test_a_failed_trial_is_tried_again_by_the_next_run(tmp_path: Path) -> None:
    cells = make_cells(make_plan())
    Simulation(tmp_path, cells).run()
    path = next((tmp_path / "cells").glob("*.jsonl"))
    path.write_text(path.read_text().replace('"status":"stopped"', '"status":"failed"', 1))
    records = Simulation(tmp_path, cells).run().values()
    assert not [record for record in records if record.status == TrialStatus.failed]
    assert [record.attempt for record in records if record.attempt > 1] == [2]


@pytest.mark.parametrize("slots", [1, 3])
def test_a_run_whose_trials_all_fail_stops_and_goes_on_when_the_cause_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slots: int
) -> None:
    cells = make_cells(make_plan())
    owed = sum(cell.plan.trials([]) for cell in cells)
    with monkeypatch.context() as broken:
        broken.setattr(simulated, "trial_events", lambda *_: iter([{"kind": "failed", "message": "no such disk"}]))
        for run in (1, 2):
            simulation = Simulation(tmp_path, cells, slots=slots)
            records = simulation.run()
            assert simulation.search.given_up
            assert {record.status for record in records.values()} == {TrialStatus.failed}
            assert len(records) <= run * (HOPELESS_TRIALS + slots - 1) < owed
    simulation = Simulation(tmp_path, cells, slots=slots)
    assert all(record.status.is_result for record in simulation.run().values())
    assert not simulation.search.given_up


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize(("backbones", "begins"), [(2, 0), (2, 7), (2, 22), (2, 37), (2, 42), (1, 0), (1, 3), (1, 5)])
def test_a_fault_of_the_machine_changes_no_proposal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backbones: int, begins: int, sampler: str
) -> None:
    cells = make_cells(make_plan(sampler=sampler), ("bowl", "cliff")[:backbones], ("sgd", "adamw")[:backbones])
    expected = essence(Simulation(tmp_path / "undisturbed", cells).run())
    sound, started = simulated.trial_events, itertools.count()

    def fail_from_then_on(trial: TrialSpec, seen: int, context: Context) -> Iterator[dict[str, Any]]:
        return (
            sound(trial, seen, context)
            if next(started) < begins
            else iter([{"kind": "failed", "message": "disk full"}])
        )

    with monkeypatch.context() as broken:
        broken.setattr(simulated, "trial_events", fail_from_then_on)
        simulation = Simulation(tmp_path / "run", cells)
        failed = [record for record in simulation.run().values() if record.status == TrialStatus.failed]
        assert (simulation.search.given_up, len(failed)) == (True, HOPELESS_TRIALS)
        Simulation(tmp_path / "run", cells).run()  # now nothing works from the start
    simulation = Simulation(tmp_path / "run", cells)
    assert essence(simulation.run()) == expected
    assert not simulation.search.given_up
    reread = {key: r for read in read_run(tmp_path / "run") for key, r in fold(read.cell, read.events).items()}
    assert essence(reread) == expected  # nobody hears of what was proposed meanwhile


def test_a_wider_range_owes_its_own_design_and_the_counts_say_so(tmp_path: Path) -> None:
    cells = make_cells(make_plan(), ("bowl",), ("sgd",))
    before = Simulation(tmp_path, cells).run()
    assert superseded(cells[0], before) == 0
    wider = tuple(
        replace(cell, space=replace(cell.space, lr=replace(cell.space.lr, high=10 * cell.space.lr.high)))
        for cell in make_cells(make_plan(search=8), ("bowl",), ("sgd",))
    )
    owed = wider[0].plan.trials(before.values()) + superseded(wider[0], before)
    work = work_of(wider[0].plan, before.values(), superseded=superseded(wider[0], before))
    assert work.owed_competing > 0
    after = Simulation(tmp_path, wider).run()
    assert owed == len(after) == len(before) + wider[0].plan.design + 3
    assert sum(record.phase == Phase.search for record in after.values()) == 8


def swap(folder: Path, one: str, other: str) -> None:
    one_path, other_path = (folder / "cells" / f"{stem}.jsonl" for stem in (one, other))
    kept = one_path.read_bytes()
    one_path.write_bytes(other_path.read_bytes())
    other_path.write_bytes(kept)


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: Simulation(folder, make_cells(make_plan())),
        read_headers,
        read_run,
        lambda folder: load(str(folder)),
    ],
    ids=["engine", "headers", "records", "analysis"],
)
def test_swapped_journals_are_refused_by_all_who_read_them_and_nothing_is_written(
    undisturbed: tuple[Path, dict[str, tuple[object, ...]]], tmp_path: Path, read: Callable[[Path], object]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(undisturbed[0], folder)
    read(folder)
    swap(folder, "bowl__sgd", "cliff__adamw")
    before = {path: path.read_bytes() for path in folder.rglob("*.jsonl")}
    with pytest.raises(JournalError, match=r"bowl__sgd\.jsonl.*of cliff/adamw\b.*\bbowl/sgd\b"):
        read(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*.jsonl")} == before


@pytest.mark.parametrize(("owner", "named"), [("cliff__adamw", "cliff/adamw"), (None, "another experiment")])
def test_a_trial_of_another_cell_or_experiment_is_refused_whatever_became_of_it(
    undisturbed: tuple[Path, dict[str, tuple[object, ...]]], tmp_path: Path, owner: str | None, named: str
) -> None:
    if owner is None:
        Simulation(tmp_path / "other", make_cells(make_plan(seed=1, epochs=3))).run()
    others = (tmp_path / "other" if owner is None else undisturbed[0]) / "cells" / f"{owner or 'bowl__sgd'}.jsonl"
    first = json.loads(others.read_bytes().splitlines()[1])
    lines = [line for line in others.read_text().splitlines() if f'"{first["trial"]}"' in line]
    folder = tmp_path / "copy"
    shutil.copytree(undisturbed[0], folder)
    with (folder / "cells" / "bowl__sgd.jsonl").open("a") as file:
        file.write("\n".join(lines) + "\n")
    with pytest.raises(JournalError, match=rf"bowl__sgd\.jsonl: trial {first['trial']} .* of {named}.* bowl/sgd"):
        Simulation(folder, make_cells(make_plan()))


def put_another(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    shutil.copytree(folder.with_name("moved"), folder)


@pytest.mark.parametrize(
    "remove",
    [
        shutil.rmtree,
        lambda folder: shutil.rmtree(folder / "cells"),
        put_another,
        lambda folder: [path.unlink() for path in (folder / "cells").iterdir()],
    ],
    ids=["folder", "cells", "replaced", "files"],
)
@pytest.mark.parametrize("ends", [1, 5])
def test_a_run_folder_that_is_removed_is_noticed_by_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remove: Callable[[Path], object], ends: int
) -> None:
    folder = tmp_path / "run"
    simulation = Simulation(folder, make_cells(make_plan(), ("bowl",), ("sgd",)))
    left: list[Path] = []

    def after_some(_: TrialRecord) -> None:
        if sum(record.status.is_result for record in records_of(simulation.store).values()) == ends:
            remove(folder)
            left.extend(folder.rglob("*.jsonl"))
            monkeypatch.setattr(JournalWriter, "append", lambda *_, **__: pytest.fail("it was written"))

    simulation.store.on_end = after_some
    with pytest.raises(JournalError, match=r"run/cells.*was removed, moved or replaced"):
        simulation.run()
    assert sorted(folder.rglob("*.jsonl")) == sorted(left)


def test_a_garbled_line_is_refused_with_its_place_and_a_torn_last_line_is_not(tmp_path: Path) -> None:
    cells = make_cells(make_plan())
    Simulation(tmp_path, cells).run()
    path = tmp_path / "cells" / "bowl__sgd.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    Simulation(tmp_path, cells).run()
    lines = whole.split(b"\n")
    lines[3] = lines[3][:20]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(JournalError, match=r"bowl__sgd\.jsonl:4: not a line of JSON"):
        Simulation(tmp_path, cells)
