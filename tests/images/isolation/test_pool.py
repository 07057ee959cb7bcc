"""Workers may crash, hang and be killed; the job goes on, and nothing is left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chiasm.errors import ChiasmError, ConfigError, ImageError
from chiasm.images import DecoderPool, Limits, Picture, decode
from chiasm.images.isolation import pool as pool_module
from chiasm.images.isolation.worker import outcome_of

QUICK = Limits(seconds=1.0)


def children(parent: int) -> list[int]:
    """Processes whose parent this is, zombies included."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(status.parent.name))
        except (OSError, ValueError):
            continue
    return found


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def reasons(outcomes: list[tuple[Path, Picture | ImageError]]) -> list[str]:
    return [outcome.reason if isinstance(outcome, ImageError) else "picture" for _, outcome in outcomes]


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Neither processes, nor descriptors, nor shared memory outlive a pool."""
    before = descriptors(), sorted(Path("/dev/shm").iterdir())
    yield
    gc.collect()
    assert children(os.getpid()) == []
    assert (descriptors(), sorted(Path("/dev/shm").iterdir())) == before


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_pictures_come_in_the_order_of_the_paths_and_are_those_of_decode(save, photo, workers):
    paths = [save(np.roll(photo, i, 1), f"{i}.{'png' if i % 2 else 'tif'}") for i in range(20)]
    paths.insert(7, paths[0].with_name("missing.jpg"))
    paths.append(save(np.arange(64, dtype=np.uint16).reshape(8, 8) * 999, "deep.png"))
    with DecoderPool(workers) as pool:
        outcomes = list(pool.decode_all(paths))
    assert [path for path, _ in outcomes] == paths
    assert reasons(outcomes) == ["picture"] * 7 + ["unreadable"] + ["picture"] * 14
    for path, outcome in outcomes:
        if isinstance(outcome, Picture):
            alone = decode(path)
            assert np.array_equal(outcome.pixels, alone.pixels)
            assert outcome.pixels.dtype == alone.pixels.dtype
            assert (outcome.digest, outcome.source_bytes, outcome.uri) == (
                alone.digest,
                alone.source_bytes,
                alone.uri,
            )
        else:
            assert str(outcome.args[0]).startswith(str(path))


def test_trouble_of_every_kind_costs_only_its_own_picture(save, photo, strange):
    kinds = ["a", "segv", "b", "exit", "hang", "c", "quit", "raise", "spin", "kill", "d"]
    paths = [save(photo, f"{kind}-{i}.png") for i, kind in enumerate(kinds)]
    with DecoderPool(2, QUICK, strange.by_name) as pool:
        outcomes = list(pool.decode_all(paths))
        assert reasons(list(pool.decode_all(paths[:1]))) == ["picture"]
    assert reasons(outcomes) == [
        {"hang": "timeout", "spin": "timeout", "raise": "damaged"}.get(
            kind, "picture" if len(kind) == 1 else "crashed"
        )
        for kind in kinds
    ]
    said = {kind: str(outcome) for kind, (_, outcome) in zip(kinds, outcomes, strict=True)}
    assert "SIGSEGV" in said["segv"]
    assert "exit status 3" in said["exit"]
    assert "1.0 s" in said["hang"]
    assert "ZeroDivisionError" in said["raise"]


def test_a_process_that_cannot_even_end_itself_is_killed(save, photo, strange, monkeypatch):
    monkeypatch.setattr(pool_module, "_GRACE_SECONDS", 0.5)
    paths = [save(photo, "stop-1.png"), save(photo, "a.png")]
    with DecoderPool(1, QUICK, strange.by_name) as pool:
        assert reasons(list(pool.decode_all(paths))) == ["timeout", "picture"]


def test_memory_beyond_the_limit_is_an_error(save):
    path = save(np.zeros((6000, 6000, 3), np.uint8), "a.png", compress_level=1)
    with DecoderPool(1, Limits(memory_bytes=2**27)) as pool:
        outcomes = list(pool.decode_all([path]))
    assert reasons(outcomes) == ["too-large"]
    assert "memory" in str(outcomes[0][1])


def test_time_grows_with_the_file():
    assert Limits(seconds=30).seconds_for(0) == 30
    assert Limits(seconds=30).seconds_for(100 * 2**20) == 130


def test_large_pictures_arrive_whole_and_outlive_the_pool(save):
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), np.uint8)  # 18 MB: mapped, not copied
    path = save(pixels, "a.tif")
    with DecoderPool(2) as pool:
        outcomes = list(pool.decode_all([path, path, path]))
    assert reasons(outcomes) == ["picture"] * 3
    for _, outcome in outcomes:
        assert np.array_equal(outcome.pixels, pixels)
        assert outcome.tile(1990, 2990, 2000, 3000).shape == (3, 10, 10)


def test_large_pictures_are_decoded_one_at_a_time(save, photo, strange):
    paths = [save(photo, f"{i}.png") for i in range(6)]
    need = 48 * 64 * 8

    def overlaps(ahead_bytes: int) -> int:
        with DecoderPool(2, decode=strange.logged, ahead_bytes=ahead_bytes) as pool:
            for _ in range(2):  # in the second round both workers have started
                assert reasons(list(pool.decode_all(paths))) == ["picture"] * 6
        times = sorted(tuple(map(float, p.with_suffix(".times").read_text().split())) for p in paths)
        return sum(first[1] > second[0] for first, second in zip(times, times[1:], strict=False))

    assert overlaps(need) == 0
    assert overlaps(100 * need) > 0


def test_paths_are_taken_no_further_ahead_than_memory_allows(save, photo):
    path, taken = save(photo, "a.png"), []

    def endless() -> Iterator[Path]:
        while True:
            taken.append(path)
            yield path

    with DecoderPool(2, ahead_bytes=20 * photo.nbytes) as pool:
        outcomes = pool.decode_all(endless())
        for _ in range(50):
            assert isinstance(next(outcomes)[1], Picture)
        assert 50 < len(taken) <= 50 + 25
        outcomes.close()


def test_a_slow_first_picture_does_not_let_the_line_grow_without_bound(save, photo, strange):
    slow, quick, taken = save(photo, "hang-1.png"), save(photo, "a.png"), []

    def many() -> Iterator[Path]:
        yield slow
        for _ in range(2000):
            taken.append(quick)
            yield quick

    with DecoderPool(2, Limits(seconds=2), strange.by_name, ahead_bytes=30 * photo.nbytes) as pool:
        outcomes = pool.decode_all(many())
        assert next(outcomes)[1].reason == "timeout"
        assert len(taken) <= 40
        outcomes.close()


def test_stopping_early_leaves_a_pool_that_still_works(save, photo):
    paths = [save(np.roll(photo, i, 0), f"{i}.png") for i in range(10)]
    with DecoderPool(2) as pool:
        for _, outcome in pool.decode_all(paths):
            assert np.array_equal(outcome.pixels, photo)
            break
        again = list(pool.decode_all(paths[::-1]))
    assert [path for path, _ in again] == paths[::-1]
    assert reasons(again) == ["picture"] * 10
    assert np.array_equal(again[0][1].pixels, np.roll(photo, 9, 0))


def test_a_worker_killed_while_idle_is_replaced_without_blame(save, photo):
    path = save(photo, "a.png")
    with DecoderPool(1) as pool:
        assert reasons(list(pool.decode_all([path]))) == ["picture"]
        (worker,) = children(os.getpid())
        os.kill(worker, signal.SIGKILL)
        assert eventually(lambda: not alive(worker))
        assert reasons(list(pool.decode_all([path, path]))) == ["picture"] * 2


def test_no_process_starts_before_the_first_picture(save, photo):
    with DecoderPool(2) as pool:
        assert children(os.getpid()) == []
        assert list(pool.decode_all([])) == []
        assert children(os.getpid()) == []
        assert reasons(list(pool.decode_all([save(photo, "a.png")]))) == ["picture"]
        assert len(children(os.getpid())) == 1


def test_a_forgotten_pool_ends_its_workers(save, photo):
    pool = DecoderPool(1)
    assert reasons(list(pool.decode_all([save(photo, "a.png")]))) == ["picture"]
    assert len(children(os.getpid())) == 1
    del pool
    gc.collect()
    assert children(os.getpid()) == []


def test_workers_import_neither_torch_nor_the_store(tmp_path, strange):
    with DecoderPool(1, decode=strange.tell_modules) as pool:
        ((_, told),) = pool.decode_all([tmp_path / "a"])
    modules = set(str(told).split())
    assert {"numpy", "PIL", "chiasm.images.isolation.worker"} <= modules
    assert not modules & {"torch", "lance", "pyarrow", "multiprocessing"}


def test_misuse_is_said_plainly(save, photo):
    def nested(path: Path, limits: Limits) -> Picture:
        return decode(path, limits)

    path = save(photo, "a.png")
    with DecoderPool(1) as pool:
        outcomes = pool.decode_all([path, path])
        next(outcomes)
        with pytest.raises(ConfigError, match="another decode_all"):
            next(pool.decode_all([path]))
        outcomes.close()
    with pytest.raises(ConfigError, match="closed"):
        next(pool.decode_all([path]))
    with pytest.raises(ConfigError, match="top level"):
        DecoderPool(1, decode=nested)
    with pytest.raises(ConfigError, match="workers"):
        DecoderPool(-1)


def test_a_decoder_that_workers_cannot_import_is_an_error_and_no_endless_loop(
    save, photo, monkeypatch, capfd
):
    module = types.ModuleType("only_here")
    exec("def decoder(path, limits): ...", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with DecoderPool(2, decode=module.decoder) as pool, pytest.raises(ChiasmError, match="did not start"):
        list(pool.decode_all([save(photo, "a.png")]))
    assert "only_here" in capfd.readouterr().err


SCRIPT = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born ignoring it
print("imported", flush=True)
sys.path.insert(0, {here!r})
import strange_decoders
from chiasm.images import DecoderPool, Limits
with DecoderPool(2, decode=strange_decoders.by_name) as pool:
    for path, outcome in pool.decode_all([Path(p) for p in {paths!r}]):
        print(type(outcome).__name__, flush=True)
"""


