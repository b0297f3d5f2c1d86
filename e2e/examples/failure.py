"""Failures of a run of the tutorials, apart from wrong answers."""


class CommandError(Exception):
    """A command did not do what its tutorial says."""
