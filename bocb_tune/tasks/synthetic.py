"""Analytic landscapes with a known optimum: the whole engine can be run in seconds against a truth.

Notation: u = log10(lr / lr*), v = log10(weight_decay / weight_decay*), both in decades from the planted optimum of the
cell; r = epoch / budget in (0, 1]; t = logit of the score. A cell's landscape is

    t(u, v, r) = height - DEPTH (1 - exp(-q / DEPTH)) - (r^-0.35 - 1) max(0.1, 0.6 + crossing u)

with q = d'Hd / 2 and d = (u, v), so that at full budget the optimum is the planted one, while early on a smaller
learning rate looks better. Beyond the cliff a trial diverges with probability sigmoid((u - cliff) / 0.12). Some cells
gain from a better value of what is the optimizer's own: see `OWN`. Everything is a pure function of the trial.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bocb_tune.core.errors import Diverged
from bocb_tune.core.names import unknown
from bocb_tune.core.space import own_part
from bocb_tune.core.types import Measurement, Objective, TrialSpec, derive_seed
from bocb_tune.training.checkpoint import Checkpoints
from bocb_tune.training.context import Context

logger = logging.getLogger(__name__)

EPOCHS_FILE = "synthetic.json"
"""Name of the file of epochs done: the whole checkpoint of a trial."""
FLOOR = 1.0
"""Points: chance level of 100 classes."""
DEPTH = 2.5
"""Logits lost far from the optimum."""
CLIFF_WIDTH = 0.12
"""Decades over which the probability of diverging rises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneEffect:
    """Effect of a synthetic backbone on every optimizer alike."""

    height: float
    """Logit of the score at the optimum."""
    curvature: tuple[float, float, float]
    """H as (uu, uv, vv), in logits per decade squared."""
    cliff: float
    """Decades above lr* at which half of the trials diverge."""
    crossing: float = 0.25
    """Slowness, in logits per decade, with which a larger learning rate learns at first."""


SHAPES: dict[str, BackboneEffect] = {
    "bowl": BackboneEffect(height=1.4, curvature=(1.6, 0.0, 0.25), cliff=0.8),
    "ridge": BackboneEffect(height=1.2, curvature=(2.0, 1.0, 1.0), cliff=0.8),
    "cliff": BackboneEffect(height=1.5, curvature=(2.0, 0.0, 0.2), cliff=0.4, crossing=0.45),
    "shifted": BackboneEffect(height=1.3, curvature=(1.6, 0.0, 0.25), cliff=0.8),
    "flat": BackboneEffect(height=0.9, curvature=(0.3, 0.0, 0.05), cliff=1.0),
}

OPTIMA: dict[str, tuple[float, float, float]] = {
    "sgd": (0.03, 3e-4, 1e-7),
    "sgdp": (0.05, 2e-4, 1e-7),
    "lion": (2e-4, 0.2, 1e-5),
    "adam": (5e-4, 1e-4, 1e-7),
    "adamw": (2e-3, 0.02, 1e-4),
    "lamb": (8e-3, 0.05, 1e-4),
    "adan": (3e-3, 0.05, 1e-4),
    "adamax": (1e-3, 1e-4, 1e-7),
    "nadam": (8e-4, 1e-4, 1e-7),
    "radam": (6e-4, 1e-4, 1e-7),
    "adamp": (2e-3, 0.02, 1e-4),
    "adabound": (3e-3, 1e-3, 1e-7),
    "lars": (0.5, 1e-4, 1e-8),
    "adafactor": (1e-3, 0.02, 1e-4),
    "adabelief": (3e-3, 0.02, 1e-4),
    "novograd": (5e-3, 2e-3, 1e-6),
    "sophia": (2e-4, 0.03, 1e-5),
    "adagrad": (5e-3, 1e-4, 1e-7),
    "adadelta": (0.6, 1e-4, 1e-7),
    "rmsprop": (1e-3, 1e-4, 1e-7),
    "muon": (3e-3, 0.05, 1e-4),
    "soap": (2e-3, 0.03, 1e-4),
    "schedulefree_adamw": (6e-3, 0.03, 1e-4),
    "schedulefree_sgd": (3.0, 2e-4, 1e-7),
    "prodigy": (0.6, 0.02, 1e-4),
    "ademamix": (6e-4, 0.05, 1e-4),
    "mars": (2e-3, 0.03, 1e-4),
    "cautious_adamw": (2e-3, 0.03, 1e-4),
}
"""Planted lr* and weight_decay* of each optimizer, before the backbone's interaction; and the decay that 0 behaves as,
one decade below the range that is searched."""

