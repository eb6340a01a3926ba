"""Texts out of files of every form."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from limbeck.data import DataSet, load
from limbeck.data.text.files import located, records, rows
from limbeck.data.text.language import apart
from limbeck.data.text.texts import IDS
from limbeck.data.text.tokenizers import ByteTokenizer
from limbeck.errors import RequestError
from limbeck.types import MASK

ROWS = [{"label": "no", "text": 'a "quoted"\tword'.replace("\t", " ")}, {"label": "yes", "text": "é, b"}]
OPTIONS = {"tokenizer": "bytes", "length": 8}


def written(folder: Path, form: str) -> Path:
    path = folder / f"rows.{form}"
    if form == "jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n", encoding="utf-8")
    elif form == "tsv":
        path.write_text("label\ttext\n" + "".join(f"{row['label']}\t{row['text']}\n" for row in ROWS), encoding="utf-8")
    elif form == "csv":
        path.write_text('label,text\nno,"a ""quoted"" word"\nyes,"é, b"\n', encoding="utf-8")
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        datasets.Dataset.from_list(ROWS).save_to_disk(path)
    return path


@pytest.mark.parametrize("form", ["jsonl", "tsv", "csv", "parquet", "folder"])
def test_every_form_gives_the_same_records(form: str, tmp_path: Path) -> None:
    assert [dict(row) for row in records(written(tmp_path, form))] == ROWS


def test_a_file_without_a_text_is_named(tmp_path: Path) -> None:
    for name, content in (("a.txt", " \n\n"), ("a.tsv", ""), ("a.jsonl", '{"text": null}')):
        (tmp_path / name).write_text(content)
        with pytest.raises(RequestError, match=f"{name} holds no text"):
            list(rows(tmp_path / name))
    (tmp_path / "a.jsonl").write_text('{"text": 0}\n{"text": ""}\n{"text": "b"}\n')
    assert [one for _, one in rows(tmp_path / "a.jsonl")] == ["0", "b"]


def test_a_line_is_one_where_the_file_ends_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\u2028b\x0cc\r\n\nd", encoding="utf-8", newline="")
    path = tmp_path / "a.txt"
    assert list(rows(path)) == [(f"{path}:1", "a\u2028b\x0cc"), (f"{path}:3", "d")]
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n{"text"\n')
    with pytest.raises(RequestError, match=r"a\.jsonl, line 3, is no JSON"):
        records(tmp_path / "a.jsonl")


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}])
def test_what_is_no_text_is_named(value: object, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": one}) for one in ("a", value)))
    for name in ("text-files", "text-sentences"):
        with pytest.raises(RequestError, match=r"a\.jsonl, record 2: text is .*, and no text; name another column"):
            load(name, tmp_path, options={"train": "a.jsonl", **({} if name == "text-files" else {"width": 2})})


def test_a_table_without_names_gets_them_and_uneven_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("1\tone\n0\tnull\n")
    assert records(path, ["label", "text"]) == [{"label": "1", "text": "one"}, {"label": "0", "text": "null"}]
    path.write_text("1\tone\n0\n")
    with pytest.raises(RequestError, match=r"a\.tsv, line 2, has 1 cells for the columns label, text"):
        records(path, ["label", "text"])
    (tmp_path / "a.jsonl").write_text("[1]\n")
    with pytest.raises(RequestError, match="line 1, is no JSON object"):
        records(tmp_path / "a.jsonl")


def test_files_are_found_in_the_root_or_its_folder_of_texts(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    for name in ("b.txt", "a.txt"):
        (tmp_path / "text" / name).write_text(name)
    assert [path.name for path in located(tmp_path, "*.txt")] == ["a.txt", "b.txt"]
    assert located(tmp_path, str(tmp_path / "text" / "b.txt")) == [tmp_path / "text" / "b.txt"]
    with pytest.raises(RequestError, match=r"there is no file c\.txt .*--data-root"):
        located(tmp_path, ["a.txt", "c.txt"])


def test_a_name_is_a_file_s_before_it_is_a_pattern(tmp_path: Path) -> None:
    for name in ("a[1].txt", "a1.txt"):
        (tmp_path / name).write_text(name)
    assert located(tmp_path, "a[1].txt") == [tmp_path / "a[1].txt"]
    assert located(tmp_path, str(tmp_path / "a[0-9].txt")) == [tmp_path / "a1.txt"]
    for name in ("b.md", "**.md"):  # the second is no pattern in some versions of Python
        with pytest.raises(RequestError, match="no file"):
            located(tmp_path, name)
    assert located(tmp_path, "") == [tmp_path]
    with pytest.raises(RequestError, match="cannot read"):
        records(tmp_path)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    lines = [f"{'abc'[n % 3]}\ttext {n}" for n in range(60)]
    (tmp_path / "train.tsv").write_text("\n".join(lines))
    (tmp_path / "test.tsv").write_text("b\tanother one that is long\na\tc\n")
    (tmp_path / "more.txt").write_text("unlabelled")
    return tmp_path


def classes(root: Path, **options: object) -> DataSet:
    given = {"train": "train.tsv", "test": "test.tsv", "columns": ["label", "text"], **OPTIONS, **options}
    return load("text-classes", root, options=given)


def test_labelled_texts(labelled: Path) -> None:
    data = classes(labelled, unlabelled="more.txt", validation=0.25)
    assert (data.classes, data.class_names, data.input_shape) == (3, ("a", "b", "c"), (8,))
    assert data.counts(data.train) == [15, 15, 15]
    assert data.counts(data.validation) == [5, 5, 5]
    assert int((data.train.targets == -100).sum()) == 1
    assert data.test.targets.tolist() == [1, 0]
    ids, mask = data.test.inputs[IDS], data.test.inputs[MASK]
    end, pad = ByteTokenizer.end, ByteTokenizer.pad
    assert ids.tolist() == [[*b"another", end], [ord("c"), end, *[pad] * 6]]
    assert mask.sum(1).tolist() == [8, 2]
    assert data.note == "2 texts longer than 8 tokens are cut"


def test_a_few_labels_are_kept_by_class_and_the_same_ones_each_time(labelled: Path) -> None:
    one, other = (classes(labelled, labels=4, validation=0.25) for _ in range(2))
    assert one.counts(one.train) == [4, 4, 4]
    assert len(one.train) == 45
    assert one.counts(one.validation) == [5, 5, 5]
    assert torch.equal(one.train.targets, other.train.targets)
    whole = classes(labelled, validation=0.25).train.targets
    kept = one.train.targets >= 0
    assert torch.equal(one.train.targets[kept], whole[kept])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label": "lable"}, r"unknown column of .*train\.tsv 'lable'; did you mean label"),
        ({"test": "other.tsv"}, "the test texts have the labels d, which no training text has; known: a, b, c"),
        ({"padding": "most"}, "option padding of data set text-classes"),
        ({"columns": ["a", "b", "c"]}, "line 1, has 2 cells for the columns a, b, c"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, object], said: str, labelled: Path) -> None:
    (labelled / "other.tsv").write_text("d\tx\n")
    with pytest.raises(RequestError, match=said):
        classes(labelled, **options)


def test_numbers_as_labels_are_in_their_order_and_minus_one_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": "x", "label": n}) + "\n" for n in (10, 2, -1, None, 2))
    )
    data = load("text-classes", tmp_path, options={"train": "a.jsonl", "test": "a.jsonl", **OPTIONS})
    assert data.class_names == ("2", "10")
    assert data.train.targets.tolist() == [1, 0, -100, -100, 0]


def test_a_label_is_the_same_in_every_column_that_holds_it(tmp_path: Path) -> None:
    given = (1, "1", 1.0, 0, float("nan"), "-1", -1.0)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": "x", "label": n}) + "\n" for n in given))
    data = load("text-classes", tmp_path, options={"train": "a.jsonl", "test": "a.jsonl", **OPTIONS})
    assert data.class_names == ("0", "1")
    assert data.train.targets.tolist() == [1, 1, 1, 0, -100, -100, -100]


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (["a"], r"a\.jsonl, record 1: the label is \['a'\], and a text has one"),
        ({"a": 1}, "and a text has one"),
        (None, "no training text has a label; name their column with label"),
    ],
)
def test_what_is_no_label_is_named(label: object, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x", "label": label}))
    with pytest.raises(RequestError, match=said):
        load("text-classes", tmp_path, options={"train": "a.jsonl", "test": "a.jsonl", **OPTIONS})


def test_a_first_line_of_names_is_no_text(labelled: Path) -> None:
    (labelled / "test.tsv").write_text("text\tlabel\none\ta\n")
    with pytest.raises(RequestError, match=r"test\.tsv, line 1, names the columns; leave columns out"):
        classes(labelled)


def test_a_text_is_taken_apart_by_its_ends_and_many_by_whole_documents() -> None:
    document = "".join(f"line {n:02}\n" for n in range(100))
    parts = apart([document], {"validation": 0.1, "test": 0.2})
    assert "".join([parts["train"][0], parts["validation"][0], parts["test"][0]]) == document
    assert [len(parts[name][0]) // 8 for name in ("train", "validation", "test")] == [70, 10, 20]
    documents = [str(n) for n in range(50)]
    parts = apart(documents, {"test": 0.1})
    assert len(parts["test"]) == 5
    assert sorted([*parts["train"], *parts["test"]]) == sorted(documents)
    assert parts == apart(documents, {"test": 0.1})


@pytest.mark.parametrize("shares", [{"validation": 0.5, "test": 0.5}, {"test": 0.0}, {"test": -0.1}])
def test_shares_that_leave_nothing_are_refused(shares: dict[str, float], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("word " * 99)
    with pytest.raises(RequestError, match="shares of the text lie between 0 and 1, and below 1 together"):
        load("text-files", tmp_path, options={"train": "a.txt", **OPTIONS, **shares})


def test_nothing_of_a_training_text_is_lost_and_shares_are_kept() -> None:
    document = "a first line\n" + "word " * 200
    assert apart([document], {}) == {"train": [document]}
    parts = apart([document], {"validation": 0.1, "test": 0.1})
    cut = [parts[name][0] for name in ("train", "validation", "test")]
    assert "".join(cut) == document
    assert [round(len(one) / len(document), 1) for one in cut] == [0.8, 0.1, 0.1]
    assert all(one.endswith(" ") for one in cut)
    assert [len(one[0]) for one in apart(["x" * 100], {"test": 0.25}).values()] == [75, 25]


def test_test_and_validation_texts_may_lie_in_several_files(labelled: Path) -> None:
    (labelled / "doc.txt").write_text("one line\nand one without an end")
    for name in ("b.txt", "c.txt"):
        (labelled / name).write_text("abc")
    given = {"train": "doc.txt", "test": ["b.txt", "c.txt"], "validation": ["c.txt"], **OPTIONS}
    data = load("text-files", labelled, options=given)
    assert data.train.inputs[IDS].flatten()[:33].tolist() == [*b"one line\nand one without an end", 257]
    assert data.test.inputs[IDS].tolist() == [[*b"abc", 257, *b"abc", 257]]
    assert len(data.validation) == 1
    assert len(classes(labelled, validation=["test.tsv", "test.tsv"]).validation) == 4


def test_blocks_of_tables_whose_columns_are_named_by_hand(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("no\tabcdefgh\nyes\tabcdefgh\n")
    found = load(
        "text-files", tmp_path, options={"train": "a.tsv", "test": "a.tsv", "columns": ["label", "text"], **OPTIONS}
    )
    assert found.train.inputs[IDS][0].tolist() == list(b"abcdefgh")


def test_files_as_blocks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcdefgh\n" * 20)
    (tmp_path / "b.jsonl").write_text('{"text": "xyz"}\n')
    data = load("text-files", tmp_path, options={"train": "a.txt", "test": "b.jsonl", "validation": 0.5, **OPTIONS})
    assert (data.classes, data.input_shape) == (258, (8,))
    assert data.test.inputs[IDS].tolist() == [[*b"xyz", 257, *[256] * 4]]
    assert len(data.train) == len(data.validation) == -(-91 // 8)
