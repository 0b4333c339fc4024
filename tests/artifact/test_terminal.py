"""What a person sees: the living line on a terminal, plain lines in a log, and states that cannot be stale."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from artifact import experiment, jobs, runners, status, terminal
from artifact.experiment import ROOT
from artifact.status import Doing

TRAINING = {"epoch": 3, "epochs": 15, "loss": 0.2134, "left": 72.0}
RUNNING = [Doing("verdict", 130.0), Doing("white box: sce, mmc-10", 40.4)]
SCRIPT = """
import subprocess, sys, time
from pathlib import Path
from artifact import jobs, runners, status, terminal
terminal.REFRESH, terminal.LOG_SECONDS = 0.05, 0.25
todo = [jobs.Job(name, "02_training", {{}}, (Path({folder!r}) / f"{{name}}.json",), seconds=20) for name in ("first", "second")]
first = todo[0]
print("before")
with terminal.following(todo, todo, 1):
    runners.run_timed(None, first, lambda profile, job: time.sleep(0.4))
    subprocess.run([sys.executable, "-c", "print('a child\\\\'s line')"])
    print("half a line", end="")
print("; after")
"""


def job(name, seconds, needs=()):
    needed = tuple(Path(f"{need}.json") for need in needs)
    return jobs.Job(name, "03_white_box", {}, (Path(f"{name}.json"),), needed, seconds, {Path("a"): seconds})


@pytest.fixture()
def front(tmp_path, monkeypatch):
    """The folder of a command in front, which showed 4 of 11 jobs done before."""
    status.begin(tmp_path, total=11, done=4, living=False)
    monkeypatch.setenv(status.FOLDER, str(tmp_path))
    return tmp_path


def test_the_line_says_what_is_done_what_runs_and_how_long_it_takes():
    assert terminal.sentence(11, 4, [Doing("verdict", 130), Doing("white box", 40)], 170) == (
        "4 of 11 done · 2 running: verdict 2:10, white box 0:40 · about 3 min left")
    assert terminal.sentence(11, 4, [], 40) == "4 of 11 done · about 40 s left" and terminal.sentence(2, 2, [], 0) == "2 of 2 done"
    training = Doing("train sce, center, mmlda", 40, TRAINING)
    assert "train sce +2 (1:12 left, epoch 3/15, loss 0.213)" in terminal.sentence(11, 4, [training], 170)
    assert terminal.clock(3730) == "1:02:10"


def test_a_log_names_a_job_of_many_models_by_its_first(capsys):
    """The demo's trainings have thirty models: their names filled lines of 400 characters, twice."""
    profile = experiment.load_profile("demo")
    for job in jobs.plan(profile):
        runners.run_timed(profile, job, lambda profile, job: None)
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) < 80 and printed[0].endswith(" ...") and any(line.startswith("train sce +") for line in printed)


@pytest.mark.parametrize("width", [1, 5, 12, 20, 30, 40, 60, 79, 200])
def test_a_narrow_terminal_cuts_the_line_and_what_runs_goes_first(width):
    line = terminal.sentence(11, 4, [Doing("train sce", 7, TRAINING), *RUNNING], 170, width)
    assert len(line) <= width and "\n" not in line
    assert width < 40 or line.startswith("4 of 11 done") and line.endswith("about 3 min left")


def test_the_time_left_follows_the_pace_the_chain_and_the_training():
    todo = [job("a", 60), job("b", 60, ["a"]), job("c", 30)]
    assert terminal.time_left(todo, {}, set(), [], 1) == pytest.approx(150)
    assert terminal.time_left(todo, {}, set(), [], 2) == pytest.approx(120)  # b waits for a
    slow = terminal.time_left(todo, {"a": 210.0}, set(), [], 1)  # 240 s for 90
    assert slow == pytest.approx(90 * 240 / 90)
    assert terminal.time_left(todo, {"a": 60.0}, {"b"}, [Doing("c", 10)], 2) == pytest.approx(20)
    assert terminal.time_left(todo, {"a": 60.0}, {"b"}, [Doing("c", 10, TRAINING)], 2) == pytest.approx(73)
    two = [replace(todo[2], makes={Path("a"): 1.0, Path("b"): 1.0})]  # of two trainings the first says nothing of the second
    assert terminal.time_left(two, {}, set(), [Doing("c", 1, TRAINING | {"left": 2.0})], 1) == pytest.approx(29)
    assert terminal.time_left(todo[2:], {}, set(), [Doing("c", 300)], 1) > 25  # late: some time more


