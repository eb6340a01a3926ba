"""Networks as people hand them over: compiled, data parallel, averaged, in Fabric's wrapper, one in another."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Distiller, Hardware, ModuleTeacher, MutualDistiller, Run, Term, evaluate, fit, losses
from limbeck.distillers import Scheme
from limbeck.engine.saving.checkpoint import save_student
from limbeck.errors import RequestError
from limbeck.models import load_weights
from limbeck.taps import Taps, trace
from limbeck.taps.wrappers import is_shared, plain_names, unwrapped
from limbeck.types import Batch

Wrap = Callable[[nn.Module], nn.Module]


def network() -> nn.Sequential:
    body = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
    return nn.Sequential(OrderedDict(features=body, norm=nn.BatchNorm1d(16), head=nn.Linear(16, 3)))


def eager(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")


@pytest.fixture(scope="module", autouse=True)
def group(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One process is enough for DistributedDataParallel."""
    place = tmp_path_factory.mktemp("group") / "store"
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


WRAPPERS: dict[str, Wrap] = {
    "compile": eager,
    "data parallel": nn.DataParallel,
    "ddp": DistributedDataParallel,
    "fabric": lambda net: Fabric(accelerator="cpu").setup_module(net),
    "averaged": AveragedModel,
    "compiled ddp": lambda net: eager(DistributedDataParallel(net)),
    "ddp compiled": lambda net: DistributedDataParallel(eager(net)),
    "fabric, compiled": lambda net: Fabric(accelerator="cpu").setup_module(eager(net)),
    "three": lambda net: nn.DataParallel(AveragedModel(eager(net))),
}
PARTS: dict[str, Wrap] = {
    "compile": eager,
    "data parallel": nn.DataParallel,
    "checkpointed": checkpoint_wrapper,
    "fabric": lambda net: Fabric(accelerator="cpu").setup_module(net),
}


def loader() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(48, 8, generator=generator)
    return DataLoader(TensorDataset(x, torch.arange(48) % 3), 16)


def train(student: nn.Module, teacher: nn.Module, *terms: Term, **options: Any) -> Run:
    distiller = Distiller(student, terms or [Term(losses.kd, weight=0.5)])
    sgd = partial(torch.optim.SGD, lr=0.1)
    options = {"epochs": 2, "optimizer": sgd, "progress": False, "hardware": Hardware("cpu")} | options
    return fit(distiller, loader(), teacher=teacher, **options)


def same(one: nn.Module, other: nn.Module) -> None:
    expected = other.state_dict()
    assert set(one.state_dict()) == set(expected)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)


HINT = Term(losses.mse, student="features.0", teacher="features.0")


@pytest.mark.parametrize("terms", [(), (HINT,)], ids=["logits", "hidden"])
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_student_is_trained_as_the_plain_one(wrap: Wrap, terms: tuple[Term, ...], tmp_path: Path) -> None:
    plain, inner, teacher = network(), network(), network()
    inner.load_state_dict(plain.state_dict())
    wrapped = wrap(inner)
    expected = train(plain, copy.deepcopy(teacher), *terms).student
    run = train(wrapped, wrap(teacher), *terms, out=tmp_path)
    own = unwrapped(wrapped)
    assert run.student is own
    assert type(own) is nn.Sequential
    assert (own is inner) or wrap in (WRAPPERS["averaged"], WRAPPERS["three"])  # AveragedModel makes a copy
    same(run.student, expected)
    assert set(load_file(tmp_path / "student.safetensors")) == set(plain.state_dict())
    fresh = network()
    load_weights(fresh, tmp_path / "student.safetensors")
    same(fresh, expected)


@pytest.mark.parametrize("wrap", PARTS.values(), ids=PARTS)
def test_a_wrapped_part_has_its_plain_names_too(wrap: Wrap, tmp_path: Path) -> None:
    plain, student, teacher = network(), network(), network()
    student.load_state_dict(plain.state_dict())
    expected = train(plain, copy.deepcopy(teacher), HINT).student
    student.features = wrap(student.features)
    teacher.features = wrap(teacher.features)
    run = train(student, teacher, HINT, out=tmp_path)
    assert run.student is student
    written = load_file(tmp_path / "student.safetensors")
    assert set(written) == set(expected.state_dict())
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(written[name], value, msg=name)
    if wrap is not PARTS["fabric"]:  # Fabric's wrapper does not load what it gives
        load_weights(student, tmp_path / "student.safetensors")  # its own names are other ones
    load_weights(network(), tmp_path / "student.safetensors")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).relu())


