"""The double reads the framework for itself: nothing of stepgraph's but the words of messages."""

import ast
import pathlib

import tests.mps.double as double

FOLDER = pathlib.Path(double.__file__).parent
ALLOWED = {"stepgraph.backends.mps.messages"}


def test_the_double_knows_none_of_stepgraphs_definitions():
    files = sorted(FOLDER.rglob("*.py"))
    assert len(files) > 20
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            foreign = {n for n in names if n.split(".")[0] == "stepgraph"} - ALLOWED
            assert not foreign, f"{file.name} imports {foreign}"
