"""Recipes: everything about a training that a grid holds fixed while it varies learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Literal, get_args

Precision = Literal["fp32", "bf16", "fp16", "auto"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
Augment = Literal["none", "shift", "flip", "flip_shift", "flip_crop"]
Loss = Literal["ce", "bce"]
Interpolation = Literal["bilinear", "bicubic"]

SMALLEST_IMAGE = 8
"""Pixels a side, as of datasets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of a training, apart from its optimizer.

    Raises:
        ValueError: naming the field, for a value outside its range or one that would have no effect.
    """

    # Pydantic, which reads experiment files, describes each field by the string below it.
    __pydantic_config__: ClassVar = {"use_attribute_docstrings": True}

    batch_size: int
    """Images per optimizer step, over all ranks and accumulation steps."""
    accumulation: int = 1
    """Micro-batches a rank accumulates before an optimizer step."""
    precision: Precision = "fp32"
    """Autocast type of forward pass and loss; parameters stay fp32. fp16 scales the loss and needs a GPU. auto: bf16
    where trials get GPUs, fp32 where they do not (an experiment resolves it, so that no trial depends on its host)."""
    clip_grad: float = 0.0
    """Largest global gradient norm; 0 turns clipping off."""
    warmup_epochs: float = 0.0
    """Epochs, or a fraction of one, over which the learning rate rises linearly to its peak."""
    min_lr_ratio: float = 0.0
    """Learning rate at the end of the cosine, as a share of its peak."""
    lr_steps: tuple[int, ...] = ()
    """Epochs after which the learning rate falls to a tenth, ascending, in place of the cosine; none: cosine."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes (arXiv:1512.00567, section 7); with bce, of each target."""
    drop_path: float = 0.0
    """Rate of stochastic depth (arXiv:1603.09382) at the last block, rising linearly with depth."""
    augment: Augment = "none"
    """shift: random shift by up to 1/8 of the image, border repeated. flip: horizontal flip. flip_shift: shift with
    mirrored border, and horizontal flip. flip_crop: random resized crop and horizontal flip."""
    ema_decay: float = 0.0
    """Decay per optimizer step of the averaged weights, validated in place of the raw ones; 0 turns them off."""
    ema_warmup: bool = False
    """Let the decay of the averaged weights rise from 0 to `ema_decay`, as 1 - (1 + step) ** (-2/3) (timm's
    `ModelEmaV3`), so that the average soon leaves the random initial weights behind."""
    channels_last: bool = False
    """Memory layout of images and convolution weights; has no effect on a CPU in bf16, where oneDNN breaks down."""
    compile: bool = False
    """Compile the model with `torch.compile`."""
    compile_mode: CompileMode = "default"
    """Goal of `torch.compile`; reduce-overhead replays CUDA graphs."""
    tf32: bool = True
    """Let GPUs round the factors of fp32 matrix products and convolutions to TF32's 10 bits of mantissa."""
    deterministic: bool = False
    """Make a GPU repeat a training bit for bit: deterministic kernels, chosen without timing them, and slower."""
    grad_checkpointing: bool = False
    """Keep only the activations of every few layers and compute the others again in the backward pass
    (arXiv:1604.06174): less memory, about a third more time."""
    loss: Loss = "ce"
    """ce: cross-entropy. bce: one binary cross-entropy per class; every class in a mixed image is a full target
    (arXiv:2110.00476)."""
    layer_decay: float = 1.0
    """Factor on the learning rate from each layer to the one before it (arXiv:2106.08254, appendix); 1 is off."""
    mixup: float = 0.0
    """alpha of mixup (arXiv:1710.09412): images blended in pairs by a share from Beta(alpha, alpha); 0 is off."""
    cutmix: float = 0.0
    """alpha of CutMix (arXiv:1905.04899): a rectangle pasted in pairs, its area from Beta(alpha, alpha); 0 is off."""
    switch_prob: float = 0.5
    """Share of batches that get CutMix where both are on."""
    repeated_augment: int = 1
    """Views of an image within a batch, each augmented anew (arXiv:1901.09335); an epoch then holds fewer images but
    the same number of views."""
    rand_augment: float = 0.0
    """Magnitude of RandAugment (arXiv:1909.13719) in 0..10, timm's increasing operations; 0 is off."""
    rand_augment_std: float = 0.5
    """Standard deviation of the magnitude from one operation to the next."""
    rand_augment_layers: int = 2
    """Operations drawn for an image, each applied half of the time."""
    erase: float = 0.0
    """Probability that a rectangle of the image becomes noise (random erasing, arXiv:1708.04896)."""
    crop_min_area: float = 0.08
    """Smallest share of the image's area that flip_crop keeps."""
    color_jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation in flip_crop; 0 is off."""
    eval_crop: float = 0.875
    """Share of the short side that validation keeps, for images decoded from files."""
    interpolation: Interpolation = "bilinear"
    """Filter with which images decoded from files are resized."""
    image_size: int = 0
    """Height and width in pixels that the backbone sees: images in memory are resized to it on their device,
    bicubically, those from files are cropped to it. 0: the dataset's own, small ones as the backbone takes them."""
    frozen_stages: int = 0
    """Stages of a pre-trained backbone that stay as they are, with the statistics of their norms; 1 is the stem."""
    linear_probe: bool = False
    """Whether only the head of a pre-trained backbone is trained."""
    frozen_norm: bool = False
    """Whether BatchNorm in a pre-trained backbone normalises by the statistics of its pre-training, its scales and
    shifts being trained; for batches of few images."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr_steps", tuple(self.lr_steps))  # a journal holds a list
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        divides = self.accumulation >= 1 and self.batch_size % self.accumulation == 0
        _require(divides, "accumulation", self.accumulation, f"a divisor of batch_size ({self.batch_size})")
        for name, valid in _CHOICES.items():
            _require(getattr(self, name) in valid, name, getattr(self, name), f"one of {valid}")
        _require(0 <= self.clip_grad < float("inf"), "clip_grad", self.clip_grad, "0 (off) or a positive norm")
        _require(0 <= self.warmup_epochs < float("inf"), "warmup_epochs", self.warmup_epochs, "0 or more epochs")
        ascending = list(self.lr_steps) == sorted({step for step in self.lr_steps if step >= 1})
        _require(ascending, "lr_steps", list(self.lr_steps), "whole epochs, ascending, each at least 1")
        _require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "0 (off) or below 1")
        _require(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "above 0, and 1 (off) at most")
        _require(0 <= self.rand_augment <= 10, "rand_augment", self.rand_augment, "0 (off) to 10")
        _require(self.repeated_augment >= 1, "repeated_augment", self.repeated_augment, "1 (off) or more")
        _require(1 <= self.rand_augment_layers <= 15, "rand_augment_layers", self.rand_augment_layers, "1 to 15")
        _require(0 < self.crop_min_area <= 1, "crop_min_area", self.crop_min_area, "above 0 and at most 1")
        _require(0 < self.eval_crop <= 1, "eval_crop", self.eval_crop, "above 0 and at most 1")
        sound = self.image_size == 0 or self.image_size >= SMALLEST_IMAGE
        _require(sound, "image_size", self.image_size, f"0 (the dataset's own) or at least {SMALLEST_IMAGE} pixels")
        for name in ("label_smoothing", "drop_path"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "at least 0 and below 1")
        for name in ("min_lr_ratio", "erase", "switch_prob", "color_jitter"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "between 0 and 1")
        _require(self.frozen_stages >= 0, "frozen_stages", self.frozen_stages, "0 (none) or more")
        for name in ("mixup", "cutmix", "rand_augment_std"):
            _require(0 <= getattr(self, name) < float("inf"), name, getattr(self, name), "0 or a positive number")
        self._require_heeded()

    def _require_heeded(self) -> None:
        """Check that no field is off its default where nothing would read it."""
        flips = self.augment in ("flip_shift", "flip_crop")
        heeded = {
            "rand_augment": (flips, "augment is 'flip_shift' or 'flip_crop'"),
            "erase": (flips, "augment is 'flip_shift' or 'flip_crop'"),
            "rand_augment_std": (self.rand_augment > 0, "rand_augment is on"),
            "rand_augment_layers": (self.rand_augment > 0, "rand_augment is on"),
            "switch_prob": (self.mixup > 0 and self.cutmix > 0, "both mixup and cutmix are on"),
            "crop_min_area": (self.augment == "flip_crop", "augment is 'flip_crop'"),
            "color_jitter": (self.augment == "flip_crop", "augment is 'flip_crop'"),
            "ema_warmup": (self.ema_decay > 0, "ema_decay is on"),
            "compile_mode": (self.compile, "compile is on"),
            "min_lr_ratio": (not self.lr_steps, "lr_steps is empty"),
            "frozen_stages": (not self.linear_probe, "linear_probe is off"),
            "frozen_norm": (not self.linear_probe, "linear_probe is off"),
            "layer_decay": (not self.linear_probe, "linear_probe is off"),
        }
        for name, (holds, condition) in heeded.items():
            value = getattr(self, name)
            _require(holds or value == DEFAULTS[name], name, value, f"{DEFAULTS[name]!r} unless {condition}")

    @property
    def freezes(self) -> bool:
        """Whether a part of the model is left as it is."""
        return self.linear_probe or self.frozen_stages > 0 or self.frozen_norm

    @property
    def mixes(self) -> bool:
        """Whether images are trained on in mixed pairs."""
        return self.mixup > 0 or self.cutmix > 0


DEFAULTS: dict[str, Any] = {entry.name: entry.default for entry in fields(Recipe)}
_CHOICES: dict[str, tuple[str, ...]] = {
    "precision": get_args(Precision),
    "compile_mode": get_args(CompileMode),
    "augment": get_args(Augment),
    "loss": get_args(Loss),
    "interpolation": get_args(Interpolation),
}

FIRST_FIELDS = frozenset(
    (
        *("batch_size", "accumulation", "precision", "clip_grad", "warmup_epochs", "min_lr_ratio"),
        *("label_smoothing", "drop_path", "augment", "ema_decay", "channels_last", "compile"),
    )
)
"""Fields of the first release. Never changed: trial ids in journals rest on them (see `recipe_settings`)."""


def on_devices(recipe: Recipe, gpus: bool) -> Recipe:
    """Resolve the settings that depend on the kind of device trials get."""
    return replace(recipe, precision="bf16" if gpus else "fp32") if recipe.precision == "auto" else recipe


DECODED_ONLY = ("eval_crop", "interpolation", "color_jitter")
"""Fields that only affect images decoded from files."""


def odd_to_mix(recipe: Recipe, workers: int) -> str | None:
    """Say why the images a rank sees at a time cannot be mixed in pairs; None if they can, or are not mixed."""
    parts = workers * recipe.accumulation
    if not recipe.mixes or recipe.batch_size // parts % 2 == 0:
        return None
    return (
        f"mixup and cutmix pair images, and a batch_size of {recipe.batch_size} leaves an odd number, "
        f"{recipe.batch_size // parts}, to each of {workers} workers x {recipe.accumulation} accumulation steps; "
        f"the nearest that suits is {max(round(recipe.batch_size / (2 * parts)), 1) * 2 * parts}"
    )


def unheeded(recipe: Recipe, decoded: bool) -> Iterator[tuple[str, str]]:
    """Yield fields off their default that a dataset (`decoded` from files or not) would not use, with the reason."""
    for name in () if decoded else DECODED_ONLY:
        value = getattr(recipe, name)
        if value != DEFAULTS[name]:
            yield name, f"is {value!r} and acts on images decoded from files alone; leave it at {DEFAULTS[name]!r}"


def recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """Give the recipe as a trial's settings hold it; `Recipe(**settings)` gives it back.

    A trial's id is a hash of its settings. A field added after the first release is therefore left out while it is at
    its default, which is what trials did before the field existed: old journals keep their ids and can be resumed.
    """
    kept = {name: value for name, value in asdict(recipe).items() if name in FIRST_FIELDS or value != DEFAULTS[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}


def _require(holds: bool, name: str, value: object, valid: str) -> None:
    if not holds:
        raise ValueError(f"recipe field {name!r} is {value!r}; it must be {valid}")


_DEIT_MIX: dict[str, Any] = {"mixup": 0.8, "cutmix": 1.0, "rand_augment": 9.0, "erase": 0.25, "label_smoothing": 0.1}
_ENLARGED: dict[str, Any] = {"image_size": 224, "augment": "flip_crop", "crop_min_area": 0.8}
_CIFAR: dict[str, Any] = {"batch_size": 100, "precision": "auto", "augment": "flip_shift", "channels_last": True}
_CIFAR_CONVNEXT: dict[str, Any] = {
    **_CIFAR,
    **_DEIT_MIX,
    "warmup_epochs": 20.0,
    "drop_path": 0.1,
    "repeated_augment": 3,
    "ema_decay": 0.9999,
    "ema_warmup": True,
}
_CIFAR_DEIT: dict[str, Any] = {**_CIFAR_CONVNEXT, "warmup_epochs": 5.0, "clip_grad": 5.0, "ema_decay": 0.99996}
_CIFAR_RSB_A2: dict[str, Any] = {
    **_CIFAR,
    "warmup_epochs": 5.0,
    "drop_path": 0.05,
    "loss": "bce",
    "mixup": 0.1,
    "cutmix": 1.0,
    "repeated_augment": 3,
    "rand_augment": 7.0,
}
_RSB: dict[str, Any] = {
    "batch_size": 2048,
    "precision": "bf16",
    "warmup_epochs": 5.0,
    "augment": "flip_crop",
    "loss": "bce",
    "cutmix": 1.0,
    "eval_crop": 0.95,
    "interpolation": "bicubic",
}

RECIPES: dict[str, Recipe] = {
    "digits": Recipe(batch_size=64, warmup_epochs=0.5, label_smoothing=0.1, augment="shift"),
    "cifar_torch": Recipe(**_CIFAR),
    "cifar_torch_224": Recipe(**_CIFAR | _ENLARGED),
    "cifar_deit": Recipe(**_CIFAR, **_DEIT_MIX, warmup_epochs=5.0, drop_path=0.1),
    "cifar_deit_224": Recipe(**_CIFAR_DEIT | _ENLARGED),
    "cifar_convnext": Recipe(**_CIFAR_CONVNEXT),
    "cifar_convnext_224": Recipe(**_CIFAR_CONVNEXT | _ENLARGED),
    "cifar_rsb_a2_224": Recipe(**_CIFAR_RSB_A2 | _ENLARGED),
    "imagenet": Recipe(
        batch_size=1024,
        precision="bf16",
        warmup_epochs=5.0,
        label_smoothing=0.1,
        augment="flip_crop",
        channels_last=True,
    ),
    "imagenet_torch": Recipe(batch_size=256, augment="flip_crop", interpolation="bicubic"),
    "deit": Recipe(
        batch_size=1024,
        precision="bf16",
        warmup_epochs=5.0,
        min_lr_ratio=0.01,
        drop_path=0.1,
        augment="flip_crop",
        repeated_augment=3,
        interpolation="bicubic",
        **_DEIT_MIX,
    ),
    "rsb_a1": Recipe(label_smoothing=0.1, drop_path=0.05, mixup=0.2, repeated_augment=3, rand_augment=7.0, **_RSB),
    "rsb_a2": Recipe(drop_path=0.05, mixup=0.1, repeated_augment=3, rand_augment=7.0, **_RSB),
    "rsb_a3": Recipe(mixup=0.1, rand_augment=6.0, **_RSB),
    "coco_1x": Recipe(batch_size=16, warmup_epochs=0.068, lr_steps=(8, 11), augment="flip"),
    "simple_baseline": Recipe(batch_size=128, lr_steps=(90, 120), augment="flip"),
    "coco_pose": Recipe(batch_size=512, warmup_epochs=1.71, lr_steps=(170, 200), augment="flip"),
    "shapes": Recipe(batch_size=16, warmup_epochs=1.0, augment="flip", clip_grad=10.0),
}

DESCRIPTIONS: dict[str, str] = {
    "digits": "seconds an epoch on one core for models of less than a million weights; our own choice",
    "cifar_torch": "crop and flip, cosine; PyTorch-style setting of arXiv:2410.06373 at 32 pixels",
    "cifar_torch_224": "crop and flip, cosine; PyTorch-style setting of arXiv:2410.06373, images enlarged to 224",
    "cifar_deit": "RandAugment, mixup, CutMix, erasing at 32 pixels (OpenMixup, cifar100/advanced)",
    "cifar_deit_224": "DeiT setting of arXiv:2410.06373, images enlarged to 224",
    "cifar_convnext": "ConvNeXt setting of arXiv:2410.06373 at 32 pixels",
    "cifar_convnext_224": "ConvNeXt setting of arXiv:2410.06373, images enlarged to 224",
    "cifar_rsb_a2_224": "RSB A2 setting of arXiv:2410.06373, images enlarged to 224",
    "imagenet": "warm-up of 5 epochs, crop and flip (arXiv:1706.02677); label smoothing 0.1 (arXiv:1512.00567)",
    "imagenet_torch": "crop and flip, cosine, batch 256 (OpenMixup, imagenet/resnet50_4xb64_cos_ep100)",
    "deit": "arXiv:2012.12877, table 9",
    "rsb_a1": "arXiv:2110.00476, table 2, procedure A1",
    "rsb_a2": "arXiv:2110.00476, table 2, procedure A2",
    "rsb_a3": "arXiv:2110.00476, table 2, procedure A3; give the dataset image_size: 160",
    "coco_1x": "falls after 8 and 11 of 12 epochs, batch 16 (arXiv:2410.06373, A.2; MMDetection, schedule_1x)",
    "simple_baseline": "falls after 90 and 120 of 140 epochs, batch 128 (arXiv:1804.06208, section 3.1, and its code)",
    "coco_pose": "falls after 170 and 200 of 210 epochs (arXiv:2410.06373, A.2), batch 512 (MMPose, 8xb64-210e)",
    "shapes": "minutes on one core for small detectors; our own choice",
}
"""Purpose of each recipe and the source of its values (all of them: docs/RECIPES.md). Kept apart from the recipes,
because a recipe's fields enter the ids of its trials."""

PUBLISHED_EPOCHS: dict[str, int] = {
    "cifar_torch": 200,
    "cifar_torch_224": 200,
    "cifar_deit": 200,
    "cifar_deit_224": 200,
    "cifar_convnext": 200,
    "cifar_convnext_224": 200,
    "cifar_rsb_a2_224": 200,
    "imagenet_torch": 100,
    "deit": 300,
    "rsb_a1": 600,
    "rsb_a2": 300,
    "rsb_a3": 100,
    "coco_1x": 12,
    "simple_baseline": 140,
    "coco_pose": 210,
}
"""Epochs that a recipe was published with. `budget.epochs` of an experiment decides; a plan shows both."""
