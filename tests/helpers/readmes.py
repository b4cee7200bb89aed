"""What the READMEs tell a reader to type."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import ROOT

README = ROOT / "README.md"
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after the fence and what is inside."""

    words: str
    text: str


def blocks(path: Path) -> list[Block]:
    return [Block(*match.groups()) for match in _FENCE.finditer(path.read_text(encoding="utf-8"))]


def command_lines(path: Path) -> list[list[str]]:
    """The words of every line of the blocks that have no language."""
    lines = (line for block in blocks(path) if not block.words for line in block.text.splitlines())
    return [words for line in lines if (words := shlex.split(line, comments=True))]
