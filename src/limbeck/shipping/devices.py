"""Forms for devices' own runtimes, whose packages are extras: OpenVINO, ExecuTorch and LiteRT."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from limbeck.notices import tools_silenced
from limbeck.quantization.session import Array

Runner = Callable[[Array], Array]
"""From a batch (B, *shape) in fp32 to outputs (B, …)."""


def openvino(model: nn.Module, shape: tuple[int, ...], path: Path, threads: int) -> Runner:
    """OpenVINO's intermediate representation: NAME.xml, and NAME.bin with the weights in fp32."""
    tool = importlib.import_module("openvino")
    example = torch.rand(2, *shape)
    made = tool.convert_model(model, example_input=example, input=[(-1, *shape)])
    tool.save_model(made, path, compress_to_fp16=False)
    compiled = tool.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": threads})
    return lambda x: np.asarray(compiled(x)[0], dtype=np.float32)


def executorch(model: nn.Module, shape: tuple[int, ...], path: Path, threads: int) -> Runner:
    """ExecuTorch's program for XNNPACK, which takes one sample at a time."""
    exir = importlib.import_module("executorch.exir")
    xnnpack = importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    exported = torch.export.export(model, (torch.rand(1, *shape),))
    lowered = exir.to_edge_transform_and_lower(exported, partitioner=[xnnpack.XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)
    runtime = importlib.import_module("executorch.runtime").Runtime.get()
    method = runtime.load_program(path).load_method("forward")

    def run(x: Array) -> Array:
        said = [np.asarray(method.execute([torch.from_numpy(one[None])])[0].numpy()) for one in x]
        return np.concatenate(said)

    return run


def litert(model: nn.Module, shape: tuple[int, ...], path: Path, threads: int) -> Runner:
    """LiteRT's flat buffer, which takes one sample at a time."""
    importlib.import_module("litert_torch").convert(model, (torch.rand(1, *shape),)).export(str(path))
    kind = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    interpreter: Any = kind(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (given,), (said,) = interpreter.get_input_details(), interpreter.get_output_details()

    def one(x: Array) -> Array:
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(said["index"]))

    return lambda x: np.concatenate([one(sample[None]) for sample in x])


WRITERS: dict[str, Callable[[nn.Module, tuple[int, ...], Path, int], Runner]] = {
    "openvino": openvino,
    "executorch": executorch,
    "litert": litert,
}


def write(name: str, model: nn.Module, shape: tuple[int, ...], path: Path, threads: int) -> Runner:
    """Write a model for one of these runtimes, and load it back.

    Args:
        name: Of `WRITERS`.
        model: In eval mode, from (B, *shape) to its output.
        shape: One sample's.
        path: The file.
        threads: On which it is run.
    """
    with warnings.catch_warnings(), tools_silenced():
        warnings.simplefilter("ignore")  # these tools warn of their own internals
        return WRITERS[name](model, shape, path, threads)
