"""python -m benchmarks NAME… [--data-root DIR] [--save]: run benchmarks, print their tables, keep their figures."""

from __future__ import annotations

import argparse
import importlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from limbeck.folders import data_root
from limbeck.recipes.folder import environment

NAMES = ("losses", "mnist-mlp", "mnist-cnn", "cifar10-tutorial", "resnet-pair", "growth", "precision", "faults")
MADE = ("losses", "resnet-pair", "growth", "faults")
"""Those that read no data set."""
QUICK = ("faults",)
"""Those that can try little."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--data-root", type=Path, default=data_root())
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/NAME.json")
    parser.add_argument("--quick", action="store_true", help=f"of {', '.join(QUICK)}: try little, to see that it works")
    given = parser.parse_args()
    if given.quick and (given.save or not set(given.names) <= set(QUICK)):
        parser.error(f"--quick is for {', '.join(QUICK)}, and saves nothing")
    for name in given.names:
        if name not in NAMES:
            parser.error(f"unknown benchmark {name!r}; there are {', '.join(NAMES)}")
        module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
        options: dict[str, Any] = {"quick": True} if given.quick else {}
        figures: dict[str, Any] = module.main(**options) if name in MADE else module.main(given.data_root)
        if given.save:
            path = Path(__file__).parent / "results" / f"{name}.json"
            path.parent.mkdir(exist_ok=True)
            when = datetime.now(UTC).date().isoformat()
            command = f"python -m benchmarks {name} --save"
            content = {"command": command, "date": when, "environment": environment(), "figures": figures}
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            print(f"written: {path}")


if __name__ == "__main__":
    main()
