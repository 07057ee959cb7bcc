"""Run by test_kill.py: encode a folder, and end by SIGKILL after so many pictures."""

from __future__ import annotations

import os
import signal
import sys

from chiasm.flow import encode
from chiasm.flow.pipeline import Pipeline

FOLDER, STORE, LAST = sys.argv[1], sys.argv[2], int(sys.argv[3])


encode.COMMIT_ROWS = 20


def report(progress) -> None:
    if progress.done >= LAST:
        os.kill(os.getpid(), signal.SIGKILL)


with Pipeline.load("test-space", store=STORE, writable=True, precision="float32") as pipeline:
    pipeline.encode([FOLDER], report=report)
