"""Sources of the weights of a backbone, as an experiment file says them: a tag, a file, or a cell of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bocb_tune.backbones import BACKBONES, build_backbone
from bocb_tune.backbones.weights import WeightsError, digest_of, read_weights
from bocb_tune.core.kept import NotKeptError, kept_model

if TYPE_CHECKING:
    from bocb_tune.backbones.weights import Weights

ANY = "*"
"""Stands for the backbone of the row: in a source, and as the backbone that a source is for."""
SCRATCH = "scratch"
TIMM = "timm:"
FILES = (".safetensors", ".pt", ".pth", ".bin")
FORMS = (
    f"{TIMM}TAG such as timm:a1_in1k, a file that ends in {', '.join(FILES)}, RUN:BACKBONE/OPTIMIZER such as "
    f"runs/mine:*/sgd (`*` is the backbone of the row), or {SCRATCH} for random weights"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundWeights:
    """Weights as they were found."""

    weights: Weights
    origin: str
    """Name of the tag, the file, or the trial of a run with its score."""


def source_for(sources: Mapping[str, str], backbone: str) -> str | None:
    """Return the source of a pre-training for a backbone, `*` replaced by its name; None where it has none for it."""
    text = sources.get(backbone, sources.get(ANY))
    return None if text is None else text.replace(ANY, backbone)


def form_fault(source: str) -> str | None:
    """Say what is wrong with the form of a source; None if it is one of those there are."""
    run, _, cell = source.rpartition(":")
    if source == SCRATCH or source.endswith(FILES):
        return None
    if source.startswith(TIMM):
        return None if len(source) > len(TIMM) else f"{source!r} names no tag; give {FORMS}"
    return None if run and "/" in cell else f"{source!r} is no source of weights; give {FORMS}"


def is_awaited(source: str, backbone: str) -> bool:
    """Tell whether a source is a file or a run that is still to be put on this machine, or to be run, or is still to be
    fetched.
    """
    if source == SCRATCH:
        return False
    if source.startswith(TIMM):
        from bocb_tune.backbones.pretrained import is_to_fetch

        return is_to_fetch(_timm_name(backbone), source.removeprefix(TIMM))
    return not Path(source if source.endswith(FILES) else source.rpartition(":")[0]).expanduser().exists()


def find_weights(source: str, backbone: str) -> FoundWeights | None:
    """Read the weights of a source for a backbone; None for random ones.

    Raises:
        ValueError: if they are not there, or cannot be read, or are of a run of another task than classification.
    """
    if source == SCRATCH:
        return None
    if source.endswith(FILES):
        return FoundWeights(weights=read_weights(Path(source).expanduser()), origin=source)
    if source.startswith(TIMM):
        from bocb_tune.backbones.pretrained import timm_weights

        return FoundWeights(weights=timm_weights(_timm_name(backbone), source.removeprefix(TIMM)), origin=source)
    return _of_run(*source.rpartition(":")[::2])


def _timm_name(backbone: str) -> str:
    return BACKBONES[backbone].model if backbone in BACKBONES else backbone


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedWeights:
    """A source of weights as it fits a backbone."""

    digest: str
    """SHA-256 of the tensors."""
    origin: str
    lines: tuple[str, ...]
    """Tensors that do not begin as they were given."""


@cache
def fit_of(source: str, backbone: str, in_chans: int, image_size: int, resized_to: int = 0) -> FittedWeights | None:
    """Try weights in the backbone, as `build_backbone` makes it for such images; None for random ones. Kept in the
    process, so that a command tries them once.

    Raises:
        ValueError: if they cannot be loaded, or do not fit.
    """
    from bocb_tune.backbones.pretrained import start_from

    found = find_weights(source, backbone)
    if found is None:
        return None
    model = build_backbone(backbone, num_classes=2, in_chans=in_chans, image_size=image_size, resized_to=resized_to)
    try:
        changes = start_from(model, found.weights)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}; the backbone is {backbone}") from error
    return FittedWeights(digest=digest_of(found.weights), origin=found.origin, lines=tuple(changes.lines()))


def _of_run(run: str, key: str) -> FoundWeights:
    kept = kept_model(Path(run).expanduser(), key)
    if kept.cell.cell.task != "classification":
        raise NotKeptError(
            f"{run}: its task is {kept.cell.cell.task}, whose models are no classifiers; give a run of classification"
        )
    objective, score = kept.cell.objective, kept.record.score
    assert score is not None
    origin = f"trial {kept.record.id} of {run}:{key}, {objective.metric} {objective.text(score)}"
    return FoundWeights(weights=read_weights(kept.checkpoint), origin=origin)
