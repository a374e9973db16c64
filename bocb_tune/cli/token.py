"""Token of this user for Ray clusters."""

from __future__ import annotations

import os
from pathlib import Path


def use_token() -> None:
    """Show clusters this user's token, if there is one; before Ray is imported.

    `ray start` asks for a token as soon as the user has one (the first local run of Ray makes one), but Ray shows it
    only when told to. A cluster that asks for none does not mind.
    """
    if (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