def test_a_job_says_what_it_does_and_counts_itself(front, capsys):
    seen = []

    def runner(profile, job):
        Path(os.environ[status.TRAINING]).write_text(json.dumps(TRAINING | {"time": time.time() - 2}))
        seen.extend(status.read(front)[1])

    runners.run_timed(None, job("a job", 5), runner)
    assert [doing.name for doing in seen] == ["a job"] and seen[0].training["left"] == pytest.approx(70, abs=1)
    assert capsys.readouterr().out == "a job ...\na job: done in 0 s (5 of 11 done)\n" and status.TRAINING not in os.environ
    ended, running = status.read(front)
    assert ended.keys() == {"a job"} and not running


def test_a_failed_or_killed_job_is_not_believed(front):
    with pytest.raises(ZeroDivisionError):
        runners.run_timed(None, job("fails", 5), lambda profile, job: 1 / 0)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (front / "killed.job").write_text(json.dumps({"name": "killed", "process": gone.pid, "began": 0}))
    (front / "torn.job").write_text('{"name": "torn", "proc')
    assert status.read(front) == ({}, [])


def test_an_earlier_trainings_state_is_gone_when_the_next_job_begins(front):
    (front / "a_job.training").write_text(json.dumps(TRAINING | {"time": time.time()}))
    with status.working("a job", "a_job"):
        assert status.read(front)[1][0].training is None


def test_no_front_or_one_that_is_gone_changes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(status.FOLDER, str(tmp_path / "gone"))
    runners.run_timed(None, job("a job", 5), lambda profile, job: None)
    assert capsys.readouterr().out == "a job ...\na job: done in 0 s\n" and not (tmp_path / "gone").exists()


def on_a_terminal(command, **variables):
    """What a command writes to a terminal of 60 columns, and its exit status."""
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    variables = os.environ | {"TERM": "xterm"} | variables
    process = subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=variables)
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        said += part
    os.close(ours)
    return said.decode(), process.wait()


def test_on_a_terminal_the_line_lives_below_all_that_is_printed(tmp_path):
    said, code = on_a_terminal([sys.executable, "-c", SCRIPT.format(folder=str(tmp_path))])
    assert code == 0 and "Traceback" not in said
    drawn = re.split(r"\r\n|\r\x1b\[K", said)
    assert any(line.startswith("0 of 2 done · 1 running: first 0:00") for line in drawn)
    assert any(re.fullmatch(r"first: done in \d s \(1 of 2 done\)", line) for line in drawn)
    assert "a child's line" in drawn and "first ..." not in drawn
    assert max(map(len, drawn)) < 60
    shown = said.replace("\r\n", "\n").split("\n")  # what stands there in the end: of each row what follows the last erasure
    assert [re.sub(r"in \d s", "in 0 s", row.rsplit("\r\x1b[K", 1)[-1]) for row in shown if row] == [
        "before", "first: done in 0 s (1 of 2 done)", "a child's line", "half a line", "; after"]


@pytest.mark.parametrize("where", ["a pipe", "a dumb terminal"])
def test_in_a_log_lines_are_plain(tmp_path, where):
    command = [sys.executable, "-c", SCRIPT.format(folder=str(tmp_path))]
    if where == "a pipe":
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    else:
        said = on_a_terminal(command, TERM="dumb")[0].replace("\r\n", "\n")
    assert said.isprintable() or set(filter(lambda letter: not letter.isprintable(), said)) == {"\n"}
    lines = said.splitlines()
    assert lines[:2] == ["before", "first ..."] and lines[-1] == "half a line; after"
    assert re.search(r"(?m)^first: done in \d s \(1 of 2 done\)$", said)
    assert any(line.startswith("0 of 2 done · 1 running: first 0:00 · about") for line in lines)


def test_a_closed_terminal_stops_nobody(tmp_path):
    marker = tmp_path / "through"
    script = SCRIPT.format(folder=str(tmp_path)) + "\n" + f"open({str(marker)!r}, 'w')"
    script = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + script.replace('print("; after")', "")
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs,
                               env=os.environ | {"TERM": "xterm"})
    os.close(theirs)
    said = b""
    while b"0 of 2 done" not in said:  # the line is there
        said += os.read(ours, 4096)
    os.close(ours)
    process.wait(60)
    assert marker.exists()
