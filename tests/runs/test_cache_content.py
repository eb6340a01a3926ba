"""limbeck's cache: what it holds, and what is taken away from it while others use it."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.errors import RequestError, RunError
from limbeck.recipes.read import check
from limbeck.runs import components, teachers
from limbeck.runs.cache.content import content, prune
from limbeck.runs.cache.in_use import is_used, use, using
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.asking import Asking
from limbeck.runs.outputs.beforehand import as_cached, cache
from limbeck.runs.outputs.keeping import store_outputs

RECIPE = check(
    {
        "teacher": {"model": "mlp", "hidden": [16], "epochs": 1, "seed": 5},
        "student": {"model": "mlp", "hidden": [4]},
        "distill": {"terms": [{"loss": "kd"}]},
        "epochs": 2,
    }
)
QUIET = Machine(accelerator="cpu", progress=False)
DAY = 86400.0


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a teacher and its outputs."""
    root = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LIMBECK_CACHE", str(root))
        cache(as_cached(RECIPE), root=root, machine=QUIET)
    gc.collect()
    return root


@pytest.fixture
def root(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: None) -> Path:
    """A copy of it, last used ten days ago, beside things that are not limbeck's."""
    root = tmp_path / "cache"
    shutil.copytree(filled, root, ignore=shutil.ignore_patterns("claims"))
    for other in ("data/mnist/raw", "teachers/notes", "teacher_outputs/recordings"):
        (root / other).mkdir(parents=True)
        (root / other / "kept.txt").write_text("mine")
    aged(root, 10)
    monkeypatch.setenv("LIMBECK_CACHE", str(root))
    return root


def aged(folder: Path, days: float) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - days * DAY,) * 2)


def teacher_in(root: Path) -> Path:
    return next(path.parent for path in root.glob("teachers/*/teacher.json"))


def outputs_in(root: Path) -> Path:
    return next(path.parent for path in root.glob("teacher_outputs/*/teacher_outputs.json"))


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if "claims" not in path.parts)


def others(root: Path) -> int:
    return len(list(root.rglob("kept.txt")))


def another_teacher(root: Path, name: str, days: float, **changes: Any) -> Path:
    folder = root / "teachers" / name
    shutil.copytree(teacher_in(root), folder)
    described = json.loads((folder / "teacher.json").read_text())
    (folder / "teacher.json").write_text(json.dumps(described | changes, indent=2) + "\n")
    aged(folder, days)
    return folder


def test_the_list_says_what_is_there(root: Path) -> None:
    entries = {entry.kind: entry for entry in content()}
    assert set(entries) == {"teacher", "teacher outputs"}
    teacher, outputs = entries["teacher"], entries["teacher outputs"]
    assert teacher.words == "mlp, hidden [16]; 1 epoch on digits, seed 5"
    assert outputs.words.startswith("mlp on digits: logits; 1,437 samples × 1; float32; batches of 32 on cpu")
    for entry in entries.values():
        assert entry.bytes == sum(path.stat().st_size for path in entry.path.rglob("*") if path.is_file())
        assert 9.9 * DAY < time.time() - entry.made < 10.1 * DAY
        assert (entry.unreachable, entry.in_use) == ("", False)
    assert content(root / "nowhere") == []


def test_a_use_is_noted(root: Path) -> None:
    data = components.data(RECIPE.data, root)
    found = teachers.candidates(RECIPE, data)
    teachers.train_apart(found, RECIPE, data, QUIET)
    assert found[0].source == "reused"
    teacher, outputs = content()
    assert (teacher.kind, outputs.kind) == ("teacher", "teacher outputs")
    assert time.time() - teacher.used < DAY < time.time() - outputs.used
    asking = Asking(RECIPE, data, QUIET.fabric("32-true"), found[0].spec.store)
    kept = store_outputs(asking, teachers.as_one(found))
    assert kept.outputs.found
    assert all(time.time() - entry.used < DAY for entry in content())
    # As long as anybody reads the outputs they are in use.
    assert [entry.kind for entry in content() if entry.in_use] == ["teacher outputs"]
    assert [entry.kind for entry in prune(older_than=0).in_use] == ["teacher outputs"]
    assert Path(kept.where).is_dir()
    del kept
    gc.collect()
    assert [entry.kind for entry in prune(older_than=0).gone] == ["teacher outputs"]


