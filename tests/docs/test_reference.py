"""The reference page is what the docstrings say."""

from __future__ import annotations

import runpy
from pathlib import Path

import chiasm

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_reference_is_made_from_the_docstrings():
    made = runpy.run_path(str(DOCS / "reference.py"))["page"]()
    assert (DOCS / "reference.md").read_text(encoding="utf-8") == made, "run `make reference`"
    assert made.count("\n## `chiasm.") == len(chiasm.__all__) - 1


def test_every_public_class_and_function_says_what_it_is():
    told = 0
    for name in chiasm.__all__:
        found = getattr(chiasm, name)
        if callable(found):
            assert (found.__doc__ or "").strip(), name
            told += 1
    assert told >= 30
