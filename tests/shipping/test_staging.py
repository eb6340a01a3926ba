"""The folder of shipped files beside what killed processes have left."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck.errors import RequestError
from limbeck.shipping.staging import MARK, check_place, staged

pytest.importorskip("fcntl")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_has_left_is_removed_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    dead = tmp_path / ".out.00000000.part"
    dead.mkdir()
    (dead / "distilled.onnx").write_bytes(b"half")
    (tmp_path / ".outer.00000000.part").mkdir()  # of another folder
    with staged(out) as living, staged(out) as folder:
        assert not dead.exists()
        assert living.is_dir()
        (folder / MARK).write_text("{}")
        (living / MARK).write_text("[]")
    assert names(tmp_path) == [".outer.00000000.part", "out"]
    assert (out / MARK).read_text() == "[]", "the one that was done last"


def test_a_folder_that_a_killed_process_took_from_its_place_is_brought_back(tmp_path: Path) -> None:
    before = tmp_path / ".out.00000000.part.before"
    before.mkdir()
    (before / MARK).write_text("old")
    with pytest.raises(ValueError, match="nothing new"), staged(tmp_path / "out"):
        raise ValueError("nothing new")
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / MARK).read_text() == "old"


def test_a_mount_point_is_refused_before_anything_is_made() -> None:
    with pytest.raises(
        RequestError, match="/ is a mount point, which cannot be replaced; choose a folder in it: /ship"
    ):
        check_place(Path("/"))
