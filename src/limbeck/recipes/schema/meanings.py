"""What the keys of a recipe mean: what stands below each in the source of the schema, read when somebody asks.

pydantic would read it all whenever the schema is imported.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from functools import cache
from itertools import pairwise

from pydantic import BaseModel


@cache
def of_keys(kind: type[BaseModel]) -> Mapping[str, str]:
    """The meanings of the keys that a part of the schema declares, and the classes that it extends."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__[: kind.__mro__.index(BaseModel)]):
        [declared] = ast.parse(inspect.getsource(one)).body
        assert isinstance(declared, ast.ClassDef)
        for key, text in pairwise(declared.body):
            if isinstance(key, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(key.target)] = inspect.cleandoc(str(text.value.value))
    return found
