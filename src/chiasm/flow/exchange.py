"""Stored features as files of other tools: npz, safetensors, Parquet."""

from __future__ import annotations

import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from chiasm.errors import ConfigError, StoreError
from chiasm.flow.pipeline import Pipeline

Uris = Mapping[str, tuple[str, ...]]
ROWS = 256  # pictures of a row group


def write_features(pipeline: Pipeline, level: str, uris: Uris, out: Path, tell: Callable[[], object]) -> None:
    """Write one level of the pictures of `uris` (key -> uris) to `out`, whole or not at all.

    npz and safetensors: of a vector one matrix `features` N x D and the keys in its order, of a map one array C x h x w
    under each key. parquet: a row a picture. float32. Raises ConfigError for another suffix, StoreError when a picture
    lacks the level or there is none.
    """
    if not uris:
        raise StoreError(f"{pipeline.path}: no picture to write; change --where, or encode some")
    vector = pipeline.space.level(level).kind == "vector"
    writers = {".npz": _npz, ".safetensors": _safetensors, ".parquet": _parquet}
    if out.suffix.lower() not in writers:
        raise ConfigError(f"{out} must end in {', '.join(writers)}")

    def read() -> Iterator[tuple[str, np.ndarray]]:
        for key in uris:
            values: np.ndarray = pipeline.features(key, (level,))[level][0].numpy()
            tell()
            yield key, values

    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.parent / f".chiasm-{secrets.token_hex(8)}{out.suffix.lower()}"
    try:
        with temporary.open("xb"):  # with the rights that a new file has here
            pass
        writers[temporary.suffix](temporary, read(), uris, vector)
        temporary.replace(out)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _matrix(read: Iterator[tuple[str, np.ndarray]]) -> tuple[list[str], np.ndarray]:
    keys, rows = zip(*read, strict=True)
    return list(keys), np.stack(rows)


def _npz(path: Path, read: Iterator[tuple[str, np.ndarray]], uris: Uris, vector: bool) -> None:
    if vector:
        keys, rows = _matrix(read)
        np.savez(path, features=rows, keys=np.array(keys))
        return
    with zipfile.ZipFile(path, "w", allowZip64=True) as file:  # one array after the other: they need not fit in memory
        for key, values in read:
            with file.open(f"{key}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(values))


def _safetensors(path: Path, read: Iterator[tuple[str, np.ndarray]], uris: Uris, vector: bool) -> None:
    import json

    from safetensors.numpy import save_file

    if vector:
        keys, rows = _matrix(read)
        save_file({"features": rows}, path, {"keys": json.dumps(keys)})
        return
    save_file({key: np.ascontiguousarray(values) for key, values in read}, path)


def _parquet(path: Path, read: Iterator[tuple[str, np.ndarray]], uris: Uris, vector: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("key", pa.string()),
            ("uri", pa.string()),
            ("shape", pa.list_(pa.int32())),
            ("values", pa.list_(pa.float32())),
        ]
    )
    with pq.ParquetWriter(path, schema) as writer:
        rows: list[dict[str, object]] = []
        for key, values in read:
            uri = uris[key][0] if uris[key] else None
            rows.append({"key": key, "uri": uri, "shape": list(values.shape), "values": values.ravel()})
            if len(rows) == ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))
