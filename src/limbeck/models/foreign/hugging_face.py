"""Classifiers of Hugging Face's transformers: out of a local folder, and back into one."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck.errors import RequestError, some, unknown
from limbeck.models.pixels import Pixels
from limbeck.notices import tell
from limbeck.taps.wrappers import unwrapped

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")


def load_hugging_face(
    path: str | Path,
    *,
    classes: int | None = None,
    config: Mapping[str, Any] | None = None,
    replace_head: bool = False,
) -> nn.Module:
    """An image or sequence classifier from a folder with config.json, with its weights where the folder holds some.

    Nothing is downloaded, and no code from the folder is run. The model computes in fp32 and starts in training mode.

    Args:
        path: The folder, as `save_pretrained` writes it.
        classes: Number of logits; None keeps that of the folder.
        config: Settings of the configuration to change, such as {"num_hidden_layers": 2}; with fewer layers the first
            ones keep their weights.
        replace_head: Weights that the folder lacks, or has in another shape, start new; which ones is said.

    Raises:
        RequestError: No such folder, a model that is no classifier, an unknown setting, weights for another number of
            classes, or that the folder lacks; the extra `transformers` is not installed.
    """
    folder = Path(path)
    transformers = _transformers()
    if not (folder / "config.json").is_file():
        raise RequestError(f"{folder} is no folder of a Hugging Face model: it has no config.json")
    with _quiet(transformers):
        settings = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _change(settings, config or {}, folder)
        kind = _kind(transformers, settings, folder)
        if not has_weights(folder):
            settings.num_labels = settings.num_labels if classes is None else classes
            fresh: nn.Module = kind.from_config(settings, trust_remote_code=False).float().train()
            return fresh
        if classes not in (None, settings.num_labels) and not replace_head:
            raise RequestError(
                f"the weights in {folder} are for {settings.num_labels:,} classes, and {classes:,} are wanted; "
                "replace_head: true starts a new head"
            )
        settings.num_labels = settings.num_labels if classes is None else classes
        model = _trained(kind, folder, settings, replace_head)
    vars(model)["pixels"] = _pixels(folder)
    return model


def has_weights(folder: str | Path) -> bool:
    """Whether a folder holds weights beside its configuration."""
    return bool(_files(Path(folder)))


def save_hugging_face(folder: Path, model: nn.Module) -> bool:
    """Write a model of transformers so that `from_pretrained(folder)` reads it; whether it is such a model."""
    transformers, model = sys.modules.get("transformers"), unwrapped(model)
    if transformers is None or not isinstance(model, transformers.PreTrainedModel):
        return False
    with _quiet(transformers):
        model.save_pretrained(folder)
    return True


def digest_of_folder(folder: Path) -> str:
    """A digest of a model's configuration and weights."""
    digest = hashlib.sha256()
    for file in sorted({folder / "config.json", *_files(folder)}):
        if file.is_file():
            with file.open("rb") as content:
                digest.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    return [file for pattern in _WEIGHTS for file in folder.glob(pattern)] if folder.is_dir() else []


def _trained(kind: Any, folder: Path, settings: Any, replace_head: bool) -> nn.Module:
    given = {"local_files_only": True, "trust_remote_code": False, "dtype": torch.float32}
    model, found = kind.from_pretrained(
        folder, config=settings, ignore_mismatched_sizes=replace_head, output_loading_info=True, **given
    )
    other = [one if isinstance(one, str) else one[0] for one in found["mismatched_keys"]]
    new = sorted({*found["missing_keys"], *other})
    if new and not replace_head:
        raise RequestError(f"the weights in {folder} lack {some(new)}; replace_head: true starts them new")
    if new:
        tell(f"{folder}: new in the network: {some(new)}")
    trained: nn.Module = model.float().train()
    return trained


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError:
        raise RequestError("hf: models need the extra: pip install 'limbeck[transformers]'") from None


def _change(settings: Any, changes: Mapping[str, Any], folder: Path) -> None:
    known = settings.to_dict()
    for name, value in changes.items():
        if name not in known:
            raise unknown(f"setting of {folder / 'config.json'}", name, known)
        setattr(settings, name, value)


def _kind(transformers: Any, settings: Any, folder: Path) -> Any:
    """The class that builds it: by its architecture's name, else by what there is for its configuration."""
    kinds = {
        "ForImageClassification": transformers.AutoModelForImageClassification,
        "ForSequenceClassification": transformers.AutoModelForSequenceClassification,
    }
    for name in getattr(settings, "architectures", None) or ():
        for end, kind in kinds.items():
            if end in name:
                return kind
    mappings = importlib.import_module("transformers.models.auto.modeling_auto")
    if type(settings) in mappings.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        return kinds["ForImageClassification"]
    if type(settings) in mappings.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return kinds["ForSequenceClassification"]
    raise RequestError(
        f"{folder} holds {settings.model_type}, for which transformers has no image or sequence classifier"
    )


def _pixels(folder: Path) -> Pixels | None:
    """What pixels its weights were trained on, as its image processor says."""
    try:
        said = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        mean, std = tuple(map(float, said["image_mean"])), tuple(map(float, said["image_std"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Pixels(mean, std, "its preprocessor_config.json says") if all(std) else None


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Inside, transformers says nothing but errors, and draws no bars."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
