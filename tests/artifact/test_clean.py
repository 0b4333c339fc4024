"""`make clean` removes what was made here and never what git tracks."""

import os
import shutil
import subprocess

import pytest

from artifact import experiment

ROOT = experiment.ROOT


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


def test_clean_takes_a_profiles_file_for_its_name(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for folder in ("results", "figures"):
        (tmp_path / folder / "tiny2").mkdir(parents=True)
    done = subprocess.run(["make", "-s", "clean", "PROFILE=tiny2.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not (tmp_path / "results" / "tiny2").exists() and not (tmp_path / "figures" / "tiny2").exists()
