"""Checkpoints of other repositories of ResNets for CIFAR: the same function under limbeck's names."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.models import load_weights, resnet8x4, resnet20, resnet56
from limbeck.models.build import build
from limbeck.models.start import load_without_head

SHAPE = {"input_shape": (3, 32, 32), "classes": 10}


class Zeros(nn.Module):
    """Every second row and column, between as many zeros as make twice the channels."""

    def forward(self, x: Tensor) -> Tensor:
        zeros = torch.zeros_like(x[:, : x.shape[1] // 2, ::2, ::2])
        return torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)


class Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int, names: dict[str, str], option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        short: nn.Module = nn.Sequential()
        if c_in != c_out:
            conv = nn.Conv2d(c_in, c_out, 1, stride, bias=False)
            short = Zeros() if option == "A" else nn.Sequential(conv, nn.BatchNorm2d(c_out))
        self.short = names["shortcut"]
        setattr(self, self.short, short)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + getattr(self, self.short)(x))


class Theirs(nn.Module):
    """ResNet-20 as the repositories have it, with statistics as after a training."""

    def __init__(self, names: dict[str, str], option: str = "B") -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for number, (c_in, c_out, stride) in enumerate(((16, 16, 1), (16, 32, 2), (32, 64, 2)), start=1):
            blocks = [Block(c_in, c_out, stride, names, option)]
            blocks += [Block(c_out, c_out, 1, names, option) for _ in range(2)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.head = names["classifier"]
        setattr(self, self.head, nn.Linear(64, 10))
        for norm in (m for m in self.modules() if isinstance(m, nn.BatchNorm2d)):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return getattr(self, self.head)(x.mean(dim=(2, 3)))


CRD = {"shortcut": "downsample", "classifier": "fc"}
CIFAR = {"shortcut": "shortcut", "classifier": "linear"}


@pytest.mark.parametrize(
    ("names", "option", "key", "prefix"),
    [
        (CRD, "B", "model", ""),
        (CIFAR, "B", "net", "module."),
        (CIFAR, "A", "state_dict", "module."),
        (CRD, "A", "", ""),
    ],
)
def test_weights_of_other_repositories_give_the_same_function(
    names: dict[str, str], option: str, key: str, prefix: str, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    theirs = Theirs(names, option)
    state = {prefix + name: value for name, value in theirs.state_dict().items()}
    torch.save({key: state, "best_acc": 69.1} if key else state, tmp_path / "theirs.pt")
    ours = build("resnet20", **SHAPE, shortcut=option).eval()
    load_weights(ours, tmp_path / "theirs.pt")
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))
    hundred = resnet20(input_shape=(3, 32, 32), classes=100, shortcut=option)
    load_without_head(hundred, tmp_path / "theirs.pt")
    torch.testing.assert_close(hundred.stem.conv.weight, theirs.conv1.weight)


def test_torchvisions_resnet18_is_limbecks_with_the_large_stem(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.resnet18(num_classes=10).eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pt")
    ours = build("resnet18", **SHAPE, stem="imagenet").eval()
    load_weights(ours, tmp_path / "resnet18.pt")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


def test_other_shortcuts_than_the_networks_are_said(tmp_path: Path) -> None:
    torch.save(Theirs(CIFAR, "A").state_dict(), tmp_path / "a.pt")
    torch.save(Theirs(CIFAR, "B").state_dict(), tmp_path / "b.pt")
    with pytest.raises(RequestError, match=r"missing stage2.*: give the model shortcut: A$"):
        load_weights(resnet20(**SHAPE), tmp_path / "a.pt")
    with pytest.raises(RequestError, match=r"unexpected stage2.*: leave shortcut: A out$"):
        load_weights(resnet20(**SHAPE, shortcut="A"), tmp_path / "b.pt")
    with pytest.raises(RequestError, match=r"missing stage1\.3") as error:
        load_weights(resnet56(**SHAPE), tmp_path / "a.pt")
    assert "shortcut: A" not in str(error.value)


def test_zeros_stand_on_both_sides_of_the_old_channels() -> None:
    short = resnet8x4(**SHAPE, shortcut="A").stage2[0].shortcut
    x = torch.arange(2.0 * 64 * 16).view(2, 64, 4, 4)
    y = short(x)
    assert y.shape == (2, 128, 2, 2)
    assert not y[:, :32].any()
    assert not y[:, 96:].any()
    assert torch.equal(y[:, 32:96], x[:, :, [0, 2]][..., [0, 2]])
    with pytest.raises(RequestError, match="option shortcut of model resnet20 is 'C'"):
        build("resnet20", **SHAPE, shortcut="C")


@pytest.mark.data
def test_a_trained_resnet56_of_others_is_as_accurate_as_they_say(data_root: Path) -> None:
    weights, archive = data_root / "teachers" / "resnet56-cifar10.pt", data_root / "cifar10.tar"
    if not weights.is_file() or not archive.is_file():
        pytest.skip("no resnet56-cifar10.pt or cifar10.tar in LIMBECK_DATA")
    codecs = pytest.importorskip("imagecodecs")
    images, labels = _every_tenth(archive, codecs)
    network = resnet56(**SHAPE, shortcut="A").eval()
    load_weights(network, weights)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    with torch.no_grad():
        right = [network((x - mean) / std).argmax(1) for x in images.split(250)]
    accuracy = (torch.cat(right) == labels).float().mean()
    assert 0.92 < accuracy < 0.94  # 93 ± 1 %, as its author says: these give 0.939, all ten thousand 0.934


def _every_tenth(archive: Path, codecs: object) -> tuple[Tensor, Tensor]:
    """A thousand of the test images (1000, 3, 32, 32), 0 to 1, and their labels."""
    with tarfile.open(archive) as tar:
        content = {one.name: tar.extractfile(one).read() for one in tar if one.name.startswith(("test/", "index"))}
    labels = json.loads(content.pop("index.json"))["splits"]["test"]["labels"]
    blocks = [codecs.jpegxl_decode(content[name]) for name in sorted(content)]
    pixels = np.concatenate(blocks).reshape(-1, 32, 32, 3)[::10]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, torch.tensor(labels[::10])
