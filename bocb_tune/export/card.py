"""The card of an exported model: what it is, how well it does and how it was trained, in Markdown."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bocb_tune.core.kept import KeptModel
from bocb_tune.core.names import listed, plain
from bocb_tune.core.space import arguments, own_part
from bocb_tune.core.types import Phase
from bocb_tune.data import DATASETS
from bocb_tune.export.timm_command import NoCommandError, timm_command

if TYPE_CHECKING:
    from torch import nn

LEVEL = 0.95
"""Level of the interval of a score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Facts that a card tells of a model besides its trial."""

    model: nn.Module
    backbone: str
    """Name of the backbone here."""
    architecture: str
    """Name of the model in timm, or in timm once the backbone's module is imported."""
    module: str
    """Module that registers the architecture with timm; empty for timm's own."""
    by_timm: bool
    """Whether timm builds the same model from the configuration."""
    num_classes: int
    channels: int
    image_size: int
    """Height and width in pixels that images are given in."""
    resized_to: int
    """Size that the recipe asks for; 0 if it asks for none."""
    seen: int
    """Pixels that the model sees: where they are others, images are resized bicubically."""
    mean: tuple[float, ...]
    """Mean that images are normalised by; empty where the data are not here to tell."""
    std: tuple[float, ...]
    digest: str
    """SHA-256 of the tensors."""


def card(kept: KeptModel, exported: Exported, run: str) -> str:
    """Write the card of a model of the run called `run`."""
    cell = kept.cell.cell
    parts = (
        _front(),
        f"# {_code(cell.key)} on {_code(cell.dataset)}",
        f"{exported.architecture}, trained by bocb-tune: the best trial of its cell in the run {_code(run)}.",
        "## Score",
        _bullets(_scores(kept)),
        "## Use",
        _use(exported),
        "## Training",
        _bullets(_training(kept)),
        "The same with timm's training script:",
        _command(kept, exported),
        "## Where it comes from",
        _bullets(_origin(kept, exported)),
    )
    return "\n\n".join(parts) + "\n"


def _front() -> str:
    """Write the header by which model hubs sort cards."""
    return "---\ntags: [image-classification, timm]\nlibrary_name: timm\n---"


