"""Views: the same pixels for (seed, view, index), whatever else differs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset

from limbeck import RequestError
from limbeck.data import FromDisk, InMemory, Views, make_loader, make_views
from limbeck.data.draws import draws

EVERYTHING = ["resized_crop", "crop", "flip", "jitter", "autoaugment", "randaugment", {"cutout": 5}]


def images(count: int = 24, size: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def by_index(loader, epoch: int) -> tuple[dict[int, torch.Tensor], int]:
    loader.set_epoch(epoch)
    found, view = {}, -1
    for batch in loader:
        view = batch.view
        found |= dict(zip(batch.index.tolist(), zip(batch.inputs, batch.targets, strict=True), strict=True))
    return found, view


@pytest.mark.parametrize("steps", [EVERYTHING, ["crop", "mixup"], ["flip", {"cutmix": 0.5}]], ids=str)
def test_a_view_depends_on_seed_view_and_index_alone(steps: list) -> None:
    split = InMemory(images(), torch.arange(24) % 4)
    views = make_views(steps, seed=3, classes=4)
    one = make_loader(split, 4, shuffle=True, seed=0, views=views)
    other = make_loader(split, 10, shuffle=True, seed=7, views=views)
    first, view = by_index(one, 2)
    again, _ = by_index(other, 2)
    assert view == 2
    assert first.keys() == again.keys() == set(range(24))
    for i in first:
        assert torch.equal(first[i][0], again[i][0])
        assert torch.equal(first[i][1], again[i][1])
    for changed in (by_index(one, 3)[0], by_index(make_loader(split, 4, views=make_views(steps, classes=4)), 2)[0]):
        assert sum(not torch.equal(first[i][0], changed[i][0]) for i in first) > 12


def test_processes_see_the_parts_of_the_joined_batch() -> None:
    split, views = InMemory(images(), torch.arange(24) % 4), make_views(["crop", "flip"])
    joined = next(iter(make_loader(split, 8, shuffle=True, views=views)))
    parts = [next(iter(make_loader(split, 8, shuffle=True, views=views, rank=r, world_size=2))) for r in (0, 1)]
    for rank, part in enumerate(parts):
        assert torch.equal(part.inputs, joined.inputs[rank::2])


class Files(Dataset):
    def __init__(self, pixels: torch.Tensor, noisy: bool = False) -> None:
        self.pixels, self.noisy = pixels, noisy

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        noise = torch.randint(0, 2, (1,), dtype=torch.uint8) if self.noisy else 0
        return self.pixels[i] // 2 + noise, i % 4


@pytest.mark.parametrize("workers", [0, 2])
def test_data_from_disk_gives_the_pixels_of_data_in_memory(workers: int) -> None:
    pixels, views = images(), make_views(EVERYTHING, count=2)
    disk = FromDisk(Files(pixels), torch.arange(24) % 4, "made")
    read = by_index(make_loader(disk, 5, shuffle=True, views=views, workers=workers), 3)
    kept = by_index(make_loader(InMemory(pixels // 2, torch.arange(24) % 4), 5, views=views), 3)
    assert read[1] == kept[1] == 1
    assert all(torch.equal(read[0][i][0], kept[0][i][0]) for i in range(24))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_random_dataset_is_seeded_by_view_too(workers: int) -> None:
    disk = FromDisk(Files(images(), noisy=True), torch.arange(24) % 4, "made", random=True)
    here = make_loader(disk, 5, shuffle=True, seed=1, views=Views(count=2))
    there = make_loader(disk, 8, shuffle=True, seed=2, views=Views(count=2), workers=workers)
    first, again = by_index(here, 0)[0], by_index(there, 2)[0]
    assert all(torch.equal(first[i][0], again[i][0]) for i in range(24))
    assert any(not torch.equal(first[i][0], other[0]) for i, other in by_index(here, 1)[0].items())


def test_the_number_of_views_bounds_what_epochs_see() -> None:
    views = Views(count=3)
    assert [views.of_epoch(epoch) for epoch in range(5)] == [0, 1, 2, 0, 1]
    assert Views().of_epoch(7) == 7


def test_draws_are_even_and_independent() -> None:
    numbers = draws(0, 0, torch.arange(20_000), 2)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01
    assert abs(numbers.var() - 1 / 12) < 0.002
    assert abs(torch.corrcoef(numbers.T)[0, 1]) < 0.02
    assert abs(torch.corrcoef(torch.stack([numbers[:-1, 0], numbers[1:, 0]]))[0, 1]) < 0.02
    following = draws(0, 1, torch.arange(20_000), 2)
    assert abs(torch.corrcoef(torch.stack([numbers[:, 0], following[:, 0]]))[0, 1]) < 0.02


def test_draws_follow_the_published_generator() -> None:
    # SplitMix64 in plain integers: the state advances by the golden ratio, and a finaliser mixes it.
    from limbeck.seeds import derive

    mask = 2**64 - 1
    for counter in (0, 1, 12345):
        z = (counter * 0x9E3779B97F4A7C15 + derive(4, "view", 2)) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        z ^= z >> 31
        assert draws(4, 2, torch.tensor([counter]), 1).item() == (z >> 40) / 2**24


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["crap"], "unknown augmentation 'crap'; did you mean crop"),
        ([{"crop": {"pading": 2}}], "unknown option of augmentation crop 'pading'; did you mean padding"),
        ([{"crop": 0}], "padding must be 1 or more"),
        ([{"crop": 2, "flip": 0.5}], "one name with its options"),
        ([{"crop": "wide"}], "augmentation crop: padding 'wide'"),
        ([{"crop": 2.5}], "augmentation crop: padding 2.5"),
        ([{"randaugment": 1.5}], "augmentation randaugment: operations 1.5"),
        ([{"autoaugment": {"stride": 3}}], "unknown option of augmentation autoaugment 'stride'"),
        (["mixup", "flip"], "the last of the augmentations"),
        (["mixup", "cutmix"], "once"),
        ([{"mixup": 0}], "strength must be above 0"),
        ([{"randaugment": {"magnitude": 31}}], "magnitude of 0–30"),
        ([{"randaugment": 101}], "1 to 100 operations"),
    ],
)
def test_what_does_not_fit_is_said(steps: list, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make_views(steps, classes=3)


def test_samples_that_are_no_images_are_refused() -> None:
    split = InMemory(torch.zeros(4, 7), torch.arange(4))
    with pytest.raises(RequestError, match="augmentation takes images"):
        next(iter(make_loader(split, 2, views=make_views(["flip"]))))
    with pytest.raises(RequestError, match="lies in memory"):
        make_loader(FromDisk(Files(images()), torch.arange(24), "x"), 4, views=make_views(["mixup"], classes=4))
    floats = InMemory(torch.rand(4, 3, 8, 8), torch.arange(4))
    many = InMemory(torch.zeros(4, 4, 8, 8, dtype=torch.uint8), torch.arange(4))
    with pytest.raises(RequestError, match="not of 4"):
        next(iter(make_loader(many, 2, views=make_views(["randaugment"]))))
    with pytest.raises(RequestError, match="uint8"):
        next(iter(make_loader(floats, 2, views=make_views(["autoaugment"]))))


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_pair_is_each_sample_in_two_views(on_disk: bool) -> None:
    """Both are functions of (seed, view, sample), and not the same; without augmentation both are the sample."""
    pixels = torch.randint(0, 256, (9, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(9) % 3
    pairs = list(zip(pixels, targets.tolist(), strict=True))
    split = FromDisk(pairs, targets, "pairs") if on_disk else InMemory(pixels, targets)  # type: ignore[arg-type]
    views = make_views([{"crop": 2}], seed=5)
    loader = make_loader(split, 4, shuffle=True, views=views, pairs=True)
    loader.set_epoch(1)
    batches = list(loader)
    for batch in batches:
        assert isinstance(batch.other, torch.Tensor)
        wanted = views.other().images(pixels[batch.index], batch.index, 1).float() / 255
        torch.testing.assert_close(batch.other, wanted)
        torch.testing.assert_close(batch.inputs, views.images(pixels[batch.index], batch.index, 1).float() / 255)
        assert torch.equal(batch.first(2).other, batch.other[:2])
        assert torch.equal(batch.to(torch.device("cpu")).other, batch.other)
    assert any(not torch.equal(batch.inputs, batch.other) for batch in batches)
    for batch in make_loader(split, 4, pairs=True):
        assert torch.equal(batch.inputs, batch.other)
    assert next(iter(make_loader(split, 4, views=views))).other is None
