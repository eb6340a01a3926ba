"""What onnxruntime says in its errors: the node that fails and why, without the lines of its own sources."""

from __future__ import annotations

import re

from limbeck.errors import reason_of

_RUNNING = re.compile(
    r"while running (?P<kind>\w+) node\. Name:'(?P<name>[^']*)' Status Message: (?P<why>.*)", re.DOTALL
)
_KIND = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE = re.compile(r"^(?:Exception: )?\S+\.(?:h|cc|cpp|cu)(?::\d+)? (?:[\w:<>~*&, ]*\w\([^()]*\)(?: const)? )?")
_REMEDIES = {
    r"is not a registered function/op": (
        "the operation is none of ONNX's own: export the model with those alone, or let it teach as a function "
        "(limbeck.FunctionTeacher) where it runs"
    ),
    r"Unsupported model IR version|Opset \d+ is under development": (
        "the file is newer than onnxruntime: install a newer onnxruntime, or export it with an older opset"
    ),
    r"[Rr]equested shape|requested_shape": (
        "a size is fixed inside that these samples do not have: export it with free sizes"
    ),
}
"""What helps, by what an error holds."""


def cause_of(error: Exception) -> str:
    """An error of onnxruntime in one line: the node, what is wrong there, and the remedy where there is one."""
    said = " ".join(str(error).split())
    found = _RUNNING.search(said)
    if found:
        why = _SOURCE.sub("", found["why"])
        cause = f"its node {found['name'] or '(without a name)'} ({found['kind']}) fails: {why}"
    else:
        cause = _SOURCE.sub("", _KIND.sub("", said)) or reason_of(error)
    remedy = next((remedy for pattern, remedy in _REMEDIES.items() if re.search(pattern, said)), "")
    return f"{cause.rstrip('.')}; {remedy}" if remedy else cause
