"""What the user is shown: the numbers of the table, the plain lines, and the words a run ends with."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType
from rich.table import Table

from bocb_tune.analysis.answer.sentences import parts_of, terminal
from bocb_tune.analysis.report.answer import answer_for
from bocb_tune.cli import commands
from bocb_tune.cli.commands import Trained
from bocb_tune.cli.launch import FolderError, cell_plans, claim_folder, read_status
from bocb_tune.cli.progress import LEAVING, View
from bocb_tune.cli.screen import screen
from bocb_tune.cli.status import CellStatus, GridStatus, cell_status, duration, grid_status, table, trial_line
from bocb_tune.core.types import Phase, TrialRecord, TrialStatus
from bocb_tune.engine.driver import FolderInUseError, announce, current_driver, only_driver
from bocb_tune.engine.run import Outcome, unharmed
from bocb_tune.engine.store import RunStore
from bocb_tune.spec.model import ExperimentSpec, dump_resolved, load_spec
from tests.support import simulated
from tests.support.fakes import FakeRun, write_run
from tests.support.records import make_cell, record_of, selectable_records
from tests.support.simulated import OBJECTIVE, Simulation


def rendered(what: RenderableType) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def records() -> list[TrialRecord]:
    """Nine trials: 3 completed, 2 stopped, 1 of each other kind; elapsed_s equals epochs."""
    cell = make_cell(design=4, search=3)
    trials = [cell.trial(Phase.design, index, cell.space.default) for index in range(9)]
    ends = [
        (TrialStatus.completed, 50.0),
        (TrialStatus.completed, 61.25),
        (TrialStatus.completed, 60.0),
        (TrialStatus.stopped, 70.0),
        (TrialStatus.stopped, 20.0),
        (TrialStatus.diverged, None),
        (TrialStatus.running, None),
        (TrialStatus.failed, None),
        (TrialStatus.oom, None),
    ]
    return [record_of(trial, status, score) for trial, (status, score) in zip(trials, ends, strict=True)]


def test_the_numbers_of_a_cell() -> None:
    status = cell_status("bowl/sgd", 20, records())
    assert status.counts == {"completed": 3, "stopped": 2, "diverged": 1, "running": 1, "failed": 1, "oom": 1}
    assert (status.trials, status.ended, status.left) == (20, 8, 12)
    assert status.best == 61.25  # a stopped trial's 70 is not of the full budget
    assert (status.epochs, status.seconds) == (3 * 9 + 6, 33.0)
    assert status.epochs_per_s == 1.0


def test_an_untouched_cell_has_no_numbers() -> None:
    status = cell_status("bowl/sgd", 20, [])
    assert (status.ended, status.best, status.epochs_per_s) == (0, None, None)


def test_trials_that_will_be_tried_again_have_not_ended() -> None:
    failed, oom = records()[-2:]
    status = cell_status("bowl/sgd", 20, records(), frozenset({failed.id, oom.id}))
    assert (status.ended, status.left) == (6, 14)


def test_failures_alike_are_counted_together() -> None:
    said = ["image /a/b.png: 2 of 900", "image /c.png: 31 of 900", "CUDA is lost"]
    bad = [
        replace(record, status=TrialStatus.failed, message=text) for record, text in zip(records(), said, strict=False)
    ]
    assert cell_status("bowl/sgd", 20, bad).failures == {said[0]: 2, said[2]: 1}
    cells = [cell_status(key, 20, bad[1:]) for key in ("bowl/sgd", "bowl/adamw")]
    assert grid_status(cells, None).failures == {said[1]: 2, said[2]: 2}
    lines = commands.failure_lines(bad)
    assert len(lines) == 2
    assert said[0] in lines[0]


def row(cell: str, trials: int, ended: int, seconds: float = 0.0, **counts: int) -> CellStatus:
    return CellStatus(
        cell=cell,
        trials=trials,
        counts={"completed": ended} | counts,
        best=None,
        epochs=0,
        seconds=seconds,
    )


@pytest.mark.parametrize(
    ("cells", "is_done", "has_failures"),
    [
        ([row("a", 3, 3), row("b", 2, 1)], False, False),
        ([row("a", 3, 4), row("b", 2, 1)], False, False),
        ([row("a", 3, 3), row("b", 2, 2)], True, False),
        ([row("a", 3, 2, failed=1)], True, True),
        ([row("a", 3, 2, oom=1)], True, True),
    ],
)
def test_when_a_grid_is_done(cells: list[CellStatus], is_done: bool, has_failures: bool) -> None:
    status = grid_status(cells, None)
    assert (status.is_done, status.has_failures) == (is_done, has_failures)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (754, "12 min 34 s"),
        (3599.7, "1 h 00 min"),
        (90_061, "25 h 01 min"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_the_table_shows_every_number() -> None:
    heading, line, *_, total = rendered(table(grid_status([cell_status("bowl/sgd", 20, records())], 25.0)))
    columns = ["cell", "trials", "run", "done", "stop", "div", "fail", "oom", "best", "ep/s"]
    assert heading.split() == columns
    assert line.split() == ["bowl/sgd", "8/20", "1", "3", "2", "1", "1", "1", "61.25", "1.00"]
    assert re.match(r"total .* 8/20 +about 25 s left", total)


def test_what_never_happened_is_a_dot_and_memory_is_named_only_where_it_ran_out() -> None:
    heading, line, total = rendered(table(grid_status([row("bowl/sgd", 3, 3, 6.0)], 0.0)))
    assert "oom" not in heading
    assert line.split() == ["bowl/sgd", "3/3", "·", "3", "·", "·", "·", "·", "0.00"]
    assert "left" not in total


def test_cells_that_do_not_fit_are_counted_and_those_at_work_shown() -> None:
    cells = [row(f"c{number}", 3, 3) for number in range(6)] + [row("open", 3, 0), row("busy", 3, 1, running=1)]
    lines = rendered(table(grid_status(cells, None), rows=3))
    assert [line.split()[0] for line in lines[1:-2]] == ["busy", "open", "c0"]
    assert lines[-2] == "... and 5 more cells"
    assert " 19/24" in lines[-1]
    everything = rendered(table(grid_status(cells, None), rows=8))
    assert [line.split()[0] for line in everything[1:-1]] == [cell.cell for cell in cells]


@pytest.mark.parametrize(
    ("status", "score", "message", "line"),
    [
        (TrialStatus.completed, 61.253, "", "completed 61.25 after 9/9 epochs, lr 0.1, wd 0.0001"),
        (TrialStatus.diverged, None, "loss", "diverged 1.00 after 1/9 epochs, lr 0.1, wd 0.0001: loss"),
        (TrialStatus.failed, None, "OSError: x", "failed - after 1/9 epochs, lr 0.1, wd 0.0001: OSError: x"),
    ],
)
def test_the_line_of_a_trial(status: TrialStatus, score: float | None, message: str, line: str) -> None:
    cell = make_cell()
    record = record_of(cell.trial(Phase.design, 2, cell.space.default), status, score)
    shown = trial_line(replace(record, message=message), 3, 20)
    assert shown == f"[3/20] bowl/sgd design 2: {line}"


SPEC = """
name: shown
task: {name: synthetic, noise: 0.5, epoch_s: 0}
dataset: synthetic
backbones: [bowl]
optimizers: [sgd, adamw]
recipe: digits
budget: {epochs: 9, trials_per_cell: 6}
search: {design: 3, asha: {grace: 1, reduction_factor: 3}}
repeats: {best: 1, default: 0}
resources: {max_slots: 2}
"""


@pytest.fixture
def spec(tmp_path: Path) -> ExperimentSpec:
    path = tmp_path / "shown.yaml"
    path.write_text(SPEC)
    return load_spec(path)


def test_without_a_terminal_a_line_for_each_trial_as_it_ends(tmp_path: Path, spec: ExperimentSpec) -> None:
    stream = io.StringIO()
    view = View(stream)
    simulation = Simulation(tmp_path, cell_plans(spec), slots=2)
    with view.showing():
        view.opened(simulation.store, 2)
        simulation.store.on_end = view.ended
        view.leaving()
        records = simulation.run()
    ray, first, groups, leaving, *lines = stream.getvalue().splitlines()
    assert (ray, groups) == ("starting Ray", "starting the worker groups")
    assert first == "14 of 14 trials to go, 2 at a time"
    assert leaving == LEAVING
    assert [line.split()[0] for line in lines] == [f"[{number}/14]" for number in range(1, 15)]
    assert {line.split(maxsplit=1)[1] for line in lines} == {
        trial_line(record, 0, 0).split(maxsplit=1)[1] for record in records.values()
    }


def test_on_a_terminal_a_table_that_follows_the_run(tmp_path: Path, spec: ExperimentSpec) -> None:
    view = View(io.StringIO())
    assert rendered(view._render()) == ["starting Ray"]
    simulation = Simulation(tmp_path, cell_plans(spec))
    view.opened(simulation.store, 1)
    assert rendered(view._render())[0] == "starting the worker groups"
    simulation.store.on_end = view.ended
    simulation.run()
    heading, *cells, total = rendered(view._render())
    assert heading.startswith("cell")
    assert [line.split()[:2] for line in cells] == [["bowl/sgd", "7/7"], ["bowl/adamw", "7/7"]]
    assert "14/14" in total


HOSTILE = "boom [/x] [red]\x1b[31mred\x1b[0m\x1b[2J\x9b2J\r :smile: \udcff"
"""What a trial may say: markup that is none, sequences that clear the screen, an emoji's name, no Unicode."""
HARMLESS = "boom [/x] [red]red2J :smile: \\udcff"


