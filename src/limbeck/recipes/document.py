"""YAML as recipes have it: plain data of bounded size, which nothing in it can make into anything else."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from limbeck.errors import RequestError, shown

CHARACTERS = 100_000
"""A recipe's length at most: the longest packaged one has 2,200."""
VALUES, DEPTH, DIGITS = 100_000, 32, 100
"""Values that a recipe holds once its aliases are written out, how deep they are nested, digits of a number."""

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_PLAIN = {f"{_TAG}{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")} | {_MERGE}


class _Loader(yaml.SafeLoader):
    """Dates stay text: no key of a recipe holds one."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as yaml has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag in _PLAIN]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def parse(text: str, what: str) -> Any:
    """The data that a YAML text holds: mappings, lists, text, numbers, truth values and null.

    Args:
        text: The text.
        what: Whose it is, for the error.

    Raises:
        RequestError: It is not valid YAML; it holds a tag, a key twice, an anchor within itself, more than `VALUES`.
    """
    if len(text) > CHARACTERS:
        raise RequestError(f"{what} is longer than {CHARACTERS:,} characters, and no recipe is")
    deep = f"{what} nests its values too deeply; a recipe has at most {DEPTH} levels"
    if _brackets(text) > 3 * DEPTH:  # the scanner's time grows with the square of what is open
        raise RequestError(deep)
    try:
        return _data(_Loader(text), what)
    except RequestError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise RequestError(f"{what} is not valid YAML: {where}{error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # a number such as 0b_ is a ValueError
        raise RequestError(f"{what} is not valid YAML: {error}") from error
    except RecursionError:
        raise RequestError(deep) from None


def _data(loader: _Loader, what: str) -> Any:
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _Check(what).size(node)
        return _numbers(loader.construct_document(node))
    finally:
        loader.dispose()


def _brackets(text: str) -> int:
    """How many brackets and braces are open at once; those in quotes are counted too."""
    depth = [0, *accumulate(1 if c in "[{" else -1 for c in re.findall(r"[\[\]{}]", text))]
    return max(depth) - min(0, *depth)


class _Check:
    """Measures a tree of nodes before anything is made of it, each node once however often it is named."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.sizes: dict[int, tuple[int, int]] = {}
        self.inside: set[int] = set()

    def size(self, node: Node) -> tuple[int, int]:
        """The values that a node holds, itself counted, and its depth."""
        known = self.sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in self.inside:
            self._refuse(node, "an anchor stands within itself")
        self.inside.add(id(node))
        self._check(node)
        parts = [self.size(part) for part in _parts(node)]
        values, depth = 1 + sum(part[0] for part in parts), 1 + max((part[1] for part in parts), default=0)
        if depth > DEPTH:
            self._refuse(node, f"values are nested more than {DEPTH} levels deep")
        if values > VALUES:
            self._refuse(node, f"its aliases stand for more than {VALUES:,} values")
        self.inside.remove(id(node))
        self.sizes[id(node)] = values, depth
        return values, depth

    def _check(self, node: Node) -> None:
        if node.tag not in _PLAIN:
            self._refuse(node, f"the tag {shown(node.tag.replace(_TAG, '!!'))} has no place in a recipe; leave it out")
        if isinstance(node, ScalarNode) and node.tag in (f"{_TAG}int", f"{_TAG}float") and len(node.value) > DIGITS:
            self._refuse(node, f"a number has {len(node.value):,} digits; {DIGITS} are allowed")
        if isinstance(node, MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, ScalarNode) and key.tag != _MERGE]
            twice = next((key for key in keys if keys.count(key) > 1), None) if len(set(keys)) < len(keys) else None
            if twice is not None:
                self._refuse(node, f"the key {shown(twice)} stands twice in one mapping; leave one out")

    def _refuse(self, node: Node, reason: str) -> None:
        raise RequestError(f"{self.what}, line {node.start_mark.line + 1}: {reason}")


def _parts(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, SequenceNode) else []


def _numbers(value: Any) -> Any:
    """The value with numbers such as 1e-3 as numbers: YAML 1.1 takes them for text."""
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    if isinstance(value, str) and len(value) <= DIGITS and re.fullmatch(r"[+-]?[0-9]+e[+-]?[0-9]+", value):
        return float(value)
    return value
