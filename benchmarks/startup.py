"""How long a command takes before its work begins, beside `import torch`: each point is a fresh process, in turns.

limbeck list recipes                  from the process's start to its end
limbeck run digits, first step        to the end of the first training step, the teacher's, with an empty cache
limbeck run digits                    the whole of it: teacher, baseline and distilled student
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROUNDS = 5
TORCH = "import torch"
AIMS = {"limbeck list recipes": 0.5, "limbeck run digits, first step": 1.5}
"""Seconds in those of `import torch`, at most."""
WHOLE, WHOLE_AIM = "limbeck run digits", 10.0
"""Its seconds at most, on two cores that do nothing else."""
FIRST_STEP = """
import os, sys
from limbeck.cli.main import main
from limbeck.engine.loop import Loop
step = Loop._update
Loop._update = lambda *given: (step(*given), os._exit(0))
main()
"""


def main(quick: bool = False) -> dict[str, Any]:
    """Measure, print and return the seconds of each round and the ratios of their medians to `import torch`."""
    work = {
        TORCH: ("-c", TORCH),
        "limbeck list recipes": ("-m", "limbeck", "list", "recipes"),
        "limbeck run digits, first step": ("-c", FIRST_STEP, "run", "digits", "--accelerator", "cpu", "--quiet"),
        WHOLE: ("-m", "limbeck", "run", "digits", "--accelerator", "cpu", "--quiet"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(1 if quick else ROUNDS):
        for name, arguments in work.items():
            seconds[name].append(_process(arguments))
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {name: middle[name] / middle[TORCH] for name in work}
    for name in work:
        aim = f"aim: under {AIMS[name]:g}" if name in AIMS else f"aim: under {WHOLE_AIM:g} s" if name == WHOLE else ""
        spread = f"{min(seconds[name]):.2f} to {max(seconds[name]):.2f}"
        print(f"{name:32} {middle[name]:7.2f} s ({spread})   {ratios[name]:.2f} times import torch   {aim}")
    return {"seconds": seconds, "times_import_torch": ratios, "rounds": len(seconds[TORCH])}


def _process(arguments: Sequence[str]) -> float:
    """The seconds that a fresh Python takes for these arguments, in an empty folder and with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(__file__).resolve().parent.parent / "src"
        environment = {**os.environ, "LIMBECK_CACHE": str(Path(folder) / "cache"), "PYTHONPATH": str(source)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, limbeck alone would be compiled at each start
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True, capture_output=True)
        return time.perf_counter() - began
