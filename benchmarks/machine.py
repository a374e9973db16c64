"""What every benchmark prints beside its numbers: the machine, the versions, how many runs, and how far they spread."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bocb_tune.core.provenance import provenance


def machine() -> str:
    """CPU, cores, load over the last minute (another's work makes timings worthless), GPU if any, versions."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = ", ".join(f"{name} {version}" for name, version in provenance().items() if name != "host")
    return f"{_cpu()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}{gpu}; {versions}"


def _cpu() -> str:
    """Linux names the model in one place, and gives it no name in Python's `platform`."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def spread(values: Sequence[float], digits: int = 3) -> str:
    """`median (min-max)`."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the table of a benchmark, the machine under it. As wide as it needs to be, also in a file."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console = Console(width=140)
    console.print(table)
    console.print(machine(), highlight=False, soft_wrap=True)
