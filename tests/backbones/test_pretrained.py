"""Weights of another training: what is loaded, what is adapted, what is named, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bocb_tune.backbones import BACKBONES, build_backbone, stages_of
from bocb_tune.backbones.pretrained import head_of, start_from, timm_weights, verified
from bocb_tune.backbones.weights import WeightsError, digest_of
from bocb_tune.optimizers import build_optimizer
from bocb_tune.training.freeze import freeze, frozen_parameters, require_own_statistics
from bocb_tune.training.recipes import Recipe


def built(name: str = "test_resnet", *, classes: int = 5, channels: int = 1, size: int = 32) -> nn.Module:
    torch.manual_seed(classes)
    return build_backbone(name, num_classes=classes, in_chans=channels, image_size=size)


def features(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval().forward_features(images)  # type: ignore[operator]
    return found


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_mambaout", "test_nfnet", "mobilenetv2"])
def test_all_but_the_head_is_loaded(name: str) -> None:
    source, model = built(name, classes=10), built(name, classes=5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    start = start_from(model, source.state_dict())
    head = head_of(model)
    assert head
    assert all(key.startswith(tuple(f"{each}." for each in head)) for key in start.fresh)
    assert set(start.skipped) == set(start.fresh)
    assert start.adapted == ()
    for key, value in model.state_dict().items():
        expected = before if key in start.fresh else source.state_dict()
        assert torch.equal(value, expected[key]), key
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(features(model, images), features(source, images))


@pytest.mark.parametrize("name", [*BACKBONES, "test_vit", "deit_tiny_distilled_patch16_224"])
def test_every_backbone_has_a_head_and_stages(name: str) -> None:
    with torch.device("meta"):
        model = build_backbone(name, num_classes=7, in_chans=3, image_size=224)
    head, stages = head_of(model), stages_of(model)
    logits = [key for key, value in model.named_parameters() if value.shape[0] == 7]
    assert logits
    assert all(any(key.startswith(f"{each}.") for each in head) for key in logits)
    assert stages.keys() == dict(model.named_parameters()).keys()
    assert {stages[key] for key in logits} == {max(stages.values())}


def test_a_stem_is_adapted_as_sums_and_repeats() -> None:
    """Grey images repeated in three channels give what the three-channel stem gives, and the other way round."""
    colour, grey = built(channels=3), built(channels=1)
    start = start_from(grey, colour.state_dict())
    assert [line.split()[0] for line in start.adapted] == ["conv1.0.weight"]
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(features(grey, images), features(colour, images.expand(-1, 3, -1, -1)))
    back = built(channels=3)
    start_from(back, grey.state_dict())
    torch.testing.assert_close(features(back, images.expand(-1, 3, -1, -1)), features(grey, images))


def test_position_embeddings_are_resized_and_named() -> None:
    large, small = built("test_vit", size=64), built("test_vit", size=32)
    start = start_from(small, large.state_dict())
    (line,) = start.adapted
    assert line.startswith("pos_embed (1, ")
    assert torch.equal(small.state_dict()["cls_token"], large.state_dict()["cls_token"])
    same = nn.Parameter(torch.ones_like(large.state_dict()["pos_embed"]))
    large.pos_embed = same
    start_from(small, large.state_dict())
    torch.testing.assert_close(small.state_dict()["pos_embed"], torch.ones_like(small.state_dict()["pos_embed"]))


def test_another_architecture_is_refused_with_names_and_leaves_the_model_alone() -> None:
    model = built("test_vit")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"holds another architecture than VisionTransformer: \d+ of \d+ tensors"):
        start_from(model, built("test_resnet").state_dict())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for change in ({"more": torch.ones(1)}, {"norm.weight": torch.ones(3)}):
        with pytest.raises(WeightsError, match=next(iter(change))):
            start_from(model, {**built("test_vit").state_dict(), **change})
    missing = dict(built("test_vit").state_dict())
    del missing["norm.weight"]
    with pytest.raises(WeightsError, match=r"1 of \d+ tensors are missing \(norm.weight\)"):
        start_from(model, missing)


def test_counts_of_batches_may_be_missing() -> None:
    old = {key: value for key, value in built().state_dict().items() if not key.endswith("num_batches_tracked")}
    assert all("num_batches_tracked" in key or key.startswith("fc.") for key in start_from(built(), old).fresh)


def test_weights_that_changed_since_are_refused(tmp_path: Path) -> None:
    state = built().state_dict()
    path = tmp_path / "w.pt"
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    assert digest_of(verified(str(path), digest_of(state))) == digest_of(state)
    with pytest.raises(WeightsError, match="holds other weights"):
        verified(str(path), "0" * 64)


def test_a_tag_that_timm_has_not_is_refused_with_those_it_has() -> None:
    with pytest.raises(WeightsError, match=r"no weights 'a9' of resnet18; it has .*a1_in1k"):
        timm_weights("resnet18", "a9")


def test_a_tag_is_fetched_by_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, model = [], built(channels=3)

    def create(name: str, *, pretrained: bool) -> nn.Module:
        asked.append((name, pretrained))
        if len(asked) == 2:
            raise OSError("no network\nlong story")
        return model

    monkeypatch.setattr("timm.create_model", create)
    assert timm_weights("test_resnet", "r160_in1k").keys() == model.state_dict().keys()
    with pytest.raises(WeightsError, match=r"test_resnet\.r160_in1k cannot be fetched \(no network\)"):
        timm_weights("test_resnet", "r160_in1k")
    assert asked == [("test_resnet.r160_in1k", True)] * 2


def trained(recipe: Recipe, name: str = "test_resnet") -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A model after two steps on noise, and its state before."""
    model = built(name)
    freeze(model, recipe)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = build_optimizer(model, "sgd", lr=0.1, weight_decay=0.1, momentum=0.9)
    model.train()
    for _ in range(2):
        model(torch.randn(8, 1, 32, 32)).square().mean().backward()
        optimizer.step()
    return model, before


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("recipe", [Recipe(batch_size=8, frozen_stages=2), Recipe(batch_size=8, linear_probe=True)])
def test_what_is_frozen_stays_with_its_statistics(recipe: Recipe, name: str) -> None:
    model, before = trained(recipe, name)
    frozen = frozen_parameters(model, recipe)
    trainable = {key for key, value in model.named_parameters() if value.requires_grad}
    assert frozen | trainable == dict(model.named_parameters()).keys()
    assert frozen
    assert trainable
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in frozen)
    assert all(not torch.equal(after[key], before[key]) for key in trainable if after[key].ndim > 1)
    for key, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            moved = not torch.equal(after[f"{key}.running_mean"], before[f"{key}.running_mean"])
            assert moved == (f"{key}.weight" not in frozen), key