def on_a_terminal(stream: io.TextIOWrapper) -> View:
    view = View(stream)
    view.console._force_terminal = True
    view.console._width, view.console._height = 120, 40
    return view


def all_fail(folder: Path, spec: ExperimentSpec, view: View, monkeypatch: pytest.MonkeyPatch) -> Simulation:
    monkeypatch.setattr(simulated, "trial_events", lambda *_: iter([{"kind": "failed", "message": HOSTILE}]))
    simulation = Simulation(folder, cell_plans(spec))
    with view.showing():
        view.opened(simulation.store, 1)
        simulation.store.on_end = unharmed(view.ended)
        simulation.run()
    return simulation


@pytest.mark.parametrize("view_of", [View, on_a_terminal])
def test_what_a_trial_says_is_shown_as_it_is_and_commands_no_terminal(
    tmp_path: Path, spec: ExperimentSpec, monkeypatch: pytest.MonkeyPatch, view_of: Callable[[io.TextIOWrapper], View]
) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
    all_fail(tmp_path, spec, view_of(stream), monkeypatch)
    said = raw.getvalue().decode()
    assert HARMLESS in said
    for sequence in ("\x1b[2J", "\x9b", "\x1b[31mred"):
        assert sequence not in said


class GoneTerminal(io.StringIO):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise OSError(5, f"Input/output error at {text[:3]!r}")


