"""Worker groups: the mailbox, the group, and the work of its ranks."""

MAX_ATTEMPTS = 3
"""Starts of one trial within a run before a crash is taken for its outcome."""
