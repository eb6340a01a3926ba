"""Keep a comparison's figures, and make docs/results.md from all that are kept.

python -m benchmarks.record FOLDER "limbeck compare mnist-mlp --seeds 3"   # keeps FOLDER/compare.json
python -m benchmarks.record                                                # only makes the document anew
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parent.parent / "docs" / "results.md"
PUBLISHED = {
    "mnist-mlp": "Published: teacher 0.9795, student alone 0.8314 (3 epochs), distilled 0.9007 (20 epochs).",
    "fashion-cnn": "Three epochs leave this student far from done; the seconds were taken beside other work "
    "and compare nothing.",
    "mnist-cnn": "Published: teacher 0.9781, student alone 0.9778, distilled 0.9692.",
    "cifar10-tutorial": "Published, on CIFAR-10 itself: teacher 75.10, alone 69.86, kd 70.80, cosine 71.50, "
    "regressor 70.82 %.",
}


def main() -> None:
    if len(sys.argv) > 1:
        folder, command = Path(sys.argv[1]), sys.argv[2]
        keep(folder, command)
    DOCUMENT.write_text(document(), encoding="utf-8")
    print(f"written: {DOCUMENT}")


def keep(folder: Path, command: str) -> None:
    """Copy a comparison's figures, without the paths of the machine that made them."""
    content = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    for teacher in content["teacher"]:
        teacher.pop("weights", None)
    kept = {"command": command, **content}
    RESULTS.mkdir(exist_ok=True)
    name = folder.name if folder.name.startswith("compare-") else f"compare-{content['recipe']}"
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def document() -> str:
    """The text of docs/results.md."""
    parts = [
        "# Results\n",
        "Made by `python -m benchmarks.record` from the files in `benchmarks/results/`; each section names the command "
        "that measured it.\n\nAccuracies are shares of the test set, which was read once a student. Differences are "
        "paired by seed; the verdict is corrected for the number of methods compared. All students of one table had "
        "the same starts, data order, optimizer and epochs.\n",
    ]
    for path in sorted(RESULTS.glob("compare-*.json")):
        parts.append(_comparison(json.loads(path.read_text(encoding="utf-8"))))
    speed = RESULTS / "mnist-mlp.json"
    if speed.exists():
        parts.append(_speed(json.loads(speed.read_text(encoding="utf-8"))))
    return "\n".join(parts)


def _comparison(content: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, content["seeds"]))
    lines = [f"## {content['recipe']} on {content['data']}\n", f"    {content['command']}\n"]
    for teacher in content["teacher"]:
        epochs = f", {teacher['epochs']} epochs" if teacher["epochs"] else ""
        lines.append(
            f"Teacher: {teacher['parameters']:,} parameters{epochs}, test accuracy {teacher['test_accuracy']:.4f}."
        )
    lines.append(
        f"Students: {content['epochs']} epochs, seeds {seeds}. {PUBLISHED.get(content['recipe'], '')}".rstrip() + "\n"
    )
    lines.append("| method | test accuracy | − scratch | 95 % interval | verdict | agreement | seconds |")
    lines.append("|---|---|---|---|---|---|---|")
    for name, row in content["methods"].items():
        spread = "" if row["std"] is None else f" ± {row['std']:.4f}"
        interval = "{:+.4f} to {:+.4f}".format(*row["interval"]) if row.get("interval") else ""
        shift = f"{row['difference']:+.4f}" if "difference" in row else ""
        agreement = "" if row["agreement"] is None else f"{row['agreement']:.4f}"
        cells = (name, f"{row['mean']:.4f}{spread}", shift, interval, row.get("verdict", ""), agreement)
        lines.append(f"| {' | '.join(cells)} | {row['seconds']:.1f} |")
    return "\n".join(lines) + f"\n\n{_machine(content['environment'])}\n"


def _speed(content: dict[str, Any]) -> str:
    lines = ["## Speed: one distilled epoch of mnist-mlp\n", f"    {content['command']}\n"]
    lines += ["| | seconds an epoch, median | times as fast |", "|---|---|---|"]
    for name, seconds in content["figures"]["seconds"].items():
        median = sorted(seconds)[len(seconds) // 2]
        lines.append(f"| {name} | {median:.2f} | {content['figures']['times_as_fast'][name]:.2f} |")
    note = "`limbeck run` asks the teacher once about every image; the epoch bears a twentieth of that."
    return "\n".join(lines) + f"\n\n{note} {_machine(content['environment'])}\n"


def _machine(environment: dict[str, Any]) -> str:
    device = ", ".join(environment["gpus"]) or f"{environment['processor']}, {environment['cores']} cores"
    return f"Measured with limbeck {environment['limbeck']}, torch {environment['torch']}, {device}."


if __name__ == "__main__":
    main()
