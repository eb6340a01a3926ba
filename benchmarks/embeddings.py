"""A pretrained sentence encoder's embeddings in a student of a few megabytes: how well it ranks, and how fast it is.

The teacher is a folder as sentence-transformers writes it. The recipe text-embed is carried out for each seed: the
teacher's outputs for the training sentences are stored once, and no student sees a label. On the test sentences the
student's similarities and neighbours are compared with the teacher's, in fp32 and in int8 by onnxruntime; a teacher's
agreement with itself is 1, so that 90 % of its Spearman is 0.9. `quick` tries little.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.turns import in_turns, timed
from limbeck.data import DataSet, make_loader
from limbeck.data.text.files import column, located, records
from limbeck.data.text.readings import ids_of
from limbeck.data.text.texts import IDS
from limbeck.data.text.tokenizers import Tokenizer, read_tokenizer
from limbeck.export.texts import write_text_onnx
from limbeck.models.load import load_network, read_description
from limbeck.recipes import schema
from limbeck.recipes.read import read
from limbeck.runs import components, teachers
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.tasks.neighbours import NEAREST, PAIRED, SAMPLES, overlap, spearman
from limbeck.teachers import Teacher
from limbeck.types import MASK, Inputs

SEEDS = (0,)
AIM = {"spearman": 0.9, "times_as_fast": 50, "int8_bytes": 3_000_000}
TIMED, BATCH, ROUNDS = 256, 32, 5
"""Sentences that are timed, how many at once, sorted by length, and how often."""


def main(root: Path, teacher: Path, quick: bool = False) -> dict[str, Any]:
    """Train, measure, print and return the figures."""
    seeds = SEEDS[:1] if quick else SEEDS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        changes = [f"teacher.model=hf:{teacher}", *(["epochs=1", "data.limit_samples=300"] if quick else [])]
        recipe = read("text-embed", changes)
        data = components.data(recipe.data, root)
        (one,) = teachers.candidates(recipe, data)
        asked = teachers.as_one([one])
        told = _answers(asked, data)
        rows = [_student(recipe, root, folder / str(seed), seed, data, told) for seed in seeds]
        speeds = _speeds(asked, recipe, root, folder / str(seeds[0]), data, 1 if quick else ROUNDS)
    sizes = {name: len(part) for name, part in data.parts}
    found = {
        "aim": AIM,
        "seeds": list(seeds),
        "sentences": sizes,
        "teacher": {"name": _name(teacher), "parameters": sum(p.numel() for p in one.module.parameters())},
        "student": recipe.student.options,
        "parameters": rows[0]["parameters"],
        "epochs": recipe.epochs,
        "rows": rows,
        "threads": torch.get_num_threads(),
        **speeds,
    }
    _print(found)
    return found


def _name(teacher: Path) -> str:
    """What an encoder's own configuration calls it."""
    said = json.loads((teacher / "config.json").read_text(encoding="utf-8"))
    return str(said.get("_name_or_path") or said["model_type"])


def _student(recipe: schema.Recipe, root: Path, out: Path, seed: int, data: DataSet, told: Tensor) -> dict[str, Any]:
    """One student: its figures in fp32 as its run gives them, and in int8."""
    result = run(recipe.model_copy(update={"seed": seed}), root=root, out=out, machine=Machine("cpu", progress=False))
    about = read_description(out / "student.json")
    write_text_onnx(out / "fp32.onnx", load_network(out / "student.json"), about["input"])
    _to_int8(out / "fp32.onnx", out / "int8.onnx")
    reads = _session(out / "int8.onnx")
    given = [batch.inputs for batch in make_loader(data.test, BATCH)]
    own = torch.cat([reads(_input(one, IDS), _input(one, MASK)) for one in given])
    tested = result["distilled"]["test"]
    return {
        "seed": seed,
        "parameters": result["distilled"]["parameters"],
        "seconds": result["distilled"]["seconds"],
        "fp32": {name: tested[name] for name in ("spearman", "top10_overlap", "cosine")},
        "int8": _agreement(own, told),
        "bytes": {kind: (out / f"{kind}.onnx").stat().st_size for kind in ("fp32", "int8")},
    }


def _input(inputs: Inputs, name: str) -> Tensor:
    """One of several inputs."""
    found = None if isinstance(inputs, Tensor) else inputs[name]
    assert isinstance(found, Tensor)
    return found


