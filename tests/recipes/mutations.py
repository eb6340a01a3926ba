"""Wrong recipes, each a function of a number: a valid one with something odd in it, or options that nobody should give.

`mutation(number)` gives the bytes of a recipe file and the arguments that go with it.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

_KD = {"loss": "kd", "weight": 0.9, "temperature": 4}
_CNN = {"model": "cnn", "channels": [4, 6], "dropout": 0.1}
_BASE: dict[str, Any] = {
    "name": "odd",
    "data": {"name": "digits", "batch_size": 32, "validation": 0.2, "augment": ["flip", {"crop": 2}], "views": 2},
    "teacher": {"model": "mlp", "hidden": [12], "epochs": 1, "optimizer": {"name": "adam", "lr": 3.0e-3}, "seed": 1},
    "student": _CNN | {"mean": [0.5], "std": [0.5], "size": 8},
    "distill": {"scheme": "offline", "task_weight": 0.5, "terms": [_KD | {"name": "soft", "ramp": 1}]},
    "epochs": 1,
    "optimizer": {"name": "adam", "lr": 3.0e-3, "betas": [0.9, 0.99], "weight_decay": 1.0e-4},
    "schedule": {"name": "step", "milestones": [1], "factor": 0.1, "warmup_epochs": 0.5},
    "accumulate_steps": 1,
    "max_grad_norm": 1.0,
    "keep": "best",
    "precision": "32-true",
    "seed": 0,
}
_TEACHER = _BASE["teacher"] | {"store": {"where": "memory", "dtype": "float32", "top_k": 3}}
_HINT = {"loss": "mse", "weight": 1.0, "student": "stage1", "teacher": "stage1", "adapter": "auto"}
_BY_EPOCH = {"name": "linear", "from": 0.5, "to": 1.0, "epochs": 2}
BASES: list[dict[str, Any]] = [
    _BASE,
    _BASE | {"distill": {"method": "kd"}, "teacher": _TEACHER, "data": {"name": "digits", "drop_last": True},
             "keep": "last"},
    _BASE | {"teacher": _CNN | {"epochs": 1}, "distill": {"terms": [_HINT]}, "schedule": {"name": "cosine"}},
    _BASE | {"teacher": [_BASE["teacher"], {"model": "mlp", "epochs": 1, "weight": 2.0}], "compile": None},
    {"student": {"model": "byot_small", "widths": [4, 6], "depth": 1}, "epochs": 1,
     "distill": {"scheme": "self", "options": {"soft_weight": 0.3, "hint_weight": 0.03, "temperature": 3}},
     "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True}},
    {"student": _CNN, "epochs": 1, "distill": {"scheme": "mutual", "options": {"peers": 2, "weight": 1.0}}},
    {"student": _CNN, "epochs": 1, "distill": {"scheme": "mean-teacher", "options": {"decay": 0.9}, "terms": [_KD]}},
    {"student": _CNN, "epochs": 1, "distill": {"scheme": "class-wise", "options": {"temperature": 4}}},
    {"student": _CNN, "epochs": 1,
     "distill": {"scheme": "teacher-free", "options": {"probability": 0.9}, "terms": [_KD]}},
    {"student": _CNN, "epochs": 1, "distill": {"scheme": "born-again", "options": {"generations": 2}, "terms": [_KD]}},
    _BASE | {"epochs": 2, "teacher": _CNN | {"epochs": 1},
             "distill": {"scheme": "two-stage", "options": {"hint": "fitnet", "hint_epochs": 1}, "terms": [_KD]}},
    _BASE | {"task": {"name": "classification", "class_weights": [1.0] * 9 + [5.0], "label_smoothing": 0.1},
             "student": _CNN | {"freeze": ["stage1"]}, "early_stopping": {"patience": 2, "min_delta": 0.0},
             "save_every": 1, "keep": "last",
             "data": {"name": "digits", "validation": 0.2, "sampling": "balanced", "limit_samples": 100,
                      "limit_steps": 3, "augment": [{"torchvision:RandomRotation": {"degrees": 10}}]},
             "optimizer": {"name": "sgd", "lr": 0.05, "no_decay": ["norms", "biases"],
                           "groups": [{"match": "stage2.*", "lr": 0.01, "weight_decay": 0.0}]},
             "distill": {"terms": [_KD | {"weight": _BY_EPOCH, "temperature": _BY_EPOCH | {"from": 8}}]}},
    _BASE | {"distill": {"scheme": "assistant", "terms": [_KD]}, "assistants": [{"model": "mlp", "hidden": [8]}]},
]  # fmt: skip

LONG = "x" * 5000
ODD: list[Any] = [
    "", " ", "x", "é", "名", "..", "../../up", "/", "a/b", ":", "os:nothing", "no.module:x", "\x00", "a\nb", "\x1b[31m",
    LONG, "0", "1e3", "-1", "auto", "none", "null", "yes", "keys", "logits", "flip", "kd", "mlp", "²", "1_000", "0x10",
    None, True, False, 0, 1, -1, 2, 3, 7, 10**6, 10**9, 10**12, 10**18, 2**31, 2**63, 2**64, 10**40, -(10**40),
    0.0, -0.0, 0.5, 1.5, -1.5, 1e-300, 1e-12, 1e12, 1e30, 1e38, 1e300, float("inf"), float("-inf"), float("nan"),
    [], [1], [0], [-1], [True], ["x"], [None], [1.5], [10**9], [10**5, 10**5], [1e300], [float("nan")], [[1]], [[]],
    [{}], list(range(3)), [3] * 300, [LONG], {}, {"a": 1}, {"x": {"y": []}}, {1: 2}, {None: 1}, {"name": "x"},
    {"model": "mlp"}, {LONG: 1}, {"": 0}, [1, "x"], ["logits", "logits"],
]  # fmt: skip
KEYS = [
    "hidden", "channels", "dropout", "classes", "input_shape", "exit", "widths", "depth", "width", "stem_stride",
    "pretrained", "betas", "eps", "amsgrad", "momentum", "nesterov", "foreach", "fused", "capturable", "maximize",
    "differentiable", "dampening", "decoupled_weight_decay", "params", "lr", "floor", "factor", "milestones", "epochs",
    "weight", "temperature", "standardize", "scale", "chunk", "rest", "ignore_index", "teacher_temperature", "samples",
    "reduction", "targets", "adapter", "name", "mean", "std", "size", "inputs", "weights", "store", "shard", "dtype",
    "precision", "compile", "augment", "workers", "views", "view_seed", "variants", "self", "args", "kwargs",
    "__class__",
    "freeze", "new_head", "groups", "match", "no_decay", "sampling", "class_weights", "label_smoothing", "task",
    "early_stopping", "patience", "min_delta", "save_every", "limit_steps", "limit_samples", "from", "to", "start",
    "base", "epoch",
    "decay", "peers", "generations", "hint", "hint_epochs", "probability", "task_weight", "options", "method", "scheme",
    "quantize", "bits", "teacher",
]  # fmt: skip
STEPS: list[Any] = [
    "flip", "crop", "cutout", "jitter", "autoaugment", "randaugment", "mixup", "cutmix", {"crop": 10**9}, {"crop": 0},
    "resized_crop", {"resized_crop": 0}, {"resized_crop": {"ratio": float("inf")}},
    {"jitter": {"brightness": 2}}, {"randaugment": {"operations": 10**9}}, {"randaugment": [1, 2]}, {"mixup": 1e-300},
    {"cutmix": float("inf")}, {"cutout": "x"}, {"flip": None}, {"flip": {}}, {}, {"flip": 1, "crop": 2}, {"mixup": 0},
    "torchvision:RandomGrayscale", {"torchvision:RandomRotation": 10**9}, "torchvision:", {"torchvision:CenterCrop": 3},
    "torchvision:MixUp", {"os:getcwd": {"x": 1}}, "math:pi", "no.module:x",
]  # fmt: skip
TERMS = [
    "kd", "dkd", "dist", "nkd", "mlkd", "wsld", "logit_mse", "hard_label", "reverse_kl", "jsd", "mse", "cosine", "rkd",
    "attention", "similarity", "VID", "CRD", "MGD", "ReviewKD", "FactorTransfer", "fsp", "pkt", "soft_cross_entropy",
    "wttm", "normkd", "CTKD", "ctkd", "sdd", "sd-kd", "catkd", "cat-kd", "VkD", "vkd", "wkd_f", "ls-mlkd",
]  # fmt: skip
NETWORKS = [
    "mlp", "cnn", "keras_cnn", "resnet8", "vgg8", "mobilenet_v1", "mobilenet_v2", "shufflenet_v1", "byot_small",
    "tutorial_student", "wrn_16_1", "torchvision:alexnet", "torchvision:", "timm:", "timm:nothing", "onnx:x", "keras:x",
]  # fmt: skip


@dataclass
class Wrong:
    """A request that may be wrong: the bytes of a recipe, further arguments of `limbeck run`, and what was done."""

    recipe: bytes
    what: str
    arguments: list[str] = field(default_factory=list)


def mutation(number: int) -> Wrong:
    """The mutation of that number."""
    draw = random.Random(number)
    base = copy.deepcopy(draw.choice(BASES))
    kinds: list[Callable[[random.Random, dict[str, Any]], Wrong]] = [_inside, _text, _bytes, _override, _option]
    return draw.choices(kinds, weights=[60, 12, 8, 12, 8])[0](draw, base)


def _inside(draw: random.Random, base: dict[str, Any]) -> Wrong:
    """One or two places of the recipe changed."""
    what = [draw.choice([_replace, _replace, _add, _add, _drop, _rename, _wrap, _choose])(draw, base)
            for _ in range(draw.choice([1, 1, 2]))]  # fmt: skip
    return Wrong(dumped(base), "; ".join(what))


def dumped(content: Any) -> bytes:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, one in inner for place in _places(one, (*at, key)))]


def _at(base: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        base = base[key]
    return base


def _replace(draw: random.Random, base: dict[str, Any]) -> str:
    *above, last = draw.choice(_places(base)[1:] or [("name",)])
    parent = _at(base, tuple(above))
    before = parent.get(last) if isinstance(parent, dict) else parent[last]
    parent[last] = odd = copy.deepcopy(draw.choice(_alike(before) if draw.random() < 0.6 else ODD))
    return f"{(*above, last)} = {str(odd)[:40]!r}"


def _alike(value: Any) -> list[Any]:
    """The odd values of its kind, which come further than those of another."""
    kind = (int, float) if isinstance(value, int | float) else type(value)
    return [odd for odd in ODD if isinstance(odd, kind)] or ODD


def _mapping(draw: random.Random, base: dict[str, Any]) -> tuple[tuple[Any, ...], dict[Any, Any]]:
    place = draw.choice([p for p in _places(base) if isinstance(_at(base, p), dict)])
    return place, _at(base, place)


def _add(draw: random.Random, base: dict[str, Any]) -> str:
    place, mapping = _mapping(draw, base)
    key = draw.choice(KEYS)
    mapping[key] = odd = copy.deepcopy(draw.choice(ODD))
    return f"{place} + {key}: {str(odd)[:40]!r}"


def _drop(draw: random.Random, base: dict[str, Any]) -> str:
    *above, last = draw.choice(_places(base)[1:] or [("name",)])
    _at(base, tuple(above)).pop(last, None) if isinstance(last, str) else _at(base, tuple(above)).pop(last)
    return f"without {(*above, last)}"


def _rename(draw: random.Random, base: dict[str, Any]) -> str:
    place, mapping = _mapping(draw, base)
    if not mapping:
        return "nothing"
    key = draw.choice(list(mapping))
    new = draw.choice([str(key)[:-1], f"{key}s", str(key).upper(), LONG, "", f" {key}"])
    mapping[new] = mapping.pop(key)
    return f"{place}: {str(key)[:40]} called {new[:20]!r}"


def _wrap(draw: random.Random, base: dict[str, Any]) -> str:
    *above, last = draw.choice(_places(base)[1:] or [("name",)])
    parent = _at(base, tuple(above))
    inner = parent.get(last) if isinstance(parent, dict) else parent[last]
    parent[last] = draw.choice([[inner], {"x": inner}, [inner, inner], str(inner), [[inner]]])
    return f"{(*above, last)} wrapped"


def _choose(draw: random.Random, base: dict[str, Any]) -> str:
    """Another valid name where a name stands, or odd augmentations: what was checked for one may not fit another."""
    kind = draw.choice(["term", "network", "steps", "optimizer", "method"])
    if kind == "steps":
        base.setdefault("data", {})
        if isinstance(base["data"], dict):
            base["data"]["augment"] = draw.sample(STEPS, draw.choice([1, 2]))
    elif kind == "network":
        base["student"] = {"model": draw.choice(NETWORKS), draw.choice(KEYS): copy.deepcopy(draw.choice(ODD))}
    elif kind == "optimizer":
        base["optimizer"] = {"name": draw.choice(["sgd", "adam", "adamw"]), draw.choice(KEYS): draw.choice(ODD)}
    elif kind == "method":
        base["distill"] = {"method": draw.choice(TERMS), "scheme": draw.choice(["offline", "born-again", "two-stage"])}
    else:
        term = {"loss": draw.choice(TERMS), draw.choice(KEYS): copy.deepcopy(draw.choice(ODD))}
        base["distill"] = {"scheme": draw.choice(["offline", "mean-teacher"]), "terms": [term]}
    return f"another {kind}"


_LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
)
TEXTS = [
    "", "\n", "#", "---", "...", "--- a\n--- b\n", "null", "1", "- 1", "x", "a: [1", "a: {", "a: 'x",
    "%YAML 9.9\n---\na: 1",
    "a: 1\na: 2", "epochs: 1\nepochs: 2", "\ta: 1", "a:\n\t- 1", "a: !!python/object/apply:os.getcwd []",
    "a: !!python/name:os.system", "!!python/object/new:os.system [x]", "a: !!set {x, y}", "a: !!binary aGk=", "a: !x 1",
    "name: 2020-01-01", "seed: 2020-01-01", "distill: {options: {x: 2020-01-01 10:00:00}}", "epochs: 1:30",
    "a: *nobody",
    "a: &a [*a]", "a: &a {b: *a}", "student: &s {model: mlp, hidden: *s}", _LAUGHS, f"{_LAUGHS}\nname: *a11",
    "a: " + "[" * 3000 + "]" * 3000, "a: " + "{a: " * 3000 + "}" * 3000, "- " * 3000, "[" * 3000,
    "<<: 1", "<<: [1]", "<<: {epochs: 1}", "? [1, 2]\n: 3", "? {a: b}\n: 3", "{}", "[]", "a: |\n  x\n y", "@", "`",
    "&", "*", "!",
    "seed: " + "9" * 5000, "seed: 0x" + "f" * 5000, "epochs: 1e400", "a: " + "x" * 300_000, "x" * 5000 + ": 1",
    "variants: 3", "variants: [1]", "variants: {a: 1}", "variants: null", "seed: .nan", "epochs: .inf", "epochs: ~",
    "name: \"\\0\"", "name: \"\\x1b[2J\"", "name: \"a\\nb\"", "name: ../up", "name: /tmp", "name: ''", "name: .",
    "name: " + "n" * 300,
]  # fmt: skip


def _text(draw: random.Random, base: dict[str, Any]) -> Wrong:
    """A line of text instead of the recipe, or behind it."""
    text = draw.choice(TEXTS)
    if draw.random() < 0.5:
        top = text.split(":")[0]
        base.pop(top, None)
        return Wrong(dumped(base) + text.encode() + b"\n", f"behind it {text[:50]!r}")
    return Wrong(text.encode(), f"only {text[:50]!r}")


def _bytes(draw: random.Random, base: dict[str, Any]) -> Wrong:
    """Bytes that do not belong there."""
    whole = dumped(base)
    junk = draw.choice([b"\x00", b"\xff", b"\xe9", b"\t", b"\r", b"\x1b", b"\xef\xbb\xbf", b"\xed\xa0\x80",
                        b"\xf0\x9f\x98\x80",
                        b":", b"-", b"'", b'"', b"[", b"}", b"&a", b"*a", b"!", b"|", b">", b"%", b"@", b"#", b"?",
                        "\u2028".encode(), "\x85".encode()])  # fmt: skip
    choice = draw.randrange(6)
    if choice == 0:
        return Wrong(whole.decode().encode("utf-16"), "utf-16")
    if choice == 1:
        return Wrong(whole.replace(b"odd", "\u00e9\u00e8".encode("latin-1")), "latin-1")
    if choice == 2:
        return Wrong(b"\xef\xbb\xbf" + whole, "a BOM")
    at = draw.randrange(len(whole))
    if choice == 3:
        return Wrong(whole[:at], f"cut at {at}")
    if choice == 4:
        return Wrong(whole[:at] + junk + whole[at:], f"{junk!r} at {at}")
    return Wrong(whole[:at] + bytes([draw.randrange(256)]) + whole[at + 1 :], f"a byte at {at}")


def _override(draw: random.Random, base: dict[str, Any]) -> Wrong:
    """--set with something odd."""
    places = [".".join(map(str, p)) for p in _places(base)[1:]]
    path = draw.choice(
        [*places, *(f"{p}.{draw.choice(KEYS)}" for p in places), "", ".", "a..b", "=", "distill.terms.²", "name.x",
         "distill.terms.-1", "distill.terms.9", LONG, "variants", "variants.a", "distill.terms.0.loss.x"]
    )  # fmt: skip
    value = draw.choice([str(draw.choice(ODD)), *draw.sample(TEXTS, 3), "[1", "{a: 1}", "1e3", "~", ""])
    return Wrong(dumped(base), f"--set {path[:40]}={value[:40]!r}", ["--set", f"{path}={value}"])


_OPTIONS = {
    "--seed": ["x", "-1", "1e3", "9" * 30, "9" * 5000, "", "nan", "1.5", "²"],
    "--epochs": ["-1", "0", "x", "1.5", "1000000000000", "", LONG, "true"],
    "--precision": ["foo", "", "16-true", LONG, "32", "bf16-mixed\n", "[1]"],
    "--devices": ["0", "-2", "x", "", "1,", ",", "0,0", "²", "99999999", "1.5", LONG, "auto "],
    "--accelerator": ["tpu", "", "CPU", "cuda:1", LONG, "gpu"],
    "--strategy": ["x", "", "deepspeed", "dp", LONG],
    "--num-nodes": ["0", "-1", "x", ""],
    "--set": ["", "x", "=", "=1", "epochs", "epochs=", "a=b=c", LONG, "epochs=" + LONG],
    "--nothing": ["1"],
    "--": ["x"],
    "--data-root": ["\x00", LONG, "", "/dev/null"],
    "--out": ["\x00", LONG, "/dev/null/x", ""],
    "--resume": ["--resume", "x"],
}


def _option(draw: random.Random, base: dict[str, Any]) -> Wrong:
    """An option of the command line with something odd."""
    name = draw.choice(list(_OPTIONS))
    value = draw.choice(_OPTIONS[name])
    return Wrong(dumped(base), f"{name} {value[:40]!r}", [name, value])
