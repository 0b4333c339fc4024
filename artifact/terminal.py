"""What a person sees while jobs run: on a terminal one living line below all that is printed, in a log a plain line now and then."""

import os
import select
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from artifact import estimates, jobs, status

REFRESH = 1.0  # seconds
LOG_SECONDS = 120.0  # between two lines of a log in which nothing else may happen for hours
CLEAR = b"\r\x1b[K"
AS_ESTIMATED = 30.0  # seconds that count as if they had gone as estimated: a first job of two seconds says little of the pace


@contextmanager
def following(planned: list[jobs.Job], todo: list[jobs.Job], parallel: int):
    """Within, show how the jobs of this process and of all that it starts are getting on.

    On a terminal whatever is printed meanwhile, by whichever process, stands above the line. A command that another one started shows
    nothing: that one does.
    """
    if status.folder() is not None or not todo:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="mmc-", ignore_cleanup_errors=True) as name:
        view = _View(Path(name), planned, todo, parallel)
        captured = _terminals()
        status.begin(view.folder, total=len(planned), done=len(planned) - len(todo), living=bool(captured))
        os.environ[status.FOLDER] = name
        ending = threading.Event()
        try:
            with _line(view, captured, ending) if captured else _log(view, ending):
                yield
        finally:
            del os.environ[status.FOLDER]


def _terminals() -> list[int]:
    """Standard output and error, as far as they are a terminal that can erase a line; none where the output is not."""
    try:
        mine = sys.stdout.fileno() == 1 and os.isatty(1)
    except (OSError, ValueError):
        mine = False
    return [number for number in (1, 2) if os.isatty(number)] if mine and os.environ.get("TERM", "dumb") != "dumb" else []


class _View:
    """The jobs of one command and what is known of them."""

    def __init__(self, folder, planned, todo, parallel):
        self.folder, self.todo, self.parallel = folder, todo, parallel
        self.total, self.before = len(planned), len(planned) - len(todo)
        self.old = {job.name: _stamp(job) for job in todo}

    def text(self, width: int | None = None) -> str:
        ended, running = status.read(self.folder)
        under_way = {doing.name for doing in running}
        # A job on another machine writes its receipt where all see it, and nothing else that is seen here.
        made = {job.name for job in self.todo if job.name not in under_way and _stamp(job) not in (None, self.old[job.name])}
        left = time_left(self.todo, ended, made, running, self.parallel)
        return sentence(self.total, self.before + len(ended.keys() | made), running, left, width)


def _stamp(job) -> int | None:
    try:
        return job.receipt.stat().st_mtime_ns
    except OSError:
        return None


def time_left(todo, ended: dict[str, float], made: set[str], running: list[status.Doing], parallel: int) -> float:
    """Seconds to the end: the estimates, at the pace of the jobs that are done or late, and by what a training says itself."""
    under_way, rest = {doing.name: doing for doing in running}, []
    late = {job.name: under_way[job.name].seconds for job in todo if job.name in under_way and under_way[job.name].seconds > job.seconds}
    took = ended | late
    guessed = sum(job.seconds for job in todo if job.name in took)
    pace = (sum(took.values()) + AS_ESTIMATED) / (guessed + AS_ESTIMATED)
    for job in todo:
        if job.name in ended or job.name in made:
            continue
        seconds = pace * job.seconds
        if doing := under_way.get(job.name):
            seconds = max(seconds - doing.seconds, doing.seconds / 10)  # where it is late, nobody knows how much
            if doing.training:
                alone = len(job.makes) == 1
                seconds = doing.training["left"] + 1 if alone else max(seconds, doing.training["left"])
        rest.append(replace(job, seconds=seconds))
    return estimates.estimate(rest, parallel)


def sentence(total: int, done: int, running: list[status.Doing], left: float, width: int | None = None) -> str:
    """`4 of 11 done · 2 running: verdict 2:10, white box 0:40 · about 3 min left`, never longer than `width`.

    Where it does not fit, what runs is cut first.
    """
    begin = f"{done} of {total} done"
    middle = f" · {len(running)} running: {', '.join(map(_shown, running))}" if running else ""
    end = f" · about {estimates.describe(left)} left" if done < total else ""
    if width is not None and len(begin + middle + end) > width:
        middle = cut(middle, max(0, width - len(begin) - len(end)))
        return cut(begin + (middle if len(middle) > len(" · 1 ") else "") + end, width)
    return begin + middle + end


def _shown(doing: status.Doing) -> str:
    name = jobs.brief(doing.name)
    if training := doing.training:  # says more than how long the job has run
        return f"{name} ({clock(training['left'])} left, epoch {training['epoch']}/{training['epochs']}, loss {training['loss']:.3g})"
    return f"{name} {clock(doing.seconds)}"


def clock(seconds: float) -> str:
    """A duration as a clock shows it: 0:40, 2:10, 1:02:10."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def cut(text: str, width: int) -> str:
    """The text, or as much of it as `width` columns hold with an ellipsis."""
    return text if len(text) <= width else text[:max(0, width - 1)] + "…" * (width > 0)


@contextmanager
def _log(view: _View, ending: threading.Event):
    def tell():
        while not ending.wait(LOG_SECONDS):
            try:
                print(view.text(), flush=True)
            except (OSError, ValueError):  # nobody reads any more; the next line of a job says so
                return

    with _alongside(tell, ending):
        yield


@contextmanager
def _line(view: _View, captured: list[int], ending: threading.Event):
    # What this process and its children print goes through a pipe, so that the line can make room for it: to all of them it is a log.
    sys.stdout.flush()
    sys.stderr.flush()
    terminal = os.dup(captured[0])
    kept = {number: os.dup(number) for number in captured}
    reading, writing = os.pipe()
    try:
        with _alongside(lambda: _draw(view, terminal, reading, ending), ending):
            try:
                for number in captured:
                    os.dup2(writing, number)
                os.close(writing)
                yield
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                for number, old in kept.items():
                    os.dup2(old, number)
    finally:
        for number in (terminal, reading, *kept.values()):
            os.close(number)


@contextmanager
def _alongside(function, ending: threading.Event):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def _draw(view: _View, terminal: int, reading: int, ending: threading.Event) -> None:
    waiting, line, drawn, gone = b"", b"", 0.0, False
    while True:
        last = ending.is_set()
        ready = select.select([reading], [], [], 0.0 if last else 0.2)[0]
        said = os.read(reading, 1 << 16) if ready else b""
        whole, newline, rest = (waiting + said).rpartition(b"\n")
        waiting = rest
        if last and not said:
            whole, newline, line = waiting, b"\n" if waiting else b"", b""
        elif newline or time.monotonic() - drawn >= REFRESH:
            if time.monotonic() - drawn >= REFRESH:
                drawn = time.monotonic()
                try:
                    line = view.text(_width(terminal)).encode()
                except (OSError, LookupError, TypeError, ValueError):  # a file that another program wrote: the line stays as it was
                    pass
        else:
            continue
        try:
            if not gone:
                _write(terminal, CLEAR + whole + newline + line)
        except OSError:  # the terminal was closed: what is printed is read on, so that nobody waits to be read
            gone = True
        if last and not said:
            return


def _width(terminal: int) -> int:
    try:
        columns = os.get_terminal_size(terminal).columns
    except OSError:
        columns = 0
    return max(1, (columns or 80) - 1)  # a terminal that nobody told its size says 0


def _write(terminal: int, text: bytes) -> None:
    while text:
        text = text[os.write(terminal, text):]
