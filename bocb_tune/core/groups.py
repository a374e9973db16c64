"""Shape of a worker group: what each rank takes, and the labels of the nodes it may be on. No Ray."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:[A-Za-z0-9.-]{{1,253}}/)?{_WORD}")
_VALUE = re.compile(rf"!?(?:{_WORD}|in\({_WORD}(?:, ?{_WORD})*\))")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupShape:
    """Resources of a worker group, which trains one trial at a time."""

    workers: int = 1
    """Ranks of data-parallel training."""
    cpus_per_worker: float = 1
    gpus_per_worker: float = 0.0
    labels: tuple[tuple[str, str], ...] = ()
    """Labels that the nodes of its ranks must have, in Ray's spelling of a selector: `a`, `!a`, `in(a, b)`."""

    @property
    def needs(self) -> dict[str, float]:
        """Resources of the whole group by Ray's names."""
        return {"CPU": self.workers * self.cpus_per_worker, "GPU": self.workers * self.gpus_per_worker}

    def __str__(self) -> str:
        each = f"{self.cpus_per_worker:g} CPU" + (f" and {self.gpus_per_worker:g} GPU" if self.gpus_per_worker else "")
        on = f" on nodes with {labels_text(self.labels)}" if self.labels else ""
        return f"{self.workers} worker(s) of {each}{on}"


def labels_text(labels: Iterable[tuple[str, str]]) -> str:
    """Write labels as `ray start --labels` takes them."""
    return ", ".join(f"{key}={value}" for key, value in labels)


def label_fault(key: str, value: str) -> str:
    """Say what is wrong with the form of a label that is asked for; empty if nothing is.

    The form is that of Ray, and of Kubernetes' selectors.
    """
    if not _KEY.fullmatch(key):
        return (
            f"{key!r} is no name of a label: letters, digits, dots, hyphens and underscores, such as gpu or ray.io/zone"
        )
    if not _VALUE.fullmatch(value):
        return f"{value!r} is no value of a label: write one as a100, others than it as !a100, or in(a100, h100)"
    return ""


def has_labels(node: Mapping[str, str], asked: Iterable[tuple[str, str]]) -> bool:
    """Tell whether a node has the labels that are asked for; one that lacks a label has a value other than any."""
    return all(_accepts(value, node.get(key)) for key, value in asked)


def _accepts(asked: str, value: str | None) -> bool:
    wanted = asked.removeprefix("!")
    values = [each.strip() for each in wanted[3:-1].split(",")] if wanted.startswith("in(") else [wanted]
    return (value in values) != asked.startswith("!")


def nearest_labels(asked: Iterable[tuple[str, str]], nodes: Iterable[Mapping[str, str]]) -> list[str]:
    """List the labels that nodes have, those most like what is asked for first, as `key=value`."""
    there = dict.fromkeys(f"{key}={value}" for node in nodes for key, value in node.items() if key != "ray.io/node-id")
    near = [like for key, value in asked for like in get_close_matches(f"{key}={value}", there, n=3, cutoff=0.4)]
    same_key = [label for label in there if label.partition("=")[0] in dict(asked)]
    return list(dict.fromkeys([*same_key, *near, *there]))
