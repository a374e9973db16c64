"""Names in messages: the nearest match of an unknown one, long lists cut short, and no power over the terminal."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


def unknown(kind: str, name: str, choices: Iterable[str], limit: int = 12, hint: str = "") -> ValueError:
    """Make the error for `name` not being one of `choices`; it lists them all where there are at most `limit`.

    Args:
        hint: what to do instead; by default the nearest of the choices is named.
    """
    known = sorted(choices)
    near = nearest(name, known)
    told = f"; {hint}" if hint else f"; did you mean {near!r}?" if near else ""
    listed = ", ".join(known[:limit]) + (f", ... ({len(known)} in all)" if len(known) > limit else "")
    return ValueError(f"unknown {kind} {name!r}{told} (known: {listed})")


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Find the choice a user most likely meant by `name`, or None.

    In this order: the same letters and digits whatever their case and separators, the shortest choice that begins with
    them, the initials of a choice's words (`bs` for `batch_size`), the most similar spelling.
    """
    known = list(choices)
    key = _letters(name)
    same = [choice for choice in known if key and _letters(choice) == key]
    longer = sorted((choice for choice in known if key and _letters(choice).startswith(key)), key=len)
    initials = [choice for choice in known if key and "".join(re.findall(r"(?:\b|_)([a-z])", choice.lower())) == key]
    by_key = {choice.lower(): choice for choice in reversed(known)}
    similar = [by_key[close] for close in difflib.get_close_matches(name.lower(), by_key, n=1, cutoff=0.5)]
    return next(iter([*same, *longer, *initials, *similar]), None)


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


_CONTROLS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Sequences that move or colour a terminal's text, and control characters but for tab and line end."""


def plain(text: str) -> str:
    """Strip a text that others wrote of all that a terminal would obey instead of show."""
    return _CONTROLS.sub("", text)


def listed(names: Sequence[str], most: int) -> str:
    """Join the first `most` of the names, and say how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
