"""Errors that reach a user: each carries one sentence that says what to do."""

from __future__ import annotations

import reprlib
from typing import Any

LONGEST = 300
"""Characters of a sentence; what users give may be of any length."""


class HeadroomError(Exception):
    """Base of every error whose message is meant for the user as it stands: one line of at most
    ``longest`` characters, of which the middle goes first, for the advice stands at the end."""

    exit_code = 1
    longest = LONGEST

    def __init__(self, message: str = "") -> None:
        super().__init__(_sentence(str(message), self.longest))


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

    longest = 1200  # names the files of both, for whoever installed them


class OutOfMemory(HeadroomError):
    """The work does not fit into the device's memory."""


class Cancelled(HeadroomError):
    """The caller's ``should_cancel`` said yes; nothing was changed."""


def one_line(error: BaseException, limit: int = 200) -> str:
    """The first line of what a library's ``error`` says (with the next where it only announces
    that), or the name of its class, to be put into a sentence: without the stop at its end, of
    ``limit`` characters at most."""
    first, *others = (str(error).strip() or type(error).__name__).splitlines()
    if first.endswith(":") and others:
        first = f"{first} {others[0].strip()}"
    return shortened(first, limit).rstrip(".")


def described(error: BaseException, limit: int = 160) -> str:
    """The class of an unforeseen ``error`` and, where it says something, its first line."""
    name, line = type(error).__name__, one_line(error, limit)
    return name if line == name else f"{name}: {line}"


def shortened(text: str, limit: int) -> str:
    """``text``, with an ellipsis at its end where it is longer than ``limit`` characters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def short_repr(value: Any, limit: int = 80) -> str:
    """``repr`` in ``limit`` characters at most, in a time that does not grow with ``value``."""
    brief = reprlib.Repr()
    brief.maxlevel, brief.maxstring, brief.maxother = 3, limit, limit
    try:
        text = brief.repr(value)
    except ValueError:  # Python does not write out numbers of thousands of digits
        text = f"a very long {type(value).__name__}"
    return shortened(text, limit)


def _sentence(text: str, limit: int) -> str:
    """``text`` without what a terminal or a page could stumble over."""
    if len(text) > limit:
        end = limit // 2
        text = f"{text[: limit - end - 1]}…{text[-end:]}"
    if text.isprintable():
        return text
    shown = (letter if letter.isprintable() else _escaped(letter) for letter in text)
    return shortened("".join(shown), limit)


def _escaped(letter: str) -> str:
    return " " if letter.isspace() else letter.encode("unicode_escape").decode("ascii")
