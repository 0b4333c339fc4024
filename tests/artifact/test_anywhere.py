"""Any folder, any user: names that a shell would run, another matplotlibrc, an ASCII locale, and a clean that keeps what is committed."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from artifact import experiment, methods
from artifact.exhibits import exhibit
from artifact.exhibits import white_box as white_box_exhibits
from mmclib import data

ROOT = experiment.ROOT
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
    import torch
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


@pytest.mark.skipif(not (shutil.which("make") and shutil.which("git")), reason="no make or git here")
def test_clean_never_removes_what_git_tracks(tmp_path):
    for name in ("results/quick/a.json", "results/demo/b.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "results/quick"], cwd=tmp_path, check=True)
    (tmp_path / "results/quick/new.json").write_text("")
    for profile in ("", "quick", "demo", ".."):
        command = ["make", "-f", str(ROOT / "Makefile"), "clean", f"PROFILE={profile}"]
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert (tmp_path / "results/quick/a.json").exists() and not (tmp_path / "results/quick/new.json").exists()
    assert not (tmp_path / "results/demo").exists() and (tmp_path / "results").exists()


@pytest.mark.skipif(not (shutil.which("make") and shutil.which("git")), reason="no make or git here")
@pytest.mark.parametrize("git", ["there is no clone", "git refuses another user's clone"])
def test_clean_removes_no_record_where_git_cannot_say_what_it_tracks(tmp_path, git):
    for name in ("results/quick/a.json", "results/demo/b.json", "results/quick-rehearsal/c.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
    variables = {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    if git != "there is no clone":
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
        variables["GIT_TEST_ASSUME_DIFFERENT_OWNER"] = "1"
    said = {}
    for profile in ("quick", "demo", "quick-rehearsal"):
        command = ["make", "-f", str(ROOT / "Makefile"), "clean", f"PROFILE={profile}"]
        said[profile] = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | variables, check=False)
    assert said["quick"].returncode and "git does not say here which files of quick it tracks" in said["quick"].stderr
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["quick"] and (tmp_path / "results/quick/a.json").exists()


@pytest.mark.skipif(not (shutil.which("make") and shutil.which("git") and (ROOT / ".git").exists()), reason="no make or clone here")
def test_clean_leaves_all_that_is_tracked_here(tmp_path):
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(tmp_path / "clone")], check=True)
    folder = tmp_path / "clone"
    for profile in ("", "demo", "quick", "cpu"):
        for place in ("results", "figures", "logs"):
            made = folder / place / (profile or "demo") / "made.txt"
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_text("")
        command = ["make", "-f", str(ROOT / "Makefile"), "clean", f"PROFILE={profile}"]
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
        assert not list(folder.rglob("made.txt"))
    assert subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True).stdout == ""


def test_a_tilde_in_the_data_folder_is_the_home(monkeypatch):
    monkeypatch.setenv("MMC_DATA", "~/no data here")
    with pytest.raises(FileNotFoundError) as error:
        data.load("mnist", "test")
    assert os.path.expanduser("~/no data here") in str(error.value)


def test_a_model_of_ones_own_has_a_row_beside_the_papers():
    profile = experiment.load_profile("demo")
    own = profile.models["mmc-10"].model_copy(update={"radius": 20.0})
    profile = profile.model_copy(update={"models": profile.models | {"my row": own}})
    rows = exhibit.paper_table("table1.csv").reindex([methods.paper_label(profile, model) for model in ("sce", "my row")])
    assert list(rows.index) == ["SCE", "MMC-20"] and rows.loc["MMC-20"].isna().all() and rows.index.name == "method"
    notebook = (ROOT / "notebooks" / "03_white_box.ipynb").read_text(encoding="utf-8")
    assert "reindex([paper_label" in notebook and ".loc[[name_of" not in notebook


def test_a_dollar_in_a_title_is_a_dollar():
    profile = experiment.load_profile("demo").model_copy(update={"title": "a $\\foo$ b"})
    data = pd.DataFrame({"model": ["sce"] * 2, "epsilon": [0.0, 0.1], "accuracy": [90.0, 10.0], "low": [85.0, 5.0], "high": [95.0, 15.0]})
    figure = white_box_exhibits.draw_curve(data, {"sce": methods.look(profile, "sce")}, exhibit.figure_title(profile, "text"))
    figure.draw_without_rendering()