def test_by_age(root: Path) -> None:
    assert prune(older_than=11 * DAY).gone == []
    os.utime(teacher_in(root) / "teacher.json")
    before = files(root)
    would = prune(older_than=9 * DAY, dry_run=True)
    assert files(root) == before
    done = prune(older_than=9 * DAY)
    assert [entry.kind for entry in done.gone] == [entry.kind for entry in would.gone] == ["teacher outputs"]
    assert done.left_bytes == would.left_bytes == sum(entry.bytes for entry in content())
    assert [entry.kind for entry in content()] == ["teacher"]
    assert others(root) == 3


def test_by_size_the_least_recently_used_goes_first(root: Path) -> None:
    older, newer = another_teacher(root, "older", 30), another_teacher(root, "newer", 1)
    size = sum(path.stat().st_size for path in newer.iterdir())
    outputs = next(entry for entry in content() if entry.kind == "teacher outputs")
    done = prune(keep_bytes=outputs.bytes + 2 * size)
    assert [entry.path for entry in done.gone] == [older]
    assert prune(keep_bytes=size).left_bytes == size
    assert [entry.path for entry in content()] == [newer]
    assert prune(keep_bytes=0).left_bytes == 0
    assert others(root) == 3


def test_what_nothing_finds_any_more(root: Path) -> None:
    usable, teacher = {entry.path for entry in content()}, teacher_in(root)
    another_teacher(root, "old-version", 1, limbeck="0.0.1")
    another_teacher(root, "old-keys", 1, keys=teachers.KEYS - 1)
    (another_teacher(root, "half", 1) / "teacher.json").unlink()
    (another_teacher(root, "other-half", 1) / "teacher.safetensors").unlink()
    (another_teacher(root, "odd", 1) / "teacher.json").write_text('{"options": 3, "training": [')
    (teacher / ".teacher.safetensors.0a1b.part").write_text("cut")
    (root / "teachers" / "mlp-1.training" / "checkpoints").mkdir(parents=True)
    (root / "teacher_outputs" / ".pruned-0a1b").mkdir()
    for name, spoil in {
        "cut": lambda folder: next(folder.rglob("*.safetensors")).unlink(),
        "bare": lambda folder: (folder / "teacher_outputs.json").unlink(),
        "broken": lambda folder: (folder / "teacher_outputs.json").write_text("{}"),
    }.items():
        shutil.copytree(outputs_in(root), root / "teacher_outputs" / name)
        spoil(root / "teacher_outputs" / name)
    reasons = [entry.unreachable for entry in content()]
    assert sum(map(bool, reasons)) == len(reasons) - 2 == 11
    assert "half written: 0 of 1 shards" in reasons
    named = {entry.path for entry in content() if entry.unreachable}
    assert named == {entry.path for entry in prune(unreachable=True).gone}
    assert {entry.path for entry in content()} == usable
    assert not list(root.rglob("*.part"))
    assert others(root) == 3
    assert prune(unreachable=True).gone == []


def test_a_version_makes_all_before_it_unreachable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import limbeck

    monkeypatch.setattr(limbeck, "__version__", "99.0")
    assert {entry.unreachable.partition(",")[0] for entry in content()} == {f"of limbeck {limbeck_before()}"}


def limbeck_before() -> str:
    from importlib.metadata import version

    return version("limbeck")


def test_what_a_process_uses_stays(root: Path) -> None:
    teacher = teacher_in(root)
    with using(teacher):
        done = prune(older_than=0)
        assert [entry.path for entry in done.in_use] == [teacher]
        assert prune(keep_bytes=0).left_bytes == content()[0].bytes > 0
        assert [entry.in_use for entry in content()] == [True]
    assert [entry.path for entry in prune(older_than=0).gone] == [teacher]


