"""The training loop: yields one measurement per epoch. It knows ranks, but no Ray, no YAML and no particular task.

It is a generator, so that whoever runs it (a worker, a test, a profiler) decides after each epoch whether to continue;
a trial that is stopped leaves nothing behind. The order of images and their augmentation depend on the trial's seed
and the epoch alone, and checkpoints hold the state of all other generators, so that a resumed trial equals an
undisturbed one, also if it is resumed within an epoch. Ranks take each decision (divergence, the step of a checkpoint)
from reduced values, since a rank that left the others would leave them waiting.

Over several ranks the model is wrapped in DistributedDataParallel. BatchNorm is not synchronised: each rank normalises
by its own micro-batch, and the running statistics of rank 0 are sent to all before validation and checkpoints.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.autograd.profiler import record_function
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import update_bn

from bocb_tune.core.errors import Diverged, Left, OutOfMemory
from bocb_tune.core.types import Measurement, TrialSpec, derive_seed
from bocb_tune.optimizers import OPTIMIZERS
from bocb_tune.optimizers.interfaces import Averaging, SecondOrder, hutchinson
from bocb_tune.training.context import Context
from bocb_tune.training.device import autocast, peak_memory_gib, prepare, state_mib
from bocb_tune.training.distributed import all_reduce, average, broadcast_buffers, gather_objects, require_same
from bocb_tune.training.pauses import Pause, Pauses, Within
from bocb_tune.training.recipes import Recipe
from bocb_tune.training.rng import rng_state, seed_all, set_rng_state
from bocb_tune.training.schedule import epoch_order, epoch_plan, lr_factor, repeated

LOOKS_PER_EPOCH = 10
"""Most checks of the running loss in an epoch: each of them waits for the device."""
FEWEST_STEPS_PER_LOOK = 10
"""Least number of steps between two such checks."""
STEPS_TO_RENORM = 50
"""Batches from which BatchNorm statistics are re-estimated for the weights of an averaging optimizer."""

Batch = Any
"""Micro-batch of a task, as its own functions make and take it; the loop only passes it on."""


class Batches(Protocol):
    """Micro-batches on the device, for a plan of indices, an augmentation seed, the place of the first in its epoch."""

    def __call__(self, plan: Sequence[Tensor], seed: int, first: int = 0, /) -> Iterator[Batch]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Everything a task hands to the loop. The model is on its device already."""

    model: nn.Module
    optimizer: Optimizer
    recipe: Recipe
    num_images: int
    """Images in the training split, or whatever else the task counts its batches in."""
    batches: Batches
    loss: Callable[[nn.Module, Batch], Tensor]
    """Mean loss of a micro-batch, a scalar; called under autocast."""
    evaluate: Callable[[nn.Module, bool], dict[str, float]]
    """Metrics, reduced across ranks, at least `score`, and `val_loss` where there is one; the flag is True at the last
    epoch."""
    shapes_vary: bool = False
    """Whether batches, or what the model makes of them, differ in shape."""


def fit(training: Training, trial: TrialSpec, context: Context) -> Generator[Measurement, None, None]:
    """Train to `trial.budget`, from the checkpoint if there is one; yield the whole curve (see `Task.run`).

    Raises:
        Left: if `context.must_leave` says so, after a checkpoint.
    """
    loop = _Loop(training, trial, context)
    loop.restore()
    try:
        yield from [Measurement.from_json(line) for line in loop.curve]
        for epoch in range(len(loop.curve) + 1, trial.budget + 1):
            measurement = loop.epoch(epoch)
            if epoch % context.checkpoint_every == 0 or epoch == trial.budget:
                loop.save()
            yield measurement
    finally:
        if context.checkpoints:
            context.checkpoints.wait()


