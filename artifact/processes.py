"""Processes that end with the one that started them, and signals that end a command in order."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

PR_SET_PDEATHSIG = 1
SECONDS_TO_STOP = 15.0
SECONDS_OF_ONE_REQUEST = 1.0
SECONDS_TO_REPEAT = 5.0


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)  # the last is the clock's


class Stopped(BaseException):
    """One of STOPPING came; like KeyboardInterrupt it is no Exception, so that what cleans up does and what handles errors does not."""

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


def lives(pid: int) -> bool:
    """Is there a process of this number that still runs? One that ended and that nobody has asked how (a zombie) does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:  # it has gone in between, or this system has no /proc
        return not os.path.exists("/proc/self")


def start(command: list[str], number: int = signal.SIGTERM, **settings) -> subprocess.Popen:
    """Start a command that ends with this process: `number` is what it is sent then."""
    parent = os.getpid()
    return subprocess.Popen(command, preexec_fn=lambda: end_with_parent(number, parent), **settings)


@contextmanager
def stoppable(seconds: float | None = None):
    """Within, INT, TERM, HUP and the end of `seconds` raise Stopped in the main thread; what is ignored (HUP under nohup) stays so."""
    def stop(number, _):
        raise Stopped(number)

    with _handled(stop):
        if seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, seconds, SECONDS_TO_REPEAT)  # Python drops what is raised while it deletes an object
        try:
            yield
        finally:
            if seconds is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def stop_flag():
    """Yield a function that says whether this process was asked to end; within, that waits for the end of the block.

    For work that can end well by itself, as a training does after a step. A second Ctrl-C does not wait. Outside the main thread nothing
    is held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came, before = [], {number: signal.getsignal(number) for number in STOPPING}

    def note(number, _):
        came.append((number, time.monotonic()))
        # `timeout` and a terminal send theirs to a whole group, so that one request may come twice at the same time.
        if number == signal.SIGINT and len(came) > 1 and came[-1][1] - came[0][1] > SECONDS_OF_ONE_REQUEST:
            signal.signal(number, before[number])
            signal.raise_signal(number)

    try:
        with _handled(note):
            yield lambda: bool(came)
    finally:
        if came:
            signal.raise_signal(came[0][0])


@contextmanager
def _handled(handler):
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number, was in before.items():
        if was != signal.SIG_IGN:
            signal.signal(number, handler)
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
        if getattr(error, "number", signal.SIGINT) != signal.SIGINT:  # a terminal's Ctrl-C went to both already
            process.send_signal(signal.SIGINT)
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