def test_a_claim_ends_with_its_process(root: Path) -> None:
    teacher = teacher_in(root)
    claim = root / "claims" / f"teachers+{teacher.name}+0a1b.lock"
    claim.parent.mkdir()
    code = (
        "import sys, time, filelock\nlock = filelock.FileLock(sys.argv[1])\nlock.acquire()\n"
        "print('held', flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, claim], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        held = is_used(teacher, root)
        process.kill()
    assert held
    assert not is_used(teacher, root)
    assert not claim.exists()


def test_a_teacher_that_is_being_trained_stays(root: Path) -> None:
    folder = root / "teachers" / "mlp-1.training"
    folder.mkdir()
    with FileLock(folder / ".claim"):
        assert folder in [entry.path for entry in prune(older_than=0).in_use]
    assert folder.exists()
    assert [entry.path for entry in prune(unreachable=True).gone] == [folder]


def test_nothing_vanishes_between_claim_and_use(root: Path) -> None:
    teacher, spare = teacher_in(root), root / "spare"
    shutil.copytree(teacher, spare)
    faults: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            with using(teacher):
                if not (teacher / "teacher.json").exists():
                    continue  # gone before the claim: it would be trained anew
                for _ in range(3):
                    if not (teacher / "teacher.safetensors").exists():
                        faults.append("vanished")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    gone = 0
    for _ in range(30):
        gone += len(prune(older_than=0).gone)
        if not teacher.exists():
            shutil.copytree(spare, root / "copy")
            (root / "copy").rename(teacher)
    stop.set()
    for reader in readers:
        reader.join()
    assert not faults
    assert gone


def test_links_are_not_followed(root: Path, tmp_path: Path) -> None:
    far = tmp_path / "large_disk"
    outputs = outputs_in(root)
    outputs.rename(far)
    outputs.symlink_to(far)
    assert [entry.path for entry in prune(older_than=0).gone if entry.kind == "teacher outputs"] == [outputs]
    assert not outputs.is_symlink()
    assert (far / "teacher_outputs.json").exists()


def test_what_cannot_be_deleted_is_a_failed_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(RunError, match=r"cannot delete .*: Permission denied"):
        prune(older_than=0)


def test_places_of_ones_own_need_no_claim(root: Path, tmp_path: Path) -> None:
    for place in (tmp_path / "mine", "s3://bucket/outputs", "memory://x"):
        use(place).release()
    assert not (root / "claims").exists()


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, ["cache", *words])


def test_the_command_lists_and_prunes(root: Path) -> None:
    listed = invoke("--list").output
    assert "teacher outputs" in listed
    assert "mlp, hidden [16]; 1 epoch on digits, seed 5" in " ".join(listed.split())
    assert "10 d" in listed
    assert "2 entries" in listed
    tried = invoke("--prune", "--older-than", "1w", "--dry-run").output
    assert tried.count("would delete ") == 2
    assert "would be freed, 0 B left" in tried
    with using(teacher_in(root)):
        done = invoke("--prune", "--keep-bytes", "0B").output
    assert "deleted teacher outputs" in done
    assert "a running process uses it" in done
    assert "1 entries" in invoke("--list").output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "takes a RECIPE whose teacher outputs it stores, or --list, or --prune"),
        (["--prune"], "say what may go: --older-than 30d, --keep-bytes 10GB or --unreachable"),
        (["--prune", "--older-than", "soon"], "--older-than is a time such as 12h, 30d or 8w, not 'soon'"),
        (["--prune", "--keep-bytes", "10"], "--keep-bytes is a size such as 500MB or 10GB, not '10'"),
        (["--prune", "--keep-bytes", "-1GB"], "--keep-bytes is a size"),
        (["--unreachable"], "belong to --prune"),
        (["digits", "--list"], "take no RECIPE"),
        (["--list", "--dtype", "float16"], "take no RECIPE, nor options for one"),
        (["--list", "--prune", "--unreachable"], "either --list or --prune"),
    ],
)
def test_wrong_requests(root: Path, words: list[str], message: str) -> None:
    error = invoke(*words).exception
    assert isinstance(error, RequestError)
    assert message in str(error)
    assert len(content()) == 2
