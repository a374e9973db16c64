"""One run of an experiment: attach to Ray or start it, open the slots, and let Tune drive the grid."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune

from bocb_tune.core.provenance import provenance
from bocb_tune.core.storage import storage_of
from bocb_tune.core.types import Objective, TrialRecord, TrialSpec, TrialStatus
from bocb_tune.engine.allotment import first_groups
from bocb_tune.engine.asha import CellRungs
from bocb_tune.engine.cluster.connection import ClusterError, connected
from bocb_tune.engine.cluster.nodes import machines_of, require_room
from bocb_tune.engine.cluster.room import Capacity
from bocb_tune.engine.driver import announce, only_driver
from bocb_tune.engine.policy import CellPlan
from bocb_tune.engine.scheduler import GridASHA
from bocb_tune.engine.search import GridSearch
from bocb_tune.engine.slots import Slots
from bocb_tune.engine.store import RunStore
from bocb_tune.engine.worker.queue import Client
from bocb_tune.engine.worker.serve import TOKEN
from bocb_tune.engine.worker.trainer import SlotSetup

logger = logging.getLogger(__name__)

PAIR_S = 2.0
"""Seconds after a signal to stop in which others say the same: `timeout` and Slurm send two at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Everything a run needs, resolved; the CLI makes it of a spec."""

    folder: Path
    """Folder of the journals, beside the driver."""
    checkpoints: str
    """Place of the checkpoints: a URI, or a path under which every node sees the same folder."""
    cells: tuple[CellPlan, ...]
    objective: Objective
    resources: Capacity
    checkpoint_every: int
    checkpoint_every_s: float
    address: str | None
    """Address of a Ray cluster to attach to; None starts Ray on this machine for the length of the run."""
    data: Mapping[str, Any] | None = None
    """Fingerprint of the data, for the journals' first lines; None if they are not seen from here."""
    trouble: Callable[[], Sequence[str]] = tuple
    """Lines on what else is the matter, asked for now and then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """End of a run."""

    interrupted: bool
    records: tuple[TrialRecord, ...]
    given_up: bool = False
    """Whether no further trial was started because the last had all failed."""


class Watcher:
    """Listener that a run tells how far it is. This one keeps silent."""

    def opened(self, store: RunStore, slots: int) -> None:
        """Hear that the records are read and the slots are asked for."""

    def ended(self, record: TrialRecord) -> None:
        """Hear that a trial has an outcome."""

    def cluster(self, lines: Sequence[str], slots: int) -> None:
        """Hear what there is to say of the cluster now, in plain lines, and how many slots can train."""

    def leaving(self) -> None:
        """Hear that the user asked to stop: epochs in flight are being finished."""


def unharmed(tell: Callable[..., None]) -> Callable[..., None]:
    """Return what tells the same, but whose errors go to the log: a terminal that is gone ends no training."""

    @functools.wraps(tell)
    def told(*what: Any) -> None:
        try:
            tell(*what)
        except Exception:  # whatever the listener does, it must not reach the engine
            logger.exception("what the run had to say could not be shown")

    return told


def run(plan: RunPlan, watcher: Watcher) -> Outcome:
    """Train everything the plan still owes. Running it again resumes it.

    Raises:
        FolderInUseError: if another process drives a run in the folder.
        ClusterError: if the resources are not available.
        JournalError: if what earlier runs wrote cannot be read.
        OSError: if the run folder cannot be written.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    with only_driver(plan.folder):
        store = RunStore(plan.folder, plan.cells, plan.objective, provenance(), data=plan.data)
        store.on_end = unharmed(watcher.ended)
        rungs = {key: CellRungs(book.plan.plan, plan.objective.floor) for key, book in store.books.items()}
        resumed = settle(store, rungs)
        try:
            with connected(plan.address):
                search = _drive(plan, store, rungs, resumed, watcher)
        finally:
            store.close()
    return Outcome(
        interrupted=search.leaving,
        records=tuple(r for book in store.books.values() for r in book.records.values()),
        given_up=search.given_up,
    )


def settle(store: RunStore, rungs: dict[str, CellRungs]) -> list[TrialSpec]:
    """Rebuild the rungs from the journals, and end the trials whose end the last run decided but did not live to write.

    Returns:
        The trials that are to go on.
    """
    stopped: dict[str, int] = {}
    for key, book in store.books.items():
        stopped |= rungs[key].replay(book.history)
    resumed = []
    for trial in store.unfinished():
        record = store.record(trial)
        if record.status == TrialStatus.running and trial.rungs and stopped.get(trial.id) == record.budget:
            store.end(trial, TrialStatus.stopped)
        elif record.status == TrialStatus.running and record.budget == trial.budget:
            store.end(trial, TrialStatus.completed)
        else:
            resumed.append(trial)
    return resumed


