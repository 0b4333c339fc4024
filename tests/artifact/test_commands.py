"""The command line itself: help for everything, a version with its commit, its name when installed, and how a command ends."""

import argparse
import os
import shutil
import subprocess
import sys
import tomllib

import pytest

from artifact import __main__ as command_line
from artifact import commands, experiment, jobs, status
from mmclib import __version__

ROOT = experiment.ROOT
PARSER = command_line._parser()
COMMANDS = next(action for action in PARSER._actions if isinstance(action, argparse._SubParsersAction))


@pytest.mark.parametrize("name", COMMANDS.choices)
def test_every_command_and_every_argument_has_a_help_text(name):
    listed = {choice.dest: choice.help for choice in COMMANDS._choices_actions}
    assert len(listed[name]) > 10 and COMMANDS.choices[name].description.endswith(".")
    for action in COMMANDS.choices[name]._actions:
        assert action.help and len(action.help) > 10, action.dest


def test_make_help_names_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = next(line for line in text.splitlines() if line.startswith(".PHONY: help")).split()[1:]
    if not shutil.which("make"):
        pytest.skip("no make here")
    said = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.startswith("  ")}
    assert sorted(rows) == sorted(targets) and all(rows.values()) and "PROFILE is demo" in said and "artifact --help" in said


def test_the_installed_commands_name_leads_to_the_same_door():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"mmc-artifact": "artifact.__main__:main"}


@pytest.mark.skipif(not (shutil.which("git") and (ROOT / ".git").exists()), reason="no clone here")
def test_the_version_names_the_commit(capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--version"])
    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    said = capsys.readouterr().out
    assert ended.value.code == 0 and said.startswith(f"mmc-artifact {__version__}, commit ") and (commit in said or "not known" in said)


def test_an_installed_package_says_that_it_needs_a_clone(tmp_path):
    for package in ("artifact", "mmclib"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))

    def said(*arguments):
        done = subprocess.run([sys.executable, "-m", "artifact", *arguments], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)},
                              capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    for command in (["run", "--profile", "demo"], ["record"], ["check-adversarial", "cpu-mmc-10"]):
        code, text = said(*command)
        assert code == 1 and text.startswith("error: this is the installed package") and text.count("\n") == 1, text
    assert said("--version") == (0, f"mmc-artifact {__version__}, commit not known: this is no clone\n")


def test_the_end_is_the_claims_a_line_each_and_the_pages_address(capsys):
    profile = experiment.load_profile("quick")
    commands.summarise(profile)
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["(i)", "(ii)", "(iii)", "(iv)"]
    assert all(": holds" in line or ": does not hold" in line or ": not judged" in line for line in lines[:4])
    assert "figures and tables made" in lines[4] and len(lines) == 6
    assert lines[-1] == f"all on one page: {(ROOT / 'figures/quick/index.html').as_uri()}"


def test_what_is_all_done_says_that_nothing_was_computed(capsys):
    profile = experiment.load_profile("quick")
    commands.announce(profile, "named", [], 1)
    said = capsys.readouterr().out
    assert "0 of 21 jobs to do" in said and "nothing was computed" in said and "MMC_RESULTS" in said


@pytest.mark.parametrize("front", [True, False])
def test_a_stop_is_said_once_by_the_command_in_front(front, tmp_path, monkeypatch, capsys):
    def stopped(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "record", stopped)
    if front:
        monkeypatch.setenv(status.FOLDER, str(tmp_path))
    assert command_line.main(["record"]) == 130
    assert capsys.readouterr().err == ("" if front else "\nstopped; what is done stays done, and the same command goes on\n")


def test_numbers_on_the_command_line_are_asked_for_in_words(capsys):
    for option, value in (("--jobs", "x"), ("--jobs", "0"), ("--time-budget", "soon")):
        with pytest.raises(SystemExit):
            command_line.main(["run", option, value])
        said = capsys.readouterr().err
        assert "it must be a" in said and "invalid _" not in said


def test_what_was_asked_for_is_said_to_be_there(capsys):
    commands.announce(experiment.load_profile("cpu"), "named", [], 1, "the jobs asked for")
    assert "the receipts of the jobs asked for are in" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a b ü/tiny two ü", "{x}/tiny"])
def test_snakemake_takes_a_profile_of_any_path(load, name):
    profile = load(name=name)
    todo = [job for job in jobs.plan(profile) if job.name.startswith("train")]
    command = commands.snakemake(profile, todo, 1, targets=(todo[0].receipt,))
    command.insert(command.index("--"), "--dry-run")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
