"""Worker groups: the mailbox, the group, and what its ranks do."""

MAX_ATTEMPTS = 3
"""Starts of one trial within a run before a crash is taken for its outcome."""
