"""Parts of an optimizer step: a trace of some steps of a trial, and a line for each part of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, schedule

SKIPPED = 5
"""Steps before the traced ones: kernels are chosen and memory is taken in the first few."""
TRACED = 10
PARTS = {
    "data": "waiting for a batch, augmenting it and bringing it to the device",
    "forward": "forward pass and loss",
    "backward": "backward pass, and exchange of gradients between ranks",
    "optimizer": "clipping, the optimizer's step, and what it needs besides gradients",
    "wait": "looks at the loss, which wait for the device",
}
"""Parts that the training loop tells apart, by the names in the trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPart:
    """Time that a part of the steps took, in milliseconds a step."""

    name: str
    host_ms: float
    """Time of the Python process: on a GPU it enqueues work, and runs ahead."""
    device_ms: float | None
    """Time of kernels it started; None on a CPU, where the two are one."""


class StepTrace:
    """Traces some steps of a trial: hand `after_step` to the trial's context, and leave when it is done."""

    def __init__(self, device: str) -> None:
        kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device != "cpu")
        self._on_gpu = device != "cpu"
        self._done = 0
        plan = schedule(skip_first=SKIPPED, wait=0, warmup=1, active=TRACED, repeat=1)
        self._profile = profile(activities=kinds, schedule=plan)
        self._profile.start()

    def after_step(self) -> None:
        """Count a step."""
        self._done += 1
        if self._done <= SKIPPED + 1 + TRACED:
            self._profile.step()

    def close(self, path: Path) -> list[StepPart]:
        """Write the trace, for chrome://tracing or Perfetto; give what the parts took.

        Raises:
            ValueError: if the trial had too few steps.
        """
        self._profile.stop()
        if self._done < SKIPPED + 1 + TRACED:
            raise ValueError(
                f"--profile traces {TRACED} steps after the first {SKIPPED + 1}, and this trial had {self._done}; "
                "give it more epochs (--set budget.epochs=3) or a smaller recipe.batch_size"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self._profile.export_chrome_trace(str(path))
        return list(self._parts())

    def _parts(self) -> Iterator[StepPart]:
        found = {event.key: event for event in self._profile.key_averages() if event.key in PARTS}
        for name in PARTS:
            if name in found:
                host = found[name].cpu_time_total / 1e3 / TRACED
                device = found[name].device_time_total / 1e3 / TRACED if self._on_gpu else None
                yield StepPart(name=name, host_ms=host, device_ms=device)


def part_lines(parts: list[StepPart]) -> list[str]:
    """Say what the parts took, one line each."""
    total = sum(part.host_ms for part in parts)
    return [
        f"{part.name:<10}{part.host_ms:9.2f} ms a step {part.host_ms / total:6.1%}"
        + ("" if part.device_ms is None else f"   on the device {part.device_ms:9.2f} ms")
        + f"   {PARTS[part.name]}"
        for part in parts
    ]
