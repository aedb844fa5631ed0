"""YAML as settings need it: one document of plain values, bounded in size, depth and what its aliases unfold to.

YAML can do more than settings need: dates, sets and objects by tags, and aliases by which 300 bytes become a list of
10^9 items. All of that is refused in one line.
"""

from typing import Any

import yaml

LARGEST = 1 << 18
"""Characters of a text."""
DEEPEST = 24
MOST = 20_000
"""Values of a text, each counted as often as aliases repeat it."""

TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}


class _Loader(yaml.SafeLoader):
    """Without dates (2024-01-01 is text) and without tags of other types."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in TAGS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse_yaml(text: str) -> Any:
    """The value of a YAML text: nested dicts with text as keys, lists, text, numbers, truth values and None.

    Raises `ValueError`, with the reason in one line, for anything else.
    """
    if len(text) > LARGEST:
        raise ValueError(f"over {LARGEST >> 10} KiB")
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        value = loader.construct_document(node)
        _check(value)
        return value
    except Exception as error:  # beside YAMLError, what Python raises for a bad int, date or key
        raise ValueError(" ".join(str(error).split())[:300] or type(error).__name__) from None
    finally:
        if loader is not None:
            loader.dispose()


def _count(node: yaml.Node, known: dict[int, int], inside: tuple[int, ...] = ()) -> int:
    """Values below a node, aliases unfolded. Raises `ValueError` for too many, and for a node within itself."""
    if id(node) in inside:
        raise ValueError("an alias refers to what it stands in")
    if node.tag not in TAGS:
        raise ValueError(f"the tag {node.tag!r}; settings are text, numbers, lists and mappings")
    if id(node) not in known:
        below = []
        if isinstance(node, yaml.SequenceNode):
            below = node.value
        elif isinstance(node, yaml.MappingNode):
            below = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_count(part, known, (*inside, id(node))) for part in below)
        if known[id(node)] > MOST:
            raise ValueError(f"more than {MOST} values")
    return known[id(node)]


def _check(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"the name {key!r}; names of settings are text")
            _check(key)
            _check(item)
    elif isinstance(value, list):
        for item in value:
            _check(item)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"text with half a surrogate pair, {value[:40]!a}") from None
    elif isinstance(value, int) and abs(value) >= 1 << 63:
        raise ValueError(f"a number beyond 2^63, {str(value)[:20]}...")
