"""YAML (and so JSON) that strangers send: plain values, bounded in every direction."""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode

from pruning.utils.errors import one_line, short_repr

LARGEST = 256 * 1024
"""Characters; a recipe needs a few hundred, one with marks in 200 blocks a hundred thousand."""

_DEEPEST, _NODES, _DIGITS = 20, 20_000, 40


class _Loader(yaml.SafeLoader):
    """Counts what it composes, aliases with all that they stand for; a key may come once."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Node | None:
        alias = self.check_event(AliasEvent)
        before, self._depth = self._count, self._depth + 1
        if self._depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not alias:
            self._count += 1
            self._sizes[id(node)] = self._count - before
        elif id(node) not in self._sizes:
            raise ValueError("it contains itself through an alias")
        else:
            self._count += self._sizes[id(node)]
        if self._count > _NODES:
            raise ValueError(f"it holds more than {_NODES} values")
        return node

    def compose_scalar_node(self, anchor: Any) -> ScalarNode:
        node = super().compose_scalar_node(anchor)
        if node.tag.endswith((":int", ":float")) and len(node.value) > _DIGITS:
            raise ValueError(f"it has a number of {len(node.value)} characters")
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise ValueError("a key in it is a list or a mapping")
            merges = key.tag == "tag:yaml.org,2002:merge"  # '<<'
            value = key.value if merges else self.construct_object(key)
            if value in seen:
                raise ValueError(
                    f"the key {short_repr(value, 40)} is there twice "
                    f"(again in line {key.start_mark.line + 1})"
                )
            seen.add(value)
        return node


# a date, 1:30 (90 in YAML 1.1) and 010 (8) are no numbers that anybody means: they stay text
_OURS = (":timestamp", ":int", ":float")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, found) for tag, found in pairs if not tag.endswith(_OURS)]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_INT = r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)$"
_FLOAT = (
    r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|\.[0-9]+([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))$"
)
for _tag, _pattern in (("int", _INT), ("float", _FLOAT), ("float", r"\.(nan|NaN|NAN)$")):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list("-+.0123456789")
    )


def parse(text: str) -> Any:
    """The plain value of one YAML document; raises ValueError with what is wrong, in one short
    line, in time that the size of ``text`` bounds."""
    if len(text) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 1024} KiB")
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        place = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise ValueError(f"{error.problem or one_line(error)}{place}") from None
    except ValueError:
        raise
    except Exception as error:  # tags on the wrong values raise many kinds
        raise ValueError(one_line(error)) from None
    finally:
        if loader is not None:
            loader.dispose()
