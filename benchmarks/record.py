"""Keep figures of a comparison or search; make docs/results.md from all that are kept, and docs/reliability.md's table.

python -m benchmarks.record FOLDER "limbeck compare mnist-mlp --seeds 3"   # keeps FOLDER/compare.json
python -m benchmarks.record FOLDER "limbeck tune mnist-mlp --trials 20"    # keeps FOLDER/tune.json
python -m benchmarks.record FOLDER "limbeck compare …" "CIFAR-10 (JPEG)"   # says what the data really is
python -m benchmarks.record                                                # only makes the documents anew
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks import embedding_section, methods, searches, sequential, ship_section, startup, token_sections
from limbeck.compare.cells import OWN
from limbeck.compare.labels import label_of, own_label
from limbeck.compare.verdicts import with_simultaneous
from limbeck.recipes.read import read
from limbeck.runs.entry import label, metric, monitor_of, score, span
from limbeck.runs.folder import COMPARISON, TUNED

RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parent.parent / "docs" / "results.md"
RELIABILITY = DOCUMENT.with_name("reliability.md")
TRIED = "## What was tried\n"
"""Where the made part of docs/reliability.md begins."""
BUSY = "The seconds were taken beside other work and compare nothing."
PUBLISHED = {
    "mnist-mlp": "Published: teacher 0.9795, baseline 0.8314 (3 epochs), distilled 0.9007 (20 epochs).",
    "mnist-mlp:best": "DIST, no dropout in the student, learning rate 2e-3, cosine decay: chosen by validation. "
    f"The teacher is that of mnist-mlp. {BUSY}",
    "fashion-cnn": f"The student has 1,442 parameters, and few epochs leave it far from done. {BUSY}",
    "fashion-cnn:best": "DIST: of the methods compared on fashion-cnn, the one with the highest validation accuracy. "
    f"{BUSY}",
    "fashion-cnn:kd-1": "kd as in fashion-cnn, but at temperature 1 instead of 4, which is what so small a student "
    f"cannot follow. {BUSY}",
    "fashion-cnn:two-teachers": "`dist-cnn + dist-mlp` has a term for each teacher; `dist` and `kd` distil the "
    f"teachers' mean. The student is that of fashion-cnn. {BUSY}",
    "mnist-cnn": f"Published: teacher 0.9781, baseline 0.9778, distilled 0.9692. {BUSY}",
    "cifar10-tutorial": "Published, on CIFAR-10 itself, one seed: teacher 75.10, alone 69.86, soft labels "
    f"70.80, cosine 71.50, regressor 70.82 %. {BUSY}",
    "cifar10-tutorial:best": "The teacher was trained with crop, flip and cosine decay; the students see plain images. "
    f"{BUSY}",
    "cifar10-mobilenet": "A short run on a part of the data, 500 images a class, 78 steps an epoch; the published "
    f"system gives no accuracy. {BUSY}",
    "cifar10-mobilenet:best": "A short run: 5,000 training images, and 5,000 of the test set. The teacher is a "
    f"checkpoint of others, trained on the whole training set. {BUSY}",
    "cifar10-pair": "The teacher is a ResNet-56, a checkpoint of others. The other four methods of "
    "cifar10-pair:resnet8 were not run: they take a night of two cores, by the same command with --methods "
    f"kd,dist,dkd,crd,rkd. {BUSY}",
    "cifar10-pair:resnet8": f"The teacher is a ResNet-56, a checkpoint of others. {BUSY}",
    "digits": BUSY,
    "lm-tiny": "Batch size and learning rates were changed once after a test table had been seen; the seeds 1 and 2 "
    "are new.",
    "text-trec": f"Teacher and student begin without pretraining. {BUSY}",
    "text-trec:bag": f"The student is the mean of its tokens' vectors; the teacher that of text-trec. {BUSY}",
    "text-trec:few": "Labels of 20 questions a class, for teacher and students alike; the distilled one learns the "
    f"others from the teacher. {BUSY}",
    "text-mr": f"Teacher and student begin without pretraining. {BUSY}",
    "lm-shakespeare": f"Of each token's distribution the 64 likeliest are stored. {BUSY}",
    "digits-byot": "`baseline` learns the labels at each exit; `backbone` is the plain network of the deepest exit.",
}
AIM = 0.95
"""Of the hand-tuned loop's speed, on a GPU."""
UNTUNED = "Plain loops have memory as glibc gives it by itself; limbeck keeps what is freed."
SPEEDS = {
    "mnist-mlp": (
        "one distilled epoch of mnist-mlp",
        "`limbeck run` and the tuned loop ask the teacher once about every image; an epoch pays a twentieth of that. "
        "The aim: 5 times the plain loop, and at most 10 % more time than the tuned one. torchdistill has the plain "
        f"loop's dataset and an online teacher. {UNTUNED}",
    ),
    "mnist-cnn": (
        "three distilled epochs of mnist-cnn",
        "The teacher's pass included. The plain loop and Keras were measured on 150 steps after a warm-up, and "
        f"extrapolated to 5,625. {UNTUNED}",
    ),
    "cifar10-tutorial": (
        "four students and the teacher of cifar10-tutorial",
        "Measured on 2,560 images: ten epochs of all four students, the teacher's passes included; an epoch of the "
        f"teacher's own training. The ratio of each second row is to the row above it. {UNTUNED}",
    ),
}


