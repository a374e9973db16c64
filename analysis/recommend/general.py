"""One optimizer for any backbone like those of the grid.

It is the one with the least mean regret over the backbones at hand, which represent those one might use. Leaving each
of them out in turn tests the choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.cell.tuning_curves import LONGEST
from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.recommend.candidates import SearchRange, range_of
from bocb_tune.analysis.recommend.ranking import MIN_BACKBONES, MIN_OPTIMIZERS, Ranking, leave_one_out, rank_optimizers
from bocb_tune.analysis.recommend.recommendation import (
    FROM_LANDSCAPES,
    FROM_SCORES,
    Evidence,
    General,
    Recommendation,
    check_trials,
)
from bocb_tune.analysis.tuning.drift import modal_setting
from bocb_tune.analysis.tuning.settings import (
    Cells,
    Setting,
    common_default,
    draws_at,
    held_out_defaults,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tables:
    """Complete tables of the backbones and optimizers that can be compared."""

    backbones: tuple[str, ...]
    optimizers: tuple[str, ...]
    fixed: Array
    """Scores with one setting per optimizer [1 + draws, backbones, optimizers]."""
    held_out: Array
    """Scores with the best setting of the other backbones, likewise."""
    others: Array
    """Scores on all backbones with the setting found without one of them [held out, backbones, optimizers]."""
    tuned: Array | None
    """Scores with the trials spent on each backbone, likewise; None for one trial."""
    method: str


def recommend_general(evidence: Evidence, trials: int, rng: np.random.Generator) -> General:
    """Recommend one optimizer for any backbone like those of the grid.

    One trial on the new backbone is the best common setting; with more, each optimizer is tuned there.

    Raises:
        ValueError: if trials is below 1.
    """
    check_trials(trials)
    tables = _from_landscapes(evidence, trials)
    if tables is None or not _is_enough(tables):
        tables = _from_scores(evidence)
    if not tables.optimizers:
        return General(recommendation=_too_few(evidence, tables, trials), fixed=None, tuned=None, held_out=None)
    names = tables.backbones, tables.optimizers
    fixed, tuned = (
        None if values is None else rank_optimizers(values, *names, evidence.counts, rng)
        for values in (tables.fixed, tables.tuned)
    )
    if not _is_enough(tables):
        return General(recommendation=_too_few(evidence, tables, trials), fixed=fixed, tuned=tuned, held_out=None)
    scored = tables.held_out if tables.tuned is None else tables.tuned
    others = tables.others if tables.tuned is None else np.broadcast_to(tables.tuned[0], tables.others.shape)
    ranking = tuned or fixed
    assert ranking is not None
    return General(
        recommendation=_general(evidence, tables, ranking, trials),
        fixed=fixed,
        tuned=tuned,
        held_out=leave_one_out(scored, others, *names, evidence.counts, rng),
    )


def _general(evidence: Evidence, tables: _Tables, ranking: Ranking, trials: int) -> Recommendation:
    column = tables.optimizers.index(ranking.pick)
    scores = (tables.fixed if tables.tuned is None else tables.tuned)[:, :, column].mean(axis=1)
    standing = ranking.standings[ranking.pick]
    setting, search_range = _common_setting(evidence, tables, ranking.pick)
    left_out = [name for name in evidence.optimizers if name not in tables.optimizers]
    tied = [name for name, other in ranking.standings.items() if other.tied and name != ranking.pick]
    over = f"{tables.method}, over {len(tables.backbones)} backbones"
    return Recommendation(
        backbone=None,
        trials=trials,
        optimizer=ranking.pick,
        setting=setting,
        search_range=search_range,
        expected=drawn.estimate(scores[0], scores[1:], unit="points", counts=evidence.counts, method=over),
        p_best=standing.p_least_regret,
        regret=standing.mean_regret,
        cost=evidence.cost(tables.backbones, ranking.pick, trials),
        tied=tuple(sorted(tied, key=lambda name: ranking.standings[name].mean_regret.value or 0.0)),
        not_judged=tuple((name, Reason.INCOMPLETE_MATRIX) for name in left_out),
        method=over,
    )


def _from_landscapes(evidence: Evidence, trials: int) -> _Tables | None:
    """Build the tables at common settings; None if there is no landscape.

    Optimizers whose search space differs between backbones are left out.
    """
    known = np.array([[(b, o) in evidence.curves for o in evidence.optimizers] for b in evidence.backbones])
    boxes = [{curve.domain for (_, name), curve in evidence.curves.items() if name == o} for o in evidence.optimizers]
    rows, columns = drawn.complete_part(known & [len(found) == 1 for found in boxes])
    backbones = tuple(evidence.backbones[row] for row in rows)
    optimizers = tuple(evidence.optimizers[column] for column in columns)
    if len(backbones) < 2 or not optimizers:
        return None
    parts = [_at_common_settings(_part(evidence, backbones, name)) for name in optimizers]
    fixed, held_out, others = (np.stack(part, axis=-1) for part in zip(*parts, strict=True))
    curves = [[evidence.curves[b, o].deployed for o in optimizers] for b in backbones] if trials > 1 else None
    return _Tables(
        backbones=backbones,
        optimizers=optimizers,
        fixed=fixed,
        held_out=held_out,
        others=others,
        tuned=None if curves is None else np.moveaxis(np.array(curves)[..., min(trials, LONGEST) - 1], -1, 0),
        method=FROM_LANDSCAPES,
    )


def _part(evidence: Evidence, backbones: tuple[str, ...], optimizer: str) -> dict[str, Landscape]:
    """Select the landscapes of one optimizer on some backbones."""
    return {name: cell for name, cell in evidence.of_optimizer(optimizer).items() if name in backbones}


def _at_common_settings(cells: Cells) -> tuple[Array, Array, Array]:
    """Score one optimizer at common settings.

    Returns:
        Scores at the best common setting and at that of the other backbones, each [1 + draws, backbones], and the
            scores of
        the latter on all backbones [held out, backbones].
    """
    common, held_out = common_default(cells), list(held_out_defaults(cells).values())
    at_all = np.stack([draws_at(cell, [common, *held_out]) for cell in cells.values()], axis=1)
    own = np.diagonal(at_all[:, :, 1:], axis1=1, axis2=2)
    return at_all[:, :, 0], own, at_all[0, :, 1:].T


def _from_scores(evidence: Evidence) -> _Tables:
    rows, columns = drawn.complete_part(np.isfinite(evidence.scores))
    scores = evidence.scores[np.ix_(rows, columns)]
    return _Tables(
        backbones=tuple(evidence.backbones[row] for row in rows),
        optimizers=tuple(evidence.optimizers[column] for column in columns),
        fixed=scores[None],
        held_out=scores[None],
        others=np.broadcast_to(scores, (len(rows), *scores.shape)),
        tuned=None,
        method=FROM_SCORES,
    )


def _common_setting(evidence: Evidence, tables: _Tables, optimizer: str) -> tuple[Setting | None, SearchRange | None]:
    """Find the best common setting and the range around it; published settings have only a most frequent one."""
    if tables.method == FROM_LANDSCAPES:
        cells = _part(evidence, tables.backbones, optimizer)
        mean = np.mean([cell.mean for cell in cells.values()], axis=0)
        return common_default(cells), range_of(mean >= mean.max() - evidence.tolerance, next(iter(cells.values())).grid)
    column = evidence.optimizers.index(optimizer)
    lr, decay = evidence.lr[:, column], evidence.weight_decay[:, column]
    known = np.isfinite(lr) & np.isfinite(decay)
    return (modal_setting(lr[known], decay[known]) if known.any() else None), None


def _is_enough(tables: _Tables) -> bool:
    return len(tables.backbones) >= MIN_BACKBONES and len(tables.optimizers) >= MIN_OPTIMIZERS


def _too_few(evidence: Evidence, tables: _Tables, trials: int) -> Recommendation:
    detail = f"{len(tables.backbones)} backbones x {len(tables.optimizers)} optimizers can be compared, "
    reason = Reason.INCOMPLETE_MATRIX
    if len(evidence.backbones) < MIN_BACKBONES:
        reason = Reason.TOO_FEW_BACKBONES
    elif len(evidence.optimizers) < MIN_OPTIMIZERS:
        reason = Reason.TOO_FEW_OPTIMIZERS
    return Recommendation.refused(None, trials, reason, f"{detail}{MIN_BACKBONES} x {MIN_OPTIMIZERS} are needed.")
