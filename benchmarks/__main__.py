"""python -m benchmarks NAME… [--data-root DIR] [--save]: run benchmarks, print their tables, keep their figures.

python -m benchmarks gpu [--dry]: all that is known of a GPU in ten minutes; see `benchmarks.gpu`.
python -m benchmarks embeddings --teacher FOLDER: a sentence encoder's embeddings in a small student.
python -m benchmarks zoo [--only NAMES] [--limit N]: one network of each family is tried; see `benchmarks.zoo`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.needs import missing

NAMES = (
    "losses",
    "mnist-mlp",
    "mnist-cnn",
    "cifar10-tutorial",
    "resnet-pair",
    "growth",
    "precision",
    "methods",
    "faults",
    "ship",
    "tokens",
    "tune",
    "codecs",
    "startup",
    "sequential",
)
MADE = ("losses", "resnet-pair", "growth", "faults", "tokens", "codecs", "startup", "sequential")
"""Those that read no data set."""
GPU, ZOO, METHODS, SHIP, EMBEDDINGS = "gpu", "zoo", "methods", "ship", "embeddings"
RESULTS = Path(__file__).parent / "results"
QUICK = ("faults", "methods", "ship", "tokens", "codecs", "tune", "startup", EMBEDDINGS)
"""Those that can try little."""
KNOWN = (*NAMES, EMBEDDINGS, GPU, ZOO)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=f"of {', '.join(KNOWN)}")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--teacher", type=Path, help=f"{EMBEDDINGS}: the encoder, a folder of sentence-transformers")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/NAME.json")
    parser.add_argument("--dry", action="store_true", help=f"{GPU}: every part on the CPU, at the smallest size")
    parser.add_argument(
        "--out", type=Path, help=f"{GPU}, {ZOO}: folder of the result file, benchmarks/results by default"
    )
    parser.add_argument(
        "--only",
        help=f"{ZOO}: comma-separated networks, tried also where they were before; {METHODS}: methods; {SHIP}: runs",
    )
    parser.add_argument("--limit", type=int, help=f"{ZOO}: try at most so many")
    parser.add_argument("--quick", action="store_true", help=f"of {', '.join(QUICK)}: try little, to see that it works")
    given = parser.parse_args()
    if given.quick and (given.save or not set(given.names) <= set(QUICK)):
        parser.error(f"--quick is for {', '.join(QUICK)}, and saves nothing")
    for name in given.names:
        if name not in KNOWN:
            parser.error(f"unknown benchmark {name!r}; there are {', '.join(KNOWN)}")
    only = given.only.split(",") if given.only else []
    if only and given.names not in ([ZOO], [METHODS], [SHIP]):
        parser.error(f"--only is for {ZOO}, {METHODS} or {SHIP}, alone")
    if (EMBEDDINGS in given.names) != (given.teacher is not None):
        parser.error(f"{EMBEDDINGS} needs --teacher FOLDER, which is for it alone")
    lacking = missing("pytest>=8.3") if GPU in given.names else missing()
    if lacking:
        parser.exit(2, f"{lacking}\n")
    for name in given.names:
        if name == GPU:
            from benchmarks.gpu import measure

            sys.exit(measure(dry=given.dry, out=given.out, root=given.data_root))
        if name == ZOO:
            from benchmarks import zoo

            sys.exit(zoo.measure(only, given.limit, given.out))
        options: dict[str, Any] = ({"quick": True} if given.quick else {}) | ({"only": only} if only else {})
        options |= {"teacher": given.teacher} if name == EMBEDDINGS else {}
        _measure(name, given.data_root, save=given.save, **options)


def _measure(name: str, root: Path | None, *, save: bool, **options: Any) -> None:
    from limbeck.folders import data_root
    from limbeck.runs.folder import environment

    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    places = () if name in MADE else (root or data_root(),)
    figures: dict[str, Any] = module.main(*places, **options)
    if save:
        path = RESULTS / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        when = datetime.now(UTC).date().isoformat()
        command = f"python -m benchmarks {name} {'--teacher FOLDER ' if name == EMBEDDINGS else ''}--save"
        content = {"command": command, "date": when, "environment": environment(), "figures": figures}
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
