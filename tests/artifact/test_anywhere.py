"""Any folder, any user: names that a shell would run, another matplotlibrc, an ASCII locale, and a clean that keeps what is committed."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from artifact import __main__ as command_line
from artifact import jobs, machine
from artifact.compute import locks
from artifact.experiment import ROOT
from mmclib import data

DRAW = """
import sys, pathlib, pandas as pd
from artifact.exhibits import white_box
data = pd.DataFrame({"model": ["sce"] * 2, "epsilon": [0.0, 0.1], "accuracy": [90.0, 10.0], "low": [85.0, 5.0], "high": [95.0, 15.0]})
drawn = white_box.draw_curve(data, {"sce": {"label": "SCE", "color": "red"}}, "a title")
from artifact import report
from artifact.exhibits.exhibit import Item
report.write_item(pathlib.Path(sys.argv[1]), Item("Figure 9", "figure", "a title", "", values=data, figure=drawn))
"""


def python(*arguments, **variables):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False)


def test_a_users_matplotlibrc_changes_no_figure(tmp_path):
    settings = tmp_path / "matplotlibrc"
    settings.write_text("text.usetex: True\nfont.size: 20\nfont.family: serif\nsavefig.facecolor: red\nsavefig.transparent: True\n"
                        "savefig.dpi: 30\nlines.linewidth: 9\naxes.facecolor: blue\n")
    for folder, variables in (("plain", {}), ("odd", {"MATPLOTLIBRC": str(settings)})):
        done = python("-c", DRAW, str(tmp_path / folder), **variables)
        assert done.returncode == 0, done.stderr
    for name in ("figure.pdf", "figure.png", "figure.csv"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "odd" / name).read_bytes(), name


def test_an_ascii_locale_prints_and_reads_utf_8():
    done = subprocess.run([sys.executable, "-m", "artifact", "run", "--profile", "quick", "--dry-run"], cwd=ROOT, capture_output=True,
                          env=os.environ | {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("arguments", "says"), [
    (["run", "--profile", "nope"], "there is no profile 'nope'"), (["run", "--profile", ""], "there is no profile ''"),
    (["job", "train nobody", "--profile", "demo"], "has no job 'train nobody'; it has: theory"),
    (["run", "--profile", "demo", "--only", "trian *"], "no job of profile 'demo' matches 'trian *'"),
    (["run", "--profile", "demo", "--only", "theory", "--only", "trian *"], "no job of profile 'demo' matches 'trian *'"),
    (["run", "--profile", "paper", "--only", "train sce"], "needs a CUDA device"),
])
def test_the_command_line_says_what_is_wrong_in_one_line(arguments, says):
    if "paper" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    done = python("-m", "artifact", *arguments)
    assert done.returncode == 1 and says in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_only_given_twice_asks_for_both(tmp_path):
    done = python("-m", "artifact", "run", "--profile", "cpu", "--only", "train mmc-10", "--only", "train sce", "--dry-run",
                  MMC_RESULTS=str(tmp_path), MMC_CHECKPOINTS=str(tmp_path))
    assert done.returncode == 0 and [line.split("  ")[-1] for line in done.stdout.splitlines()[2:]] == ["train sce", "train mmc-10"]


@pytest.mark.parametrize("arguments", [["--jobs", "0"], ["--jobs", "-3"], ["--time-budget", "0"], ["--time-budget", "nan"]])
def test_numbers_that_ask_for_nothing_are_refused(arguments):
    done = python("-m", "artifact", "run", "--profile", "demo", *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_results_that_cannot_be_written_are_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    done = python("-m", "artifact", "run", "--profile", "demo", "--only", "train sce*", MMC_RESULTS=str(tmp_path / "file"),
                  MMC_CHECKPOINTS=str(tmp_path / "file"))
    assert done.returncode == 1 and str(tmp_path / "file") in done.stderr and "Traceback" not in done.stderr


def test_a_reader_who_has_enough_is_no_error():
    command = f"set -o pipefail; {sys.executable!r} -m artifact run --profile paper --dry-run | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] in ("0", "141") and done.stderr == ""


@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
@pytest.mark.parametrize("profile", ["x; touch {mark}", "$(touch {mark})", "`touch {mark}`", '"; touch {mark}; "', "$(shell touch {mark})"])
@pytest.mark.parametrize("place", ["environment", "command line"])
def test_nothing_in_a_profiles_name_is_run(tmp_path, profile, place):
    mark = tmp_path / "mark"
    profile = profile.format(mark=mark)
    given = [f"PROFILE={profile.replace('$', '$$')}"] if place == "command line" else []
    subprocess.run(["make", "-f", str(ROOT / "Makefile"), "figures", "PYTHON=echo", "READY=", *given], cwd=tmp_path,
                   env=os.environ | ({"PROFILE": profile} if not given else {}), capture_output=True, check=False)
    assert not mark.exists()


def test_a_tilde_in_the_data_folder_is_the_home(monkeypatch):
    monkeypatch.setenv("MMC_DATA", "~/no data here")
    with pytest.raises(FileNotFoundError) as error:
        data.load("mnist", "test")
    assert os.path.expanduser("~/no data here") in str(error.value)


def test_jobs_at_a_time_fit_a_containers_cores_and_memory(load, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CONTAINER", tmp_path)
    monkeypatch.setattr(jobs.os, "sched_getaffinity", lambda _: range(64), raising=False)
    monkeypatch.setattr(jobs.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * 2**18}[name])
    profile = load()
    assert (machine.cores(), machine.memory(), machine.workers(profile)) == (64, 64 * 2**30, 40)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.cores() == 64
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    assert machine.cores() == machine.workers(profile) == 4
    (tmp_path / "memory.max").write_text(f"{4 * 2**30}\n")
    assert machine.workers(profile) == machine.processes() == 2
    (tmp_path / "memory.max").write_text("1000\n")
    assert machine.workers(profile) == 1


def test_a_disk_without_locks_is_a_sentence(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")
    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with pytest.raises(OSError, match="lies on a disk that grants no locks .No locks available.*MMC_RESULTS") as refused, locks.only_one(
            tmp_path / "receipt.json"):
        raise AssertionError("not reached")
    assert refused.value.filename is None  # so that the command says the sentence itself


def test_relative_folders_mean_the_same_in_a_notebook(tmp_path):
    makefile = (ROOT / "Makefile").read_text()
    absolute = makefile.partition("ABSOLUTE := ")[2].partition("\n")[0].replace("$$", "$")
    environment = os.environ | {"MMC_RESULTS": "my own", "MMC_CHECKPOINTS": "/else", "MMC_DATA": ""}
    script = f"{absolute}; echo \"$MMC_RESULTS|$MMC_CHECKPOINTS|$MMC_DATA\""
    said = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == f"{tmp_path}/my own|/else|\n"
    recipes = [line for line in makefile.splitlines() if "jupyter lab" in line or "--nbval" in line]
    assert len(recipes) == 2 and all("$(ABSOLUTE); " in line for line in recipes)


def test_windows_is_told_before_anything_fails():
    script = "import os; os.name = 'nt'\ntry: import artifact\nexcept SystemExit as ended: print(ended)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "run it in WSL" in done.stdout


def test_odd_surroundings_are_a_sentence(monkeypatch, capsys):
    command = f"exec {sys.executable} -m artifact run --profile demo --dry-run"
    for closed in (">&-", "2>&-", "<&- >&- 2>&-"):
        assert subprocess.run(["sh", "-c", f"{command} {closed}"], cwd=ROOT, capture_output=True).returncode == 0, closed
    monkeypatch.setenv("MMC_PARENT", "abc")
    assert command_line.main(["run", "--profile", "demo", "--dry-run"]) == 2
    assert "MMC_PARENT is for make and Snakemake" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command_line.main(["run", "--profile", "demo", "--time-budget", "1e30"])
    assert "below a billion" in capsys.readouterr().err
