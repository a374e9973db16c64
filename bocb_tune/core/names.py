"""How names are told to a user: one that is not in a table beside its nearest neighbour, many as the first few."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def unknown(kind: str, name: str, choices: Iterable[str], limit: int = 12) -> ValueError:
    """The error for `name` not being one of `choices`; lists them all where there are at most `limit`."""
    known = sorted(choices)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(known[:limit]) + (f", ... ({len(known)} in all)" if len(known) > limit else "")
    return ValueError(f"unknown {kind} {name!r}{hint} (known: {listed})")


def listed(names: Sequence[str], most: int) -> str:
    """The first `most` of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
