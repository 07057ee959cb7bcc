"""What a worker runs first, as a script: it binds itself to its parent, and then imports chiasm and serves.

Imports take a fifth of a second, in which the parent may end: nothing of chiasm or numpy is imported before the bond.
"""

import ctypes
import fcntl
import json
import os
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


def bind_to_parent(parent: int, from_main_thread: bool) -> None:
    """End with the parent, even when it is killed and even in the middle of C code.

    Its end of the pipe that is our stdin closes when it ends; that raises SIGIO here, whose default action ends the
    process. (On macOS the default is to ignore it; there the worker ends when it next reads or when its time is up.)
    Linux kills the worker besides, if asked to; but it means the thread that started the worker, so only the main
    thread's workers ask (`from_main_thread`).
    """
    for number in (signal.SIGIO, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)  # the parent may have ignored them, which is inherited
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO, signal.SIGALRM})
    lifeline = 0
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if from_main_thread and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the bond
        os._exit(0)


def main(given: str) -> None:
    """given: JSON of the parent, sys_path, channel, decode, limits and share."""
    told = json.loads(given)
    bind_to_parent(told["parent"], told["from_main_thread"])
    sys.path[:] = told["sys_path"]
    from chiasm.images.isolation.worker import serve
    from chiasm.images.limits import Limits

    serve(told["channel"], told["decode"], Limits(**told["limits"]), told["share"])


if __name__ == "__main__":
    main(sys.argv[1])
