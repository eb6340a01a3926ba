"""A teacher behind a server: its log-probabilities are read, checked against the data, stored, and teach."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import Batch, RequestError, Term, TokenDistiller, fit, losses
from limbeck.losses import TopK
from limbeck.tasks import LanguageModelling
from limbeck.teachers import StoredTeacher
from limbeck.teachers.coding import Coding
from limbeck.teachers.logprobs import read_logprobs, store_likeliest

N, L, V, K = 3, 5, 11, 4
TOKENS = [chr(ord("a") + number) for number in range(V)]


def data() -> tuple[Tensor, Tensor]:
    """Ids, and the ids that follow; the last sample ends a token earlier."""
    ids = torch.randint(V, (N, L), generator=torch.Generator().manual_seed(0))
    targets = torch.cat([ids[:, 1:], torch.full((N, 1), -100)], 1)
    targets[2, 3] = -100
    return ids, targets


def table() -> TopK:
    return TopK.of(2 * torch.randn(N, L, V, generator=torch.Generator().manual_seed(1)), K)


def beside(sample: int, name: Any = str) -> list[dict[Any, float] | None]:
    """What a server returns beside each token of a sample: nothing for the first one."""
    top = table()
    rows = [
        {name(int(i)): float(v) for v, i in zip(top.log_probs[sample, p], top.indices[sample, p], strict=True)}
        for p in range(L - 1)
    ]
    return [None, *rows]


def as_ids(sample: int) -> Any:
    return {"tokens": data()[0][sample].tolist(), "top_logprobs": beside(sample)}


def as_text(sample: int) -> Any:
    tokens = [TOKENS[i] for i in data()[0][sample].tolist()]
    return {"choices": [{"logprobs": {"tokens": tokens, "top_logprobs": beside(sample, TOKENS.__getitem__)}}]}


def as_chat(sample: int) -> Any:
    pairs = [
        [{"token": f"token_id:{i}", "logprob": value} for i, value in (row or {}).items()] for row in beside(sample)
    ]
    tokens = [f"token_id:{i}" for i in data()[0][sample].tolist()]
    content = [{"token": token, "top_logprobs": one} for token, one in zip(tokens, pairs, strict=True)]
    return {"choices": [{"logprobs": {"content": content}}]}


def written(folder: Path, make: Any, change: Any = lambda rows: rows) -> Path:
    path = folder / "said.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in change([make(sample) for sample in range(N)])) + "\n")
    return path


def in_letters(token: str) -> int | None:
    return TOKENS.index(token) if token in TOKENS else None


@pytest.mark.parametrize(("make", "id_of"), [(as_ids, None), (as_text, in_letters), (as_chat, None)])
def test_every_form_gives_the_servers_distributions_at_the_positions_that_predict(tmp_path, make, id_of):
    found = read_logprobs(written(tmp_path, make), *data(), V, id_of)
    top = table()
    torch.testing.assert_close(found.log_probs[:, : L - 1], top.log_probs[:, : L - 1])
    assert torch.equal(found.indices[:, : L - 1], top.indices[:, : L - 1])
    torch.testing.assert_close(found.log_probs[:, -1].exp().sum(-1), torch.ones(N))  # predicts nothing


def test_parquet_with_a_distribution_at_each_position(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    ids, top = data()[0], table()
    columns = {"input_ids": ids.tolist(), "top_indices": top.indices.tolist(), "top_logprobs": top.log_probs.tolist()}
    path = tmp_path / "said.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    found = read_logprobs(path, *data(), V)
    torch.testing.assert_close(found.log_probs[:, : L - 1], top.log_probs[:, : L - 1])
    assert torch.equal(found.indices[:, : L - 1], top.indices[:, : L - 1])


@pytest.mark.parametrize(
    "change", [lambda rows: rows[1].pop(), lambda rows: rows[1][2].pop(), lambda rows: rows.__setitem__(1, None)]
)
def test_parquet_whose_columns_do_not_fit_is_refused(tmp_path, change):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    ids, top = data()[0], table()
    values = top.log_probs.tolist()
    change(values)
    columns = {"input_ids": ids.tolist(), "top_indices": top.indices.tolist(), "top_logprobs": values}
    path = tmp_path / "said.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(RequestError, match="sample 2: each of top_indices has its own of top_logprobs"):
        read_logprobs(path, *data(), V)


def test_a_line_ends_where_the_file_ends_it(tmp_path):
    path = written(tmp_path, as_ids, lambda rows: [row | {"text": "a\u2028b\x85c"} for row in rows])
    lines = [json.dumps(json.loads(line), ensure_ascii=False) for line in path.read_text().split("\n") if line]
    path.write_text("\n\n".join(lines), encoding="utf-8")
    torch.testing.assert_close(read_logprobs(path, *data(), V).log_probs[:, : L - 1], table().log_probs[:, : L - 1])
    path.write_text("\n\n".join([*lines[:2], "{"]), encoding="utf-8")
    with pytest.raises(RequestError, match="line 5 is no JSON"):
        read_logprobs(path, *data(), V)


def test_positions_with_fewer_tokens_hold_no_more_mass(tmp_path):
    def fewer(rows):
        rows[1]["top_logprobs"][2] = {"3": -0.5}
        return rows

    found = read_logprobs(written(tmp_path, as_ids, fewer), *data(), V)
    assert found.log_probs.shape == (N, L, K)
    assert found.log_probs[1, 1].exp().sum().item() == pytest.approx(torch.tensor(-0.5).exp().item())
    assert found.indices[1, 1, 0] == 3
    assert len(set(found.indices[1, 1].tolist())) == K


def test_what_was_stored_teaches(tmp_path):
    ids, targets = data()
    top = read_logprobs(written(tmp_path, as_ids), ids, targets, V)
    coding = Coding("float32", top_k=K)
    held = store_likeliest(top, tmp_path / "store", classes=V, made_of={"data": "d"}, coding=coding, words={})
    assert held.samples == N
    with pytest.raises(RequestError, match="holds other teacher outputs"):
        store_likeliest(top, tmp_path / "store", classes=V, made_of={"data": "e"}, coding=coding, words={})
    known = StoredTeacher(tmp_path / "store", {"data": "d"})
    batch = Batch(ids, targets, torch.arange(N))
    assert torch.equal(known.sparsely()(batch).output.log_probs, top.log_probs)
    torch.manual_seed(0)
    student = nn.Sequential(nn.Embedding(V, 16), nn.Linear(16, V))
    scheme = TokenDistiller(
        student, [Term(losses.kd, temperature=1.0)], task=LanguageModelling(), head="1", task_weight=0
    )
    run = fit(scheme, [batch], teacher=known, epochs=60, progress=False, optimizer=partial(torch.optim.Adam, lr=0.1))
    assert run.metrics[-1]["kd"] < 0.5 * run.metrics[0]["kd"]


def no_token(rows):
    rows[0]["tokens"][1] = V
    return rows


def other_token(rows):
    rows[1]["tokens"][2] = (rows[1]["tokens"][2] + 1) % V
    return rows


def no_beside(rows):
    rows[0]["top_logprobs"][3] = None
    return rows


def too_sure(rows):
    rows[2]["top_logprobs"][1] = {"1": -0.1, "2": -0.1}
    return rows


def test_a_token_that_the_server_holds_impossible_is_as_one_that_it_does_not_name(tmp_path):
    def never(rows):
        for row in rows:
            for some in row["top_logprobs"]:
                if some:
                    some[str(next(i for i in range(V) if str(i) not in some))] = -math.inf
        return rows

    plain, found = (read_logprobs(written(tmp_path, as_ids, change), *data(), V) for change in (list, never))
    assert torch.equal(found.indices, plain.indices)
    assert torch.equal(found.log_probs, plain.log_probs)


def impossible(rows):
    rows[2]["top_logprobs"][1] = {"1": -math.inf}
    return rows


def positive(rows):
    rows[2]["top_logprobs"][1] = {"1": 0.5}
    return rows


def longer(rows):
    rows[0]["tokens"].append(1)
    rows[0]["top_logprobs"].append(None)
    return rows


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:2], "holds 2 samples, and the data have 3"),
        (no_token, "sample 1: 11 is no token of the vocabulary of 11"),
        (other_token, "sample 2: token 3 is .*another tokenizer"),
        (longer, "sample 1: token 6 is 1, and the data have the id none there"),
        (no_beside, "sample 1: token 4 has no log-probabilities"),
        (too_sure, "sample 3: the probabilities of one token sum to more than 1"),
        (impossible, "sample 3: the probabilities of one token are all 0"),
        (positive, "sample 3: 0.5 is no log-probability"),
        (lambda rows: [*rows[:2], {"tokens": [1]}], "sample 3: a line has tokens and top_logprobs"),
        (lambda rows: [*rows[:2], 7], "sample 3: a line has tokens and top_logprobs"),
    ],
)
def test_a_file_of_other_data_is_refused_in_a_line_that_names_the_sample(tmp_path, change, words):
    with pytest.raises(RequestError, match=words) as error:
        read_logprobs(written(tmp_path, as_ids, change), *data(), V)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    path = tmp_path / "said.jsonl"
    path.write_text("{\n")
    with pytest.raises(RequestError, match="line 1 is no JSON"):
        read_logprobs(path, *data(), V)
    with pytest.raises(RequestError, match="cannot read"):
        read_logprobs(tmp_path / "none.jsonl", *data(), V)
    with pytest.raises(RequestError, match="is no token of the vocabulary"):
        read_logprobs(written(tmp_path, as_text), *data(), V)


def test_the_command_stores_them_for_a_recipes_texts(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from limbeck.cli.main import app
    from limbeck.data import DataSet
    from limbeck.data.text.texts import IDS, Texts
    from limbeck.data.text.tokenizers import ByteTokenizer
    from limbeck.runs import components
    from limbeck.runs.outputs import from_server

    ids, targets = data()
    ids, targets = ids + ord("a"), torch.where(targets < 0, targets, targets + ord("a"))
    texts = Texts({IDS: ids.int()}, targets, ByteTokenizer.digest)
    monkeypatch.setattr(components, "data", lambda spec, root: DataSet(**made))
    made = {"name": "letters", "train": texts, "test": texts, "classes": 258, "task": LanguageModelling()}
    made |= {"validation": None, "input_shape": (L,), "tokenizer": ByteTokenizer()}
    place = str(tmp_path / "store")
    path = str(written(tmp_path, as_text))
    done = CliRunner().invoke(app, ["cache", "lm-tiny", "--from-logprobs", path, "--where", place, "--bits", "8"])
    assert done.exit_code == 0, done.output
    assert "3 samples, the 4 likeliest tokens" in done.output
    assert "11 bytes a token" in done.output  # 4 · 9 bits, 4 · 8 bits, and 2 of the rest's mass
    output = StoredTeacher(place, sparse=True)(Batch(ids, targets, torch.arange(N))).output
    assert torch.equal(output.indices[:, : L - 1], table().indices[:, : L - 1] + ord("a"))
    refused = CliRunner().invoke(app, ["cache", "lm-tiny", "--from-logprobs", path])
    assert refused.exit_code != 0
    assert from_server.ids_of(ByteTokenizer())("a") == ord("a")


def test_special_tokens_are_known_by_their_names_and_ambiguous_texts_by_none() -> None:
    import tokenizers

    from limbeck.data.text.tokenizers import FastTokenizer
    from limbeck.runs.outputs.from_server import ids_of

    own = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "Ġb": 1, "b": 2, "Ġ": 3}, "a"))
    own.decoder = tokenizers.decoders.ByteLevel()
    own.add_special_tokens(["<|pad|>", "<|end|>"])
    id_of = ids_of(FastTokenizer(own.to_str(), "here"))
    assert [id_of(text) for text in ("a", " b", "b", "<|end|>", "<|pad|>", "Ġb")] == [0, 1, 2, 5, 4, 1]
    assert [id_of(text) for text in ("", "c")] == [None, None]
