"""The names that a recipe can use, without building anything."""

from __future__ import annotations

from collections.abc import Callable

from limbeck.errors import unknown


def names(kind: str | None = None) -> dict[str, dict[str, str]]:
    """For each kind (or one of them) the names with one line on each.

    Raises:
        RequestError: There is no such kind.
    """
    kinds: dict[str, Callable[[], dict[str, str]]] = {
        "recipes": _recipes,
        "methods": _methods,
        "losses": _losses,
        "models": _models,
        "data": _data,
    }
    if kind is not None and kind not in kinds:
        raise unknown("kind of names", kind, kinds)
    return {name: make() for name, make in kinds.items() if kind in (None, name)}


def _recipes() -> dict[str, str]:
    from importlib.resources import files

    from limbeck.recipes.read import names as recipe_names
    from limbeck.recipes.read import variants

    folder = files("limbeck.recipes")
    lines = {}
    for name in recipe_names():
        first = (folder / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        choices = variants(name)
        lines[name] = f"{first} Variants: {', '.join(f':{v}' for v in choices)}." if choices else first
    return lines


def _methods() -> dict[str, str]:
    from limbeck.recipes.methods import METHODS, QUANTISED, SCHEMES

    return {
        "methods": f"For distill.method and compare --methods: {', '.join(METHODS)}.",
        "schemes": f"For distill.scheme and compare --methods: {', '.join(SCHEMES)}; self in distill.scheme.",
        "int8": f"For compare --methods, the recipe's own way ending in int8: {', '.join(QUANTISED)}.",
    }


def _losses() -> dict[str, str]:
    from limbeck import losses

    return {name: _line(getattr(losses, name)) for name in losses.LOSSES}


def _models() -> dict[str, str]:
    from limbeck import models

    own = {name: _line(builder) for name, builder in models.NETWORKS.items()}
    return own | {
        "torchvision:NAME": "Any classification network of torchvision.",
        "timm:NAME": "Any network of timm (extra: limbeck[timm]).",
        "onnx:FILE": "A trained model of any framework, as teacher (extra: limbeck[onnx]).",
        "keras:FILE": "A saved Keras 3 model, on its PyTorch backend (extra: limbeck[keras]).",
        "torchscript:FILE": "A model that torch.jit.save wrote.",
        "pt2:FILE": "A program that torch.export.save wrote.",
        "hf:FOLDER": "A Hugging Face model in a local folder, or its config.json (extra: limbeck[transformers]).",
        "package.module:callable": "Your own.",
    }


def _data() -> dict[str, str]:
    return {
        "digits": "1,797 handwritten digits, 8×8 grey, 10 classes; part of scikit-learn, no download.",
        "mnist": "70,000 handwritten digits, 28×28 grey, 10 classes.",
        "fashion-mnist": "70,000 pieces of clothing, 28×28 grey, 10 classes.",
        "cifar10": "60,000 photographs, 32×32 RGB, 10 classes.",
        "cifar100": "60,000 photographs, 32×32 RGB, 100 classes.",
        "image-folder": "Your own images: train/CLASS/*, and test/CLASS/* or val/CLASS/* or both, in the data root.",
        "python-docs": "Python's own documentation and sources as blocks of tokens, for language models; no download.",
        "text-files": "Your own texts as blocks of tokens, for language models; files named by data.options.",
        "text-classes": "Your own labelled texts: columns of .tsv, .csv, .jsonl or .parquet files, by data.options.",
        "text-chat": "Your own conversations, of which the answers are learned; JSON lines, by data.options.",
        "package.module:callable": "Your own: returns (train, test), two datasets of (input, label).",
    }


def _line(thing: object) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]
