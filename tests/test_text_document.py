"""docs/text.md says what is so: its recipe is one for its files, and its example gives what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from limbeck.data import make_loader
from limbeck.data.sets import TEXTS
from limbeck.models import NETWORKS
from limbeck.options import fitting
from limbeck.recipes.read import check, read
from limbeck.runs import components

TEXT = (Path(__file__).parent.parent / "docs" / "text.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    return TEXT.split(f"```{language}\n")[1].split("```")[0]


def test_its_recipe_fits_its_files(tmp_path: Path) -> None:
    lines = "".join(f"{label}\t{label} text {n}\n" for n in range(20) for label in ("good", "bad"))
    for name in ("train", "test"):
        (tmp_path / f"{name}.tsv").write_text("label\ttext\n" + lines)
    recipe = check(yaml.safe_load(block("yaml")))
    data = components.data(recipe.data, tmp_path)
    assert data.class_names == ("bad", "good")
    assert components.options(recipe.student, data)["vocab"] == data.tokenizer.size
    assert components.model(recipe.student, data, 0)(**next(iter(make_loader(data.train, 1))).inputs).shape == (1, 2)


def test_its_recipe_of_two_tokenizers_gives_each_network_its_tokens() -> None:
    recipe = check(yaml.safe_load(TEXT.split("```yaml\n")[2].split("```")[0]))
    (teacher,) = recipe.teachers
    assert recipe.data.options["teacher_tokenizer"] == "all-MiniLM-L6-v2"
    assert (teacher.inputs or {})["input_ids"] == "teacher.input_ids"  # type: ignore[call-overload]
    fitting("text-sentences", TEXTS["text-sentences"], recipe.data.options, given=["root"])


def test_its_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block("python"), "docs/text.md", "exec"), {})
    assert float(capsys.readouterr().out) == pytest.approx(5.6, abs=0.1)


def test_its_tables_name_what_there_is() -> None:
    assert all(f"| `{name}` |" in TEXT for name in TEXTS)
    assert all(f"| `{name}` |" in TEXT for name in ("transformer", "text_encoder", "bag_of_embeddings"))
    assert {"transformer", "text_encoder", "bag_of_embeddings"} <= NETWORKS.keys()


@pytest.mark.parametrize("name", ["text-trec", "text-mr"])
def test_packaged_recipes_have_their_variants(name: str) -> None:
    plain, bag, few = read(name), read(f"{name}:bag"), read(f"{name}:few")
    assert (plain.student.model, bag.student.model) == ("text_encoder", "bag_of_embeddings")
    assert few.data.options == {**plain.data.options, "labels": 20}
    assert few.data.batch_size == plain.data.batch_size
