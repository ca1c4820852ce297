"""The tests of the suites by node id, for checks of data that names tests."""

from __future__ import annotations

import ast
from functools import cache

from tests.support.programs import ROOT


@cache
def functions() -> dict[str, ast.FunctionDef]:
    """Return the definition of each test function of the suites by its node id."""
    return {
        f"{path.relative_to(ROOT)}::{node.name}": node
        for path in (ROOT / "suites").rglob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }


def function_of(node_id: str) -> str:
    """Return the node id of the function of a test, without parameters."""
    return node_id.partition("[")[0]