def catch_out_of_memory(run: Iterator[Measurement]) -> Generator[Measurement, None, None]:
    """Pass measurements on, and turn any error about exhausted memory into one of our own.

    The new error is raised outside the handler, so that it holds no traceback and thereby no tensor of the trial.

    Raises:
        OutOfMemory: if memory ran out within an epoch.
    """
    epoch = 1
    try:
        for measurement in run:
            epoch = measurement.budget + 1
            yield measurement
        return
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        message = str(error).strip().splitlines()[0] if str(error).strip() else "out of memory"
    raise OutOfMemory(epoch, message)


def _is_out_of_memory(error: BaseException) -> bool:
    """Tell exhausted memory from other errors.

    CUDA's own error has a type; those of its libraries and of the CPU allocator are known by their text only.
    """
    known = ("out of memory", "not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(text in str(error) for text in known)


class _Loop:
    """A training in progress: the state that a checkpoint holds, and the steps that advance it."""

    def __init__(self, training: Training, trial: TrialSpec, context: Context) -> None:
        self.training, self.trial, self.context = training, trial, context
        self.recipe, self.ranks = training.recipe, context.ranks
        self.device = torch.device(context.ranks.device)
        self.step = 0
        self.within: Within | None = None
        """Part of the next epoch that the checkpoint was written after."""
        self.pauses = Pauses(context)
        self.curve: list[dict[str, Any]] = []
        steps = training.num_images // self.recipe.batch_size
        self.total = steps * trial.budget
        self.warmup = round(self.recipe.warmup_epochs * steps)
        own_schedule = OPTIMIZERS[trial.cell.optimizer].schedule == "own"
        self.min_lr_ratio = 1.0 if own_schedule else self.recipe.min_lr_ratio
        self.falls = () if own_schedule else tuple(epoch * steps for epoch in self.recipe.lr_steps)
        _require_schedule(self.recipe, trial.budget)
        prepare(self.device, self.recipe, shapes_vary=training.shapes_vary)
        self.peaks = [group["lr"] for group in training.optimizer.param_groups]
        self.parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.recipe.precision == "fp16")
        self.ema = _average(training.model, self.recipe)
        self.forward = self._wrap(training.model)
        seed_all(derive_seed(trial.seed, "noise", self.ranks.rank))
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def _wrap(self, model: nn.Module) -> nn.Module:
        if self.recipe.compile:
            model.compile(mode=self.recipe.compile_mode)  # in place: parameters keep their names
        if self.ranks.world_size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)

    def epoch(self, epoch: int) -> Measurement:
        """Train and validate one epoch.

        Raises:
            Diverged: on all ranks together, if a loss or the parameters are no longer finite.
        """
        started = time.perf_counter() - (self.within.seconds if self.within else 0.0)
        train_loss, trained_s = self._train(epoch, started)
        self._move_to_average(epoch)
        self._share_buffers()
        metrics = self.training.evaluate(
            self.ema.module if self.ema else self.training.model, epoch == self.trial.budget
        )
        val_loss = metrics.get("val_loss", 0.0)
        if not math.isfinite(val_loss):
            raise Diverged(epoch, f"validation loss is {val_loss} in epoch {epoch}")
        own = [trained_s, time.perf_counter() - started, peak_memory_gib(self.device)]
        trained_s, seconds, memory = all_reduce(own, "max", self.ranks)
        images = self.recipe.batch_size * (self.training.num_images // self.recipe.batch_size)
        metrics |= {
            "train_loss": train_loss,
            "lr": self._lr_factor(self.step - 1) * max(self.peaks),  # of the last layer, if layers decay
            "images_per_s": images / trained_s,
            "seconds": seconds,
            "peak_memory_gib": memory,
            "optimizer_state_mib": state_mib(self.training.optimizer),
            "world_size": self.ranks.world_size,
        }
        elapsed_s = seconds + (self.curve[-1]["elapsed_s"] if self.curve else 0.0)
        measurement = Measurement(budget=epoch, metrics=metrics, elapsed_s=elapsed_s)
        self.curve.append(measurement.to_json())
        return measurement

    def _train(self, epoch: int, started: float) -> tuple[float, float]:
        """Train one epoch, or what is left of it; return the mean training loss and the seconds that this rank took."""
        plan, within, self.within = self._plan(epoch), self.within, None
        done_before = within.steps if within else 0
        batches = self.training.batches(
            [piece for step in plan[done_before:] for piece in step],
            derive_seed(self.trial.seed, "augment", epoch),
            sum(len(step) for step in plan[:done_before]),
        )
        shares = [len(piece) / sum(map(len, plan[0])) for piece in plan[0]]
        look_every = max(FEWEST_STEPS_PER_LOOK, len(plan) // LOOKS_PER_EPOCH)
        total = within.loss.to(self.device) if within else torch.zeros((), device=self.device)
        self.forward.train()
        if isinstance(self.training.optimizer, Averaging):
            self.training.optimizer.train()
        for done in range(done_before + 1, len(plan) + 1):
            total += self._optimizer_step(batches, shares)
            if done % look_every == 0:
                self._mean(total, done, epoch)
            if done < len(plan) and (pause := self.pauses.after_step()):
                self._pause(pause, Within(steps=done, loss=total, seconds=time.perf_counter() - started))
        mean = self._mean(total, len(plan), epoch)
        self._require_finite_parameters(epoch)
        return mean, time.perf_counter() - started

    def _pause(self, pause: Pause, within: Within) -> None:
        """Save a checkpoint within an epoch.

        Raises:
            Left: on all ranks together, if it was the last thing to do here.
        """
        self.save(within)
        if pause == Pause.leave:
            assert self.context.checkpoints is not None
            self.context.checkpoints.wait()
            raise Left

    def _plan(self, epoch: int) -> list[list[Tensor]]:
        order = repeated(epoch_order(self.training.num_images, self.trial.seed, epoch), self.recipe)
        return epoch_plan(order, self.recipe, self.ranks, self.context.micro_batch_divisor)

    def _optimizer_step(self, batches: Iterator[Batch], shares: Sequence[float]) -> Tensor:
        """Take one step over its micro-batches, each weighted by its share of the images.

        Returns the mean loss, a scalar that stays on the device.
        """
        optimizer, factor = self.training.optimizer, self._lr_factor(self.step)
        for group, peak in zip(optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        total = torch.zeros((), device=self.device)
        for piece, share in enumerate(shares, start=1):
            with record_function("data"):
                batch = next(batches)
            with self._gradients_stay_local(piece < len(shares)):
                with record_function("forward"), autocast(self.device, self.recipe):
                    loss = self.training.loss(self.forward, batch) * share
                with record_function("backward"):
                    self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        with record_function("optimizer"):
            self._clip()
            self._observe_curvature(batch)
            self.scaler.step(optimizer)
            self.scaler.update()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.ema:
            # without a step the decay is constant; with one, timm's first average is the first weights
            self.ema.update(self.training.model, step=self.step if self.recipe.ema_warmup else None)
        self.context.after_step()
        return total

    def _lr_factor(self, step: int) -> float:
        return lr_factor(step, total=self.total, warmup=self.warmup, min_ratio=self.min_lr_ratio, falls=self.falls)

    def _observe_curvature(self, batch: Batch) -> None:
        """Give a second-order optimizer the estimate it is due: from one micro-batch per rank, in full precision."""
        optimizer = self.training.optimizer
        if not isinstance(optimizer, SecondOrder) or not optimizer.curvature_due:
            return
        # compiled models have no second derivatives
        eager = torch.compiler.set_stance("force_eager") if self.recipe.compile else contextlib.nullcontext()
        with eager:
            estimate = hutchinson(lambda: self.training.loss(self.training.model, batch), self.parameters)
        optimizer.observe(average(estimate, self.ranks))

    def _move_to_average(self, epoch: int) -> None:
        """Move an averaging optimizer to its average, at which it is validated and saved.

        BatchNorm has seen no batch at these weights yet, so its statistics are estimated again.
        """
        if not isinstance(self.training.optimizer, Averaging):
            return
        self.training.optimizer.eval()
        plan = self._plan(epoch)[:STEPS_TO_RENORM]
        seed = derive_seed(self.trial.seed, "renorm", epoch)
        batches = self.training.batches([piece for step in plan for piece in step], seed)
        with autocast(self.device, self.recipe):
            update_bn(zip(batches, strict=True), _WithLoss(self.training))  # of a tuple it takes the first

    def _gradients_stay_local(self, local: bool) -> contextlib.AbstractContextManager[None]:
        if local and isinstance(self.forward, DistributedDataParallel):
            return self.forward.no_sync()
        return contextlib.nullcontext()

    def _clip(self) -> None:
        if self.recipe.clip_grad:
            self.scaler.unscale_(self.training.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_grad)

    def _mean(self, total: Tensor, steps: int, epoch: int) -> float:
        """Compute the mean loss so far over all ranks.

        Raises:
            Diverged: on every rank, if one step on any of them was not finite.
        """
        with record_function("wait"):
            (mean,) = all_reduce([total.item() / steps / self.ranks.world_size], "sum", self.ranks)
        if not math.isfinite(mean):
            raise Diverged(epoch, f"training loss became {mean} by step {self.step} in epoch {epoch}")
        return mean

    def _require_finite_parameters(self, epoch: int) -> None:
        """Check the norm of the parameters; ranks hold the same ones, so they agree without communication.

        Raises:
            Diverged: if the norm is not finite.
        """
        with torch.no_grad():
            norm = nn.utils.get_total_norm(self.parameters).item()
        if not math.isfinite(norm):
            raise Diverged(epoch, f"the norm of the parameters is {norm} after epoch {epoch}")

    def _share_buffers(self) -> None:
        broadcast_buffers(self.training.model, self.ranks)
        if self.ema:
            broadcast_buffers(self.ema.module, self.ranks)

    def save(self, within: Within | None = None) -> None:
        """Save a checkpoint. Every rank takes part; rank 0 writes."""
        if self.context.checkpoints is None:
            return
        own = {"rng": rng_state(self.device), "loss": within.loss.item() if within else 0.0}
        ranks = gather_objects(own, self.ranks)
        if self.ranks.rank == 0:
            part = {"within": within.to_state() | {"losses": [rank["loss"] for rank in ranks]}} if within else {}
            self.context.checkpoints.save(self._state() | {"rng": [rank["rng"] for rank in ranks]} | part)
        self.pauses.saved()

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.training.model.state_dict(),
            "optimizer": self.training.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "step": self.step,
            "curve": self.curve,
        }

    def restore(self) -> None:
        """Return to the checkpoint, if there is one; every rank reads it."""
        state = self.context.checkpoints.load() if self.context.checkpoints else None
        require_same(state["step"] if state else 0, "step of the checkpoint", self.ranks)
        if state is None:
            return
        self.training.model.load_state_dict(state["model"])
        self.training.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        self.step, self.curve = state["step"], state["curve"]
        if part := state.get("within"):
            loss = torch.tensor(part["losses"][self.ranks.rank])
            self.within = Within(steps=part["steps"], loss=loss, seconds=part["seconds"])
        set_rng_state(state["rng"][self.ranks.rank], self.device)


def _average(model: nn.Module, recipe: Recipe) -> ModelEmaV3 | None:
    if not recipe.ema_decay:
        return None
    return ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=recipe.ema_warmup)


class _WithLoss(nn.Module):
    """A model and its loss as one module of a micro-batch, for what knows no more of a batch."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.model, self._loss = training.model, training.loss

    def forward(self, batch: Batch) -> Tensor:
        return self._loss(self.model, batch)


def _require_schedule(recipe: Recipe, budget: int) -> None:
    for name, value in (("warmup_epochs", recipe.warmup_epochs), ("lr_steps", max(recipe.lr_steps, default=0))):
        if value >= budget:
            raise ValueError(f"recipe field {name!r} is {value:g}; it must be below the budget of {budget} epochs")
