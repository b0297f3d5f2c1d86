"""What a run of the tutorials can fail with, apart from wrong answers."""


class CommandError(Exception):
    """A command did not do what the text that it stands in says."""