def main() -> None:
    if len(sys.argv) > 1:
        folder, command, *data = sys.argv[1:]
        keep(Path(folder), command, *data)
    DOCUMENT.write_text(document(), encoding="utf-8")
    RELIABILITY.write_text(reliability(), encoding="utf-8")
    growth = RESULTS / "growth.json"
    if growth.exists():
        draw_growth(json.loads(growth.read_text(encoding="utf-8"))["figures"]["rows"], DOCUMENT.parent / "growth.svg")
    print(f"written: {DOCUMENT}, {RELIABILITY}")


def keep(folder: Path, command: str, data: str | None = None) -> None:
    """Copy a comparison's figures, or a search's, without the paths of the machine that made them."""
    tuned = (folder / TUNED).exists()
    content = json.loads((folder / (TUNED if tuned else COMPARISON)).read_text(encoding="utf-8"))
    content["data"] = data or content["data"]
    for teacher in content["teacher"]:
        teacher.pop("weights", None)
    for outputs in content.get("teacher_outputs") or []:
        place = outputs.pop("place", None)
        if place:
            outputs["reason"] = outputs["reason"].replace(place, "the cache")
    kept = {"command": command, **(searches.kept(content) if tuned else content)}
    RESULTS.mkdir(exist_ok=True)
    of = "title" if tuned else "recipe"
    kept[of] = kept[of].partition(" (trial")[0]  # the command says on how much it was run
    name = f"{'tune' if tuned else 'compare'}-{kept[of]}"
    text = json.dumps(kept, indent=2).replace('"scratch": {', '"baseline": {')  # its key in comparisons of before
    (RESULTS / f"{name.replace(':', '-')}.json").write_text(f"{text}\n", encoding="utf-8")


