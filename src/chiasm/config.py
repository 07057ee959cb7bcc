"""TOML and `key=value` to one strict frozen dataclass.

    class defaults ◄── TOML file (differences only) ◄── key=value ──► the config, every value checked

A recipe's config is a frozen dataclass whose annotations say everything: the type, and where it matters the range
(`steps: Count = 12_000`). pydantic checks them, strictly: only an integer is a good float too.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import BaseMetadata, Ge, GroupedMetadata, Gt, Le

from chiasm.errors import ConfigError, nearest

T = TypeVar("T")

_LETTERS = 100  # of a value in an error


@dataclass(frozen=True)
class Range(GroupedMetadata):
    """Metadata of an annotation: the value lies in [low, high], or in (low, high] when `above`."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def __iter__(self) -> Iterator[BaseMetadata]:
        """The bounds as pydantic knows them."""
        if self.low > -math.inf:
            yield Gt(self.low) if self.above else Ge(self.low)
        if self.high < math.inf:
            yield Le(self.high)

    def __str__(self) -> str:
        parts = []
        if self.low > -math.inf:
            parts.append(f"{'above' if self.above else 'at least'} {self.low:g}")
        if self.high < math.inf:
            parts.append(f"at most {self.high:g}")
        return " and ".join(parts)


Count = Annotated[int, Range(low=1)]
Amount = Annotated[float, Range(low=0)]
Positive = Annotated[float, Range(low=0, above=True)]
Share = Annotated[float, Range(low=0, high=1)]


def load(cls: type[T], file: Path | None = None, overrides: Sequence[str] = ()) -> T:
    """An instance of the dataclass `cls`: its defaults, then what `file` (TOML) says, then each `key=value` in order.

    The value of an override is written as in TOML (`rate=1e-3`, `compress=false`, `names=["a", "b"]`); for a text the
    quotes may be left out. Raises ConfigError for an unknown key (with the nearest one), a value of another type or
    outside the range, a required key that nobody gave, and a file that cannot be read.
    """
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise ConfigError(f"a config must be a dataclass, got {cls!r}")
    kinds = get_type_hints(cls, include_extras=True)
    given: dict[str, object] = dict(_from_file(file)) if file else {}
    source = dict.fromkeys(given, f"{file}: ")
    for override in overrides:
        key, value = _from_text(override, kinds)
        given[key], source[key] = value, ""
    known = {field.name for field in dataclasses.fields(cls) if field.init}
    for key in given:
        if key not in known:
            raise ConfigError(f"{source[key]}{cls.__name__} has no key {key!r}; {nearest(key, known)}")
    checked = {key: _checked(f"{source[key]}{key}", value, kinds[key]) for key, value in given.items()}
    _require(cls, checked)
    return cls(**checked)


def _require(cls: type, given: Mapping[str, object]) -> None:
    for field in dataclasses.fields(cls):
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if field.init and not optional and field.name not in given:
            raise ConfigError(f"{cls.__name__} needs a value for {field.name!r}; add {field.name}=...")


def _from_file(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} must be TOML in UTF-8, got other bytes; save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and lists in lists in lists
        raise ConfigError(f"{path} must be TOML: {_short(str(error))}") from error


def _from_text(override: str, kinds: Mapping[str, object]) -> tuple[str, object]:
    key, equals, text = override.partition("=")
    key, text = key.strip(), text.strip()
    if not equals or not key or not text:
        raise ConfigError(f"expected key=value, got {_short(repr(override))}")
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    except (ValueError, RecursionError) as error:
        why = "a number of fewer digits" if isinstance(error, ValueError) else "fewer brackets"
        raise ConfigError(f"{key}: expected {why}, got {_short(text)}") from error
    if not isinstance(value, str) and _only_text(kinds.get(key)):
        value = text
    return key, value


def _only_text(kind: object) -> bool:
    """Whether the annotation takes texts and nothing else, so that `name=2026` is a text too."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(kind) in (Union, UnionType):
        return all(_only_text(option) for option in get_args(kind) if option is not NoneType)
    return kind in (str, Path) or (get_origin(kind) is Literal and all(isinstance(x, str) for x in get_args(kind)))


def _checked(key: str, value: object, kind: Any) -> object:
    """The value as the annotation wants it. Raises ConfigError naming the key, the value and what was expected."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    adapter = TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))
    try:
        # as JSON, since strictness there takes lists for tuples and texts for paths, as TOML has them, and no more
        return adapter.validate_json(json.dumps(value), strict=True)
    except (ValidationError, TypeError, ValueError, RecursionError) as error:  # dates, and numbers without end
        raise ConfigError(f"{key}: expected {_words(kind)}, got {_short(_repr(value))}") from error


def _repr(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # an integer of thousands of digits, written in another base
        return "a number of thousands of digits"


def _short(text: str) -> str:
    """At most 100 letters of what came, so that an error stays a sentence."""
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 3]}..."


def _words(kind: object) -> str:
    """The annotation as a person says it: "int at least 1", "bool (true or false)"."""
    origin, options = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return " ".join([_words(options[0]), *(str(extra) for extra in options[1:] if isinstance(extra, Range))])
    if origin in (Union, UnionType):
        return " or ".join(_words(option) for option in options if option is not NoneType)
    if origin is Literal:
        return "one of " + ", ".join(repr(option) for option in options)
    if origin is tuple:
        inner = options[:1] if options[1:] == (...,) else options
        return f"a list of {', '.join(_words(option) for option in inner)}"
    names = {bool: "bool (true or false)", float: "float (a finite number)", str: "a text", Path: "a path"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))  # type: ignore[call-overload,no-any-return]
