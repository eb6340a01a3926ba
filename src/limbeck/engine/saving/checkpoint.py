"""Checkpoints: all that a killed run needs to go on to the same student. The teacher is in none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

import limbeck
from limbeck.engine.batches.generators import Drawing
from limbeck.engine.devices.fabric import AUTO, from_all, from_first
from limbeck.engine.devices.sharding import load_module, load_optimizer, whole
from limbeck.engine.optimizers.named import Schedule
from limbeck.engine.optimizers.schedulers import Scheduler
from limbeck.engine.saving.files import write_json, write_safetensors, write_torch
from limbeck.errors import RequestError, RunError, as_request
from limbeck.models import parameter_count
from limbeck.models.foreign.hugging_face import save_hugging_face
from limbeck.models.foreign.hugging_face_lora import has_adapters, merged
from limbeck.models.load import load_own
from limbeck.models.torch_file import load_torch
from limbeck.taps.wrappers import plain_names, unwrapped

FORMAT = 2


@dataclass
class Progressed:
    """How far a training has come.

    Attributes:
        epoch: Finished epochs.
        step: Finished batches of the epoch after them.
        sums: The numbers of those batches (`limbeck.engine.totals`).
        seconds: Time spent training.
        rng: State of the global generators after those batches (`limbeck.seeds.random_state`); empty between epochs.
        compile: torch.compile's mode, which a resumed run keeps; "auto" until it is chosen.
        best: The best validation accuracy so far; None without validation.
        drawing: How far the user's loaders had drawn when the epoch began (`limbeck.engine.batches.generators`).
        records: What was written for each finished epoch.
        stopped: Whether a callback has ended the training.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    rng: list[torch.Tensor] = field(default_factory=list)
    compile: str | None = AUTO
    best: float | None = None
    drawing: Drawing | None = None
    records: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False

    def finish_epoch(self, record: dict[str, Any]) -> None:
        """Go on to the next epoch."""
        self.epoch, self.step, self.sums, self.rng = self.epoch + 1, 0, {}, []
        self.records.append(record)