SHIFTS: dict[tuple[str, str], float] = {
    ("shifted", "sgd"): 0.4,
    ("shifted", "sgdp"): -0.3,
    ("shifted", "adam"): -0.3,
    ("shifted", "adamw"): -0.6,
    ("shifted", "lion"): -0.6,
}
"""Interaction in the place of the optimum: decades of lr added for this pair. Absent pairs: 0."""

INTERACTIONS: dict[tuple[str, str], float] = {
    ("bowl", "sgd"): 0.4,
    ("bowl", "lion"): -0.3,
    ("ridge", "adamw"): 0.3,
    ("cliff", "sgd"): -1.5,
    ("cliff", "adamw"): 0.2,
    ("shifted", "lamb"): -0.5,
    ("flat", "adan"): 0.3,
}
"""Interaction in the height of the optimum: logits added for this pair. Absent pairs: 0."""


OWN: dict[str, tuple[str, float, float]] = {
    "sgd": ("momentum", 0.9, 0.97),
    "sgdp": ("momentum", 0.9, 0.97),
    "lion": ("beta2", 0.99, 0.97),
    "adam": ("beta2", 0.999, 0.99),
    "adamw": ("beta2", 0.999, 0.99),
}
"""Hyper-parameter of some optimizers that matters here, the value that is fixed unless it is refined, and the best one.
Its scale is log10(1 - value)."""

OWN_GAINS: dict[tuple[str, str], float] = {
    ("bowl", "sgd"): 0.5,
    ("ridge", "adamw"): 0.3,
    ("flat", "lion"): 0.2,
}
"""Logits that the best own value adds to the height of a cell. Absent pairs: 0, and any other value costs as much as
half a logit would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Landscape planted in one cell."""

    lr: float
    weight_decay: float
    score: float
    """Points at the optimum at full budget, without noise."""
    divergence_lr: float
    """Learning rate at which half of the trials diverge."""
    interaction: float
    """Logits that this pairing adds to the height of its backbone."""


def truth(backbone: str, optimizer: str) -> Truth:
    """Return the planted optimum of a cell.

    Raises:
        ValueError: for a name that is not in the tables.
    """
    if backbone not in SHAPES:
        raise unknown("synthetic backbone", backbone, SHAPES)
    if optimizer not in OPTIMA:
        raise unknown("synthetic optimizer", optimizer, OPTIMA)
    lr, weight_decay, _ = OPTIMA[optimizer]
    lr *= 10 ** SHIFTS.get((backbone, optimizer), 0.0)
    interaction = INTERACTIONS.get((backbone, optimizer), 0.0)
    shape = SHAPES[backbone]
    return Truth(
        lr=lr,
        weight_decay=weight_decay,
        score=100 * _sigmoid(shape.height + interaction),
        divergence_lr=lr * 10**shape.cliff,
        interaction=interaction,
    )


def clean_score(
    backbone: str,
    optimizer: str,
    *,
    lr: float,
    weight_decay: float,
    share: float,
    own: Mapping[str, float] = MappingProxyType({}),
) -> float:
    """Return points, without noise, after a `share` in (0, 1] of the full budget."""
    shape, planted = SHAPES[backbone], truth(backbone, optimizer)
    u = math.log10(lr / planted.lr)
    v = math.log10((weight_decay or OPTIMA[optimizer][2]) / planted.weight_decay)
    uu, uv, vv = shape.curvature
    q = (uu * u * u + 2 * uv * u * v + vv * v * v) / 2
    lost = DEPTH * (1 - math.exp(-q / DEPTH))
    unlearnt = (share**-0.35 - 1) * max(0.1, 0.6 + shape.crossing * u)
    gained = own_gain(backbone, optimizer, own)
    return 100 * _sigmoid(shape.height + planted.interaction + gained - lost - unlearnt)


