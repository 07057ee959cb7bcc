"""Writes docs/reference.md: every public name of chiasm, its signature and its docstring. `make reference` runs it."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path
from types import ModuleType

import chiasm

PAGE = Path(__file__).with_name("reference.md")
HEADING = """# Reference

Every public name of `import chiasm`, made from the docstrings by `make reference`; a test compares. The verbs of the
command line describe themselves: `chiasm VERB --help`.
"""
MODELS = ("Model", "codec_of", "encoder", "head", "head_of", "reconstructor")  # of the module `chiasm.models`


def page() -> str:
    """The whole page."""
    parts = [HEADING]
    for name in chiasm.__all__:
        if name == "__version__":
            continue
        found = getattr(chiasm, name)
        parts.append(_module(name, found) if isinstance(found, ModuleType) else _entry(f"chiasm.{name}", found, 2))
    return "\n".join(parts)


def _module(name: str, module: ModuleType) -> str:
    listed = [_entry(f"chiasm.{name}.{each}", getattr(module, each), 3) for each in MODELS]
    return "\n".join([f"## `chiasm.{name}`\n\n{_text(module)}\n", *listed])


def _entry(name: str, found: object, depth: int) -> str:
    lines = [f"{'#' * depth} `{name}`\n"]
    if not inspect.isclass(found) and not inspect.isfunction(found):
        return "\n".join([*lines, f"    {found}\n".replace("typing.", "").replace("torch.", "")])
    if not issubclass(found, BaseException) if inspect.isclass(found) else True:
        lines.append(f"```python\n{name.rpartition('.')[2]}{_signature(found)}\n```\n")
    lines.append(_text(found) + "\n")
    if inspect.isclass(found):
        lines += [_method(each, member) for each, member in vars(found).items() if _is_public(each, member)]
    return "\n".join(lines)


def _is_public(name: str, member: object) -> bool:
    callable_ = inspect.isfunction(member) or isinstance(member, staticmethod | property) or hasattr(member, "func")
    return not name.startswith("_") and callable_ and bool(inspect.getdoc(member))


def _method(name: str, member: object) -> str:
    called = member.__func__ if isinstance(member, staticmethod) else member
    signature = f"`{name}{_signature(called)}`" if inspect.isfunction(called) else f"`{name}`"
    return f"- {signature}: " + textwrap.indent(_text(called), "  ").strip() + "\n"


def _signature(found: object) -> str:
    try:
        text = str(inspect.signature(found))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(...)"
    text = text.replace("'", "").replace("(self, ", "(").replace("(self)", "()").replace(" -> None", "")
    text = re.sub(r"<factory>", "...", text)
    return re.sub(r"<[^<>]*>|PosixPath\([^)]*\)", "...", text)


def _text(found: object) -> str:
    return inspect.getdoc(found) or ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