class Checkpoint:
    """Writes and reads `checkpoints/last.pt` of a run folder, and its best student.

    Args:
        out: The run folder; None writes nothing.
        phase: What is being trained; a checkpoint of another phase does not count.
        settings: What must be the same for a run to go on, such as its seed and steps an epoch.
        fabric: Only its first process writes.
        scheme: The student and what is trained beside it, not wrapped.
        optimizer: Its optimizer.
        schedule: What it follows; a scheduler is saved too.
    """

    def __init__(
        self,
        out: Path | None,
        phase: str,
        settings: Mapping[str, Any],
        fabric: Fabric,
        scheme: nn.Module,
        optimizer: Optimizer,
        schedule: Schedule | Scheduler | None = None,
    ) -> None:
        self.out, self.phase, self.settings = out, phase, dict(settings)
        self.fabric, self.scheme, self.optimizer = fabric, scheme, optimizer
        self.scheduler = schedule if isinstance(schedule, Scheduler) else None
        self._best: dict[str, Any] | None = None

    @property
    def writes(self) -> bool:
        return self.out is not None and self.fabric.is_global_zero

    def save(self, state: Progressed) -> None:
        """Write last.pt.

        Raises:
            RunError: A weight is not finite (the last good checkpoint stays), or the disk refuses.
        """
        scheme, optimizer = whole(self.scheme.state_dict()), whole(self.optimizer.state_dict())
        for name, value in self.scheme.named_parameters():
            if not torch.isfinite(scheme.get(name, value)).all():
                raise RunError(
                    f"{self.phase}: {name} is not finite before epoch {state.epoch + 1}; try a lower learning rate"
                )
        processes = from_all(self.fabric, [state.sums, state.rng]) if state.step else []
        if not self.writes or self.out is None:
            return
        content = {
            "format": FORMAT,
            "phase": self.phase,
            "settings": self.settings,
            "state": asdict(replace(state, sums={}, rng=[])),
            "processes": processes,
            "scheme": scheme,
            "optimizer": optimizer,
            "scheduler": self.scheduler.state() if self.scheduler else None,
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        write_torch(self.out / "checkpoints" / "last.pt", content)

    def load(self) -> Progressed:
        """Read last.pt back into scheme and optimizer; a fresh state where there is none of this phase.

        Raises:
            RequestError: It is damaged, or belongs to a run with other settings.
        """
        if self.out is None:
            return Progressed()
        path = self.out / "checkpoints" / "last.pt"
        content = from_first(self.fabric, lambda: read_checkpoint(path) if path.exists() else None)
        if content is None or content["phase"] != self.phase:
            return Progressed()
        for name, value in self.settings.items():
            if content["settings"].get(name) != value:
                raise RequestError(
                    f"{path} was made with {name} {content['settings'].get(name)}, and this run has {value}"
                )
        with as_request(lambda reason: f"{path} does not fit this run: {reason}"):
            load_module(self.scheme, content["scheme"])
            load_optimizer(self.optimizer, content["optimizer"])
        if (content.get("scheduler") is None) != (self.scheduler is None):
            raise RequestError(f"{path} was made {'with' if self.scheduler is None else 'without'} a torch scheduler")
        if self.scheduler is not None:
            self.scheduler.restore(content["scheduler"])
        self.fabric.strategy.precision.load_state_dict(content["precision"])
        state = Progressed(**content["state"])
        if state.step:
            if len(content["processes"]) != self.fabric.world_size:
                raise RequestError(
                    f"{path} was made in the middle of an epoch by {len(content['processes'])} process(es), and there "
                    f"are {self.fabric.world_size}; resume with as many"
                )
            state.sums, state.rng = content["processes"][self.fabric.global_rank]
        return state

    def save_best(self) -> None:
        """Keep the scheme as the best one so far: the student, and what belongs to it, such as its peers."""
        state = whole(self.scheme.state_dict())
        self._best = tree_map(lambda value: value.cpu().clone() if isinstance(value, torch.Tensor) else value, state)
        if self.writes and self.out is not None:
            write_torch(self.out / "checkpoints" / f"best-{self.phase}.pt", self._best)

    def load_best(self, scheme: nn.Module) -> None:
        """Bring the best one back."""
        if self._best is None and self.out is not None:
            path = self.out / "checkpoints" / f"best-{self.phase}.pt"
            self._best = from_first(self.fabric, lambda: _read_best(path))
        if self._best is not None:
            with as_request(lambda reason: f"the best student of phase {self.phase} does not fit this run: {reason}"):
                scheme.load_state_dict(self._best)


def _read_best(path: Path) -> dict[str, Any]:
    with as_request(lambda reason: f"checkpoint {path} is damaged ({reason}); start the run anew in another folder"):
        return dict(load_torch(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, read with weights_only=True.

    Raises:
        RequestError: It is damaged, or no checkpoint of limbeck's.
    """
    with as_request(lambda reason: f"checkpoint {path} is damaged ({reason}); delete it to begin again"):
        content = load_torch(path)
        missing = {"phase", "settings", "state", "processes", "scheme", "optimizer", "precision"} - content.keys()
        if content["format"] == FORMAT and missing:
            raise RequestError(f"checkpoint {path} is damaged (it lacks {', '.join(sorted(missing))}); delete it")
        if content["format"] != FORMAT:
            raise RequestError(f"checkpoint {path} has format {content['format']}; this limbeck reads {FORMAT}")
    return dict(content)


def checkpoint_phase(folder: Path) -> str | None:
    """Whose training the checkpoint of a run folder holds; None without one.

    Raises:
        RequestError: It is damaged.
    """
    path = folder / "checkpoints" / "last.pt"
    return str(read_checkpoint(path)["phase"]) if path.exists() else None


def save_student(
    folder: Path,
    name: str,
    student: nn.Module,
    about: Mapping[str, Any],
    state: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write a plain model: NAME.safetensors with its state dict, NAME.json with what one must know to load it.

    The JSON file is written last, and carries the other one's SHA-256. A model of Hugging Face's transformers is in the
    folder NAME too, for `from_pretrained`; the matrices of LoRA are added to the weights.

    Args:
        folder: Where they go.
        name: "student" for the model to ship.
        student: The model, free of anything of limbeck's; its names are those without wrappers such as DataParallel.
        about: What else belongs into the JSON file: how the model is built, its input, its classes.
        state: Its state dict, where the model itself holds a part alone.
    """
    student = unwrapped(student)
    if has_adapters(student):
        student, state = merged(student), None
    names = plain_names(student)
    tensors = {names[name]: value for name, value in (state or student.state_dict()).items()}
    path = folder / f"{name}.safetensors"
    path.with_suffix(".json").unlink(missing_ok=True)  # what it says is not of the weights that come now
    description = {
        "limbeck": limbeck.__version__,
        **about,
        **save_hugging_face(folder, name, student, about),
        "sha256": write_safetensors(path, tensors),
        "parameters": parameter_count(student),
        "architecture": repr(student),
        "tensors": {
            key: [str(value.dtype).removeprefix("torch."), list(value.shape)] for key, value in tensors.items()
        },
    }
    write_json(folder / f"{name}.json", description)
    return path


def restore_student(
    student: nn.Module, fabric: Fabric, find: Callable[[], tuple[Path, str] | None]
) -> tuple[Path, dict[str, Any]] | None:
    """Bring back, to all processes, what `save_student` wrote.

    Args:
        student: Gets the weights.
        fabric: Its first process looks and reads.
        find: Gives the folder and the name, or None where there is nothing to bring back.

    Returns:
        The folder, and what the training took; None as `find` does.
    """

    def look() -> tuple[Path, dict[str, Any], Mapping[str, torch.Tensor]] | None:
        place = find()
        if place is None:
            return None
        folder, name = place
        load_own(student, folder / f"{name}.json")
        training = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["training"]
        return folder, training, student.state_dict()

    found = from_first(fabric, look)
    if found is None:
        return None
    folder, training, weights = found
    if not fabric.is_global_zero:
        student.load_state_dict(weights)
    return folder, training