def _agreement(own: Tensor, told: Tensor) -> dict[str, float]:
    own, told = (torch.nn.functional.normalize(one[:SAMPLES], dim=1) for one in (own, told))
    return {
        "spearman": spearman(own[:PAIRED], told[:PAIRED]),
        "top10_overlap": overlap(own, told, NEAREST),
        "cosine": float((own * told).sum(1).mean()),
    }


@torch.no_grad()
def _answers(teacher: Teacher, data: DataSet) -> Tensor:
    """The teacher's embeddings of the test sentences."""
    found = [teacher(batch).output for batch in make_loader(data.test, BATCH)]
    return torch.cat([one for one in found if one is not None])


def _to_int8(source: Path, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    kinds = ["Gather", "MatMul", "Gemm"]
    quantize_dynamic(source, path, weight_type=QuantType.QInt8, op_types_to_quantize=kinds, per_channel=True)


def _session(path: Path) -> Callable[[Tensor, Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def reads(ids: Tensor, mask: Tensor) -> Tensor:
        given = {IDS: ids.numpy(), MASK: mask.long().numpy()}
        return torch.from_numpy(np.asarray(session.run(None, given)[0]))

    return reads


def _speeds(
    teacher: Teacher, recipe: schema.Recipe, root: Path, run: Path, data: DataSet, rounds: int
) -> dict[str, Any]:
    """Sentences a second from text to embedding, tokens made included, in turns on the same cores."""
    rows = sorted(_test_sentences(recipe, root)[:TIMED], key=len)
    own, theirs = read_tokenizer(run), read_tokenizer(Path(str(recipe.data.options["teacher_tokenizer"])))
    network = load_network(run / "student.json").eval()
    module: Any = teacher.module  # type: ignore[attr-defined]
    most, length = int(np.max([len(row) for row in theirs.encode(rows)])) + 2, data.input_shape[0]

    def plain(ids: Tensor, mask: Tensor) -> Tensor:
        found: Tensor = network(ids, mask)
        return found

    module.eval()
    contenders = {
        "teacher, fp32": _reader(rows, theirs, most, lambda ids, mask: module(input_ids=ids, attention_mask=mask), 1),
        "student, fp32": _reader(rows, own, length, plain, 20),
        "student, fp32, onnxruntime": _reader(rows, own, length, _session(run / "fp32.onnx"), 20),
        "student, int8, onnxruntime": _reader(rows, own, length, _session(run / "int8.onnx"), 20),
    }
    for reads in contenders.values():
        reads()
    turns = in_turns(contenders, rounds)
    rates = {name: 1 / statistics.median(values) for name, values in turns["seconds"].items()}
    return {"sentences_a_second": rates, "times_as_fast": turns["times_as_fast"], "timed": len(rows), "batch": BATCH}


def _test_sentences(recipe: schema.Recipe, root: Path) -> list[str]:
    """Sentences as the test's are, as text."""
    options = recipe.data.options
    rows = [
        str(one)
        for path in located(root, options["test"])
        for one in column(records(path, options["columns"]), "text", path)
    ]
    return rows[:: max(len(rows) // TIMED, 1)]


def _reader(
    rows: Sequence[str], tokenizer: Tokenizer, length: int, model: Callable[[Tensor, Tensor], Any], times: int
) -> Callable[[], float]:
    """A function that reads all sentences some times, and gives the seconds for one."""

    @torch.inference_mode()
    def read_all() -> None:
        for _ in range(times):
            for start in range(0, len(rows), BATCH):
                inputs, sizes, _cut = ids_of(rows[start : start + BATCH], tokenizer, length)
                longest = int(sizes.max())
                model(inputs[IDS][:, :longest].long(), inputs[MASK][:, :longest].long())

    return lambda: timed(read_all) / len(rows) / times


def _print(found: dict[str, Any]) -> None:
    for kind in ("fp32", "int8"):
        means = {name: statistics.mean(row[kind][name] for row in found["rows"]) for name in found["rows"][0][kind]}
        size = found["rows"][0]["bytes"][kind]
        print(f"student, {kind}: {size:>10,} bytes  " + "  ".join(f"{n} {value:.4f}" for n, value in means.items()))
    for name, rate in found["sentences_a_second"].items():
        print(f"{name:28} {rate:10,.0f} sentences a second   {found['times_as_fast'][name]:.1f} times as fast")
