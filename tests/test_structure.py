"""The house itself: imports point one way, the public names exist, the documents' code runs."""

from __future__ import annotations

import ast
import functools
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import limbeck

SOURCE = Path(limbeck.__file__).parent
# From top to bottom; a module may import from its own layer and those above it.
LAYERS = [
    {
        "errors",
        "folders",
        "seeds",
        "types",
        "dtensors",
        "imports",
        "late_compiler",
        "notices",
        "options",
        "atomic",
        "sources",
    },
    {"taps"},
    {"losses", "adapters", "models"},
    {"tasks"},
    {"distillers", "teachers", "data"},
    {"engine"},
    {"measure", "quantization"},
    {"recipes"},
    {"runs"},
    {"compare", "export", "report"},
    {"shipping"},
    {"tuning"},
    {"cli", "__main__"},
]


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """What imports and functions are looked for in."""
    wanted = ast.ImportFrom | ast.FunctionDef
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, wanted)]


@functools.cache
def imports(path: Path) -> set[str]:
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("limbeck."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "limbeck":
            found |= {alias.name for alias in node.names}
    return found


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


def test_imports_point_one_way() -> None:
    files = [path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"]
    assert len(files) > 40
    for path in files:
        own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for other in imports(path):
            assert layer(other) <= layer(own), f"{path} imports {other}"


def test_files_and_functions_stay_short() -> None:
    """At most 300 lines a file, and 60 a function: signature and code, without the docstring, which may be long."""
    for path in SOURCE.rglob("*.py"):
        lines = path.read_text().splitlines()
        assert len(lines) <= 300, f"{path} asks to be split by what stands in it"
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef):
                assert code_lines(node) <= 60, f"{path}: {node.name} asks to be split by level of abstraction"


def code_lines(node: ast.FunctionDef) -> int:
    first = node.body[0]
    documented = ast.get_docstring(node) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (node.end_lineno or 0) - node.lineno + 1 - docstring


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert len(names) == len(set(names)), "pytest takes two files of one name for one module"


def test_no_module_of_one_layer_imports_in_a_circle() -> None:
    edges = {}
    for path in SOURCE.rglob("*.py"):
        own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        edges.setdefault(own, set()).update(other for other in imports(path) if other != own)
    edges.pop("__init__")

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(edges.get(start, ()))
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += edges.get(name, ())
        return seen

    assert [name for name in edges if name in reach(name)] == []


@pytest.mark.parametrize("name", limbeck.__all__)
def test_public_names_exist(name: str) -> None:
    thing = getattr(limbeck, name)
    assert thing.__doc__, f"{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        _ = limbeck.distil


def test_every_module_imports_by_itself() -> None:
    names = [
        ".".join(("limbeck", *path.relative_to(SOURCE).with_suffix("").parts))
        for path in SOURCE.rglob("*.py")
        if path.name not in ("__main__.py", "__init__.py")
    ]
    # What builds extensions of torch warns, where it is imported, of a CUDA toolkit without a GPU; and what Fabric asks
    # for its version alone takes as long as torch to import; so do the frameworks of models that nobody has brought.
    quiet = "assert not {'torch.utils.cpp_extension', 'torchmetrics', 'keras', 'onnx'} & set(sys.modules)"
    code = (
        f"import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n{quiet}\n"
        f"from limbeck import Distiller; from torch import nn; Distiller(nn.Linear(2, 2))\n{quiet}"
    )
    subprocess.run([sys.executable, "-c", code, *sorted(names, reverse=True)], check=True)
    assert importlib.import_module("limbeck.engine.fit")
