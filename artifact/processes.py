"""Processes that end with the one that started them, and signals that end a command in order."""

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

PR_SET_PDEATHSIG = 1
SECONDS_TO_STOP = 15.0


class Stopped(BaseException):
    """TERM or HUP came; like KeyboardInterrupt it is no Exception, so that what cleans up does and what handles errors does not."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name}")


def end_with_parent(number: int = signal.SIGTERM, parent: int | None = None) -> None:
    """Ask Linux to send this process a signal when its parent is gone, however that ended; elsewhere it runs on to its own end.

    Where `parent` is gone already, which the system then tells nobody, the process ends here.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number))
        if parent is not None and os.getppid() != parent:
            os._exit(128 + number)


def start(command: list[str], number: int = signal.SIGTERM, **settings) -> subprocess.Popen:
    """Start a command that ends with this process: `number` is what it is sent then."""
    parent = os.getpid()
    return subprocess.Popen(command, preexec_fn=lambda: end_with_parent(number, parent), **settings)


@contextmanager
def stoppable():
    """Within, TERM and HUP raise Stopped in the main thread; a HUP that is ignored (nohup) stays so."""
    def stop(number, _):
        raise Stopped(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, was in before.items():
        if was != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was if was is not None else signal.SIG_DFL)


def run(command: list[str], **settings) -> int:
    """Run a command to its end and return its exit status; it is stopped, and waited for, where this process is."""
    process = start(command, signal.SIGKILL, **settings)
    try:
        return process.wait()
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):  # a terminal's Ctrl-C went to both already
            process.send_signal(signal.SIGINT)
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
