"""Choice of the next trial: a Ray Tune searcher over the whole grid, with one Optuna study per cell.

A suggestion is a pure function of the cell's records and the trial's index: the study is built anew from the records
each time and the sampler is seeded for that index alone. So a run resumed after a crash proposes what it would have.
"""

from __future__ import annotations

import copy
import datetime
import math
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from ray.tune.search import Searcher

from bocb_tune.core.groups import GroupShape
from bocb_tune.core.space import SearchSpace, own_part
from bocb_tune.core.types import Objective, Phase, TrialRecord, TrialSpec, derive_seed
from bocb_tune.engine import policy
from bocb_tune.engine.cluster.sharing import Demand
from bocb_tune.engine.design import AXES, design_of, design_points, space_filling
from bocb_tune.engine.policy import CellPlan, Turn, observation
from bocb_tune.engine.slot import Slot
from bocb_tune.engine.slots import Slots
from bocb_tune.engine.store import CellStore, RunStore

_UNIT = optuna.distributions.FloatDistribution(0.0, 1.0)
_DISTRIBUTIONS: dict[str, optuna.distributions.BaseDistribution] = dict.fromkeys(AXES, _UNIT)
_STATES = {
    "complete": optuna.trial.TrialState.COMPLETE,
    "pruned": optuna.trial.TrialState.PRUNED,
    "running": optuna.trial.TrialState.RUNNING,
    "fail": optuna.trial.TrialState.FAIL,
}


def lattice_point(space: SearchSpace, count: int, index: int) -> dict[str, float]:
    """Return point `index` of the smallest square lattice of at least `count` points, in an order that spreads early
    ones.
    """
    column, row = lattice(len(AXES), count, index)
    return space.from_unit((column, row))


