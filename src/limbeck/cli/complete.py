"""What a shell is offered where a word is being typed. Nothing here imports torch: a shell asks at every Tab."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from pathlib import Path

import limbeck

SOURCE = Path(limbeck.__file__).parent


def recipes(incomplete: str) -> list[str]:
    """Packaged recipes, YAML files, and folders."""
    packaged = (path.stem for path in (SOURCE / "recipes").glob("*.yaml"))
    return [*_begin(packaged, incomplete), *_paths(incomplete, (".yaml", ".yml"))]


def methods(incomplete: str) -> list[str]:
    """Methods and schemes, after the last comma of those that are given."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _begin(method_names(), last)]


def models(incomplete: str) -> list[str]:
    """limbeck's networks, and files."""
    return [*_begin(model_names(), incomplete), *_paths(incomplete)]


def data_sets(incomplete: str) -> list[str]:
    """Data sets, and folders and files."""
    return [*_begin(data_names(), incomplete), *_paths(incomplete)]


def files_too(incomplete: str) -> list[str]:
    """Files and folders."""
    return _paths(incomplete)


def tasks(incomplete: str) -> list[str]:
    """The tasks by name."""
    return _begin(task_names(), incomplete)


def keys(incomplete: str) -> list[str]:
    """The keys of recipes, as --set takes them."""
    if "=" in incomplete:
        return []
    from limbeck.recipes.keys import keys as all_keys

    return [f"{path}=" for path in _begin((key.path for key in all_keys()), incomplete) if ".N." not in path]


def words(*choices: str) -> Callable[[str], list[str]]:
    """A completion from a few words."""

    def complete(incomplete: str) -> list[str]:
        return _begin(choices, incomplete)

    return complete


def method_names() -> list[str]:
    """The methods and schemes that `compare --methods` takes, and the recipe's own."""
    folder = SOURCE / "recipes" / "methods"
    found = [name for path in sorted(folder.glob("*.py")) for name in _declared(path, of_type="dict[str, Method]")]
    others = (("schemes.py", "SCHEMES"), ("quantised.py", "QUANTISED"))
    return ["recipe", "backbone", *found, *(name for file, table in others for name in _declared(folder / file, table))]


def model_names() -> list[str]:
    """limbeck's own networks."""
    return _declared(SOURCE / "models" / "__init__.py", "_NETWORKS")


def data_names() -> list[str]:
    """The data sets."""
    return _declared(SOURCE / "data" / "sets.py", "NAMES")


def task_names() -> list[str]:
    """The tasks."""
    return _declared(SOURCE / "tasks" / "__init__.py", "TASKS")


def _declared(path: Path, name: str = "", *, of_type: str = "") -> list[str]:
    """The keys of a mapping, or the names in a tuple, that a module declares: read from its source, not imported."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        annotation = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
        if (name and getattr(target, "id", None) == name) or (of_type and annotation == of_type):
            parts = node.value.keys if isinstance(node.value, ast.Dict) else getattr(node.value, "elts", [])
            named = (getattr(part, "value", None) or getattr(part, "id", None) for part in parts if part is not None)
            return [str(one) for one in named]
    return []


def _begin(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))


def _paths(incomplete: str, endings: tuple[str, ...] = ("",)) -> list[str]:
    """Files with one of these endings, and folders, with a slash behind."""
    folder, _, start = incomplete.rpartition("/")
    place = Path(f"{folder}/") if folder or incomplete.startswith("/") else Path()
    try:
        there = [path for path in place.iterdir() if path.name.startswith(start) and (start or path.name[0] != ".")]
        found = [f"{path.name}/" if path.is_dir() else path.name for path in there]
    except OSError:
        return []
    before = incomplete.removesuffix(start) if start else incomplete
    return sorted(f"{before}{name}" for name in found if name.endswith(("/", *endings)))
