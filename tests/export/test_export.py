"""Exported models: timm loads the same weights, the card's numbers are those of the journal, and refusals."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from timm.optim import get_optimizer_info
from torch.nn import functional

from bocb_tune.backbones import build_backbone
from bocb_tune.backbones.weights import WeightsError, digest_of, read_weights
from bocb_tune.core.kept import KeptModel, NotKeptError, kept_model, kept_models
from bocb_tune.core.types import TrialStatus
from bocb_tune.data import load_dataset
from bocb_tune.export.card import fresh_seeds, interval
from bocb_tune.export.model import export
from bocb_tune.export.onnx import require_onnx
from bocb_tune.export.timm_command import OPTIMIZERS, NoCommandError, timm_command
from bocb_tune.optimizers import OPTIMIZERS as ROWS
from bocb_tune.spec.space_file import load_space
from bocb_tune.training.recipes import RECIPES, Recipe, recipe_settings
from tests.support.command import bocb
from tests.support.kept import keep_model, make_model
from tests.support.processes.runs import records_in

IMAGES = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def a_kept_model(tmp_path: Path, backbone: str = "test_resnet", **state: object) -> tuple[KeptModel, torch.Tensor]:
    """A model that a run keeps, and the logits it has to give."""
    model = make_model(backbone)
    keep_model(tmp_path / "run", {"model": model.state_dict(), "ema": None, "step": 4, **state}, backbone=backbone)
    with torch.no_grad():
        logits = model(IMAGES)
    return kept_model(tmp_path / "run", f"{backbone}/adamw"), logits


def exported(tmp_path: Path, backbone: str = "test_resnet", **state: object) -> tuple[Path, torch.Tensor]:
    """The folder of an exported model, and the logits it has to give."""
    kept, logits = a_kept_model(tmp_path, backbone, **state)
    return export(kept, {}, tmp_path / "out", "run"), logits


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_mambaout"])
def test_timm_gives_the_same_logits(tmp_path: Path, backbone: str) -> None:
    folder, logits = exported(tmp_path, backbone)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(model(IMAGES), logits)
    by_path = timm.create_model(
        backbone, checkpoint_path=str(folder / "model.safetensors"), num_classes=10, in_chans=1, **sized(model)
    )
    with torch.no_grad():
        assert torch.equal(by_path.eval()(IMAGES), logits)
    digits = load_dataset("digits", {}, "cpu")
    assert model.pretrained_cfg["mean"] == pytest.approx(digits.mean)
    assert model.pretrained_cfg["std"] == pytest.approx(digits.std)
    assert model.pretrained_cfg["input_size"] == (1, 32, 32)
    assert not model.pretrained_cfg.get("license")


@pytest.mark.parametrize("backbone", ["test_resnet", pytest.param("test_vit", marks=pytest.mark.slow)])
def test_onnx_gives_the_same_logits_for_any_number_of_images(tmp_path: Path, backbone: str) -> None:
    kept, logits = a_kept_model(tmp_path, backbone)
    folder = export(kept, {}, tmp_path / "out", "run", as_onnx=True)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    for count in (1, 3, 4):
        (theirs,) = session.run(None, {"images": IMAGES[:count].numpy()})
        np.testing.assert_allclose(theirs, logits[:count].numpy(), rtol=1e-4, atol=1e-4 * float(logits.abs().max()))
    assert "model.onnx" in (folder / "README.md").read_text()
    export(kept, {}, folder, "run")
    assert not (folder / "model.onnx").exists()


def test_onnx_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bocb_tune.export.onnx.find_spec", lambda _: None)
    with pytest.raises(WeightsError, match=r"onnx and onnxscript: pip install 'bocb-tune\[onnx\]'"):
        require_onnx()


def sized(model: torch.nn.Module) -> dict[str, int]:
    return {"img_size": 32} if hasattr(model, "patch_embed") else {}


@pytest.mark.slow
def test_timm_needs_nothing_of_ours(tmp_path: Path) -> None:
    folder, logits = exported(tmp_path)
    torch.save(IMAGES, tmp_path / "images.pt")
    code = (
        "import sys; sys.modules['bocb_tune'] = None\n"
        "import timm, torch, safetensors\n"
        f"images = torch.load({str(tmp_path / 'images.pt')!r}, weights_only=True)\n"
        f"model = timm.create_model({f'local-dir:{folder}'!r}, pretrained=True).eval()\n"
        f"torch.save(model(images).detach(), {str(tmp_path / 'logits.pt')!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert torch.equal(torch.load(tmp_path / "logits.pt", weights_only=True), logits)


def test_averaged_weights_are_those_that_were_scored(tmp_path: Path) -> None:
    average = make_model("test_resnet", seed=1)
    folder, logits = exported(tmp_path, ema=average.state_dict())
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        assert not torch.allclose(model(IMAGES), logits)
        assert torch.equal(model(IMAGES), average(IMAGES))


def test_a_model_changed_for_small_images_is_loaded_as_its_card_says(tmp_path: Path) -> None:
    folder, logits = exported(tmp_path, "mobilenetv2")
    assert not (folder / "config.json").exists()
    (code,) = (part for part in (folder / "README.md").read_text().split("```") if part.startswith("python"))
    scope: dict[str, torch.nn.Module] = {}
    exec(code.removeprefix("python").replace("model.safetensors", str(folder / "model.safetensors")), scope)
    with torch.no_grad():
        assert torch.equal(scope["model"](IMAGES), logits)


@pytest.mark.slow
def test_a_model_that_enlarges_its_images_is_given_larger_ones(tmp_path: Path) -> None:
    folder, logits = exported(tmp_path, "deit_small")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert model.pretrained_cfg["input_size"] == (1, 224, 224)
    with torch.no_grad():
        assert torch.equal(model(functional.interpolate(IMAGES, size=224, mode="bicubic")), logits)


def test_the_same_tensors_have_the_same_digest_in_any_file(tmp_path: Path) -> None:
    folder, _ = exported(tmp_path)
    kept = kept_model(tmp_path / "run", "test_resnet/adamw")
    weights = read_weights(kept.checkpoint)
    assert digest_of(read_weights(folder / "model.safetensors")) == digest_of(weights)
    name = next(name for name, value in weights.items() if value.is_floating_point())
    assert digest_of(weights | {name: weights[name] + 1e-3}) != digest_of(weights)
    assert digest_of({**weights, "more": torch.zeros(1)}) != digest_of(weights)
    assert digest_of(weights) in (folder / "README.md").read_text()


def test_the_interval_is_students(tmp_path: Path) -> None:
    """Two seeds: t of one degree of freedom at 97.5 % is tan(.475 pi)."""
    low, mean, high = interval([70.0, 72.0])
    assert mean == 71
    assert high - mean == pytest.approx(math.tan(0.475 * math.pi) * math.sqrt(2) / math.sqrt(2))
    assert mean - low == pytest.approx(high - mean)
    keep_model(tmp_path / "run", {"model": make_model("test_resnet").state_dict()}, seeds=[70.0, None, 72.0])
    kept = kept_model(tmp_path / "run", "test_resnet/adamw")
    assert kept.record.score == 80
    assert fresh_seeds(kept) == [70, 10, 72]  # a diverged one at chance
    text = (export(kept, {}, tmp_path / "out", "run") / "README.md").read_text()
    assert f"{(70 + 10 + 72) / 3:.2f}" in text
    assert kept.record.id in text


def test_an_interval_ends_where_scores_do(tmp_path: Path) -> None:
    keep_model(tmp_path / "run", {"model": make_model("test_resnet").state_dict()}, seeds=[99.0, 97.0])
    kept = kept_model(tmp_path / "run", "test_resnet/adamw")
    low, _, high = interval([99.0, 97.0])
    assert high > 100
    text = (export(kept, {}, tmp_path / "out", "run") / "README.md").read_text()
    assert f"{low:.2f} to 100.00" in text


def test_names_in_a_card_are_no_markup(tmp_path: Path) -> None:
    model = make_model("test_resnet")
    keep_model(tmp_path / "run", {"model": model.state_dict()})
    kept = kept_model(tmp_path / "run", "test_resnet/adamw")
    text = (export(kept, {}, tmp_path / "out", "`# <script>`\n# title") / "README.md").read_text()
    assert "`'# <script>' # title`" in text
    assert not any(line.startswith("# title") for line in text.splitlines())


def test_a_cell_without_a_checkpoint_says_how_to_get_one(tmp_path: Path) -> None:
    trial = keep_model(tmp_path / "run", None)
    with pytest.raises(NotKeptError, match=f"bocb-tune trial --from {tmp_path / 'run'} --id {trial} --keep"):
        kept_model(tmp_path / "run", "test_resnet/adamw")
    assert list(kept_models(tmp_path / "run")) == []
    with pytest.raises(NotKeptError, match=r"test_resnet/adam'; did you mean 'test_resnet/adamw'"):
        kept_model(tmp_path / "run", "test_resnet/adam")
    with pytest.raises(NotKeptError, match="no journals"):
        kept_model(tmp_path, "test_resnet/adamw")


def test_a_trial_is_kept_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = keep_model(tmp_path / "run", None)
    assert bocb(monkeypatch, "export", tmp_path / "run", "--to", "weights") == 2
    assert "--keep" in capsys.readouterr().err
    assert bocb(monkeypatch, "trial", "--from", tmp_path / "run", "--id", trial, "--keep") == 0
    assert bocb(monkeypatch, "export", tmp_path / "run", "--to", "weights") == 0
    (folder,) = map(Path, capsys.readouterr().out.splitlines()[-1:])
    weights = read_weights(folder / "model.safetensors")
    assert digest_of(weights) == digest_of(read_weights(kept_model(tmp_path / "run", "test_resnet/adamw").checkpoint))
    assert records_in(tmp_path / "run")[trial].status == TrialStatus.completed


class Unsafe:
    """Would run code if it were unpickled."""


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    keep_model(tmp_path / "run", {"model": Unsafe()})
    kept = kept_model(tmp_path / "run", "test_resnet/adamw")
    with pytest.raises(WeightsError, match="never unpickled"):
        export(kept, {}, tmp_path / "out", "run")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({}, "holds no model"),
        ({"model": {"conv1.weight": torch.tensor([math.nan])}}, "conv1.weight holds numbers that are not finite"),
        ({"model": {"other.weight": torch.ones(2)}}, "holds another model than test_resnet"),
    ],
)
def test_a_checkpoint_that_is_none_is_named(tmp_path: Path, state: dict[str, object], says: str) -> None:
    keep_model(tmp_path / "run", state)
    kept = kept_model(tmp_path / "run", "test_resnet/adamw")
    with pytest.raises(WeightsError, match=says) as error:
        export(kept, {}, tmp_path / "out", "run")
    assert str(kept.checkpoint) in str(error.value)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    for name in ("damaged.pt", "damaged.safetensors"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(WeightsError, match=name):
            read_weights(tmp_path / name)
    with pytest.raises(WeightsError, match="there is no such file"):
        read_weights(tmp_path / "missing.pt")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_timm_means_the_same_optimizer(name: str) -> None:
    module, attribute = ROWS[name].target.split(":")
    known = get_optimizer_info(OPTIMIZERS[name])
    assert known.opt_class is getattr(importlib.import_module(module), attribute)
    given = load_space(name).fixed
    signature = inspect.signature(known.opt_class).parameters
    for argument, value in (known.defaults or {}).items():  # of timm's script, where the command gives no other
        assert argument in given or value == signature[argument].default


def command(
    optimizer: str = "adamw", dataset: str = "imagefolder", backbone: dict[str, Any] | None = None, **changes: object
) -> list[str]:
    recipe = Recipe(**{**recipe_settings(RECIPES["deit"]), **changes})  # type: ignore[arg-type]
    settings: dict[str, Any] = {
        "dataset": {"name": dataset, "image_size": 224},
        "recipe": recipe_settings(recipe),
        "optimizer": {"betas": [0.9, 0.999], "eps": 1e-8},
        "workers": 2,
    }
    settings["backbone"] = {"model": "deit_small_patch16_224", **(backbone or {})}
    hparams = {"lr": 1e-3, "weight_decay": 0.05, "beta2": 0.97}
    return timm_command("deit_small_patch16_224", optimizer, hparams, settings, 5, 300).split()


def test_the_command_says_what_the_trial_was() -> None:
    words = command()
    after = dict(pairwise(words))
    assert words[:3] == ["torchrun", "--nproc-per-node=2", "train.py"]
    expected = {"--lr": "0.001", "--weight-decay": "0.05", "--batch-size": "512", "--epochs": "300", "--mixup": "0.8"}
    expected |= {"--cutmix": "1.0", "--aa": "rand-m9-n2-mstd0.5-inc1", "--reprob": "0.25", "--warmup-epochs": "5"}
    expected |= {
        "--min-lr": "1e-05",
        "--aug-repeats": "3",
        "--drop-path": "0.1",
        "--opt": "adamw",
        "--num-classes": "5",
    }
    assert {name: after[name] for name in expected} == expected
    assert words[words.index("--opt-betas") + 1 : words.index("--opt-betas") + 3] == ["0.9", "0.97"]  # as refined


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16"), ("fp32", None)])
def test_the_command_trains_in_the_trials_precision(precision: str, dtype: str | None) -> None:
    assert dict(pairwise(command(precision=precision))).get("--amp-dtype") == dtype


@pytest.mark.parametrize(
    "changes",
    [{"dataset": "digits"}, {"optimizer": "sophia"}, {"warmup_epochs": 0.5}, {"backbone": {"small": True}}],
    ids=["data", "opt", "warmup", "backbone"],
)
def test_there_is_no_command_where_timm_has_no_counterpart(changes: dict[str, object]) -> None:
    with pytest.raises(NoCommandError):
        command(**changes)  # type: ignore[arg-type]


def test_the_configuration_is_json_of_its_own(tmp_path: Path) -> None:
    folder, _ = exported(tmp_path, "test_vit")
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "test_vit"
    assert config["num_classes"] == config["pretrained_cfg"]["num_classes"] == 10
    assert config["pretrained_cfg"]["tag"] == ""
    assert build_backbone(config["architecture"], num_classes=10, in_chans=1, image_size=32)
