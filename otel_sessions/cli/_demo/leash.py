"""Run a module on a leash: it ends when the process that started it is gone, however that one went.

    python -m otel_sessions.cli._demo.leash MODULE [ARGUMENT ...]

The leash is standard input: the parent holds the other end of the pipe, and the kernel closes it even
after a kill -9. (Linux' PR_SET_PDEATHSIG would follow the parent's thread, and only on Linux.)
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from typing import Final

GRACE: Final = 9.0
"""Seconds between the gentle end and the hard one; a parent that lives loses its patience sooner."""


def main() -> None:
    """Run the module named by the first argument as a program of its own."""
    threading.Thread(target=_follow, args=(sys.stdin.fileno(),), name="leash", daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _follow(pipe: int) -> None:
    while os.read(pipe, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


if __name__ == "__main__":
    main()
