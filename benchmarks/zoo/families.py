"""Which networks are tried: of each family of torchvision and timm the one with the fewest parameters.

    python -m benchmarks.zoo.families > benchmarks/zoo/networks.txt    # makes the list anew, in some minutes

A family is a module of the package, such as `torchvision.models.resnet`; networks that read no single image, or
take no classifier, are left out. The list is a file, so that a trial need not build the thousand networks of timm to
begin.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

LIST = Path(__file__).with_name("networks.txt")
_HEAD = "# Made by python -m benchmarks.zoo.families: network, parameters with ten classes"


def networks() -> list[str]:
    """The names of the list, as `limbeck.models.build` takes them."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if not line.startswith("#")]


def smallest() -> Iterator[tuple[str, int]]:
    """Each family's network with the fewest parameters, and how many these are."""
    sizes: dict[str, tuple[int, str]] = {}
    for family, name in _all():
        with warnings.catch_warnings(action="ignore"):  # of names that have changed
            size = _size(name)
        if size is not None:
            sizes[family] = min(sizes.get(family, (size, name)), (size, name))
    for _, (size, name) in sorted(sizes.items()):
        yield name, size


def _all() -> Iterator[tuple[str, str]]:
    """(family, network) of all networks."""
    import timm
    from torchvision import models

    for name in models.list_models(module=models):
        yield f"a {models.get_model_builder(name).__module__}", f"torchvision:{name}"
    for module in timm.list_modules():
        for name in timm.list_models(module=module):
            yield f"b {module}", f"timm:{name}"


def _size(name: str) -> int | None:
    """The parameters of a network, which is not filled with values where that can be; None where it cannot be built."""
    from limbeck.models.build import build

    try:
        with torch.device("meta"):
            model = build(name, input_shape=(3, 224, 224), classes=10)
    except Exception:
        if not name.startswith("torchvision:"):  # timm's may fill the memory
            return None
        model = build(name, input_shape=(3, 224, 224), classes=10)
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    print(_HEAD)
    for name, size in smallest():
        print(f"{name} {size}", flush=True)


if __name__ == "__main__":
    main()
