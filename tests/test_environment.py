"""environment.yml, pyproject.toml and the locks agree, and hold no address."""

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from artifact.experiment import ROOT
from mmclib import __version__

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


LOCKS = ("requirements.lock", "requirements-cuda.lock", "requirements-nodeps.lock", "requirements-docs.lock")


def pins():
    lines = [line for name in LOCKS for line in (ROOT / name).read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(len(r.specifier) == 1 and next(iter(r.specifier)).operator == "==" for r in requirements), "exact pins only"
    return {re.sub("[-_.]+", "-", r.name).lower(): Version(next(iter(r.specifier)).version) for r in requirements}


def test_the_lock_satisfies_every_declared_dependency():
    extras = PROJECT["optional-dependencies"]
    # A cluster's plugin and an archive's validator are for those who have the one or the other; no target of make installs them.
    declared = [*PROJECT["dependencies"], *(d for name in extras.keys() - {"slurm", "crate"} for d in extras[name])]
    locked = pins()
    for requirement in map(Requirement, declared):
        assert requirement.specifier.contains(locked[requirement.name.lower()]), str(requirement)


def test_the_declared_bounds_are_honest():
    bounds = {r.name: r.specifier for r in map(Requirement, PROJECT["dependencies"])}
    assert str(bounds["torch"]) == ">=2.11" and str(bounds["torchvision"]) == ">=0.26"
    assert PROJECT["requires-python"] == ">=3.11" and sys.version_info >= (3, 11)


def test_conda_takes_the_same_lock_and_python():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert "python=3.11" in environment["dependencies"]
    assert {"-r requirements.lock", "-r requirements-cuda.lock", "-e ."} <= set(environment["dependencies"][-1]["pip"])
    assert f"CONDA_DEFAULT_ENV),{environment['name']})" in (ROOT / "Makefile").read_text()


def test_no_lock_names_an_address():
    for name in (*LOCKS, "environment.yml", "pyproject.toml", "Makefile", *map(str, (ROOT / ".github" / "workflows").glob("*.yml"))):
        assert not re.search(r"https?://|file:|--index|--find-links", (ROOT / name).read_text()), name


def test_the_lock_without_cuda_holds_nothing_of_cuda():
    assert not [line for line in (ROOT / "requirements.lock").read_text().splitlines() if re.match("nvidia|cuda|triton", line)]


@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
@pytest.mark.parametrize(("torch", "fails", "installed"), [
    ("cuda", False, ["-r requirements.lock -r requirements-cuda.lock", "--no-deps -r requirements-nodeps.lock -e ."]),
    ("cpu", False, ["--torch-backend cpu -r requirements.lock", "--no-deps -r requirements-nodeps.lock -e ."]),
    ("cpu", True, ["--torch-backend cpu -r requirements.lock", "-r requirements.lock -r requirements-cuda.lock",
                   "--no-deps -r requirements-nodeps.lock -e ."]),
])
def test_without_a_driver_the_cpu_build_is_tried_first(torch, fails, installed, tmp_path):
    """The installer is one that writes down what it is asked for; without a network the larger build must still be tried."""
    for name in (*LOCKS, "pyproject.toml", "Makefile"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(f"""#!/bin/sh
if [ "$1" = venv ]; then
  mkdir -p .venv/bin
  printf '#!/bin/sh\\necho "$@" >> imported' > .venv/bin/python
  chmod +x .venv/bin/python
  exit
fi
echo "$@" >> asked
case "$*" in *--torch-backend*) exit {int(fails)};; esac
""")
    uv.chmod(0o755)
    path = {"PATH": f"{uv.parent}:{os.environ['PATH']}"}
    subprocess.run(["make", "setup", f"TORCH={torch}"], cwd=tmp_path, check=True, env={**os.environ, **path, "CONDA_DEFAULT_ENV": ""})
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == [f"pip install --quiet --python .venv/bin/python {what}" for what in installed]
    assert (tmp_path / ".venv" / "ready").read_text().strip() == str(tmp_path.resolve())
    assert "import torch" in (tmp_path / "imported").read_text()  # compiled before two jobs start together


@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
def test_conda_gets_what_its_file_cannot_name(tmp_path):
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$@" >> asked\ncase "$1 $2" in "-c from importlib"*) test -e there;; esac\n')
    python.chmod(0o755)
    conda = {"CONDA_DEFAULT_ENV": "mmc", "CONDA_PREFIX": str(tmp_path)}
    for there in (False, True):
        subprocess.run(["make", "figures"], cwd=tmp_path, check=True, env=os.environ | conda)
        asked = (tmp_path / "asked").read_text()
        assert ("-m pip install --quiet --no-deps -r requirements-nodeps.lock" in asked) != there and "-m artifact figures" in asked
        (tmp_path / "asked").unlink()
        (tmp_path / "there").touch()


@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
def test_lab_starts_for_root_too_as_in_a_container():
    planned = subprocess.run(["make", "--dry-run", "lab"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ("jupyter lab --allow-root" in planned) == (os.getuid() == 0) and "jupyter lab" in planned


def test_the_version_is_the_same_wherever_it_is_written():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert PROJECT["version"] == cited == __version__


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_a_workflow_pins_its_actions_and_runs_commands_that_the_readme_or_contributing_names(path):
    steps = [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]
    used, run = ([step[key] for step in steps if key in step] for key in ("uses", "run"))
    assert used and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used)
    told = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    own = [command for command in run if not command.startswith("sudo apt-get")]
    assert own and all(re.match(r"make \w+", command)[0] in told for command in own)
