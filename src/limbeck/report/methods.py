"""docs/methods.md: every loss, scheme and named method in tables, from their docstrings and signatures.

python -m limbeck.report.methods > docs/methods.md
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from typing import Any, get_args

import yaml

from limbeck import distillers, losses
from limbeck.models.build import build
from limbeck.recipes import schema
from limbeck.recipes.methods import METHODS, SCHEMES, Places
from limbeck.recipes.read import names, read

KINDS = ("response", "feature", "relation", "embeddings", "contrastive")
"""The modules of `limbeck.losses`, from outputs to memories of the whole training set."""

INTRODUCTION = """\
# Methods

Made by `python -m limbeck.report.methods > docs/methods.md` from the docstrings and signatures of the code.

**s** is the student, **t** the teacher, **p** a softmax at temperature **T**, **f** a hidden tensor, **y** a label,
**B** the batch. Weights are those of the papers or of comparisons that followed them: starting points, to be chosen on
a validation split. An option without a value must be given; `targets` come from the batch by themselves. The full
equations, with every symbol, shape and error, stand in the docstrings.

Every loss computes in fp32, whatever the student's precision, and so does a function of your own, as a term or as task
loss; `limbeck.losses.own_precision` marks one that is to get tensors, and autocast, as they come. A sample with the
label −100 has none: a loss that needs labels is 0 for it, any other counts it as it counts all samples. Language models
whose vocabularies are padded to different sizes are compared on the classes that both have; `common_classes` says how
many these are where that cannot be known.
"""
METHODS_TEXT = """\
Each name writes out the labels' weight and the terms below: `distill: {method: rkd}` in a recipe, or
`limbeck compare mnist-mlp --methods kd,rkd`. Where authors have several settings, the first one counts, and another is
named: `distill: {method: {name: dkd, setting: imagenet}}`, or `--methods dkd:imagenet`.

The table shows what they come to for resnet32x4 as teacher and resnet8x4 as student on images of 32×32; limbeck finds
the places of any other pair, before the ReLU that ends a stage where a method wants it so, and converts weights that
were published for a sum over a map by the size of the teacher's map. A term without a place compares the logits.
`samples` is the size of the training split, here 50,000. Ramps, and stages before the student's own training, are given
in epochs of the authors' runs; a run of another length has them in the same share. A stage's epochs are a part of the
student's: of 270 epochs, `ab` has 30 for its initialisation, and is compared with methods that have all 270.

`simkd` trains and ships another network in the student's place: the student up to its last map, a projector (1×1, 3×3
and 1×1 convolutions), and the teacher's classifier as it is. Figures, sizes and exports are of that network.
"""
SOURCES_TEXT = """\
How strong each term is beside the labels, measured on CIFAR-10 at the protocol's rate by
`python -m benchmarks methods --save`, stands in [results](results.md).

