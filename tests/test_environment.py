"""environment.yml, pyproject.toml and the locks agree, and hold no address."""

import re
import sys
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from artifact.experiment import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins():
    lines = [line for name in ("requirements.lock", "requirements-nodeps.lock") for line in (ROOT / name).read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(len(r.specifier) == 1 and next(iter(r.specifier)).operator == "==" for r in requirements), "exact pins only"
    return {re.sub("[-_.]+", "-", r.name).lower(): Version(next(iter(r.specifier)).version) for r in requirements}


def test_the_lock_satisfies_every_declared_dependency():
    declared = [*PROJECT["dependencies"], *(d for extra in PROJECT["optional-dependencies"].values() for d in extra)]
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
    assert {"-r requirements.lock", "-e ."} <= set(environment["dependencies"][-1]["pip"])
    assert f"CONDA_DEFAULT_ENV),{environment['name']})" in (ROOT / "Makefile").read_text()


def test_no_lock_names_an_address():
    for name in ("requirements.lock", "requirements-nodeps.lock", "environment.yml", "pyproject.toml"):
        assert not re.search(r"https?://|file:|--index|--find-links", (ROOT / name).read_text()), name