def test_no_error_of_the_view_ends_a_run(
    tmp_path: Path, spec: ExperimentSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    view = View(io.StringIO())
    monkeypatch.setattr(view, "status", lambda: 1 / 0)
    simulation = Simulation(tmp_path, cell_plans(spec))
    unharmed(view.opened)(simulation.store, 1)
    assert "cannot be shown: division by zero" in rendered(view._render())[0]
    gone = View(io.StringIO())
    gone.opened(simulation.store, 1)
    gone.console = screen(GoneTerminal())
    simulation.store.on_end = unharmed(gone.ended)
    assert all(record.status.is_result for record in simulation.run().values())
    assert {"ZeroDivisionError", "OSError"} <= {
        type(record.exc_info[1]).__name__ for record in caplog.records if record.exc_info
    }


def test_every_command_writes_through_the_console_that_knows_no_markup() -> None:
    package = Path(commands.__file__).parents[1]
    making = [path.name for path in package.rglob("*.py") if " Console(" in path.read_text(encoding="utf-8")]
    assert making == ["screen.py"]
    stream = io.StringIO()
    screen(stream).print(Table(HARMLESS, title=HARMLESS))
    assert stream.getvalue().count(":smile:") == 2


def test_status_is_read_from_the_files_alone(tmp_path: Path, spec: ExperimentSpec) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "spec.yaml").write_text(dump_resolved(spec))
    empty = read_status(folder)
    assert (empty.trials, empty.ended, empty.left_s, empty.is_done) == (14, 0, None, False)
    Simulation(folder, cell_plans(spec)[:1]).run()
    half = read_status(folder)
    assert [cell.ended for cell in half.cells] == [7, 0]
    assert isinstance(half, GridStatus)
    assert half.to_json()["cells"][0]["counts"] == half.cells[0].counts
    with pytest.raises(FolderError, match=r"is no run folder: it has no spec\.yaml"):
        read_status(tmp_path)


