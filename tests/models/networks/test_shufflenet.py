import torch

from limbeck.models.networks.shufflenet import GroupedDown, Shuffle


def test_shuffle_deals_channels_out():
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert Shuffle(3)(x).flatten().tolist() == [0, 2, 4, 1, 3, 5]
    assert Shuffle(2)(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_the_averaged_input_comes_after_the_branch():
    block = GroupedDown(24, 240).eval()
    x = torch.rand(2, 24, 8, 8)
    y = block(x)
    assert y.shape == (2, 240, 4, 4)
    torch.testing.assert_close(y[:, 216:], torch.nn.functional.avg_pool2d(x, 3, stride=2, padding=1))