def _drive(
    plan: RunPlan, store: RunStore, rungs: dict[str, CellRungs], resumed: Sequence[TrialSpec], watcher: Watcher
) -> GridSearch:
    """Run the Tuner to its end; the search knows how it ended."""
    scratch = plan.folder / ".ray"
    shutil.rmtree(scratch, ignore_errors=True)
    machines = machines_of(ray.nodes())
    require_room(machines, plan.resources.shapes)
    number = first_groups(plan.resources, machines)
    setup = _slot_setup(plan, scratch)

    def news(lines: Sequence[str], ready: int) -> None:
        announce(plan.folder, ready, lines)
        unharmed(watcher.cluster)(lines, ready)

    slots = Slots(setup, plan.resources, news, plan.trouble)
    search = GridSearch(store, slots, resumed, plan.resources.patience_min, plan.resources.turns)
    scheduler = GridASHA(store, search, rungs, storage_of(plan.checkpoints))
    announce(plan.folder, number)
    unharmed(watcher.opened)(store, number)
    try:
        slots.look(frozenset())
        with _interruptible(search, slots, watcher):
            _fit(_tuner(search, scheduler, scratch))
    finally:
        slots.close()
        shutil.rmtree(scratch, ignore_errors=True)
    if slots.faults:
        raise ClusterError(next(iter(slots.faults.values())))
    return search


def _slot_setup(plan: RunPlan, scratch: Path) -> SlotSetup:
    """Describe the slots, and put the token into the folder of checkpoints that their ranks must see."""
    token = uuid.uuid4().hex
    storage_of(plan.checkpoints).write(TOKEN, token.encode())
    return SlotSetup(
        warm=plan.resources.warm,
        checkpoints=plan.checkpoints,
        token=token,
        checkpoint_every=plan.checkpoint_every,
        checkpoint_every_s=plan.checkpoint_every_s,
        scratch=scratch.resolve(),
    )


def _fit(tuner: tune.Tuner) -> None:
    """Run the Tuner; a user's error from within is raised as it was, not as Tune wraps it."""
    try:
        tuner.fit()
    except Exception as error:
        causes = [error, error.__context__, error.__cause__]
        raise next((cause for cause in causes if isinstance(cause, (ValueError, OSError))), error) from None


def _tuner(search: GridSearch, scheduler: GridASHA, scratch: Path) -> tune.Tuner:
    os.environ.update(
        {
            "TUNE_MAX_PENDING_TRIALS_PG": "10000",  # the search hands out no more than there are slots
            "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
            "TUNE_DISABLE_SIGINT_HANDLER": "1",
            "TUNE_GLOBAL_CHECKPOINT_S": "86400",
            "TUNE_WARN_THRESHOLD_S": "10",
        }
    )
    return tune.Tuner(
        tune.with_resources(Client, _beside_driver()),
        tune_config=tune.TuneConfig(search_alg=search, scheduler=scheduler, num_samples=-1, reuse_actors=True),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch.resolve()),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a listener has nothing to save
            verbose=0,
        ),
    )


def _beside_driver() -> tune.PlacementGroupFactory:
    """Place a listening Tune trial: on the driver's node, where it takes no CPU that a worker group may need."""
    bundle = {f"node:{ray.util.get_node_ip_address()}": 0.0001}
    node = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    return tune.PlacementGroupFactory([bundle], bundle_label_selector=[node])


@contextlib.contextmanager
def _interruptible(search: GridSearch, slots: Slots, watcher: Watcher) -> Iterator[None]:
    """Have the first Ctrl-C (or a batch system's SIGTERM, or a lost terminal's SIGHUP) finish the epochs in flight,
    and one that comes later end at once.
    """
    patience_ends = math.inf

    def interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal patience_ends
        del signum, frame
        if search.leaving:
            if time.monotonic() >= patience_ends:
                os._exit(130)
            return
        search.leaving, patience_ends = True, time.monotonic() + PAIR_S
        unharmed(watcher.leaving)()
        slots.interrupt()

    with contextlib.ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:  # started under nohup
                continue
            stack.callback(signal.signal, number, signal.signal(number, interrupt))
        yield
