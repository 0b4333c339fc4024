"""What makes mmclib pleasant to use: public names are listed and annotated, and a type checker is told so."""

import inspect
import subprocess
import sys
from importlib import import_module
from importlib.resources import files

import pytest
import torch

import mmclib
from mmclib import attacks, data, installing

MODULES = [f"mmclib.{name}" for name in mmclib._MODULES] + ["mmclib.attacks.indicators", "mmclib.attacks.objectives"]


def functions(module):
    """The public functions of a module, and of its public classes the methods that are written out there."""
    loaded = import_module(module)
    for name in loaded.__all__:
        value = getattr(loaded, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            for part, method in vars(value).items():
                if inspect.isfunction(method) and method.__module__ == value.__module__ and not part.startswith("_"):
                    yield f"{name}.{part}", method


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_is_listed_and_annotated(module):
    loaded = import_module(module)
    assert set(loaded.__all__) <= set(vars(loaded)), module
    own = {name for name, value in vars(loaded).items() if inspect.isfunction(value) and value.__module__ == module and name[0] != "_"}
    assert own <= set(loaded.__all__), own - set(loaded.__all__)
    for name, function in functions(module):
        parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self" and p.kind is not p.VAR_KEYWORD]
        bare = [p.name for p in parameters if p.annotation is p.empty]
        assert not bare and inspect.signature(function).return_annotation is not inspect.Signature.empty, f"{module}.{name}: {bare}"
        assert function.__doc__ or name.endswith("forward"), f"{module}.{name} has no docstring"


def test_the_package_says_that_it_is_typed():
    assert files("mmclib").joinpath("py.typed").is_file()


def test_a_released_model_is_never_fetched(monkeypatch, tmp_path):
    monkeypatch.setattr(mmclib.zoo, "FOLDER", tmp_path / "released")
    with pytest.raises(ValueError, match="'cpu-sce' is in a clone of the repository, not in the installed package"):
        mmclib.load_released("cpu-sce")
    (tmp_path / "released").mkdir()
    with pytest.raises(ValueError, match="no released model 'cpu-sce'; known: none"):
        mmclib.load_released("cpu-sce")


@pytest.mark.parametrize(("pip", "command"), [(object(), f"{sys.executable} -m pip install "),
                                              (None, f"uv pip install --python {sys.executable} ")])
def test_a_missing_package_is_named_with_what_installs_it_here(monkeypatch, pip, command):
    monkeypatch.setattr(installing, "find_spec", lambda name: pip)
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    data._all_digits.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=f"install it with: {command}scikit-learn"):
        data.load("digits", "test")
    with pytest.raises(ModuleNotFoundError, match=f"install it with: {command}pyautoattack"):
        attacks.autoattack(torch.nn.Flatten(), torch.rand(1, 1, 2, 2), torch.zeros(1, dtype=torch.int64))


def test_a_path_with_blanks_is_quoted_in_a_remedy(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/home/anna/my course/bin/python")
    assert "'/home/anna/my course/bin/python'" in installing.installing("foolbox")


def test_naming_what_to_install_leaves_setuptools_as_it_was():
    """A search for pip switched setuptools' distutils off, after which torch.compile failed."""
    script = ("import sys, mmclib.installing as i; before = [vars(f).copy() for f in sys.meta_path if hasattr(f, '__dict__')]\n"
              "i.installing('a'); assert before == [vars(f) for f in sys.meta_path if hasattr(f, '__dict__')]\nimport setuptools")
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", script], check=True)
