"""Methods by their papers' names: terms, connectors, weights, temperatures and stages as their authors run them.

Each is declared in one place: `logits.py`, `maps.py`, `local.py` and `relations.py` by what is compared, `reused.py`
where the teacher's classifier is shipped, `schemes.py` for schemes, `quantised.py` for int8.
Every constant is a starting point, to be chosen on a validation split for another pair of networks.
"""

from limbeck.recipes.methods.declaration import (
    Method,
    OfNetwork,
    OfStage,
    OfStudent,
    OfTeacher,
    Setting,
    Shipped,
    Stage,
)
from limbeck.recipes.methods.local import LOCAL
from limbeck.recipes.methods.logits import LOGITS
from limbeck.recipes.methods.maps import MAPS
from limbeck.recipes.methods.places import Places
from limbeck.recipes.methods.quantised import QUANTISED
from limbeck.recipes.methods.relations import RELATIONS
from limbeck.recipes.methods.reused import REUSED_CLASSIFIERS
from limbeck.recipes.methods.schemes import SCHEME_EPOCHS, SCHEMES

METHODS: dict[str, Method] = {**LOGITS, **LOCAL, **MAPS, **RELATIONS, **REUSED_CLASSIFIERS}
"""The methods that `distill.method` and `limbeck compare --methods` know."""

__all__ = [
    "METHODS",
    "QUANTISED",
    "SCHEMES",
    "SCHEME_EPOCHS",
    "Method",
    "OfNetwork",
    "OfStage",
    "OfStudent",
    "OfTeacher",
    "Places",
    "Setting",
    "Shipped",
    "Stage",
]
