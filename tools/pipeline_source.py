"""The source of diffusers' pipelines, as what is found in it is to be read."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any


def unparsed(pipeline: Any) -> str:
    """The class's source with each statement on one line and no docstrings: what is found in it is code."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(pipeline)))
    for part in ast.walk(tree):
        if isinstance(part, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(part) is not None:
            part.body[0] = ast.Pass()
    return ast.unparse(tree) + "\n"
