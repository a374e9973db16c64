"""Strict models of the files users write, on pydantic, and pydantic's errors in our words and places."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from bocb_tune.core.names import unknown
from bocb_tune.spec.source import Location


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
        return error.errors(include_url=False)
    return []


def explain(model: type[StrictModel], detail: ErrorDetails) -> str:
    """Say what is wrong, the value, and the nearest valid choice."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return str(unknown("key", str(detail["loc"][-1]), keys_at(model, detail["loc"][:-1])))
    if kind == "literal_error":
        return str(unknown("choice", str(value), _choices(context["expected"])))
    if kind == "value_error":
        return str(context["error"])
    if kind in _MESSAGES:
        return _MESSAGES[kind].format(value=value)
    return f"{detail['msg'].replace('Input should be', 'must be')}, not {value!r}"


_MESSAGES = {
    "missing": "is required and missing",
    "invalid_key": "keys must be words, not {value!r}",
    "string_pattern_mismatch": "must be letters, digits, dots, underscores and hyphens, not {value!r}",
    "string_too_short": "is empty",
    "too_short": "is empty; name at least one",
    "model_type": "must be a mapping, not {value!r}",
    "model_attributes_type": "must be a mapping, not {value!r}",
    "dict_type": "must be a mapping, not {value!r}",
    "tuple_type": "must be a list, not {value!r}",
    "string_type": "must be a word, not {value!r}",
    "int_type": "must be a whole number, not {value!r}",
    "float_type": "must be a number, not {value!r}",
    "finite_number": "must be a finite number, not {value!r}",
    "bool_type": "must be true or false, not {value!r}",
}


def _choices(expected: str) -> list[str]:
    return [choice.strip("'") for choice in expected.replace(" or ", ", ").split(", ")]


def keys_at(model: type[StrictModel], at: Location) -> list[str]:
    """List the keys the model knows at a place within it."""
    here: Any = model
    for part in at:
        fields = getattr(here, "model_fields", None)
        here = _inner(fields[part].annotation if fields else get_args(here)[-1])
    return list(here.model_fields)


def _inner(annotation: Any) -> Any:
    """Return the mapping type within an optional one."""
    inside = [arg for arg in get_args(annotation) if isinstance(arg, type) and issubclass(arg, BaseModel)]
    return inside[0] if inside and getattr(annotation, "__origin__", None) is not dict else annotation


def like(default: Any, value: Any) -> Any:
    """Return the value in its default's type: a whole number does for a number.

    Raises:
        ValueError: if it is of another type.
    """
    if default is None:
        return value
    if isinstance(default, list) and isinstance(value, list) and len(default) == len(value):
        return [like(*pair) for pair in zip(default, value, strict=True)]
    if type(default) is float and type(value) is int:
        return float(value)
    if type(default) is type(value) and not isinstance(default, list):
        return value
    raise ValueError(f"must be like its default {default!r}, not {value!r}")
