"""The list of claims: what each says, and the points that the published tables are asked."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from scipy.stats import spearmanr

from bocb_tune.analysis.bocb import claims as c
from bocb_tune.analysis.bocb.claims import Assertion, PaperClaim, published_table
from bocb_tune.analysis.bocb.distance import distances, resampled_mean, steps_of
from bocb_tune.analysis.bocb.planned import CLASSES, contrast_of, paper_class
from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.matrix.resample import SEED
from bocb_tune.analysis.matrix.twoway import decompose
from bocb_tune.analysis.names.look import backbone_class, optimizer_family
from bocb_tune.analysis.names.table import ADAPTIVE_LR, ESTIMATED_LR, FIXED_LR, METAFORMER, PLAIN_GRADIENT
from bocb_tune.analysis.sources import paper

LOW_DISTANCE = ("R-50", "RVGG-A1", "CAF-12")
HIGH_DISTANCE = ("AlexNet", "Eff-B0", "CNX-T", "CF-12")
GENERAL, SPECIAL = ("AdamW", "LAMB"), ("SGDP", "AdaBound", "LARS")
TO_USE = ("LAMB", "AdamW", "Adan")
FIRST = 3
"""Places among which an optimizer that is one to use stands."""
PRETRAINED = {"A3": ADAPTIVE_LR, "A2": ADAPTIVE_LR, "A1": ADAPTIVE_LR, "Adan": ADAPTIVE_LR, "LARS": ESTIMATED_LR}
"""Category of the optimizer that ResNet-50 was pre-trained with, by the name of its recipe (A1 to A3 use LAMB)."""
GAP_CIFAR, GAP_COCO = 3.0, 3.0


def paper_claims() -> tuple[PaperClaim, ...]:
    """Check all claims on all published tables."""
    listed = (
        ("Classical networks couple slightly with category (a) and do not fail with it", _classical),
        ("DeiT-S and ConvNeXt-T fail with SGD and LARS; modern backbones go with category (b)", _modern),
        (
            "ResNet-50, RepVGG-A1 and CAFormer have a low distance of settings, AlexNet, EfficientNet-B0, ConvNeXt-T "
            "and ConvFormer a high one",
            _settings,
        ),
        ("AdamW and LAMB generalise over backbones; SGDP, AdaBound and LARS do not", _general),
        ("Category (d) is the worst, with heavy coupling", _plain_gradient),
        ("MetaFormer design and homogeneous blocks reduce coupling, GRN too; token mixers raise it", _design),
        ("DeiT-S couples more than ResNet-50 on ImageNet", _imagenet),
        ("ConvNeXt-T's coupling persists on COCO", _coco),
        ("Pre-training with category (b) or (c) makes ResNet-50 need the same downstream; SGD does not", _pretraining),
        ("LAMB, AdamW and Adan are the ones to use", _to_use),
        ("Asked by its reviewers: training loss, own hyper-parameters, significance of Figures 3 to 5", _reviewers),
    )
    return tuple(
        PaperClaim(number=number, statement=statement, points=tuple(points()))
        for number, (statement, points) in enumerate(listed, start=1)
    )


def _classical() -> Iterator[Assertion]:
    grid = published_table("cifar100")
    rows = [name for name in grid.backbones if paper_class(name) in c.CNNS]
    columns = [name for name in grid.optimizers if optimizer_family(name) == FIXED_LR]
    cells = len(rows) * len(columns)
    marked = sum(c.grey("cifar100", row, column) for row in rows for column in columns)
    equation, _ = c.failures_of(grid, GAP_CIFAR, rows, columns)
    yield c.holds("No failure by the grey marks", f"{marked} of {cells} cells are grey", marked == 0)
    yield c.holds("No failure by Eq. 1 as printed", f"{equation} of {cells} cells fail", equation == 0)
    gain = c.on_class(grid, FIXED_LR, c.CNNS)
    yield c.judged("Category (a) gains on classical networks against modern ones", *gain)


def _modern() -> Iterator[Assertion]:
    grid = published_table("cifar100")
    for backbone in ("DeiT-S", "CNX-T"):
        for optimizer in ("SGD-M", "LARS"):
            behind = float(np.median(grid.row(backbone)) - grid.row(backbone)[grid.place(optimizer)])
            equation, _ = c.failures_of(grid, GAP_CIFAR, [backbone], [optimizer])
            told = f"{behind:.2f} points below its median; by Eq. 1 as printed it {'fails' if equation else 'does not'}"
            marked = c.grey("cifar100", backbone, optimizer)
            yield c.holds(f"{backbone} with {optimizer} is marked as a failure", told, marked)
    gain = c.on_class(grid, ADAPTIVE_LR, CLASSES[2:])
    yield c.judged("Category (b) gains on modern backbones against the others", *gain)


def _settings() -> Iterator[Assertion]:
    frame = paper.settings()
    settings = [frame.pivot(index="backbone", columns="optimizer", values=name) for name in ("lr", "wd")]
    names = tuple(settings[0].index)
    lr, decay = (each.to_numpy(float) for each in settings)
    steps = steps_of((lr, decay), (lr.ravel(), decay.ravel()), 1.0)
    weights = c.over_lines(lr.shape[1])
    drawn = distances(steps, 0) @ weights.T / lr.shape[1]
    once = np.ones((1, lr.shape[1]))
    text = [resampled_mean(pair, once)[0] for pair in zip(steps.lr, steps.weight_decay, strict=True)]
    means = distances(steps, 0).mean(axis=1)
    for listed, word in ((LOW_DISTANCE, "low"), (HIGH_DISTANCE, "high")):
        for name in listed:
            statement = f"{name} has a {word} distance"
            if name not in names:
                yield c.unknown(statement, "its settings are not published")
                continue
            row = names.index(name)
            below = float(np.mean(drawn[row] < np.median(drawn, axis=0)))
            above = float(np.mean(drawn[row] > np.median(drawn, axis=0)))
            told = (
                f"mean {means[row]:.2f} steps from the optimizers' modes, median of the backbones "
                f"{np.median(means):.2f}; from its own mode {text[row]:.2f}, median {np.median(text):.2f}"
            )
            yield c.resampled(statement, told, below if word == "low" else above, "of the optimizers")


def _general() -> Iterator[Assertion]:
    grid = published_table("cifar100")
    mean = c.ranks_of(grid).mean(axis=0)
    for name in (*GENERAL, *SPECIAL):
        column, good = grid.place(name), name in GENERAL
        share = c.mean_rank_share(grid, partial(_in_better_half, column))
        place = int(np.sum(mean < mean[column])) + 1
        told = f"mean rank {mean[column]:.1f}, place {place} of {len(mean)}"
        half = "better" if good else "worse"
        yield c.resampled(f"{name} is in the {half} half", told, share if good else 1 - share, "of the backbones")


def _in_better_half(column: int, ranks: Array) -> Array:
    """Tell in which replicates an optimizer ranks above the median [replicates]."""
    return np.asarray(ranks[:, column] < np.median(ranks, axis=1))


def _among_first(column: int, ranks: Array) -> Array:
    """Tell in which replicates an optimizer is among the first [replicates]."""
    return np.asarray((ranks < ranks[:, [column]]).sum(axis=1) < FIRST)


def _plain_gradient() -> Iterator[Assertion]:
    grid = published_table("cifar100")
    families = [FIXED_LR, ADAPTIVE_LR, ESTIMATED_LR, PLAIN_GRADIENT]
    means = {name: c.ranks_of(grid)[:, grid.of(name)].mean() for name in families}

    def is_worst(ranks: Array) -> Array:
        each = np.array([ranks[:, grid.of(name)].mean(axis=1) for name in families])
        return np.asarray(each.argmax(axis=0) == families.index(PLAIN_GRADIENT))

    told = ", ".join(f"({letter}) {means[name]:.1f}" for letter, name in zip("abcd", families, strict=True))
    share = c.mean_rank_share(grid, is_worst)
    yield c.resampled("Category (d) has the worst mean rank", told, share, "of the backbones")
    squares = decompose(grid.values).interaction ** 2
    weights = c.over_lines(len(grid.backbones))
    rms = np.sqrt(weights @ squares / len(grid.backbones))
    own = np.sqrt(squares.mean(axis=0))
    for column in np.flatnonzero(grid.of(PLAIN_GRADIENT)):
        share = float(np.mean(rms[:, column] > np.median(rms, axis=1)))
        told = f"rms interaction {own[column]:.2f} points, median of the optimizers {np.median(own):.2f}"
        yield c.resampled(f"{grid.optimizers[column]} is coupled above the median", told, share, "of the backbones")


def _design() -> Iterator[Assertion]:
    grid = published_table("cifar100")
    modern = np.array([paper_class(name) == CLASSES[2] for name in grid.backbones])
    meta = np.array([backbone_class(name) == METAFORMER for name in grid.backbones])
    spread = np.asarray(c.spread_without_worst(grid.values))
    found = contrast_of(spread, meta, modern & ~meta, np.random.default_rng(SEED))
    yield c.judged("MetaFormers spread less than the other modern backbones", *found, positive=False)
    yield c.unknown("Homogeneous blocks reduce coupling", "which backbones have such blocks is not said")
    for statement, *pair in (
        ("IdentityFormer spreads more than ConvFormer", "IF-12", "CF-12"),
        ("ConvNeXt-T spreads more than ConvNeXtV2-T, which has GRN", "CNX-T", "CNXV2-T"),
    ):
        yield c.more_spread(statement, *((name, grid.row(name)) for name in pair))


def _imagenet() -> Iterator[Assertion]:
    grid = published_table("imagenet")
    counts = {name: sum(c.grey("imagenet", name, each) for each in grid.optimizers) for name in grid.backbones}
    told = f"grey: DeiT-S {counts['DeiT-S']}, R-50 {counts['R-50']} of {len(grid.optimizers)}"
    yield c.holds("DeiT-S fails with more optimizers", told, counts["DeiT-S"] > counts["R-50"])
    yield c.more_spread("DeiT-S spreads more than R-50", *((name, grid.row(name)) for name in ("DeiT-S", "R-50")))


def _coco() -> Iterator[Assertion]:
    grid, small = published_table("coco"), published_table("cifar100")
    own, others = "detection CNX-T (AdamW)", ("detection R-50 (SGD)", "detection Swin-T (AdamW)")
    for other in others:
        yield c.more_spread(f"{own} spreads more than {other}", (own, grid.row(own)), (other, grid.row(other)))
    failing = [name for name in ("SGD-M", "SGDP", "LARS") if c.grey("coco-detection", "CNX-T", name)]
    told = f"of SGD-M, SGDP and LARS grey on COCO: {', '.join(failing) or 'none'}"
    yield c.holds("SGD-M, SGDP and LARS, which fail on CIFAR-100, fail on COCO", told, len(failing) == 3)
    order = [small.place(name) for name in grid.optimizers]
    found = spearmanr(grid.row(own), small.row("CNX-T")[order])
    told = f"Spearman {found.statistic:.2f} over 20 optimizers, p = {found.pvalue:.2g}"
    statement = "Its order of optimizers is like that of CIFAR-100"
    is_clear = found.pvalue < 1 - c.SURE
    yield c.holds(statement, told, bool(found.statistic > 0)) if is_clear else c.unknown(statement, told)


def _pretraining() -> Iterator[Assertion]:
    grid = published_table("coco")
    base = grid.row("detection R-50 (SGD)")
    for recipe, family in PRETRAINED.items():
        row, own = grid.row(f"detection R-50 ({recipe})"), grid.of(family)
        gain, before = (float(each[own].mean() - each[~own].mean()) for each in (row, base))
        letter = "b" if family == ADAPTIVE_LR else "c"
        told = f"category ({letter}) {gain:+.2f} AP above the others, {before:+.2f} after SGD"
        share = _share_of_gain(row - base, own)
        statement = f"After pre-training by {recipe}, category ({letter}) gains against pre-training by SGD"
        yield c.resampled(statement, told, share, "of the optimizers of both groups")
    own = grid.of(FIXED_LR)
    told = f"category (a) {base[own].mean() - base[~own].mean():+.2f} AP above the others after pre-training by SGD"
    yield c.resampled("After SGD, category (a) is not needed", told, 1 - _share_of_gain(base, own), "of the optimizers")


def _share_of_gain(change: Array, own: Flags) -> float:
    """Return the share of replicates in which a category lies above the others, each resampled on its own."""
    groups = [change[own], change[~own]]
    means = [c.over_lines(len(group)) @ group / len(group) for group in groups]
    return float(np.mean(means[0] > means[1]))


def _to_use() -> Iterator[Assertion]:
    for table in ("cifar100", "coco"):
        grid = published_table(table)
        mean = c.ranks_of(grid).mean(axis=0)
        for name in TO_USE:
            column = grid.place(name)
            share = c.mean_rank_share(grid, partial(_among_first, column))
            told = f"mean rank {mean[column]:.1f}, place {int(np.sum(mean < mean[column])) + 1} of {len(mean)}"
            yield c.resampled(f"{name} is among the first {FIRST} on {table}", told, share, "of the backbones")
    grid = published_table("imagenet")
    ranks = c.ranks_of(grid)
    for name in TO_USE:
        places = ranks[:, grid.place(name)]
        told = ", ".join(f"place {place:g} with {b}" for b, place in zip(grid.backbones, places, strict=True))
        statement = f"{name} is among the first {FIRST} of each backbone of ImageNet"
        yield c.holds(statement, told, bool((places <= FIRST).all()))


def _reviewers() -> Iterator[Assertion]:
    yield c.unknown("The training loss tells the same story", "no training loss is published")
    yield c.unknown("The optimizers' own hyper-parameters were tuned fairly", "neither ranges nor values are published")
    yield c.unknown(
        "Single differences of Figure 3 are significant",
        "cells are means of three runs, whose spread is not published",
    )
    yield c.unknown(
        "Differences of Figures 4 and 5 are significant",
        "their intervals over backbones and optimizers stand in this report; those over searches need a second search",
    )
