"""Hygiene of the whole package: imports, exports, sizes, and no pickle."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import chiasm

ROOT = Path(chiasm.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
HEAVY = ("torch", "lance", "numpy", "pyarrow", "PIL", "matplotlib")


@pytest.mark.parametrize("module", ["chiasm", "chiasm.contracts", "chiasm.errors", "chiasm.cli"])
def test_importing_the_light_modules_imports_nothing_heavy(module):
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "[]"


def test_all_names_what_a_module_exports():
    listed = 0
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
        if not any(ast.unparse(node.targets[0]) == "__all__" for node in assigned):
            continue
        dotted = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        module = import_module(dotted)
        assert len(set(module.__all__)) == len(module.__all__)
        for name in module.__all__:
            assert getattr(module, name) is not None
        listed += 1
    assert listed >= 4


def test_the_package_exports_each_of_its_names_and_refuses_others():
    assert {"Pipeline", "encode", "open", "read", "models", "Space", "Features", "ChiasmError"} <= set(chiasm.__all__)
    assert list(chiasm.__all__) == sorted(chiasm.__all__)
    assert set(chiasm._HOMES) < set(chiasm.__all__)
    with pytest.raises(AttributeError, match="Pipeline"):
        _ = chiasm.Pipline


def test_packages_export_what_their_init_imports():
    seen = 0
    for path in FILES:
        if path.name != "__init__.py" or path.parent == ROOT:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module != "__future__"
            for alias in node.names
        }
        module = import_module(".".join(path.parent.relative_to(ROOT.parent).parts))
        own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        if hasattr(module, "__all__"):
            assert set(module.__all__) <= imported | own
            public = {name for name in imported if not name.startswith("_")}
            assert public <= set(module.__all__) or path.parent.name == "cli"
        seen += 1
    assert seen >= 8


def test_nothing_is_loaded_with_pickle():
    forbidden = re.compile(r"\btorch\.load\b|^\s*(import|from) (pickle|shelve|dill|joblib)\b|allow_pickle", re.M)
    found = [path.name for path in FILES if forbidden.search(path.read_text(encoding="utf-8"))]
    assert len(FILES) >= 60
    assert found == ["weights.py"]  # weights that others made
    text = (ROOT / "encoders" / "foreign" / "weights.py").read_text(encoding="utf-8")
    assert text.count("torch.load(") == text.count("weights_only=True)")


def test_no_file_is_longer_than_400_lines_and_no_function_than_40():
    functions = 0
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 40, f"{path.name}: {node.name}"
                functions += 1
    assert functions >= 300