def divergence_epoch(trial: TrialSpec) -> int | None:
    """Return the epoch within which the trial diverges, the sooner the farther beyond the cliff; None if it
    does not."""
    cliff = truth(trial.cell.backbone, trial.cell.optimizer).divergence_lr
    beyond = math.log10(trial.hparams["lr"] / cliff)
    if _generator(trial, "cliff").random() >= _sigmoid(beyond / CLIFF_WIDTH):
        return None
    return 1 + int((trial.budget - 1) * min(1.0, math.exp(-beyond / 0.3)))


def own_gain(backbone: str, optimizer: str, own: Mapping[str, float]) -> float:
    """Return the logits that values of what is the optimizer's own add: a parabola through 0 at the fixed value.

    Its top is the gain of the cell, at the best value; a cell without a gain has its top at the fixed value.
    """
    name, fixed, best = OWN.get(optimizer, ("", 0.0, 0.5))
    if name not in own:
        return 0.0
    at, there, top = (math.log10(1 - value) for value in (own[name], fixed, best))
    gain = OWN_GAINS.get((backbone, optimizer), 0.0)
    if not gain:
        return max(-DEPTH, -0.5 * ((at - there) / (top - there)) ** 2)
    return max(-DEPTH, gain * (1 - ((at - top) / (top - there)) ** 2))


class Synthetic:
    """The task over these landscapes. Options: `noise`, the sd in points of a trial's score (half as much again from
    epoch to epoch); `epoch_s`, seconds that each epoch sleeps, which is all the time it reports."""

    def objective(self, dataset: Mapping[str, Any], options: Mapping[str, Any]) -> Objective:  # noqa: ARG002
        return Objective(metric="score", unit="points", floor=FLOOR)

    def backbones(self) -> Sequence[str]:
        return tuple(SHAPES)

    def run(self, trial: TrialSpec, context: Context) -> Generator[Measurement, None, None]:
        options = trial.settings["task"]
        done = _load_epochs(context.checkpoints)
        diverges = divergence_epoch(trial)
        for epoch in range(1, trial.budget + 1):
            if epoch > done:
                time.sleep(options["epoch_s"])
                if epoch == diverges:
                    raise Diverged(epoch, f"synthetic divergence at lr {trial.hparams['lr']:g}")
                _save_epochs(context, epoch, last=trial.budget)
            yield _measure(trial, epoch, options, context.ranks.world_size)


def _measure(trial: TrialSpec, epoch: int, options: Mapping[str, Any], world_size: int) -> Measurement:
    share = epoch / trial.budget
    lr, weight_decay = trial.hparams["lr"], trial.hparams["weight_decay"]
    cell, own = trial.cell, own_part(trial.hparams)
    clean = clean_score(cell.backbone, cell.optimizer, lr=lr, weight_decay=weight_decay, share=share, own=own)
    noise = _generator(trial, "trial").gauss(0, 1) + 0.5 * _generator(trial, f"epoch {epoch}").gauss(0, 1)
    score = min(100.0, max(FLOOR, clean + options["noise"] * noise))
    loss = -math.log(score / 100)
    metrics = {
        "score": score,
        "train_loss": loss,
        "val_loss": loss,
        "lr": lr * (1 + math.cos(math.pi * share)) / 2,
        "images_per_s": 0.0,
        "seconds": options["epoch_s"],
        "peak_memory_gib": 0.0,
        "world_size": world_size,
    }
    return Measurement(budget=epoch, metrics=metrics, elapsed_s=epoch * options["epoch_s"])


def _generator(trial: TrialSpec, purpose: str) -> random.Random:
    values = map(repr, trial.hparams.values())
    return random.Random(derive_seed(purpose, trial.seed, trial.cell.key, *values))


def _load_epochs(checkpoints: Checkpoints | None) -> int:
    """Read the epochs already done. Scores are a pure function of the epoch, so that it is a whole checkpoint."""
    content = checkpoints.storage.read(EPOCHS_FILE) if checkpoints else None
    if checkpoints is None or content is None:
        return 0
    try:
        return int(json.loads(content)["epochs"])
    except ValueError as error:
        logger.warning("checkpoint %s in %s cannot be read and is ignored: %s", EPOCHS_FILE, checkpoints.storage, error)
        return 0


def _save_epochs(context: Context, epoch: int, last: int) -> None:
    due = epoch == last or epoch % context.checkpoint_every == 0
    if context.checkpoints is not None and context.ranks.rank == 0 and due:
        context.checkpoints.storage.write(EPOCHS_FILE, json.dumps({"epochs": epoch}).encode())


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))