def _bullets(lines: Iterator[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _scores(kept: KeptModel) -> Iterator[str]:
    best, objective = kept.record, kept.cell.objective
    assert best.score is not None
    seeds = fresh_seeds(kept)
    yield (
        f"{objective.metric} {objective.text(best.score)} on the validation images after {best.budget} epochs, seed "
        f"{best.seed}. This model was chosen by it among the trials of its cell, so that it flatters the model."
    )
    if kept.cell.settings["dataset"].get("validate_on") == "test":
        yield "The validation images are the test images of the data set: `validate_on: test`."
    if len(seeds) < 2:
        yield f"No interval: {len(seeds)} fresh seed(s) at this setting were trained to the end, and it takes 2."
    else:
        low, mean, high = interval(seeds)
        low, high = (max(low, 0.0), min(high, 100.0)) if objective.is_bounded else (low, high)
        each = ", ".join(objective.number(score) for score in seeds)
        yield (
            f"{objective.metric} {objective.text(mean)} ({LEVEL:.0%} interval {objective.number(low)} to "
            f"{objective.number(high)}, Student's t) is the mean of {len(seeds)} fresh seeds at this setting, "
            f"which nothing was chosen by: {each}."
        )
    test = best.measurements[-1].metrics.get("test_score") if best.measurements else None
    if test is not None:
        yield f"{objective.metric} {objective.text(test)} on the test images, which nothing was chosen by."


def fresh_seeds(kept: KeptModel) -> list[float]:
    """Return the scores of the repeats at the setting of the model: a diverged one counts as chance."""
    same = (r for r in kept.records if r.phase == Phase.repeat and r.hparams == kept.record.hparams)
    return [r.score for r in same if r.status.is_result and r.score is not None and r.id != kept.record.id]


def interval(scores: list[float]) -> tuple[float, float, float]:
    """Return the mean of at least two scores between the ends of its interval."""
    import numpy as np
    from scipy import stats

    mean = float(np.mean(scores))
    half = float(np.std(scores, ddof=1)) / math.sqrt(len(scores)) * float(stats.t.ppf((1 + LEVEL) / 2, len(scores) - 1))
    return mean - half, mean, mean + half


def _use(exported: Exported) -> str:
    images = f"Images are of {exported.image_size} pixels"
    if exported.seen != exported.image_size and exported.by_timm:
        images += f", resized bicubically to {exported.seen}"
    if exported.mean:
        mean, std = ([float(f"{value:.6g}") for value in values] for values in (exported.mean, exported.std))
        images += f", normalised by mean {mean} and standard deviation {std}"
    else:
        images += "; the data were not at hand to tell how they are normalised, and `config.json` has timm's values"
    register = f"import {exported.module}  # registers {exported.architecture}\n" if exported.module else ""
    if exported.by_timm:
        return f"```python\nimport timm\n{register}\n{_LOAD}\n```\n\n{images}."
    return (
        f"timm has no such model: its stem is that for small images.\n\n```python\n{_build(exported)}\n```\n\n{images}."
    )


def on_onnx(name: str) -> str:
    """Write how the ONNX file called `name` is used."""
    return (
        "\n## ONNX\n\n"
        f"`{name}` is the same model: `images` [batch, channels, height, width], normalised as above, give `logits` "
        "[batch, classes].\n\n"
        "```python\n"
        "import onnxruntime\n\n"
        f'session = onnxruntime.InferenceSession("{name}")\n'
        '(logits,) = session.run(None, {"images": images})  # a float32 array\n'
        "```\n"
    )


_LOAD = 'model = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True).eval()'


def _build(exported: Exported) -> str:
    shape = f"num_classes={exported.num_classes}, in_chans={exported.channels}, image_size={exported.image_size}"
    shape += f", resized_to={exported.resized_to}" if exported.resized_to else ""
    return (
        "from bocb_tune.backbones import build_backbone\n"
        "from safetensors.torch import load_file\n\n"
        f'model = build_backbone("{exported.backbone}", {shape}).eval()\n'
        'model.load_state_dict(load_file("model.safetensors"))'
    )


def _training(kept: KeptModel) -> Iterator[str]:
    record, settings = kept.record, kept.cell.settings
    yield f"lr {record.hparams['lr']:g}, weight decay {record.hparams['weight_decay']:g}, {record.max_budget} epochs"
    own = arguments(settings["optimizer"], own_part(record.hparams))
    yield f"optimizer: {_listed(own)}" if own else "optimizer: its defaults"
    yield f"recipe: {_listed(settings['recipe'])}"
    yield f"data set: {_listed(settings['dataset'])}; {DATASETS[kept.cell.cell.dataset].source}"
    if names := label_names(kept):
        yield f"{len(names)} classes: {_code(listed(names, 10))}"
    if "pretrained" in settings:
        yield f"weights that it began with: {settings['pretrained']} (SHA-256 of its tensors)"


def _command(kept: KeptModel, exported: Exported) -> str:
    record = kept.record
    try:
        command = timm_command(
            exported.architecture,
            kept.cell.cell.optimizer,
            record.hparams,
            kept.cell.settings,
            exported.num_classes,
            record.max_budget,
        )
    except NoCommandError as error:
        return f"there is no such command: {error}."
    return (
        f"```\n{command}\n```\n\nIt validates on DATA/val, where this run may have held images out, and draws other "
        "random numbers."
    )


def _origin(kept: KeptModel, exported: Exported) -> Iterator[str]:
    record = kept.record
    yield f"trial {record.id} ({record.phase} {record.index}) of {kept.cell.cell.key}"
    yield f"journal {kept.journal.name}: SHA-256 {hashlib.sha256(kept.journal.read_bytes()).hexdigest()}"
    yield f"tensors: SHA-256 {exported.digest}, over their names, types, shapes and values"
    if kept.cell.data:
        yield f"data: fingerprint {kept.cell.data['digest']}, over names and sizes of the images"
    yield f"made by {_listed({key: value for key, value in record.provenance.items() if key != 'host'})}"


def _listed(values: Mapping[str, Any]) -> str:
    shown = ((name, value if isinstance(value, str) else json.dumps(value)) for name, value in values.items())
    return _code(", ".join(f"{name} {value}" for name, value in shown))


def _code(text: str) -> str:
    """Write what others wrote as code, in which Markdown obeys nothing."""
    words = plain(text).replace("`", "'").split()
    return f"`{' '.join(words)}`"


def label_names(kept: KeptModel) -> tuple[str, ...]:
    """Return the names of the classes by their numbers, as the journal has them; empty in old journals."""
    parts = (kept.cell.data or {}).get("parts", {})
    return tuple(next(iter(parts.values()), {}))
