"""The digest of the user's own code changes with every module that is involved, and with no other."""

from __future__ import annotations

import importlib
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import nn

import limbeck
from limbeck import sources
from limbeck.sources import names_in, own_code

NET = "net_of_sources"
FILES = {
    f"{NET}.py": "import own_parts.blocks as b\nfrom own_parts import heads\ndef make(): import own_late\n",
    "own_parts/__init__.py": "from .shared import width\n",
    "own_parts/shared.py": "width = 8\n",
    "own_parts/blocks.py": "from ..own_parts import nothing\nfrom . import inner\nfrom own_parts.shared import width\n",
    "own_parts/inner.py": "import own_deep\n",
    "own_parts/heads.py": "import importlib\ntail = importlib.import_module('.tails', 'own_parts')\n",
    "own_parts/tails.py": "size = 1\n",
    "own_parts/unused.py": "",
    "own_deep.py": "import torch, json, own_missing\ntry:\n  from own_deep_too import *\nfinally: pass\n",
    "own_deep_too/__init__.py": "__all__ = ['starred']\n",
    "own_deep_too/starred.py": "",
    "own_late.py": "",
    "own_folders/space/module.py": "",
    "unrelated.py": "",
}
UNUSED = ("own_parts/unused.py", "unrelated.py", "own_folders/space/module.py")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_an_edit_counts_where_the_module_is_involved(project: Path, name: str) -> None:
    loaded = set(sys.modules)
    before = own_code([f"{NET}:make"])
    assert own_code([f"{NET}:make"]) == before
    (project / name).write_text(FILES[name] + "edited = True\n")
    assert (own_code([f"{NET}:make"]) == before) == (name in UNUSED)
    assert not any(
        module.startswith("own_") for module in set(sys.modules) - loaded
    )  # nothing was imported to find that out


def test_a_package_without_init_is_followed(project: Path) -> None:
    before = own_code(["own_folders.space.module:x"])
    (project / "own_folders/space/module.py").write_text("x = 2\n")
    assert own_code(["own_folders.space.module:x"]) not in (before, "")


def test_where_the_project_lies_does_not_count(project: Path, tmp_path_factory: Any, monkeypatch: Any) -> None:
    before = own_code([f"{NET}:make"])
    other = tmp_path_factory.mktemp("other") / "elsewhere"
    project.rename(other)
    monkeypatch.syspath_prepend(str(other))
    assert own_code([f"{NET}:make"]) == before


@pytest.mark.parametrize("name", ["torch:nn", "torchvision:resnet18", "json:dumps", "sys:path", "limbeck.data:load",
                                  "onnx:file.onnx", "no_such_module:x", "mlp", "s3://bucket/outputs"])  # fmt: skip
def test_what_is_not_the_users_own_has_no_digest(name: str) -> None:
    assert own_code([name]) == ""


def test_installed_modules_do_not_count_but_editable_ones_do(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = project / "env" / "site-packages"
    (installed / "bought").mkdir(parents=True)
    (installed / "bought" / "__init__.py").write_text("")
    (project / "src" / "written").mkdir(parents=True)
    written = project / "src" / "written" / "__init__.py"
    written.write_text("x = 1\n")
    (installed / "linked").symlink_to(written.parent)  # as some tools install what is edited
    monkeypatch.syspath_prepend(str(installed))
    assert own_code(["bought:x"]) == ""
    before = own_code(["linked:x"])
    written.write_text("x = 2\n")
    assert own_code(["linked:x"]) not in ("", before)

    class Editable:  # as setuptools installs it
        @staticmethod
        def find_spec(name: str, path: object, target: object = None) -> Any:
            return importlib.util.spec_from_file_location(name, written) if name == "written" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Editable])
    before = own_code(["written:x"])
    written.write_text("x = 3\n")
    assert own_code(["written:x"]) not in ("", before)


def test_a_module_in_an_archive_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for number in (1, 2):
        archive = project / f"packed{number}.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("own_packed.py", f"x = {number}\n")
        monkeypatch.syspath_prepend(str(archive))
        found.append(own_code(["own_packed:x"]))
    assert len({"", *found}) == 3


def test_the_code_of_a_network_counts_under_whatever_name_it_was_imported(project: Path) -> None:
    hidden = project / "own_hidden_block.py"
    hidden.write_text("from torch import nn\nclass Block(nn.ReLU): pass\ndef act(x): return x\n")
    module = importlib.import_module("own_hidden_" + "block")
    network, plain = nn.Sequential(module.Block()), nn.Sequential(nn.ReLU())
    before = own_code([], [network])
    assert own_code([], [plain]) == ""
    assert before
    plain.act = module.act
    assert own_code([], [plain]) == before


def test_an_edit_counts_when_the_module_is_loaded_anew(project: Path) -> None:
    path = project / "own_loaded.py"
    path.write_text("x = 1\n")
    module = importlib.import_module("own_loaded")
    before = own_code(["own_loaded:x"])
    path.write_text("x = 2222\n")
    assert own_code(["own_loaded:x"]) == before  # what runs is what was loaded
    importlib.reload(module)
    assert own_code(["own_loaded:x"]) != before


def test_a_script_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, found = tmp_path / "script.py", []
    for text in ("x = 1\n", "x = 1\n", "x = 2\n"):
        script.write_text(text)
        main = ModuleType("__main__")
        main.__spec__, main.__file__ = None, str(script)
        monkeypatch.setitem(sys.modules, "__main__", main)
        found.append(own_code(["__main__:make"]))
    assert found[0] == found[1] != found[2] != ""


def test_what_was_typed_in_is_like_nothing_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    here = own_code(["__main__:make"])
    assert here == own_code(["__main__:make"])
    monkeypatch.setattr(sources, "_unknown", b"another process")
    assert own_code(["__main__:make"]) not in (here, "")


def test_sources_that_cannot_be_read_stop_nothing(project: Path) -> None:
    for content in (b"def broken(:\n", b"\x00\x01", b"'\\d'\nimport own_deep\n", b"from ... import x\n", b"(" * 5000):
        (project / "own_odd.py").write_bytes(content)
        assert own_code(["own_odd:x"])


def test_names_are_found_at_any_depth() -> None:
    spec = json.loads(
        '{"model": "a:b", "options": {"act": ["c:d", {"deep": "e:f"}, {"g:h": {"by": 3}}], "number": 3, "none": null}}'
    )
    assert list(names_in(spec)) == ["a:b", "c:d", "e:f", "g:h"]


def test_what_runs_limbeck_is_known_by_its_version() -> None:
    assert "site-packages" not in limbeck.__file__ or own_code(["limbeck:fit"]) == ""