def test_what_its_user_compiled_stays_so_where_no_hidden_tensor_is_read() -> None:
    ran = []

    def backend(graph: Any, examples: Any) -> Any:
        def run(*args: Any) -> Any:
            ran.append(len(args))
            return graph(*args)

        return run

    for student in (torch.compile(Small(), backend=backend), nn.DataParallel(torch.compile(Small(), backend=backend))):
        ran.clear()
        train(student, network())
        assert len(ran) >= 6  # steps
    ran.clear()
    train(network(), torch.compile(Small(), backend=backend))
    assert len(ran) >= 6
    ran.clear()
    hint = Term(losses.mse, student="features", teacher="features.0")
    train(torch.compile(Small(), backend=backend), network(), hint)
    in_place = Small()
    in_place.compile(backend=backend)
    train(in_place, network(), hint)  # by hooks, which a graph would not run
    assert len(ran) < 6  # a look at the data before them may run as a graph
    with pytest.raises(RequestError, match="the student is compiled already; leave compile out"):
        train(torch.compile(Small(), backend=backend), network(), hardware=Hardware("cpu", compile="default"))


def test_peers_teachers_and_traces_are_plain_too() -> None:
    peers = MutualDistiller([nn.DataParallel(network()), eager(network())])
    assert [type(peer) for peer in peers.peers] == [nn.Sequential] * 2
    one = network()
    with pytest.raises(RequestError, match="one module is given twice"):
        MutualDistiller([one, nn.DataParallel(one)])
    x = torch.randn(4, 8)
    assert [tap.name for tap in trace(eager(one), x)] == [tap.name for tap in trace(one, x)]
    teacher_output = ModuleTeacher(AveragedModel(one), ["norm"])(Batch(x, torch.zeros(4).long(), torch.arange(4)))
    one.eval()
    torch.testing.assert_close(teacher_output.features["norm"], one.norm(one.features(x)))
    assert ModuleTeacher(nn.DataParallel(one)).fingerprint == ModuleTeacher(one).fingerprint
    assert Taps(nn.DataParallel(one), ["add"]).model is one


def test_a_wrapped_model_is_saved_and_evaluated_as_the_plain_one(tmp_path: Path) -> None:
    one = network().eval()
    save_student(tmp_path, "a", one, {})
    save_student(tmp_path, "b", nn.DataParallel(one).eval(), {})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()
    found = [evaluate(model, loader()) for model in (one, nn.DataParallel(one).eval(), eager(one))]
    assert found[0] == found[1] == found[2]
    load_weights(eager(network()), tmp_path / "a.safetensors")
    assert set(plain_names(eager(one)).values()) == set(one.state_dict())


def test_a_student_that_processes_share_is_not_trained_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    student = DistributedDataParallel(network())
    assert is_shared(student)
    assert not is_shared(nn.DataParallel(network()))
    monkeypatch.setattr(dist, "get_world_size", lambda *_: 2)
    with pytest.raises(RequestError, match=r"shares gradients among 2 processes, and fit was to train in 1: give fit"):
        train(student, network())


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_script_is_trained(tmp_path: Path) -> None:
    plain = network()
    script = torch.jit.script(copy.deepcopy(plain))
    expected = train(plain, network(), Term(losses.kd, weight=0.0)).student
    same(train(script, network(), Term(losses.kd, weight=0.0), out=tmp_path).student, expected)
    assert set(load_file(tmp_path / "student.safetensors")) == set(plain.state_dict())


def test_shards_of_fsdp_1_are_refused() -> None:
    kind = type(
        "FullyShardedDataParallel", (nn.Module,), {"__module__": "torch.distributed.fsdp.fully_sharded_data_parallel"}
    )
    with pytest.raises(RequestError, match="give the plain network"):
        Scheme(kind())
