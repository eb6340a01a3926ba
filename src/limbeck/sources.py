"""The source of the user's own modules: what trained weights depend on besides the recipe.

The imports are read from the source (ast) and not from `sys.modules`: what a process has imported depends on all that
it did before, and lacks what a function imports when it is called. Where such reading sees nothing, in a module that is
imported under a computed name, the objects help that were really made: their classes name the modules they come from.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import re
import secrets
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from torch import nn

_NAMED = re.compile(r"([^\W\d][\w.]*):[\w.]+")
_VERSIONED = {"limbeck", "torch"}
"""Known by their versions also where they are used from their source folders."""
_INSTALLED = {"site-packages", "dist-packages"}
_IMPORTERS = {"import_module", "__import__"}
_MAIN = "__main__"

_loaded: dict[str, tuple[object, bytes]] = {}
"""The source of modules as it was when this process used them first; an edit counts when they are imported anew."""
_unknown = secrets.token_bytes(16)


def own_code(names: Iterable[str] = (), networks: Iterable[nn.Module] = ()) -> str:
    """A digest of all modules of the user's own that are involved: neither Python's, nor installed ones.

    A package that is installed in editable mode is the user's own.

    Args:
        names: Objects as "package.module:name"; others count for nothing.
        networks: Networks that were made, whose classes and functions may come from further modules.
    """
    found = _found(names, networks)
    digest = hashlib.sha256()
    for name, content in sorted(found.items()):
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest() if found else ""


def own_modules(names: Iterable[str] = (), networks: Iterable[nn.Module] = ()) -> dict[str, str]:
    """The same modules by name, a digest of each, so that a change can be named."""
    found = _found(names, networks)
    return {name: hashlib.sha256(content).hexdigest()[:16] for name, content in sorted(found.items())}


def _found(names: Iterable[str], networks: Iterable[nn.Module]) -> dict[str, bytes]:
    """The source of the modules involved, by their names."""
    walk = _Walk()
    for name in names:
        if found := _NAMED.fullmatch(name):
            walk.follow(found[1])
    for module in sorted({name for network in networks for name in _origins(network)}):
        walk.follow(module)
    return walk.found


def names_in(value: object) -> Iterator[str]:
    """Every text in mappings and lists, and every key with a colon, such as an augmentation with options."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(key, str) and ":" in key:
                yield key
            yield from names_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from names_in(inner)


class _Walk:
    """Follows imports from module to module, importing none.

    Attributes:
        found: The content of the user's own modules, by name.
    """

    def __init__(self) -> None:
        importlib.invalidate_caches()  # a file may be younger than what Python knows of its folder
        self.found: dict[str, bytes] = {}
        self._specs: dict[str, ModuleSpec | None] = {}

    def follow(self, name: str) -> None:
        """Take in a module, the packages around it, and all that they import."""
        todo = [name]
        while todo:
            parts = todo.pop().split(".")
            for end in range(1, len(parts) + 1):
                part = ".".join(parts[:end])
                if part not in self._specs:
                    self._specs[part] = self._spec(part)
                    todo += self._take(part)
                if self._specs[part] is None:
                    break

    def _spec(self, name: str) -> ModuleSpec | None:
        """Where a module comes from; None where that is not the user's own."""
        parent = name.rpartition(".")[0]
        spec = _spec_of(sys.modules.get(name))
        if spec is None and name != _MAIN:
            spec = _searched(name, self._folders(parent) if parent else None)
        if name in _VERSIONED or (spec is not None and not _is_own(spec)):
            return None
        return spec

    def _folders(self, package: str) -> list[str]:
        """Where the modules of a package are looked for."""
        spec = self._specs[package]
        return [] if spec is None else list(spec.submodule_search_locations or ())

    def _take(self, name: str) -> list[str]:
        """Keep a module's content, and give the names of what it may import."""
        spec = self._specs[name]
        if spec is None or spec.origin is None:  # a package of several folders has no source
            if name == _MAIN:
                self.found[name] = _unknown  # typed in: nobody can say whether it is the same as before
            return []
        content = _content(name, spec)
        self.found[name] = content
        return [] if spec.origin.endswith((".so", ".pyd", ".pyc")) else list(_imports(content, name, spec))


def _spec_of(module: ModuleType | None) -> ModuleSpec | None:
    """Of a loaded module; also of the script that was started, which has none by itself."""
    spec = getattr(module, "__spec__", None)
    path = getattr(module, "__file__", None)
    if spec is None and module is not None and path is not None:
        return importlib.util.spec_from_file_location(module.__name__, path)
    return spec


def _searched(name: str, path: list[str] | None) -> ModuleSpec | None:
    """What Python would import under this name, found without importing anything."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        try:
            found = find(name, path) if find else None
        except Exception:  # a finder of somebody's own may do anything
            continue
        if isinstance(found, ModuleSpec):
            return found
    # A package of several folders inside another one, which Python finds only where that is imported.
    folders = [str(folder) for folder in (Path(one, name.rpartition(".")[2]) for one in path or ()) if folder.is_dir()]
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = folders
    return spec if folders else None


def _is_own(spec: ModuleSpec) -> bool:
    if spec.origin is None:
        return spec.submodule_search_locations is not None
    if spec.origin in ("built-in", "frozen"):
        return False
    # Links are followed from folder to folder: an installer may link files, and a developer a package.
    folder = Path(spec.origin).parent.resolve()
    return not _INSTALLED & set(folder.parts) and not any(folder.is_relative_to(one) for one in _python())


@functools.cache
def _python() -> list[Path]:
    """The folders of Python's own modules."""
    return [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]


def _content(name: str, spec: ModuleSpec) -> bytes:
    """A module's source as it was loaded, or as it is where it is not loaded yet."""
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    if name in _loaded and loaded is not None and _loaded[name][0] is loaded:
        return _loaded[name][1]
    content = _read(name, spec)
    if loaded is not None:
        _loaded[name] = loaded, content
    return content


def _read(name: str, spec: ModuleSpec) -> bytes:
    try:
        return Path(spec.origin or "").read_bytes()
    except OSError:  # in an archive, for one
        source = getattr(spec.loader, "get_source", lambda name: None)(name)
        return _unknown if source is None else str(source).encode()


def _imports(content: bytes, name: str, spec: ModuleSpec) -> Iterator[str]:
    """The names of all modules that a source imports, anywhere in it, and some that are none."""
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names if base)
        elif isinstance(node, ast.Call) and _called(node) in _IMPORTERS:
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            yield from filter(None, (_absolute(text, package) for text in texts[:1]))
        elif isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
            # What "from package import *" imports.
            listed = [one.value for one in ast.walk(node.value) if isinstance(one, ast.Constant)]
            yield from (f"{package}.{one}" for one in listed if isinstance(one, str) and package)


def _called(node: ast.Call) -> str:
    return str(getattr(node.func, "attr", None) or getattr(node.func, "id", ""))


def _absolute(name: str, package: str) -> str:
    try:
        return importlib.util.resolve_name(name, package)
    except (ImportError, ValueError):
        return ""


def _origins(network: nn.Module) -> Iterator[str]:
    """The modules that the classes and functions of a network were written in."""
    for module in network.modules():
        for one in (*type(module).__mro__, *vars(module).values()):
            origin = getattr(one, "__module__", None)
            if isinstance(origin, str):
                yield origin
