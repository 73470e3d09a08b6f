"""Slips that are generated: small changes of a module's syntax tree.

For modules without I/O, whose tests run in milliseconds. A mutation tool would do the same there (mutmut, cosmic-ray),
but cannot do it for the rest, where a test starts processes of its own; one runner and one table for both kinds of slip
are worth more than a tool's longer list of operators. The operators are those that change what is decided, not what
is said: no strings, no messages, no annotations.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_CALLED = {"min": "max", "max": "min", "any": "all", "all": "any"}
_SILENT = ("log", "warnings")  # what is only said


def changes(text: str) -> Iterator[tuple[int, int, str]]:
    """Every change of a module: where the old text begins and ends, in characters, and the new text."""
    tree = ast.parse(text)
    offsets = _offsets(text)
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _of_function(function, text, offsets)


def _of_function(function: ast.FunctionDef, text: str, offsets: list[int]) -> Iterator[tuple[int, int, str]]:
    stack: list[ast.AST] = list(reversed(function.body))
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Raise, ast.Assert)):
            continue  # the first have their own turn; the others are messages
        if _is_silent(node):
            continue
        for changed in _changed(node, function.name == "__init__"):
            new = changed if isinstance(changed, str) else ast.unparse(changed)
            if not isinstance(node, ast.stmt) and not isinstance(changed, (ast.Constant, ast.Call)):
                new = f"({new})"
            begin = offsets[node.lineno - 1] + _characters(text, offsets, node.lineno, node.col_offset)
            end = offsets[node.end_lineno - 1] + _characters(text, offsets, node.end_lineno, node.end_col_offset)
            yield begin, end, new
        if isinstance(node, ast.AnnAssign):
            stack += [node.value] if node.value is not None else []
        else:
            stack += reversed(list(ast.iter_child_nodes(node)))


def _changed(node: ast.AST, is_init: bool) -> Iterator[ast.AST | str]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        other = copy.deepcopy(node)
        other.ops = [_COMPARED[type(node.ops[0])]()]
        yield other
    elif isinstance(node, ast.BoolOp):
        other = copy.deepcopy(node)
        other.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        if not any(isinstance(side, (ast.JoinedStr, ast.List, ast.Tuple)) for side in (node.left, node.right)):
            other = copy.deepcopy(node)
            other.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
            yield other
    elif isinstance(node, ast.Constant) and type(node.value) in (int, bool):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        if name in _CALLED:
            other = copy.deepcopy(node)
            if isinstance(other.func, ast.Name):
                other.func.id = _CALLED[name]
            else:
                other.func.attr = _CALLED[name]
            yield other
    elif _may_be_left_out(node, is_init):
        yield "pass"


def _may_be_left_out(node: ast.AST, is_init: bool) -> bool:
    """Whether a statement does something, and the function can be run without it."""
    if isinstance(node, ast.Assign):
        return not is_init and isinstance(node.targets[0], (ast.Attribute, ast.Subscript))
    return isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))


def _is_silent(node: ast.AST) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Constant):
        return True  # a docstring
    if not isinstance(call, ast.Call):
        return False
    function = call.func
    while isinstance(function, ast.Attribute):
        function = function.value
    return isinstance(function, ast.Name) and function.id in _SILENT


def _offsets(text: str) -> list[int]:
    """Return the start of each line, in characters."""
    offsets = [0]
    for line in text.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    return offsets


def _characters(text: str, offsets: list[int], line: int, column: int) -> int:
    """A column in characters; the syntax tree has it in bytes."""
    content = text[offsets[line - 1] : offsets[line]]
    return len(content.encode()[:column].decode())
