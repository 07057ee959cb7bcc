"""A Sensor as values that JSON has, and back: for the wire to workers, for stores and for listings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields

from chiasm.contracts import Sensor


def plain_sensor(sensor: Sensor) -> dict[str, object]:
    """Every field, tuples as tuples: what `json.dumps` takes."""
    return asdict(sensor)


def sensor_from(plain: Mapping[str, object]) -> Sensor:
    """The inverse of `plain_sensor`, also after JSON has made lists of the tuples.

    Raises ValueError, with the name of the field, for values that no Sensor has.
    """
    names = {field.name for field in fields(Sensor)}
    if set(plain) != names:
        raise ValueError(f"a sensor has the fields {', '.join(sorted(names))}, got {', '.join(sorted(plain))[:200]}")
    red, green, blue = _numbers(plain, "gains", 3)
    r, g, second, b = _numbers(plain, "black", 4)
    rows = plain["matrix"]
    if not isinstance(rows, (list, tuple)) or len(rows) != 3:
        raise ValueError("matrix: expected three rows")
    first, middle, last = (_numbers({"matrix": row}, "matrix", 3) for row in rows)
    return Sensor(
        gains=(red, green, blue),
        matrix=((first[0], first[1], first[2]), (middle[0], middle[1], middle[2]), (last[0], last[1], last[2])),
        shot=_number(plain, "shot"),
        read=_number(plain, "read"),
        camera=_text(plain, "camera"),
        iso=_number(plain, "iso"),
        pattern=_text(plain, "pattern"),
        black=(r, g, second, b),
        white=_number(plain, "white"),
    )


def _numbers(plain: Mapping[str, object], name: str, count: int) -> list[float]:
    values = plain[name]
    if not isinstance(values, (list, tuple)) or len(values) != count:
        raise ValueError(f"{name}: expected {count} numbers")
    return [_number({name: value}, name) for value in values]


def _number(plain: Mapping[str, object], name: str) -> float:
    value = plain[name]
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {str(value)[:100]}")
    return float(value)


def _text(plain: Mapping[str, object], name: str) -> str:
    value = plain[name]
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {str(value)[:100]}")
    return value
