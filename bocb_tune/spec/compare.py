"""May an experiment go on in a run folder that another version of it began? One table says, field by field."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any


class Kind(StrEnum):
    """Meaning of a changed field for the trials that are there."""

    fixed = "fixed"
    """They would have come out differently: a new run folder is needed."""
    extends = "extends"
    """They stay as they are; more or fewer are owed."""
    free = "free"
    """Nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field that is not as it was."""

    field: str
    old: Any
    new: Any
    kind: Kind


Rule = Callable[[Any, Any], Kind]


def _is(kind: Kind) -> Rule:
    return lambda _old, _new: kind


def _if(extends: Callable[[Any, Any], bool]) -> Rule:
    return lambda old, new: Kind.extends if extends(old, new) else Kind.fixed


RULES: tuple[tuple[str, Rule], ...] = (
    ("name", _is(Kind.free)),
    ("storage", _is(Kind.free)),
    ("recipe.base", _is(Kind.free)),  # a name; the fields themselves are compared
    ("recipe.by_backbone.*.base", _is(Kind.free)),
    ("dataset.root", _is(Kind.free)),  # what the data are is compared by their fingerprint
    ("dataset.download", _is(Kind.free)),
    ("dataset.max_pixels", _is(Kind.free)),
    ("backbones", _is(Kind.extends)),
    ("pretrained.*", _is(Kind.extends)),  # what the weights are is compared by their digest
    ("optimizers", _is(Kind.extends)),
    ("budget.trials_per_cell", _is(Kind.extends)),
    ("budget.checkpoint_every", _is(Kind.free)),
    ("budget.checkpoint_every_s", _is(Kind.free)),
    ("search.design", _if(lambda old, new: new > old)),
    ("search.refine", _is(Kind.extends)),
    ("repeats.*", _is(Kind.extends)),
    ("resources.workers", _is(Kind.fixed)),
    ("resources.by_backbone.*.workers", _is(Kind.fixed)),
    ("resources.*", _is(Kind.free)),
    ("search_spaces.*.own*", _is(Kind.extends)),  # refine trials stay; those out of range are not learnt from
    ("search_spaces.*.low", _if(lambda old, new: new < old)),
    ("search_spaces.*.high", _if(lambda old, new: new > old)),
    ("search_spaces.*.weight_decay.zero", _if(lambda _old, new: new > 0)),
    ("*", _is(Kind.fixed)),
)
"""Meaning of a change from old to new, by dotted field; the first that matches counts."""


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """List the fields in which two resolved experiments differ, ignoring entries of optimizers or backbones that only
    one has.
    """
    common = {*old["optimizers"], *old["backbones"]} & {*new["optimizers"], *new["backbones"]}
    old, new = _only(old, common), _only(new, common)
    if own := old["resources"]["by_backbone"].keys() | new["resources"]["by_backbone"].keys():
        old, new = (_with_groups(spec, own, common & {*spec["backbones"]}) for spec in (old, new))
    return list(_differences(old, new))


def _only(spec: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    own_recipes = {name: own for name, own in spec["recipe"]["by_backbone"].items() if name in names}
    spaces = {name: space for name, space in spec["search_spaces"].items() if name in names}
    own_groups = {name: own for name, own in spec["resources"]["by_backbone"].items() if name in names}
    return {
        **spec,
        "recipe": {**spec["recipe"], "by_backbone": own_recipes},
        "resources": {**spec["resources"], "by_backbone": own_groups},
        "search_spaces": spaces,
    }


def _with_groups(spec: dict[str, Any], own: Set[str], backbones: Set[str]) -> dict[str, Any]:
    """Give those backbones resources of their own that have some in either experiment; what none takes is left out."""
    resources = dict(spec["resources"])
    usual = {key: resources[key] for key in ("workers", "gpus_per_worker", "cpus_per_worker", "labels")}
    resources["by_backbone"] = {name: resources["by_backbone"].get(name, usual) for name in own}
    if not backbones - own:
        del resources["workers"]
    return {**spec, "resources": resources}


def _differences(old: Any, new: Any, field: str = "") -> Iterator[Difference]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{field}.{key}".removeprefix("."))
    elif old != new:
        rule = next(rule for pattern, rule in RULES if fnmatchcase(field, pattern))
        yield Difference(field=field, old=old, new=new, kind=rule(old, new))


def refusal(differences: Sequence[Difference], folder: str) -> str | None:
    """Say why the run folder cannot take the changed experiment; None if it can."""
    fixed = [change for change in differences if change.kind is Kind.fixed]
    if not fixed:
        return None
    listing = "\n".join(f"  {change.field}: {change.old!r} there, {change.new!r} here" for change in fixed)
    return (
        f"{folder} belongs to another experiment, which differs in what changes results:\n{listing}\n"
        "Give a new folder with --out, or another name. "
        "More trials, cells, repeats or wider ranges would extend the one that is there."
    )