def test_stages_are_counted_from_the_image() -> None:
    model = built()
    stages = stages_of(model)
    for count in range(max(stages.values()) + 1):
        frozen = frozen_parameters(model, Recipe(batch_size=8, frozen_stages=count))
        assert frozen == {name for name, stage in stages.items() if stage < count}
    with pytest.raises(ValueError, match="'frozen_stages' is 9, and ResNet has 5 before its head"):
        freeze(model, Recipe(batch_size=8, frozen_stages=9))


def test_an_optimizer_that_estimates_statistics_anew_leaves_none_frozen() -> None:
    model = built()
    recipe = Recipe(batch_size=8, frozen_stages=1)
    freeze(model, recipe)
    optimizer = build_optimizer(model, "schedulefree_sgd", lr=0.1, weight_decay=0.0)
    for frozen in (recipe, Recipe(batch_size=8, frozen_norm=True)):
        with pytest.raises(ValueError, match="schedulefree_sgd"):
            require_own_statistics(model, optimizer, "schedulefree_sgd", frozen)
    require_own_statistics(model, build_optimizer(model, "sgd", lr=0.1, weight_decay=0.0), "sgd", recipe)
    free = built("test_vit")
    freeze(free, recipe)
    require_own_statistics(free, build_optimizer(free, "schedulefree_sgd", lr=0.1, weight_decay=0.0), "x", recipe)
