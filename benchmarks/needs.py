"""What the benchmarks import: said in one line, with the command that brings it, before anything fails."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULES = {"lightning-fabric": "lightning_fabric", "pyyaml": "yaml", "scikit-learn": "sklearn"}
"""Import names that differ from the names of the distributions."""
SPARED = ("typer", "scikit-learn")
"""What the command line and `digits` alone import."""


def missing(*more: str) -> str:
    """The line, or "" where all is there.

    Args:
        more: What is needed besides limbeck's own requirements, such as "pytest>=8.3".
    """
    if find_spec("limbeck") is None:
        return "limbeck cannot be imported; start again with PYTHONPATH=src in front"
    with (ROOT / "pyproject.toml").open("rb") as file:
        required = tomllib.load(file)["project"]["dependencies"]
    lacking = [one for one in (*required, *more) if _name(one) not in SPARED and find_spec(_module(one)) is None]
    return f"missing: {', '.join(map(_name, lacking))}; {command(lacking)} brings them" if lacking else ""


def command(requirements: Iterable[str]) -> str:
    """The pip command that installs them, for a shell."""
    return f"pip install {' '.join(repr(one) for one in requirements)}"


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    return found[0] if found else requirement


def _module(requirement: str) -> str:
    return MODULES.get(_name(requirement), _name(requirement))