Where each method's constants, places and connectors are from, and what is otherwise than there, on purpose:
"""
SCHEMES_TEXT = """\
`distill: {scheme: …}` says who teaches; without it, a frozen teacher does, by terms or by a method of the table above.
`limbeck compare --methods` takes a scheme that names its task weight here, with these terms.
"""


def document() -> str:
    """The text of docs/methods.md."""
    parts = [INTRODUCTION, "## Losses\n"]
    for kind in KINDS:
        things = [getattr(losses, name) for name in losses.LOSSES if _kind(getattr(losses, name)) == kind]
        parts += [f"### {kind.capitalize()}\n", _first_sentence(_module_doc(kind)) + "\n", *_tables(things)]
    parts += ["## Schemes\n", _first_sentence(inspect.getdoc(distillers) or "") + "\n", *_tables(schemes())]
    parts += ["## Methods by name\n", METHODS_TEXT, _methods(), SOURCES_TEXT, _sources()]
    parts += ["## Schemes by name\n", SCHEMES_TEXT, _schemes()]
    return "\n".join(parts)


def schemes() -> list[type[distillers.Scheme]]:
    """The schemes that `limbeck.distillers` offers."""
    offered = (getattr(distillers, name) for name in distillers.__all__)
    kinds = [thing for thing in offered if isinstance(thing, type) and issubclass(thing, distillers.Scheme)]
    return [kind for kind in kinds if kind is not distillers.Scheme]


def labelled(thing: object, label: str) -> str:
    """What a docstring says behind a label such as "Use:", on one line; "" where it has no such label.

    >>> labelled(losses.mse, "Transfers")
    'the values of a hidden tensor.'
    """
    found = re.search(rf"^{label}: (.*(?:\n +\S.*)*)", inspect.getdoc(thing) or "", re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def equation(thing: object) -> str:
    """The lines that a docstring sets off under its first sentence, or else that sentence."""
    text = inspect.getdoc(thing) or ""
    set_off = re.match(r".*\n\n((?: {4}.*\n)+)", text)
    return " ".join(set_off[1].split()) if set_off else _first_sentence(text)


def _tables(things: Sequence[Any]) -> list[str]:
    """Two tables: what is chosen by, and what stands behind it."""
    choice, detail = [], []
    for thing in things:
        source, _, recommended = re.sub(r"[;,] recommended ", "\0", labelled(thing, "Source")).partition("\0")
        name, options = f"`{thing.__name__}`", ", ".join(_options(thing))
        transfers, use = (labelled(thing, label) for label in ("Transfers", "Use"))
        choice.append((name, *map(_prose, (transfers, use, recommended))))
        detail.append((name, _prose(equation(thing)), f"`{options}`" if options else "", _prose(source)))
    return [
        _table(("name", "what it transfers", "when to use it", "recommended"), choice),
        _table(("name", "equation", "options", "source"), detail),
    ]


def _methods() -> str:
    shape = (3, 32, 32)
    student, teacher = (build(name, input_shape=shape, classes=100) for name in ("resnet8x4", "resnet32x4"))
    places = Places(student, teacher, shape, 50_000, names=("resnet8x4", "resnet32x4"))
    rows = []
    for name, method in METHODS.items():
        for number, (setting, one) in enumerate(method.settings.items()):
            called = f"`{name}`" if not number else f"`{name}:{setting}`"
            before = [f"{stage.name}, {stage.epochs} epochs: {_terms(stage.terms(places))}" for stage in one.stages]
            of_all = f"{one.epochs} epochs: " if before else ""
            last = of_all + (_terms(one.terms(places)) or "the labels alone")
            rows.append((called, setting, f"{one.task_weight:g}", "<br>".join([*before, last])))
    return _table(("method", "setting", "weight of the labels", "terms"), rows)


def _sources() -> str:
    rows = []
    for name, method in METHODS.items():
        more = [f"{setting}: {one.source}" for setting, one in method.settings.items() if one.source]
        rows.append((name, _prose("; ".join([method.source, *more])), _prose(method.differs)))
    return _table(("method", "source", "what differs"), rows)


def _schemes() -> str:
    # Those on the embedded digits first: they run at once, wherever limbeck is.
    found = sorted(names(), key=lambda name: (not name.startswith("digits"), name))
    recipes = {name: read(name).distill.scheme for name in found}
    rows = []
    for name in get_args(schema.Scheme):
        example = next((recipe for recipe, scheme in recipes.items() if scheme == name), "")
        if name != "offline":
            weight = f"{SCHEMES[name].get('task_weight', 1.0):g}" if name in SCHEMES else ""
            terms = _terms(SCHEMES.get(name, {}).get("terms", ()))
            rows.append((f"`{name}`", weight, terms, f"`limbeck run {example}`: {_about(example)}" if example else ""))
    return _table(("scheme", "weight of the labels", "terms", "an example"), rows)


def _about(recipe: str) -> str:
    first, *_ = (files("limbeck.recipes") / f"{recipe}.yaml").read_text(encoding="utf-8").splitlines()
    return _prose(_first_sentence(first.removeprefix("# ")))


def _terms(terms: Iterable[Mapping[str, Any]]) -> str:
    """Terms as a recipe writes them, each once with all the places that it compares."""
    parts = []
    for form, same in groupby(terms, _form):
        places = [t["student"] for t in same if t.get("student")]
        at = ", ".join(" + ".join(place) if isinstance(place, list) else place for place in places)
        parts.append(f"`{form}`" + (f" on {at}" if at else ""))
    return "<br>".join(parts)


def _form(term: Mapping[str, Any]) -> str:
    shown = {key: _shown(value) for key, value in term.items() if key not in ("student", "teacher")}
    return yaml.safe_dump(shown, default_flow_style=True, sort_keys=False, width=1000).strip()


def _shown(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value if isinstance(value, int | str | list | bool) else str(value)


def _options(thing: Any) -> list[str]:
    """The keyword options of a signature as the caller writes them."""
    parameters = inspect.signature(thing).parameters.values()
    return [_option(p) for p in parameters if p.kind is p.KEYWORD_ONLY]


def _option(parameter: inspect.Parameter) -> str:
    default = parameter.default
    written = getattr(default, "__name__", repr(default))
    return parameter.name if default is parameter.empty else f"{parameter.name}={written}"


def _kind(loss: Any) -> str:
    return str(loss.__module__.split(".")[2])


def _module_doc(kind: str) -> str:
    return inspect.getdoc(sys.modules[f"limbeck.losses.{kind}"]) or ""


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", " ".join(text.partition("\n\n")[0].split()))[0]


def _prose(text: str) -> str:
    """Plain text as Markdown: signs that Markdown reads are escaped outside of code, papers are linked."""
    pieces = text.removesuffix(".").split("`")
    pieces[::2] = [re.sub(r"([_*|<\[\]\\])", r"\\\1", piece) for piece in pieces[::2]]
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", "`".join(pieces))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
