"""Objects of the user's own, named as "package.module:name" in a recipe or on the command line; lighter imports."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from limbeck.errors import RequestError, shown, unknown


def load_object(name: str, kind: str) -> Any:
    """Import "package.module:name"; the current folder is searched too.

    Args:
        name: Module path and object name with a colon between.
        kind: What it should be, for the error.

    Raises:
        RequestError: The module cannot be imported, or has no such name.
    """
    # pkgutil.resolve_name refuses files such as my-nets.py, and does not tell a name that is missing from an
    # AttributeError of the module itself.
    module_path, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_path)
    except (Exception, SystemExit) as error:  # a script that was not meant to be imported may end
        raise RequestError(f"{kind} {shown(name)}: cannot import {shown(module_path)}: {error}") from error
    if not hasattr(module, attribute):
        raise unknown(f"name in {module_path}", attribute, [n for n in vars(module) if not n.startswith("_")])
    return getattr(module, attribute)


@contextmanager
def standing_in(name: str, **attributes: Any) -> Iterator[None]:
    """Inside, importing a module gives these attributes and nothing else, where it is not imported yet."""
    if name in sys.modules:
        yield
        return
    stand_in = ModuleType(name)
    stand_in.__spec__ = ModuleSpec(name, None)
    vars(stand_in).update(attributes)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


@contextmanager
def version_alone(package: str) -> Iterator[None]:
    """Inside, importing an installed package gives its version and nothing else, where it is not imported yet.

    For what asks a heavy package for its version while it is imported itself.
    """
    if package in sys.modules:
        yield
        return
    try:
        found = version(package)
    except PackageNotFoundError:
        yield
        return
    with standing_in(package, __version__=found):
        yield
