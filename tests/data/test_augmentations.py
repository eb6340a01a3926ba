"""Each augmentation against a plain computation, one image at a time, or against torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from limbeck import RequestError
from limbeck.data.augmentations import Crop, Cutout, Flip, Jitter
from limbeck.data.mixing import CutMix, Mixup, mixed_labels
from limbeck.data.policies import CIFAR_POLICY, OPERATIONS, AutoAugment, RandAugment

PIXELS = torch.randint(0, 256, (6, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
NUMBERS = torch.rand(6, 5, generator=torch.Generator().manual_seed(2))


def test_crop_cuts_from_the_padded_image() -> None:
    cut = Crop(2)(PIXELS, NUMBERS[:, :2])
    for image, result, (a, b) in zip(PIXELS.numpy(), cut.numpy(), NUMBERS[:, :2].tolist(), strict=True):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)))
        top, left = int(a * 5), int(b * 5)
        assert np.array_equal(result, padded[:, top : top + 9, left : left + 9])


def test_flip_mirrors_those_that_drew_it() -> None:
    flipped = Flip(0.5)(PIXELS, torch.tensor([[0.1], [0.9], [0.4999], [0.5], [0.0], [0.7]]))
    for i in range(6):
        assert torch.equal(flipped[i], PIXELS[i].flip(2) if i in (0, 2, 4) else PIXELS[i])


def test_cutout_blackens_a_square_clipped_at_the_edge() -> None:
    white = torch.ones(2, 1, 8, 8)
    cut = Cutout(4)(white, torch.tensor([[0.0, 0.5], [0.99, 0.99]]))
    expected = torch.ones(2, 1, 8, 8)
    expected[0, :, 0:2, 2:6] = 0  # centred at row 0, column 4
    expected[1, :, 5:8, 5:8] = 0  # centred at row 7, column 7
    assert torch.equal(cut, expected)


def test_jitter_is_torchvisions_one_after_the_other() -> None:
    x = PIXELS.float() / 255
    out = Jitter(0.4, 0.3, 0.2)(x, NUMBERS[:, :3])
    for i in range(6):
        b, c, s = (1 + k * (2 * n - 1) for k, n in zip((0.4, 0.3, 0.2), NUMBERS[i, :3].tolist(), strict=True))
        f = v2.functional
        expected = f.adjust_saturation(f.adjust_contrast(f.adjust_brightness(x[i], b), c), s)
        # torchvision's weights of red, green and blue have four digits.
        torch.testing.assert_close(out[i], expected, atol=2e-3, rtol=0)
    assert (Jitter()(PIXELS, NUMBERS[:, :3]).float() - Jitter()(x, NUMBERS[:, :3]) * 255).abs().max() <= 0.51


def test_grey_images_keep_their_one_channel() -> None:
    grey = PIXELS[:, :1]
    for step in (Crop(), Flip(), Cutout(3), Jitter()):
        assert step(grey, NUMBERS[:, : step.draws]).shape == grey.shape


TORCHVISION = {
    "shear-x": "ShearX", "shear-y": "ShearY", "translate-x": "TranslateX", "translate-y": "TranslateY",
    "rotate": "Rotate", "brightness": "Brightness", "color": "Color", "contrast": "Contrast",
    "sharpness": "Sharpness", "posterize": "Posterize", "solarize": "Solarize", "autocontrast": "AutoContrast",
    "equalize": "Equalize", "invert": "Invert",
}  # fmt: skip


@pytest.mark.parametrize("name", TORCHVISION)
def test_operations_and_strengths_are_torchvisions(name: str) -> None:
    theirs = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    strengths, signed = theirs._AUGMENTATION_SPACE[TORCHVISION[name]]
    operation = OPERATIONS[name]
    assert operation.signed == signed
    scale = strengths(10, 9, 9)
    for level in (0, 4, 9):
        expected = 0.0 if scale is None else float(scale[level]) * (255 if name == "solarize" else 1)
        strength = operation.strength(level / 9, 9)
        assert strength == pytest.approx(expected)
        for sign in (1, -1) if signed else (1,):
            wanted = theirs._apply_image_or_video_transform(
                PIXELS, TORCHVISION[name], sign * (expected / 255 if name == "solarize" else expected), 
                v2.InterpolationMode.NEAREST, {torch.Tensor: None},
            )  # fmt: skip
            # Their levels are fp32 numbers, ours are not: a pixel may round the other way.
            assert (operation.apply(PIXELS, sign * strength).int() - wanted.int()).abs().max() <= 1


def test_the_policy_is_the_published_one() -> None:
    theirs = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)._policies
    ours = [tuple((TORCHVISION[name], p, level) for name, p, level in pair) for pair in CIFAR_POLICY]
    assert ours == [tuple((name, p, level or 0) for name, p, level in pair) for pair in theirs]


def test_autoaugment_applies_the_pair_that_was_drawn() -> None:
    # Pair 24: translate-y 0.7 9, then autocontrast 0.9. Sample 0 does both, 1 the second alone, 2 neither.
    numbers = torch.tensor([[0.97, 0.1, 0.1, 0.9, 0.9], [0.97, 0.8, 0.1, 0.9, 0.9], [0.97, 0.8, 0.95, 0.9, 0.9]])
    out = AutoAugment()(PIXELS[:3], numbers)
    f, shift = v2.functional, int(150 / 331 * 9)
    moved = f.affine(PIXELS[:1], 0.0, [0, shift], 1.0, [0.0, 0.0])
    assert torch.equal(out[:1], f.autocontrast(moved))
    assert torch.equal(out[1:2], f.autocontrast(PIXELS[1:2]))
    assert torch.equal(out[2], PIXELS[2])


def test_randaugment_gives_each_sample_its_own_operation() -> None:
    chosen = [4.5 / 14, 9.5 / 14, 13.5 / 14]  # rotate, posterize, identity
    out = RandAugment(1, 30)(PIXELS[:3], torch.tensor([[c, 0.1] for c in chosen]))
    assert torch.equal(out[:1], v2.functional.rotate(PIXELS[:1], -30.0))
    assert torch.equal(out[1:2], v2.functional.posterize(PIXELS[1:2], 4))
    assert torch.equal(out[2], PIXELS[2])


def test_mixup_and_its_labels() -> None:
    a, b = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    mixed, share = Mixup()(a, b, torch.tensor([[0.25], [1.0]]))
    torch.testing.assert_close(mixed[0], 0.25 * a[0] + 0.75 * b[0])
    torch.testing.assert_close(mixed[1], a[1])
    labels = mixed_labels(torch.tensor([0, 2]), torch.tensor([1, 2]), share, 3)
    torch.testing.assert_close(labels, torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]]))


def test_mixup_draws_from_the_beta_distribution() -> None:
    _, share = Mixup(0.3)(torch.zeros(5000, 1, 1, 1), torch.zeros(5000, 1, 1, 1), torch.rand(5000, 1))
    assert abs(share.mean() - 0.5) < 0.03
    assert abs(share.var() - 1 / (4 * (2 * 0.3 + 1))) < 0.01  # of Beta(a, a)


def test_cutmix_labels_share_by_the_area_that_is_left() -> None:
    black, white = torch.zeros(3, 1, 8, 8), torch.ones(3, 1, 8, 8)
    mixed, share = CutMix()(black, white, torch.tensor([[0.75, 0.5, 0.5], [0.0, 0.5, 0.5], [0.75, 0.0, 0.5]]))
    assert torch.equal(share, 1 - mixed.mean((1, 2, 3)))
    assert share.tolist() == [1 - 16 / 64, 0.0, 1 - 8 / 64]  # a 4×4 square; all; one clipped to its half


@pytest.mark.parametrize(
    "make", [lambda: Flip(1.5), lambda: Cutout(0), lambda: Jitter(contrast=-1), lambda: RandAugment(0)]
)
def test_impossible_values_are_refused(make) -> None:
    with pytest.raises(RequestError):
        make()
