"""Threads: no more than the cores together with workers, and none that spins while it waits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from chiasm.errors import ConfigError
from chiasm.flow import threads


def test_workers_and_torch_together_use_the_cores_and_no_more(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 8)
    assert [threads.computing(workers) for workers in (0, 1, 3, 7, 8, 20)] == [8, 7, 5, 1, 1, 1]
    assert threads.computing(3, threads=2) == 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_cores_are_those_of_the_affinity():
    assert threads.cores() == len(os.sched_getaffinity(0))


def test_torch_is_told(monkeypatch):
    told = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    assert threads.use(threads=3) == 3
    assert told == [3]


@pytest.mark.parametrize(("workers", "count", "said"), [(0, 0, "got 0"), (0, 257, "1 to 256"), (-1, None, "got -1")])
def test_impossible_numbers_are_one_sentence(workers, count, said):
    with pytest.raises(ConfigError, match=said):
        threads.computing(workers, count)


def test_what_the_user_set_stays(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    threads.wait_quietly()
    assert "OMP_WAIT_POLICY" not in os.environ
    monkeypatch.delenv("GOMP_SPINCOUNT")
    threads.wait_quietly()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"


def test_a_verb_sets_how_to_wait_before_torch_is_there():
    code = (
        "import os, sys\n"
        "from chiasm.cli import main\n"
        "assert 'torch' not in sys.modules\n"
        "main(['models'], standalone_mode=False)\n"
        "print(os.environ['OMP_WAIT_POLICY'])\n"
    )
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "passive"
