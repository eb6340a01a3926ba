"""A model from its JSON and its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck import load_model
from limbeck.engine.saving.checkpoint import save_student
from limbeck.errors import RequestError
from limbeck.models import cnn
from limbeck.models.build import build
from limbeck.models.networks.multi_exit import byot_small, exit_network

ABOUT: dict[str, Any] = {
    "model": "cnn",
    "options": {"channels": [4, 6]},
    "classes": 5,
    "input": {"shape": [3, 8, 8], "range": [0, 1], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.1]},
}


def test_images_are_normalised_inside(tmp_path: Path) -> None:
    network = cnn(input_shape=(3, 8, 8), classes=5, channels=(4, 6)).eval()
    save_student(tmp_path, "small", network, ABOUT)
    x = torch.rand(2, 3, 8, 8)
    state = torch.get_rng_state()
    for name in ("small.json", "small.safetensors"):
        model = load_model(tmp_path / name)
        by_hand = torch.stack([(x[:, 0] - 0.4) / 0.2, (x[:, 1] - 0.5) / 0.2, (x[:, 2] - 0.6) / 0.1], dim=1)
        torch.testing.assert_close(model(x), network(by_hand))
        assert list(model.network.state_dict()) == list(network.state_dict())
    assert torch.equal(torch.get_rng_state(), state)


def test_an_exit_is_an_option_of_any_network_with_several() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        whole = byot_small(input_shape=(1, 8, 8), classes=4, widths=(4, 6))
        torch.manual_seed(3)
        alone = build("byot_small", input_shape=(1, 8, 8), classes=4, widths=(4, 6), exit=1)
    expected = exit_network(whole, 1).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in alone.state_dict().items())
    with pytest.raises(RequestError, match="there is no exit 3"):
        build("byot_small", input_shape=(1, 8, 8), classes=4, widths=(4, 6), exit=3)
    with pytest.raises(RequestError, match="model mlp has a single exit; leave exit out"):
        build("mlp", input_shape=(4,), classes=3, exit=1)


def test_files_that_do_not_say_enough(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot read .*gone\.json: No such file"):
        load_model(tmp_path / "gone.json")
    (tmp_path / "odd.json").write_text("{")
    with pytest.raises(RequestError, match=r"cannot read .*odd\.json"):
        load_model(tmp_path / "odd.json")
    (tmp_path / "mine.json").write_text(json.dumps({"parameters": 3}))
    with pytest.raises(RequestError, match=r"it lacks classes, input, model, options.*load_weights"):
        load_model(tmp_path / "mine.json")
    (tmp_path / "small.json").write_text(json.dumps(ABOUT))
    with pytest.raises(RequestError, match="there is no weights file"):
        load_model(tmp_path / "small.json")
