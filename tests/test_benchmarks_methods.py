"""The benchmark of all methods, measured in parts: which recorded rows stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.mark.usefixtures("benchmarks")
def test_rows_of_other_methods_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import methods

    rows = [{"method": name} for name in ("kd", "ab", "ab", "gone", "kd:imagenet")]
    monkeypatch.setattr(methods, "RECORD", tmp_path / "methods.json")
    assert methods._recorded(300, ["kd"]) == []
    (tmp_path / "methods.json").write_text(json.dumps({"figures": {"steps": 300, "rows": rows}}))
    assert methods._recorded(300, ["kd"]) == [{"method": "ab"}, {"method": "ab"}, {"method": "kd:imagenet"}]
    assert methods._recorded(3, ["kd"]) == []  # other steps
