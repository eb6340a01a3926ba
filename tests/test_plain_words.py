"""Words that only the house would understand stay out of sources and documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRIVATE = {
    r"\bsignals?\b(?= (?:of the|is|are) (?:teacher|stored|kept))": "teacher outputs",
    r"[Aa]sk(?:ed|ing) (?:it )?once|asked at every step": "precomputed; online teacher",
    r"\blive teachers?\b|\b(?:teacher|else|or|asked) live\b|['\"]live['\"]|\| live \|": "online teacher",
    r"(?<!from )\bscratch\b|\bSCRATCH\b": "baseline",
    r"\bcontradict(?:s|ion)\b": "training accuracy",
    r"\bSignals? held\b": "teacher outputs held",
    r"\blisten(?:s|ed)?\b": "uses the teacher, has this teacher",
    r"\b(?:ask_once|BY_HEART|Lead|RememberedTeacher)\b": "precompute, MEMORISED, Start, CachedTeacher",
    r"\btold(?: = |\(|: )": "reason, or what it is",
    r"student alone|student " + "distilled": "baseline; distilled student",
    r"\bbears?\b": "tolerates, allows",
    r"\ba place of (?:one's|its|your) own": "custom location",
    r"\breckon": "estimate",
    r"repeat their bits": "deterministic",
    r"numbers with commas between": "comma-separated numbers",
    r"by heart": "memorised",
    r"greatest.entropy": "maximum entropy",
    r"mend the labels": "fix the labels",
    r"\brehears": "dry run",
    r"\b[Ww]eigh a student": "evaluate exits",
    r"beginning anew": "starting from scratch",
    r"\bgo(?:es)? on with\b": "resume",
    r"with one voice": "averaged ensemble",
    r"\bcustomary\b": "recommended",
    r"\b(?:is|are) worth\b": "its accuracy, its score",
    r"shows no stages": "stages could not be detected",
    r"\bin shards\b": "sharded",
    r"\bwhole batch": "full batch",
    r"\belders\b": "previous generations",
}
FILES = [
    *ROOT.glob("src/**/*.py"),
    *ROOT.glob("src/**/*.yaml"),
    *ROOT.glob("docs/*.md"),
    *(ROOT / name for name in ("README.md", "README.zh-CN.md", "CHANGELOG.md", "CONTRIBUTING.md")),
]


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """By file."""
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in FILES}


@pytest.mark.parametrize("word", PRIVATE)
def test_plain_words(word: str, texts: dict[str, str]) -> None:
    said = re.compile(word)
    hits = [path for path, text in texts.items() if said.search(text)]
    found = [f"{path}: {line.strip()}" for path in hits for line in texts[path].splitlines() if said.search(line)]
    assert len(FILES) > 200
    assert found == [], f"write: {PRIVATE[word]}"
