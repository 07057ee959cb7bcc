"""Code that lies beside the pictures never runs, however a process of ours is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NAMES = ("json", "socket", "signal", "resource", "numpy", "PIL", "rawpy", "selectors", "tempfile", "sitecustomize")
SCRIPT = Path(sys.executable).with_name("chiasm")


@pytest.mark.parametrize("start", [[str(SCRIPT)], [sys.executable, "-m", "chiasm"]], ids=["script", "module"])
def test_modules_beside_the_pictures_do_not_run(start: list[str], tmp_path: Path) -> None:
    if not Path(start[0]).exists():
        pytest.skip("chiasm is not installed as a script")
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "chiasm").mkdir()  # a folder of pictures may be called so
    for name in NAMES:
        evil = f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')\nraise SystemExit\n"
        (tmp_path / f"{name}.py").write_text(evil)
    command = [*start, "encode", "a.png", "--store", "s.lance"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    ran = tmp_path / "ran"
    assert not ran.exists(), f"ran: {ran.read_text()}"
    assert ended.returncode == 0, ended.stderr
    assert "1 stored" in ended.stdout


OWN = """
from pathlib import Path
import mine
from chiasm.images import DecoderPool
with DecoderPool(1, decode=mine.decode) as pool:
    print([type(outcome).__name__ for _, outcome in pool.decode_all([Path("a.png")])])
"""


def test_a_decoder_of_ones_own_may_lie_in_the_current_folder(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    own = "from chiasm.images import decode as theirs\ndef decode(path, limits): return theirs(path, limits)\n"
    (tmp_path / "mine.py").write_text(own)
    (tmp_path / "script.py").write_text(OWN)
    command = [sys.executable, "script.py"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.stdout.strip(), ended.returncode) == ("['Picture']", 0), ended.stderr