def document() -> str:
    """The text of docs/results.md."""
    parts = [
        "# Results\n",
        "Made by `python -m benchmarks.record` from the files in `benchmarks/results/`; each section names the command "
        "that measured it.\n\nAccuracies are shares of the test set, which was read once a student. Differences are "
        "paired by seed. The 95 % interval is for one method by itself; the simultaneous ones hold for all methods of "
        "the table at once, and the verdict is what they show: better or worse where they exclude 0 "
        "([verdicts](verdicts.md)). All students of one table had the same starts, data order, optimizer and epochs.\n",
    ]
    for path in sorted(RESULTS.glob("compare-*.json")):
        parts.append(_comparison(json.loads(path.read_text(encoding="utf-8"))))
    for path in sorted(RESULTS.glob("tune-*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        parts.append(f"{searches.section(content)}\n\n{BUSY} {_machine(content['environment'])}\n")
    for name, (title, note) in SPEEDS.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            parts.append(_speed(title, note, json.loads(path.read_text(encoding="utf-8"))))
    for name, section in (
        ("resnet-pair", _pair),
        ("precision", _precision),
        ("growth", _growth),
        ("losses", _losses),
        ("methods", _methods),
        ("sequential", sequential.section),
        ("ship", ship_section.section),
        ("tokens", _tokens),
        ("codecs", _codecs),
        ("embeddings", _embeddings),
        ("startup", _startup),
    ):
        path = RESULTS / f"{name}.json"
        if path.exists():
            parts.append(section(json.loads(path.read_text(encoding="utf-8"))))
    return "\n".join([*parts, *_gpus()])


def reliability() -> str:
    """The text of docs/reliability.md: what stands there, with the campaign's table made anew."""
    written = RELIABILITY.read_text(encoding="utf-8").partition(TRIED)[0]
    content = json.loads((RESULTS / "faults.json").read_text(encoding="utf-8"))
    lines = [f"{TRIED}\n    {content['command']}\n"]
    lines += ["| situation | what must hold | tried | right | wrong | note |", "|---|---|---|---|---|---|"]
    for row in content["figures"]["rows"]:
        counts = f"{row['tried']} | {row['right']} | {row['wrong']}"
        lines.append(f"| {row['situation']} | {row['what']} | {counts} | {row['note']} |")
    faults = [f"- {row['situation']}: {fault}" for row in content["figures"]["rows"] for fault in row["faults"]]
    if faults:
        lines += ["", "What was wrong:", "", *faults]
    note = f"Seed {content['figures']['seed']}, {content['date']}."
    return written + "\n".join(lines) + f"\n\n{note} {_machine(content['environment'])}\n"


def _comparison(content: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, content["seeds"]))
    lines = [f"## {content['recipe']} on {content['data']}\n", f"    {content['command']}\n"]
    for teacher in content["teacher"]:
        epochs = f", {teacher['epochs']} epochs" if teacher["epochs"] else ""
        lines.append(
            f"Teacher: {teacher['parameters']:,} parameters{epochs}, test "
            f"{label(teacher['monitor'])} {score(teacher):.4f}."
        )
    lines.append(
        f"Students: {content['epochs']} epochs, seeds {seeds}. {PUBLISHED.get(content['recipe'], '')}".rstrip() + "\n"
    )
    lines.append(f"The intervals contain the error from {' and '.join(_errors(content))}.\n")
    figure = f"test {label(monitor_of(content))}"
    methods = _called(content)
    lines += _methods_table(methods, figure) + _predictions(methods)
    if timed := content.get("equal_time"):
        called = {label_of(name, {**content["methods"][name], **row}): row for name, row in timed["methods"].items()}
        lines.append(f"\nAt equal time, {timed['seconds']:.1f} s a student, what the baseline takes:\n")
        lines += _methods_table(called, figure, steps=True)
    return "\n".join(lines) + f"\n\n{_machine(content['environment'])}\n"


def _methods_table(methods: dict[str, Any], figure: str, steps: bool = False) -> list[str]:
    """A row for each method of a comparison; with the steps of its training where these differ."""
    head = ["method", figure, "− baseline", "95 % interval", "simultaneous", "verdict", "agreement", "seconds"]
    head += ["steps"] if steps else []
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, row in methods.items():
        spread = "" if row["std"] is None else f" ± {row['std']:.4f}"
        intervals = [span(row[key]) if row.get(key) else "" for key in ("interval", "simultaneous")]
        shift = f"{row['difference']:+.4f}" if "difference" in row else ""
        agreed = metric(row, "agreement")
        agreement = "" if agreed is None else f"{agreed:.4f}"
        cells = [name, f"{row['mean']:.4f}{spread}", shift, *intervals, row.get("verdict", ""), agreement]
        cells += [f"{row['seconds']:.1f}", *([f"{row['steps']:,}"] if steps else [])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _errors(content: dict[str, Any]) -> list[str]:
    """What the intervals of a record contain; those of earlier records the seeds alone."""
    judged = [row.get("errors", ["seeds"]) for row in content["methods"].values() if "difference" in row]
    return min(judged, key=len)


def _called(content: dict[str, Any]) -> dict[str, Any]:
    """The methods under what they are called in tables, with both intervals, also those of earlier records."""
    methods = with_simultaneous(content)
    if OWN in methods:
        others = [name for name in methods if name != OWN]
        methods[OWN].setdefault("label", own_label(read(content["recipe"]), others))
    return {label_of(name, row): row for name, row in methods.items()}


def _predictions(methods: dict[str, Any]) -> list[str]:
    """A table of each exit's or peer's accuracy, where there are several."""
    several = {name: row["predictions"] for name, row in methods.items() if row.get("predictions")}
    if not several:
        return []
    columns = list(dict.fromkeys(column for found in several.values() for column in found))
    lines = ["", f"| method | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, found in several.items():
        cells = [f"{found[one]['mean']:.4f} ± {found[one]['std']:.4f}" if one in found else "" for one in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _speed(title: str, note: str, content: dict[str, Any]) -> str:
    lines = [f"## Speed: {title}\n", f"    {content['command']}\n"]
    lines += ["| | seconds, median | lowest to highest | times as fast |", "|---|---|---|---|"]
    for name, seconds in content["figures"]["seconds"].items():
        ratio = content["figures"]["times_as_fast"][name]
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        lines.append(f"| {name} | {statistics.median(seconds):.2f} | {spread} | {ratio:.2f} |")
    return "\n".join(lines) + f"\n\n{note} {_machine(content['environment'])}\n"


def _pair(content: dict[str, Any]) -> str:
    lines = ["## Speed: resnet32x4 teaches resnet8x4\n", f"    {content['command']}\n"]
    lines += ["| batch size | teacher | torch.compile | limbeck, images/s | tuned loop, images/s | ratio |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in content["figures"]["rows"]:
        mode, speeds = row["compile"] or "not used", f"{row['limbeck']:,.0f} | {row['tuned']:,.0f}"
        lines.append(f"| {row['batch']} | {row['teacher']} | {mode} | {speeds} | {row['ratio']:.2f} |")
    note = (
        f"{content['figures']['samples']:,} made images of 3×32×32, {content['figures']['precision']}; what a stored "
        "teacher says was asked before, and is not counted. The aim: 0.9 times the loop that is tuned by hand."
    )
    return "\n".join(lines) + f"\n\n{note} {_machine(content['environment'])}\n"


def _precision(content: dict[str, Any]) -> str:
    figures = content["figures"]
    lines = ["## Accuracy of faster training: the teacher of cifar10-tutorial in bf16\n", f"    {content['command']}\n"]
    lines += ["| precision | test accuracy, each seed | mean | seconds, each seed |", "|---|---|---|---|"]
    for name, accuracies in figures["accuracies"].items():
        each = ", ".join(f"{value:.4f}" for value in accuracies)
        seconds = ", ".join(f"{value:.0f}" for value in figures["seconds"][name])
        lines.append(f"| {name} | {each} | {figures['means'][name]:.4f} | {seconds} |")
    low, high = figures["interval"]
    note = (
        f"{figures['epochs']} epochs of {figures['samples']:,} images of CIFAR-10 (JPEG), with the same starts and "
        f"order. bf16 − fp32: {figures['difference']:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}. {BUSY}"
    )
    return "\n".join(lines) + f"\n\n{note} {_machine(content['environment'])}\n"


def _growth(content: dict[str, Any]) -> str:
    lines = ["## Growth of cost with work\n", f"    {content['command']}\n"]
    lines.append("![Samples a second and peak memory](growth.svg)\n")
    lines += ["| | value | teacher | samples a second | peak memory, MB |", "|---|---|---|---|---|"]
    for row in content["figures"]["rows"]:
        value, speed, peak = row["value"], row["samples_a_second"], row["peak_megabytes"]
        lines.append(f"| {row['what']} | {value:,} | {row['teacher']} | {speed:,.0f} | {peak:,.0f} |")
    note = (
        f"One epoch of {content['figures']['samples']:,} made images of 3×32×32 for each method, kd, batch size 64 "
        "where nothing else is said; a stored teacher's pass is included. A fresh process for each line."
    )
    return "\n".join(lines) + f"\n\n{note} {_machine(content['environment'])}\n"


def draw_growth(rows: list[dict[str, Any]], path: Path) -> None:
    """The same as a picture: a column for each kind of work, speed above, memory below."""
    import matplotlib
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(row["what"] for row in rows))
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    axes = figure.subplots(2, len(kinds), sharex="col")
    for column, what in enumerate(kinds):
        for teacher in ("online", "stored"):
            some = [row for row in rows if row["what"] == what and row["teacher"] == teacher]
            for line, key in enumerate(("samples_a_second", "peak_megabytes")):
                axes[line, column].plot([row["value"] for row in some], [row[key] for row in some], "o-", label=teacher)
                axes[line, column].set_xscale("log", base=2)
                axes[line, column].set_ylim(bottom=0)
        axes[1, column].set_xlabel(what)
    axes[0, 0].set_ylabel("samples a second")
    axes[1, 0].set_ylabel("peak memory, MB")
    axes[0, 0].legend(title="teacher")
    with matplotlib.rc_context({"svg.hashsalt": "limbeck", "svg.fonttype": "path"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _losses(content: dict[str, Any]) -> str:
    lines = ["## Speed: the losses\n", f"    {content['command']}\n"]
    lines.append("One forward and backward pass against the straightforward form in which each is published.\n")
    lines += [
        "| loss | limbeck, ms | published form, ms | ratio | limbeck, MB | published form, MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in content["figures"].items():
        if "time_ratio" in row:
            times = f"{row['milliseconds']:.3g} | {row['published_milliseconds']:.3g} | {row['time_ratio']:.2f}"
            sizes = [f"{row[key] / 1e6:.1f}" if key in row else "" for key in ("extra_bytes", "published_extra_bytes")]
            lines.append(f"| {name} | {times} | {' | '.join(sizes)} |")
    return "\n".join(lines) + f"\n\n{_machine(content['environment'])}\n"


def _methods(content: dict[str, Any]) -> str:
    figures = content["figures"]
    lines = ["## Methods: the balance of their losses\n", f"    {content['command']}\n"]
    lines.append(
        f"resnet14 teaches resnet8 on CIFAR-10, {figures['steps']} steps at the protocol's rate (SGD at 0.05, batches "
        "of 64). The weighted loss of each term on the first batch, behind × the norm of its gradient over the task "
        "loss's; then the whole loss at the first step and the mean of the last tenth.\n"
    )
    lines += ["| method | part | terms | first | last | finite |", "|---|---|---|---|---|---|"]
    for row in figures["rows"]:
        terms = ", ".join(_term(term) for term in row["terms"])
        state = "**no**" if not row["finite"] else "yes, **but it grows**" if row["last"] > row["first"] else "yes"
        ends = f"{row['first']:.4g} | {row['last']:.4g} | {state}"
        lines.append(f"| {row['method']} | {row['part']} | {terms} | {ends} |")
    done = {row["method"] for row in figures["rows"]}
    missing = ", ".join(f"`{name}`" for name in methods.names() if name not in done)
    left = f"\n\nNot measured yet (`--only NAMES` adds them): {missing}." if missing else ""
    return "\n".join(lines) + f"{left}\n\n{_machine(content['environment'])}\n"


def _embeddings(content: dict[str, Any]) -> str:
    return f"{embedding_section.section(content)}\n\n{_machine(content['environment'])}\n"


def _startup(content: dict[str, Any]) -> str:
    seconds = content["figures"]["seconds"]
    torch = statistics.median(seconds[startup.TORCH])
    lines = ["## Start-up\n", f"    {content['command']}\n"]
    rounds = len(seconds[startup.TORCH])
    lines.append(f"Medians of {rounds} rounds, each point a fresh process, in turns; the cache is empty.\n")
    lines += ["| what | seconds | in those of `import torch` | aim |", "|---|---|---|---|"]
    for name, times in seconds.items():
        median = statistics.median(times)
        aim = f"under {startup.WHOLE_AIM:g} s" if name == startup.WHOLE else ""
        aim = f"under {startup.AIMS[name]:g}" if name in startup.AIMS else aim
        lines.append(f"| `{name}` | {median:.2f} | {median / torch:.2f} | {aim} |")
    return "\n".join(lines) + f"\n\n{_machine(content['environment'])}\n"


def _tokens(content: dict[str, Any]) -> str:
    return f"{token_sections.tokens(content)} {_machine(content['environment'])}\n"


def _codecs(content: dict[str, Any]) -> str:
    return f"{token_sections.codecs(content)} {_machine(content['environment'])}\n"


def _term(term: dict[str, Any]) -> str:
    share = "" if term["share"] is None else f" (×{term['share']:.2g})"
    return f"{term['name']} {term['loss']:.3g}{share}"


def _gpus() -> list[str]:
    """A section for each GPU whose file is there."""
    found = sorted(RESULTS.glob("gpu-*.json"))
    if not found:
        return ["## GPUs\n", "    python -m benchmarks gpu\n", "Not measured yet.\n"]
    return [_gpu(json.loads(path.read_text(encoding="utf-8"))) for path in found]


def _gpu(content: dict[str, Any]) -> str:
    lines = [f"## GPU: {content['gpu']['name']}\n", f"    {content['command']}\n", *gpu_table(content)]
    note = (
        f"The aim: {AIM} of the hand-tuned loop in every line. Peak is the most that tensors took; the GPU waits where "
        "no kernel and no copy runs on it: 1 − busy / wall, busy from torch.profiler in a training of its own."
    )
    return "\n".join(lines) + f"\n\n{note} {_machine(content['environment'])}\n"


def gpu_table(content: dict[str, Any]) -> list[str]:
    """The table of a GPU's result file: a line for each row, and one for each part that failed."""
    lines = ["| part | what | limbeck | beside | ratio | peak, MB | GPU waits | data |", f"|{'---|' * 8}"]
    for part in content["parts"]:
        name, data, rows = part["name"], part["data"], part["rows"]
        if name == "tests":
            passed = sum(row["outcome"] == "passed" for row in rows)
            rest = [f"{row['what']}: {row.get('reason', row['outcome'])}" for row in rows if row["outcome"] != "passed"]
            lines += [f"| {name} | {passed} passed |  |  |  |  |  |  |"]
            lines += [f"| {name} | {_cell(one)} |  |  |  |  |  |  |" for one in rest]
        lines += [f"| {name} | {_gpu_row(row)} | {data} |" for row in rows if "outcome" not in row]
        if part["failed"]:
            lines.append(f"| {name} | **failed**: {_cell(part['failed'])} |  |  |  |  |  | {data} |")
    return lines


def _gpu_row(row: dict[str, Any]) -> str:
    if "verdict" in row:
        span = "{:+.4f} to {:+.4f}".format(*row["interval"])
        figures = f"{row['accuracy']:.4f} | baseline {row['baseline']:.4f}, teacher {row['teacher']:.4f}"
        return f"{row['what']}: {row['difference']:+.4f} ({span}), {row['verdict']} | {figures} |  |  | "
    form = "{:,.0f}" if row["unit"] == "images/s" else "{:.2f}"
    own, other = (f"{form.format(row[key])} {row['unit']}" for key in ("limbeck", "other"))
    peaks = " / ".join(f"{value / 1e6:,.0f}" for value in _both(row.get("peak_bytes")))
    waits = " / ".join(f"{value:.0%}" for value in _both(row.get("waits")))
    return f"{row['what']} | {own} | {row['beside']} {other} | {row['ratio']:.2f} | {peaks} | {waits}"


def _both(values: dict[str, float | None] | None) -> list[float]:
    """limbeck's value and the loop's, those that were measured."""
    return [value for name in ("limbeck", "tuned") if (value := (values or {}).get(name)) is not None]


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


def _machine(environment: dict[str, Any]) -> str:
    device = ", ".join(environment["gpus"]) or f"{environment['processor']}, {environment['cores']} cores"
    return f"Measured with limbeck {environment['limbeck']}, torch {environment['torch']}, {device}."


if __name__ == "__main__":
    main()