def test_what_failed_is_to_go_for_whoever_starts_the_run_again(
    tmp_path: Path, spec: ExperimentSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    claim_folder(spec, folder)
    with monkeypatch.context() as broken:
        records = all_fail(folder, spec, View(io.StringIO()), broken).run().values()
    status = read_status(folder)
    assert (status.ended, status.is_done) == (0, False)
    assert sum(status.failures.values()) == len(records)
    assert "nothing runs" in " ".join(rendered(table(status)))
    stream = io.StringIO()
    simulation = Simulation(folder, cell_plans(spec))
    View(stream).opened(simulation.store, 1)
    assert stream.getvalue().splitlines()[0] == f"{status.trials} of {status.trials} trials to go, 1 at a time"
    assert all(record.status.is_result for record in simulation.run().values())
    again = read_status(folder)
    assert (again.ended, again.is_done) == (again.trials, True)


def test_status_names_the_lines_that_it_could_not_count(tmp_path: Path, spec: ExperimentSpec) -> None:
    folder = tmp_path / "run"
    claim_folder(spec, folder)
    Simulation(folder, cell_plans(spec)).run()
    (path, *_) = sorted((folder / "cells").glob("*.jsonl"))
    path.write_bytes(path.read_bytes() + b"garbage\nmore\ntorn")
    assert {cell.cell: cell.garbled for cell in read_status(folder).cells} == {"bowl/adamw": 2, "bowl/sgd": 0}
    (line,) = (line for line in rendered(table(read_status(folder))) if "bowl/adamw's journal" in line)
    assert line.startswith("2 lines")


@pytest.mark.usefixtures("spec")
def test_status_knows_whether_a_driver_is_at_work(tmp_path: Path) -> None:
    spec = load_spec(tmp_path / "shown.yaml", ["task.epoch_s=0.002"])
    folder = tmp_path / "run"
    claim_folder(spec, folder)
    cells = cell_plans(spec)
    Simulation(folder, cells[:1]).run()
    store = RunStore(folder, cells, OBJECTIVE, {}, clock=lambda: 0.0)
    first, second = (cells[1].trial(Phase.design, index, cells[1].space.default) for index in range(2))
    store.start(first)
    store.start(second)
    store.end(second, TrialStatus.failed, message="why")
    store.close()
    gone = read_status(folder)
    assert (gone.is_running, gone.left_s, gone.counts.get("running", 0), gone.cells[1].ended) == (False, None, 0, 0)
    assert gone.failures == {"why": 1}
    with only_driver(folder):
        announce(folder, 2)
        status = read_status(folder)
        assert (status.is_running, status.counts["running"]) == (True, 1)
        assert status.cells[1].ended == 0  # it failed before this driver began: it is tried again
        assert status.left_s
        announce(folder, 4)
        assert read_status(folder).left_s == pytest.approx(status.left_s / 2)
        view = View(io.StringIO())
        view.opened(RunStore(folder, cells, OBJECTIVE, {}), 2)
        assert view.status().left_s == pytest.approx(status.left_s)
        with pytest.raises(FolderInUseError), only_driver(folder):
            pass
    assert current_driver(folder) is None


NEXT = "next: bocb-tune analyze RUN\n"


def outcome(*statuses: TrialStatus, interrupted: bool = False) -> Outcome:
    good, *bad = selectable_records(make_cell(design=2, search=1), [50.0] * 4)
    ended = [replace(record, status=status, message="why") for record, status in zip(bad, statuses, strict=False)]
    return Outcome(interrupted=interrupted, records=(good, *ended))


@pytest.mark.parametrize(
    ("ended", "code", "out", "err"),
    [
        (outcome(), 0, "RUN\n", NEXT),
        (outcome(TrialStatus.diverged, TrialStatus.stopped), 0, "RUN\n", NEXT),
        (
            outcome(TrialStatus.failed, TrialStatus.oom),
            1,
            "RUN\n",
            "bowl/sgd design 0: failed: why\nbowl/sgd design 1: oom: why\n"
            "2 trial(s) of shown have no result; the same command tries them again.\n" + NEXT,
        ),
        (
            outcome(TrialStatus.failed, interrupted=True),
            130,
            "",
            "interrupted; everything so far is in RUN. The same command goes on from there.\n",
        ),
    ],
)
def test_what_a_run_ends_with(
    spec: ExperimentSpec,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ended: Outcome,
    code: int,
    out: str,
    err: str,
) -> None:
    monkeypatch.setattr(commands, "closing_lines", lambda *_: [NEXT.rstrip()])
    assert commands._report_end(Trained(spec=spec, place="RUN", folder=Path("RUN"), outcome=ended)) == code
    said = capsys.readouterr()
    assert (said.out, said.err) == (out, err)


def test_the_last_lines_of_a_run_are_its_answer(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", FakeRun(trials=4))
    *found, following = commands.closing_lines(folder, str(folder))
    assert found == terminal(parts_of(answer_for(folder)))
    assert following == f"next: bocb-tune analyze {folder}"
    assert commands.closing_lines(tmp_path / "none", "none")[0].startswith("no answer: ")
