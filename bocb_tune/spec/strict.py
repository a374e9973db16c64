"""Strict models of the files users write, on pydantic, and pydantic's errors in our words and places."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from bocb_tune.core.names import listed, nearest, unknown
from bocb_tune.spec.source import Location, dotted


class StrictModel(BaseModel):
    """A mapping in a file: nothing converted silently, nothing unknown accepted."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


def type_errors(model: type[StrictModel], value: Any) -> list[ErrorDetails]:
    """List everything that keeps the value from being a `model`."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        return [each for each in found if each["type"] != "too_short" or not _has_faults_within(each["loc"], found)]
    return []


def _has_faults_within(at: Location, errors: list[ErrorDetails]) -> bool:
    """Tell whether what is in a list is wrong, so that the list only seems to be empty."""
    return any(len(each["loc"]) > len(at) and each["loc"][: len(at)] == at for each in errors)


def explain(model: type[StrictModel], detail: ErrorDetails) -> str:
    """Say what is wrong, the value, and the nearest valid choice."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return str(_unknown_key(model, detail["loc"]))
    if kind in ("model_type", "model_attributes_type"):
        return f"must be {_mapping_at(model, detail['loc'])}, not {_shown(value)}"
    if kind == "string_too_long":
        return f"has {len(value)} characters; at most {context['max_length']} are taken"
    if kind == "literal_error":
        return str(unknown("choice", str(value), _choices(context["expected"])))
    if kind == "value_error":
        return str(context["error"])
    if kind in _MESSAGES:
        return _MESSAGES[kind].format(value=_shown(value)) + _way_out(kind, value)
    return f"{detail['msg'].replace('Input should be', 'must be')}, not {_shown(value)}"


_MESSAGES = {
    "missing": "is required and missing",
    "invalid_key": "keys must be words, not {value}",
    "string_pattern_mismatch": "must be letters, digits, dots, underscores and hyphens, not {value}",
    "string_too_short": "is empty",
    "too_short": "is empty; name at least one",
    "dict_type": "must be a mapping, not {value}",
    "tuple_type": "must be a list, not {value}",
    "string_type": "must be a word, not {value}",
    "int_type": "must be a whole number, not {value}",
    "float_type": "must be a number, not {value}",
    "finite_number": "must be a finite number, not {value}",
    "bool_type": "must be true or false, not {value}",
}


def _shown(value: Any) -> str:
    """Write a value, cut short where it is long."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


MOST_SHOWN = 200
"""Characters of a value that a message repeats."""


def _way_out(kind: str, value: Any) -> str:
    """Say how to write a value that is nearly right; empty for others."""
    if kind == "tuple_type" and isinstance(value, str):
        return f"; write [{value}]"
    if kind == "string_type" and isinstance(value, int | float):
        return "; put it in quotes"
    if kind in ("int_type", "float_type") and isinstance(value, str):
        return _as_number(value)
    return ""


def _as_number(text: str) -> str:
    """Say how to write the number that a text holds; empty where it holds none."""
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        return ""
    return f"; write {number / 100:g}" if text.endswith("%") else "; leave out the quotes"


def _unknown_key(model: type[StrictModel], at: Location) -> ValueError:
    """Make the error for an unknown key, which may belong to another mapping of the file."""
    name, known = str(at[-1]), keys_at(model, at[:-1])
    if name == "name" and "base" in known:
        return unknown("key", name, known, hint="did you mean 'base'?")
    others = sorted((place for place in _places(model) if place[:-1] != at[:-1]), key=len)
    meant = [place for place in others if place[-1] == name]
    if not meant and nearest(name, known) is None:
        meant = [place for place in others if str(place[-1]).startswith(name)]
    return unknown("key", name, known, hint=_belongs(meant[0]) if meant else "")


def _belongs(at: Location) -> str:
    return f"did you mean {dotted(at)!r}?" if len(at) > 1 else f"{at[0]!r} belongs at the top of the file"


CHOSEN = {"search_spaces": "OPTIMIZER", "by_backbone": "BACKBONE"}
"""Kind of name that the keys of a mapping are, by its own key."""


def _places(model: type[BaseModel], at: Location = ()) -> Iterator[Location]:
    """Yield the place of every key of a model; a word in capitals stands for names that the user chooses."""
    for name, field in model.model_fields.items():
        here = _inner(field.annotation)
        yield (*at, name)
        if isinstance(here, type) and issubclass(here, BaseModel):
            yield from _places(here, (*at, name))
        elif (shape := _inner((get_args(here) or (None,))[-1])) and isinstance(shape, type):
            yield from _places(shape, (*at, name, CHOSEN.get(name, "NAME"))) if issubclass(shape, BaseModel) else ()


def _mapping_at(model: type[StrictModel], at: Location) -> str:
    """Describe the mapping that belongs at a place: its keys, and what else is taken there."""
    shape = _shape_at(model, at)
    keys = f"a mapping (of {listed(list(shape.model_fields), MOST_KEYS)})"
    name = "a name, or " * hasattr(shape, "_bare_name")
    return f"{name}{keys}{' or null' * _may_be_none(model, at)}"


MOST_KEYS = 6
"""Keys of a mapping that a message names."""


def _may_be_none(model: type[StrictModel], at: Location) -> bool:
    holder: Any = _shape_at(model, at[:-1])
    field = getattr(holder, "model_fields", {}).get(at[-1])
    return field is not None and type(None) in get_args(field.annotation)


def _choices(expected: str) -> list[str]:
    return [choice.strip("'") for choice in expected.replace(" or ", ", ").split(", ")]


def keys_at(model: type[StrictModel], at: Location) -> list[str]:
    """List the keys the model knows at a place within it."""
    return list(_shape_at(model, at).model_fields)


def _shape_at(model: type[StrictModel], at: Location) -> Any:
    """Return the type at a place within the model."""
    here: Any = model
    for part in at:
        fields = getattr(here, "model_fields", None)
        here = _inner(fields[part].annotation if fields else get_args(here)[-1])
    return here


def _inner(annotation: Any) -> Any:
    """Return the mapping type within an optional one."""
    inside = [arg for arg in get_args(annotation) if isinstance(arg, type) and issubclass(arg, BaseModel)]
    return inside[0] if inside and getattr(annotation, "__origin__", None) is not dict else annotation


def like(default: Any, value: Any) -> Any:
    """Return the value in its default's type: a whole number does for a number.

    Raises:
        ValueError: if it is of another type.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number, not {value}")
    if default is None:
        return value
    if isinstance(default, list) and isinstance(value, list) and len(default) == len(value):
        return [like(*pair) for pair in zip(default, value, strict=True)]
    if type(default) is float and type(value) is int:
        return float(value)
    if type(default) is type(value) and not isinstance(default, list):
        return value
    raise ValueError(f"must be like its default {default!r}, not {value!r}")
