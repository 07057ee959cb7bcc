"""Head files of strangers: one sentence each, in little time and memory."""

from __future__ import annotations

import json
import resource
import time

import pytest
import torch
from safetensors.torch import load, save

from chiasm.contracts import TaskSpec
from chiasm.encoders.ns import NS
from chiasm.errors import ModelError
from chiasm.heads.linear import LinearHead
from chiasm.heads.saved import HEADER, KEY, MOST, read_file, read_head, write_head

TASK = TaskSpec("zones", 2, "classes", ("a", "b"))
GOOD = write_head(LinearHead(NS, (TASK,), ("context",)))


def parts(data: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def packed(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def changed(**about: object) -> bytes:
    """The good file, with other words about the network."""
    header, body = parts(GOOD)
    told = {**json.loads(header["__metadata__"][KEY]), **about}
    return packed({**header, "__metadata__": {KEY: json.dumps(told)}}, body)


def told(**task: object) -> bytes:
    plain = {"name": "zones", "channels": 2, "kind": "classes", "classes": ["a", "b"], "unit": ""}
    return changed(tasks=[{**plain, **task}])


def tensor(**entry: object) -> bytes:
    """The good file, with other words about one tensor."""
    header, body = parts(GOOD)
    return packed({**header, "last.0.bias": {**header["last.0.bias"], **entry}}, body)


def weights(value: float) -> bytes:
    held = load(GOOD)
    held["last.0.weight"][0, 0] = value
    return save(held, parts(GOOD)[0]["__metadata__"])


HOSTILE = {
    "empty tensor": tensor(shape=[0, 2**40], data_offsets=[0, 0]),
    "huge tensor": tensor(shape=[2**40]),
    "huge product": tensor(shape=[2**20, 2**20, 2**20, 2**20]),
    "negative side": tensor(shape=[-2]),
    "fractions": tensor(shape=[2.0]),
    "true as a side": tensor(shape=[True]),
    "nine sides": tensor(shape=[1] * 9),
    "outside": tensor(data_offsets=[2**50, 2**50 + 4]),
    "backwards": tensor(data_offsets=[4, 0]),
    "another type": tensor(dtype="F64"),
    "no type": tensor(dtype=None),
    "a name that is a number": told(name=5),
    "a name that is a path": told(name="../up"),
    "a long name": told(name="a" * 100_000),
    "channels of 2^40": told(channels=2**40),
    "channels that are a truth": told(channels=True),
    "another kind": told(kind="oracle"),
    "another unit": told(unit="furlong"),
    "a distance without a unit": told(kind="distance", channels=1, classes=[]),
    "classes that are numbers": told(classes=[1, 2]),
    "classes that are letters": told(classes="ab"),
    "more of a task": told(extra=1),
    "no task": changed(tasks=[]),
    "tasks as a word": changed(tasks="zones"),
    "many tasks": changed(tasks=[{"name": f"t{i}"} for i in range(5000)]),
    "a width of 2^60": changed(kind="convolutional", width=2**60),
    "a wide denoiser": changed(kind="denoise", version=2, width=2**16),
    "a level that is not there": changed(reads=["context", "nothing"]),
    "many levels": changed(reads=["context"] * 100_000),
    "levels as a word": changed(reads="context"),
    "a version that is a list": changed(version=[1]),
    "a space that is a table": changed(space={"ns-1": 1}),
    "not a number": weights(float("nan")),
    "infinite": weights(float("inf")),
    "deep": packed(b'{"__metadata__": ' + b"[" * 400_000),
    "deep inside": packed({"__metadata__": {KEY: "[" * 100_000}}),
    "many digits": packed(b'{"__metadata__": {"chiasm.head": "{\\"version\\": ' + b"9" * 5000 + b'}"}}'),
    "a header of 2^60 bytes": (2**60).to_bytes(8, "little") + b"{}",
    "a long header": packed(b" " * (HEADER + 1)),
    "an array": packed([1, 2]),
    "nothing": b"",
    "no weights": packed({"__metadata__": parts(GOOD)[0]["__metadata__"]}),
}  # fmt: skip


def test_the_file_itself_is_read():
    assert read_head(GOOD, NS, "mine").tasks == (TASK,)
    assert read_head(changed(), NS, "mine").tasks == (TASK,)
    assert read_head(told(), NS, "mine").tasks == (TASK,)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence_at_little_cost(name):
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ModelError) as caught:
        read_head(HOSTILE[name], NS, "mine.safetensors")
    assert time.process_time() - started < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
    said = str(caught.value)
    assert said.startswith("mine.safetensors")
    assert "\n" not in said
    assert len(said) < 500


def test_every_flipped_byte_of_a_header_is_read_or_refused():
    """No other error than ours, whatever a byte becomes."""
    length = 8 + int.from_bytes(GOOD[:8], "little")
    draws = torch.Generator().manual_seed(0)
    refused = 0
    for place in range(0, length, 3):
        value = int(torch.randint(1, 256, (1,), generator=draws))
        data = bytearray(GOOD)
        data[place] ^= value
        try:
            read_head(bytes(data), NS, "mine")
        except ModelError:
            refused += 1
    assert refused > length // 6


def test_a_file_larger_than_any_head_is_not_read(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MOST + HEADER + 1)
    for path, said in ((tmp_path / "large", "it has 2"), (tmp_path, "no file"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(ModelError, match=said):
            read_file(path)
