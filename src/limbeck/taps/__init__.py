"""Taps: named places in a model where a tensor is read during its one forward pass.

"layer3.1.conv2"      the output of that module
"layer3.1.conv2:in"   its first input
"encoder:0"           element 0 of a tuple output; "encoder:hidden" of a mapping; "encoder:in:1" its second input
"layer3.1.add"        the result of an operation between modules: of `+` in the forward of layer3.1
"layer3.1.relu_1"     the second relu there, a function's or that of a module that runs twice
"logits"              the model's own output
"""

from limbeck.taps.forward import by_position, call, evaluating
from limbeck.taps.listing import TapInfo, trace
from limbeck.taps.names import LOGITS, Tap
from limbeck.taps.outputs import Choice, NoOutputError, check_choice, heads_of, logits_of, output_of, taken_from
from limbeck.taps.pairs import match
from limbeck.taps.read import Taps
from limbeck.taps.reading import FLOATS, NUMBERS, Conversion, dtype_of, readable

__all__ = [
    "FLOATS",
    "LOGITS",
    "NUMBERS",
    "Choice",
    "Conversion",
    "NoOutputError",
    "Tap",
    "TapInfo",
    "Taps",
    "by_position",
    "call",
    "check_choice",
    "dtype_of",
    "evaluating",
    "heads_of",
    "logits_of",
    "match",
    "output_of",
    "readable",
    "taken_from",
    "trace",
]
