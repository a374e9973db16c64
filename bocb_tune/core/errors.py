"""Ends of a trial before its budget that are no faults of the program."""


class _TrialEnded(Exception):
    """A trial ended before its budget for a reason that is an outcome of its own."""

    def __init__(self, budget: int, message: str) -> None:
        super().__init__(budget, message)
        self.budget = budget
        """The epoch, counted from 1, within which it ended."""
        self.message = message

    def __str__(self) -> str:
        return self.message


class Diverged(_TrialEnded):
    """Loss or parameters became non-finite: a result, never an error. Raised by all ranks together."""


class Left(Exception):
    """A trial was left after a checkpoint, since a process of it is about to be ended. Raised by all ranks together."""


class OutOfMemory(_TrialEnded):
    """The device, or the machine, had no memory left for the trial."""
