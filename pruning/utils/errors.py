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


def one_line(error: BaseException, limit: int = 200) -> str:
    """The first line of what a library's ``error`` says, or the name of its class, to be put into
    a sentence: without the stop at its end, of ``limit`` characters at most."""
    text = str(error).strip() or type(error).__name__
    return shortened(text.splitlines()[0], limit).rstrip(".")


def described(error: BaseException, limit: int = 160) -> str:
    """The class of an unforeseen ``error`` and, where it says something, its first line."""
    name, line = type(error).__name__, one_line(error, limit)
    return name if line == name else f"{name}: {line}"


def shortened(text: str, limit: int) -> str:
    """``text``, with an ellipsis at its end where it is longer than ``limit`` characters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
