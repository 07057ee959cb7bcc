"""A run that is killed goes on where it stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from chiasm.flow.pipeline import Pipeline

COUNT = 60


def test_a_run_killed_in_the_middle_is_completed_by_the_next_without_duplicates(store, save):
    for number in range(COUNT):
        save(f"{number:02}.png", 12, 16, seed=number)
    folder = store.parent / "photos"
    script = Path(__file__).with_name("killed.py")
    died = subprocess.run([sys.executable, script, folder, store, "30"], check=False, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    with Pipeline.load("test-space", store=store) as reader:
        committed = reader.keys()
        assert 20 <= len(committed) < COUNT
    with Pipeline.load("test-space", store=store, writable=True, precision="float32") as writer:
        summary = writer.encode([folder], workers=0)
        assert (summary.stored, summary.known) == (COUNT - len(committed), len(committed))
        keys = writer.keys()
        assert keys[: len(committed)] == committed
        assert len(keys) == len(set(keys)) == COUNT
        assert writer.store.verify().sound
