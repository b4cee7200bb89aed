"""Errors that reach a user: each carries one sentence that says what to do."""


class HeadroomError(Exception):
    """Base of every error whose message is meant for the user as it stands."""

    exit_code = 1


class UsageError(HeadroomError):
    """The request itself is wrong (unknown name, value out of range); exit code 2."""

    exit_code = 2


class NeedsMeasurement(UsageError):
    """A criterion or allocation uses statistics that this measurement was made without.

    ``title``: what asks for them; ``what``: the pass that gives them.
    """

    def __init__(self, title: str, what: str = "a gradient pass", option: str = "--gradients"):
        super().__init__(
            f"{title} needs {what}; measure again with {option}, or with a recipe that asks for it."
        )
        self.title, self.what = title, what


class Unsupported(HeadroomError):
    """The model is well formed but of a kind that cannot be pruned here."""


class SourceError(HeadroomError):
    """A model, corpus or file could not be read (absent, corrupt, no network)."""


class BrokenExtension(HeadroomError):
    """A file or package that adds to Headroom cannot be used (it fails, or its name is taken)."""


class OutOfMemory(HeadroomError):
    """The work does not fit into the device's memory."""


class Cancelled(HeadroomError):
    """The caller's ``should_cancel`` said yes; nothing was changed."""