def script(tmp_path: Path, paths: list[Path]) -> subprocess.Popen[str]:
    """A user's script, without a guard for __main__, in a process of its own."""
    code = SCRIPT.format(here=str(Path(__file__).parents[1]), paths=[str(path) for path in paths])
    (tmp_path / "script.py").write_text(textwrap.dedent(code))
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(tmp_path / "script.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_script_without_a_main_guard_works_and_runs_once(save, photo, tmp_path):
    with script(tmp_path, [save(photo, "a.png"), save(photo, "b.png")]) as process:
        out, err = process.communicate(timeout=60)
    assert (out.split(), err, process.returncode) == (["imported", "Picture", "Picture"], "", 0)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_their_parent_even_in_the_middle_of_c_code(save, photo, tmp_path, how):
    with script(
        tmp_path, [save(photo, "a.png"), save(photo, "spin-1.png"), save(photo, "hang-2.png")]
    ) as process:
        assert process.stdout.readline() == "imported\n"
        assert process.stdout.readline() == "Picture\n"
        time.sleep(0.3)
        workers = children(process.pid)
        assert len(workers) == 2
        process.send_signal(how)
        _, err = process.communicate(timeout=30)
    assert process.returncode != 0
    assert ("KeyboardInterrupt" in err) == (how == signal.SIGINT)
    assert eventually(lambda: not any(alive(worker) for worker in workers))


def test_a_fork_of_the_parent_does_not_end_the_workers(save, photo):
    path = save(photo, "a.png")
    with DecoderPool(1) as pool:
        assert reasons(list(pool.decode_all([path]))) == ["picture"]
        workers = children(os.getpid())
        with warnings.catch_warnings():  # lance, imported by other tests, warns of every fork
            warnings.simplefilter("ignore")
            fork = os.fork()
        if fork == 0:
            pool.close()
            os._exit(0)
        os.waitpid(fork, 0)
        assert all(alive(worker) for worker in workers)
        assert reasons(list(pool.decode_all([path]))) == ["picture"]


def test_hundreds_of_pictures_may_be_kept_at_once(save, photo):
    path = save(photo, "a.png")
    with DecoderPool(2) as pool:
        kept = list(pool.decode_all([path] * 400))
        assert descriptors() < 100
    assert reasons(kept) == ["picture"] * 400
    assert Image.fromarray(kept[-1][1].pixels).size == (64, 48)


def test_a_message_without_its_pixels_is_a_failed_picture() -> None:
    about = {"kind": "rgb", "shape": [1, 1, 3], "dtype": "uint8", "digest": "", "source_bytes": 3, "sensor": None}
    outcome = outcome_of(about, None, "a.png")
    assert isinstance(outcome, ImageError)
    assert (outcome.reason, "a.png" in str(outcome)) == ("crashed", True)


def test_workers_outlive_the_thread_that_started_them(save, photo):
    """Linux takes the thread that started a process for its parent."""
    paths = [save(photo, f"{at}.png") for at in range(4)]
    with DecoderPool(1) as pool:
        first: list[object] = []
        thread = threading.Thread(target=lambda: first.extend(pool.decode_all(paths[:1])))
        thread.start()
        thread.join()
        (worker,) = children(os.getpid())
        assert reasons(list(pool.decode_all(paths))) == ["picture"] * 4
        assert children(os.getpid()) == [worker]


def test_a_worker_that_is_only_starting_ends_with_its_parent(save, photo, tmp_path):
    with script(tmp_path, [save(photo, f"{at}.png") for at in range(2)]) as process:
        assert eventually(lambda: bool(children(process.pid)))
        workers = children(process.pid)
        process.terminate()
        process.communicate(timeout=30)
    assert eventually(lambda: not any(map(alive, workers)), 2.0)
