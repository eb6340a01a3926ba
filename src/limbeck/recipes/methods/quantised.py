"""The ways to int8 that `limbeck compare --methods` knows: the recipe's own way to distil, its last epochs by these.

Source: PTQ and QAT as in Jacob et al., arXiv:1712.05877, and Krishnamoorthi, arXiv:1806.08342; QAT against a teacher as
in Mishra and Marr, "Apprentice", arXiv:1711.05852, and Polino et al., arXiv:1802.05668.
"""

from __future__ import annotations

from typing import Any

QUANTISED: dict[str, dict[str, Any]] = {
    "ptq": {"epochs": 0},
    "qat": {"teacher": False},
    "qat-kd": {"teacher": True},
}
"""What each name stands for in `quantize`, over the recipe's own keys there."""
