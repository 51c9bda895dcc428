"""What a function of a module takes, told from the source without importing the module.

The command line needs the names, types and docstrings of functions that live beside PyTorch and
pandas; importing those takes seconds, which nobody should wait for a help text or a typing error.
"""

import ast
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def signature_of(module: str, name: str) -> Callable:
    """A function or class without its body: same parameters, types, defaults and docstring.

    The module's own small constants and its imports from the standard library are at hand for
    types and defaults; nothing else of it is run.

    Args:
        module: full name, such as ``eat.scoring``.
        name: of a function or class at the module's top level; a class stands for its ``__init__``.

    Raises:
        LookupError: the module has no such function or class.
        NameError: a type or default needs more than the standard library and constants.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise LookupError(f"no module {module!r}")
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    kept = [node for node in tree.body if _is_light(node)]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            # A home without imports: jsonargparse looks for the name in its home and parents.
            namespace: dict[str, Any] = {"__name__": "builtins"}
            source = ast.Module([*kept, _without_body(node)], type_ignores=[])
            exec(compile(ast.fix_missing_locations(source), spec.origin, "exec"), namespace)
            return namespace[name]
    raise LookupError(f"{module} has no function or class {name!r}")


def _is_light(node: ast.stmt) -> bool:
    """Imports of the standard library, and constants written out."""
    if isinstance(node, ast.Import):
        return all(a.name.partition(".")[0] in sys.stdlib_module_names for a in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").partition(".")[0] in sys.stdlib_module_names
    if not isinstance(node, ast.Assign):
        return False
    try:
        ast.literal_eval(node.value)
    except ValueError:
        return False
    return True


def _without_body(node: ast.FunctionDef | ast.ClassDef) -> ast.FunctionDef | ast.ClassDef:
    """The definition with its docstring alone; of a class, with the signature of its start."""
    text = ast.Expr(ast.Constant(ast.get_docstring(node, clean=False) or ""))
    node.decorator_list = []
    if isinstance(node, ast.ClassDef):
        starts = [
            item
            for item in node.body
            if isinstance(item, ast.FunctionDef) and item.name == "__init__"
        ]
        node.body = [text, *map(_without_body, starts)]
        node.bases = []
    else:
        node.returns = None
        node.body = [text]
    return node