def lattice(axes: int, count: int, index: int) -> list[float]:
    """Return point `index`, in the unit cube of so many axes, of the smallest regular lattice of at least `count`."""
    side = math.ceil(round(count ** (1 / axes), 9))
    place = int(np.random.default_rng(0).permutation(side**axes)[index])
    return [(place // side**axis % side + 0.5) / side for axis in range(axes)]


def build_study(space: SearchSpace, records: Iterable[TrialRecord], objective: Objective) -> optuna.Study:
    """Build an in-memory study that knows every selectable record, by its place in the plan, as points of the unit
    square. A trial that took another's place is told where that one would have been.
    """
    study = _empty_study()
    selectable = [record for record in records if record.phase in policy.SELECTABLE]
    for record in sorted(selectable, key=lambda each: (policy.SELECTABLE.index(each.phase), each.index)):
        units = dict(zip(AXES, space.to_unit(record.hparams), strict=True))
        study.add_trial(_frozen_trial(units, record, objective))
    return study


def _empty_study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study
    return optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())


class _Point(optuna.trial.FrozenTrial):  # type: ignore[misc]
    """A trial that nobody changes, so a study need not copy what is in it: half of a suggestion's time."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Point:
        return copy.copy(self)


def _frozen_trial(units: Mapping[str, float], record: TrialRecord, objective: Objective) -> optuna.trial.FrozenTrial:
    """Make what a study knows of a trial at a place, by axis of the unit cube."""
    news = observation(record, objective)
    started = datetime.datetime.fromtimestamp(0, datetime.UTC)
    state = _STATES[news.state]
    return _Point(
        number=0,  # the study numbers it
        trial_id=0,
        state=state,
        value=news.value if state == optuna.trial.TrialState.COMPLETE else None,
        datetime_start=started,
        datetime_complete=started if state.is_finished() else None,
        params=dict(units),
        distributions=dict.fromkeys(units, _UNIT),
        user_attrs={"trial": record.id, "phase": str(record.phase)},
        system_attrs={},
        intermediate_values=dict(news.intermediate or {}),
    )


def suggest(cell: CellPlan, records: Sequence[TrialRecord], index: int, objective: Objective) -> dict[str, float]:
    """Return hyperparameters of search trial `index` of a cell."""
    plan, space = cell.plan, cell.space
    seed = derive_seed(plan.seed, "search", cell.cell.key, index)
    if plan.sampler == "random":
        return space.from_unit(tuple(np.random.default_rng(seed).random(len(AXES)).tolist()))
    if plan.sampler == "qmc":
        return design_points(plan.seed, cell.cell.optimizer, space, 1, first=plan.design + index)[0]
    if plan.sampler == "grid":
        return lattice_point(space, plan.search, index)
    study = build_study(space, records, objective)
    study.sampler = _sampler(plan.sampler, seed)
    point = study.ask(_DISTRIBUTIONS).params
    return space.from_unit((point["lr"], point["weight_decay"]))


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=4)
    assert name == "tpe", name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=4, multivariate=True, constant_liar=True)


def suggest_own(
    cell: CellPlan, best: TrialRecord, records: Iterable[TrialRecord], index: int, objective: Objective
) -> dict[str, float]:
    """Return hyperparameters of refine trial `index`: the best point, with new values of the optimizer's own ones.

    Studies know the best trial itself, at the values that are fixed elsewhere, and the refine trials at its point.
    """
    plan, own = cell.plan, cell.space.own
    seed = derive_seed(plan.seed, "refine", cell.cell.key, index)
    point = {name: best.hparams[name] for name in AXES}
    if plan.sampler == "random":
        units = np.random.default_rng(seed).random(len(own)).tolist()
    elif plan.sampler == "qmc":
        units = space_filling(derive_seed(plan.seed, "refine", cell.cell.optimizer), len(own), 1, first=index)[0]
    elif plan.sampler == "grid":
        units = lattice(len(own), plan.refine, index)
    else:
        study = _own_study(cell, [best, *policy.refined_at(best, records)], objective)
        study.sampler = _sampler(plan.sampler, seed)
        asked = study.ask(dict.fromkeys(own, _UNIT)).params
        units = [asked[name] for name in own]
    return {**point, **{name: dim.from_unit(unit) for (name, dim), unit in zip(own.items(), units, strict=True)}}


def _own_study(cell: CellPlan, records: Iterable[TrialRecord], objective: Objective) -> optuna.Study:
    """Build a study over the optimizer's own hyper-parameters, without trials of ranges that are no longer searched."""
    own, default = cell.space.own, cell.space.own_default
    study = _empty_study()
    for record in records:
        values = {**default, **own_part(record.hparams)}
        if values.keys() == own.keys() and all(own[name].contains(value) for name, value in values.items()):
            units = {name: own[name].to_unit(value) for name, value in values.items()}
            study.add_trial(_frozen_trial(units, record, objective))
    return study


class GridSearch(Searcher):  # type: ignore[misc]
    """Hands out the trials of all cells, one a slot: first what earlier runs left, then the cell whose turn it is."""

    def __init__(
        self,
        store: RunStore,
        slots: Slots,
        resumed: Sequence[TrialSpec],
        patience_min: float = 10.0,
        turns: str = "trials",
    ) -> None:
        super().__init__()
        self.leaving = False
        """Set when the user asks to stop: no new trials."""
        self.given_up = False
        """Set while trials fail one after another: no new trials."""
        self._store = store
        self._slots = slots
        self._patience_min = patience_min
        self._slot_of: dict[str, Slot] = {}
        self._owed = list(resumed)
        self._unheard: list[TrialSpec] = []
        self._open = {key: order for order, key in enumerate(store.books)}
        self._turns = turns
        self._shapes = {key: slots.shape_of(book.plan.cell.backbone) for key, book in store.books.items()}
        self._standings: dict[str, tuple[int, Turn | None]] = {}
        self._designs = {key: design_of(book.plan) for key, book in store.books.items()}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the config of the next Tune trial: the trial it listens to, and its slot's mailbox."""
        del trial_id
        busy = {self._slot_of[trial].name for trial in self._store.in_flight}
        self._slots.look(busy, self._demands)
        if self._unheard:
            return self._config(self._unheard.pop(0))
        over = None if self._store.in_flight else Searcher.FINISHED
        usable = set(self._shapes.values()) - self._slots.faults.keys()
        if self.leaving or self.given_up or not usable:
            return over
        free = self._slots.free(busy)
        if not free and over is None:
            return None
        trial = self._next_trial(free.keys())
        if trial is None:
            return over if over is None or not self._is_owed_more(usable) else None
        self._slot_of[trial.id] = free[self._shapes[trial.cell.key]]
        self.submit(trial)
        return self._config(trial)

    def submit(self, trial: TrialSpec, divisor: int = 1) -> None:
        """Start a trial, or start it again, on the slot that it has."""
        record = self._store.start(trial)
        records = self._store.books[trial.cell.key].records.values()
        patience_s = policy.patience_s(records, self._patience_min)
        self._slot_of[trial.id].submit(trial, seen=record.budget, divisor=divisor, patience_s=patience_s)

    def _config(self, trial: TrialSpec) -> dict[str, Any]:
        return {"trial": trial.id, "mailbox": self._slot_of[trial.id].name}

    def slot_of(self, trial: TrialSpec) -> Slot:
        return self._slot_of[trial.id]

    def listen_again(self, trial: TrialSpec) -> None:
        """Have another Tune trial listen to a training that goes on."""
        self._unheard.append(trial)

    def owe(self, trial: TrialSpec) -> None:
        """Have a trial go on that no slot trains any more, before any other."""
        self._store.release(trial)
        self._owed.insert(0, trial)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Learn nothing from Tune: the store knows."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing: the journals are the state."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher to be able to restore it. This one is never restored from anything but journals."""
        return {}

    def _is_owed_more(self, shapes: Collection[GroupShape]) -> bool:
        """Tell whether there is a trial for groups of these shapes, once one is ready, with nothing in flight."""
        trial = self._next_trial(shapes)
        if trial is not None:  # nothing that could change the choice happens before that
            self._owed.insert(0, trial)
        return trial is not None

    def _demands(self) -> list[Demand]:
        """Tell what the cells of each shape of group ask for; of one shape alone all there is."""
        shapes = dict.fromkeys(self._shapes.values())
        if len(shapes) == 1:
            return [Demand(shape=shape) for shape in shapes]
        return [demand for shape in shapes if (demand := self._demand(shape))]

    def _demand(self, shape: GroupShape) -> Demand | None:
        """Tell what the cells of a shape ask for; None if nothing."""
        books = {key: book for key, book in self._store.books.items() if self._shapes[key] == shape}
        standings = {key: self._standing(key, book) for key, book in books.items()}
        owed = any(self._shapes[trial.cell.key] == shape for trial in self._owed)
        asking = [key for key, standing in standings.items() if standing != Turn.done]
        if not asking and not owed:
            return None
        in_flight = sum(self._shapes[trial.cell.key] == shape for trial in self._store.in_flight.values())
        ended = [r.elapsed_s for book in books.values() for r in book.records.values() if r.status.is_result]
        return Demand(
            shape=shape,
            cells=max(1, len(asking)),
            usual_s=sum(ended) / len(ended) if ended else None,
            level=sum(self._level(key)[0] for key in asking) / max(1, len(asking)),
            most=None if owed or any(standing is None for standing in standings.values()) else in_flight,
        )

    def _standing(self, key: str, book: CellStore) -> Turn | None:
        """Say why a cell has no trial to start now, as long as nothing has changed from memory; None if it has one."""
        known = self._standings.get(key)
        if known is None or known[0] != book.changes:
            known = book.changes, policy.standing(book.plan, self._designs[key], book.records)
            self._standings[key] = known
        return known[1]

    def _level(self, key: str) -> tuple[float, int]:
        """Tell how far a cell is, by the policy: those that are least far come first, then in the order of the file."""
        records = self._store.books[key].records
        if self._turns == "trials":
            return len(records), self._open.get(key, 0)
        size = max(self._shapes[key].needs.values())
        return size * sum(record.elapsed_s for record in records.values()), len(records)

    def _next_trial(self, shapes: Collection[GroupShape]) -> TrialSpec | None:
        """Choose the next trial for a group of one of these shapes."""
        for trial in self._owed:
            if self._shapes[trial.cell.key] in shapes:
                self._owed.remove(trial)
                return trial
        for key in sorted((key for key in self._open if self._shapes[key] in shapes), key=self._level):
            book = self._store.books[key]
            standing = self._standing(key, book)
            if standing == Turn.done:
                del self._open[key]
            elif standing is None and isinstance(turn := self._turn(key, book), TrialSpec):
                return turn
        return None

    def _turn(self, key: str, book: CellStore) -> TrialSpec | Turn:
        trial = policy.owed_design(book.plan, self._designs[key], book.records)
        if trial is not None:
            return trial
        index = policy.owed_search(book.plan.plan, book.records)
        if index is None:
            return self._after_search(book)
        point = suggest(book.plan, list(book.records.values()), index, self._store.objective)
        return book.plan.trial(Phase.search, index, point)

    def _after_search(self, book: CellStore) -> TrialSpec | Turn:
        owed = policy.owed_refine(book.plan.plan, book.records)
        if owed is None:
            return policy.owed_repeat(book.plan, book.records)
        best, index = owed
        values = suggest_own(book.plan, best, book.records.values(), index, self._store.objective)
        return book.plan.trial(Phase.refine, index, values)
