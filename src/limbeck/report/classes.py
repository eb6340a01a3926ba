"""What `limbeck evaluate --report` writes: figures by class, the confusion matrix as a picture, the surest mistakes."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

from torch import Tensor

from limbeck.engine.saving.files import write_bytes, write_json, write_text
from limbeck.report.document import document
from limbeck.runs.finished.answers import Answers

FIGURES, PAGE, PICTURES = "evaluation.json", "mistakes.html", ("confusion.svg", "confusion.png")
MOST = 60
"""Mistakes that are shown."""
LARGEST = 112
"""Pixels of a shown image's longer side, at most."""
_GRID = """
.grid { display: flex; flex-wrap: wrap; gap: 1rem } .grid figure { margin: 0; width: 7.5rem; overflow-wrap: anywhere }
.grid img { width: 7rem; height: 7rem; object-fit: contain; image-rendering: pixelated; background: #f6f8fa }
"""


def write_report(run: Path, answers: Answers) -> list[Path]:
    """Write evaluation.json, mistakes.html and, with matplotlib, confusion.svg and confusion.png into a run folder.

    Returns:
        What was written.

    Raises:
        RunError: The folder cannot be written.
    """
    write_json(run / FIGURES, answers.as_dict())
    write_text(run / PAGE, _page(run, answers))
    return [run / FIGURES, run / PAGE, *_pictures(run, answers)]


def _pictures(run: Path, answers: Answers) -> list[Path]:
    try:
        from limbeck.report import confusion
    except ModuleNotFoundError:
        return []
    svg, png = (run / name for name in PICTURES)
    drawing = confusion.drawn(answers.confusion.numpy(), answers.names)
    write_text(svg, drawing.svg)
    write_bytes(png, drawing.png)
    return [svg, png]


def _page(run: Path, answers: Answers) -> str:
    shown = answers.mistakes(MOST)
    wrong = int((answers.data.test.targets >= 0).sum() - answers.confusion.diagonal().sum())
    name = f"mistakes of {run.name} on {answers.data.name}"
    body = f"""<p>{wrong:,} of {answers.figures["samples"]:,} test samples got another class than their label. These
are the {len(shown)} about which the student is most confident; a wrong label is often among them.</p>
<div class="grid">{"".join(_mistake(answers, index) for index in shown)}</div>"""
    return document(name, body, _GRID)


def _mistake(answers: Answers, index: int) -> str:
    said = int(answers.predicted[index])
    label = answers.names[int(answers.data.test.targets[index])]
    sure = float(answers.probabilities[index, said])
    file = answers.files[index] if answers.files else f"test sample {index}"
    pixels = answers.pixels(index)
    image = "" if pixels is None else f'<img alt="{html.escape(file)}" src="data:image/png;base64,{_png(pixels)}">'
    words = f"label {html.escape(label)}, predicted {html.escape(answers.names[said])} with {sure:.1%}"
    return f"<figure>{image}<figcaption>{words}<br>{html.escape(file)}</figcaption></figure>"


def _png(pixels: Tensor) -> str:
    """A small PNG of an image (C, H, W), as base64."""
    from PIL import Image

    values = pixels.permute(1, 2, 0).contiguous().numpy()
    image = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    image.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
