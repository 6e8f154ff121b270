"""The source of diffusers' pipelines, as what is found in it is to be read."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from typing import Any


@cache
def unparsed(pipeline: type[Any]) -> str:
    """The class's source with each statement on one line and no docstrings: what is found in it is code."""
    module = ast.parse(inspect.getsource(sys.modules[pipeline.__module__]))
    (tree,) = (one for one in module.body if isinstance(one, ast.ClassDef) and one.name == pipeline.__name__)
    for part in ast.walk(tree):
        if isinstance(part, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(part) is not None:
            part.body[0] = ast.Pass()
    return ast.unparse(tree) + "\n"
