"""The public names: the same to an editor, to ``dir`` and when they are used."""

from __future__ import annotations

import ast
from pathlib import Path

import pruning


def test_editors_see_the_names_that_the_package_gives():
    tree = ast.parse(Path(pruning.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in block.body for alias in node.names}
    assert seen == set(pruning.__all__) and {*pruning.__all__, "__version__"} == set(dir(pruning))


def test_every_public_name_is_documented():
    assert [name for name in pruning.__all__ if not getattr(pruning, name).__doc__] == []
