"""Models, functions and modules are told apart by their content."""

import functools
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmclib import attacks, fingerprints
from mmclib.fingerprints import UnidentifiedError, fingerprint
from tests.mmclib.small import small


def test_backward_hooks_are_part_of_a_model():
    model = small()
    plain = fingerprint(model)
    handle = model.backbone[0].register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] * 0,))
    hooked = fingerprint(model)
    handle.remove()
    assert hooked != plain == fingerprint(model)


def test_modules_act_in_their_order():
    one, two = nn.Linear(4, 4), nn.ReLU()
    assert fingerprint(nn.Sequential(OrderedDict(a=one, b=two))) != fingerprint(nn.Sequential(OrderedDict(b=two, a=one)))


def test_a_file_beside_a_package_is_no_library():
    beside = types.ModuleType("mmclib_exercise")
    beside.__file__ = str(Path(fingerprints.__file__).parent) + "_exercise.py"
    assert fingerprints._from_library(fingerprints.__file__) and not fingerprints._from_library(beside.__file__)


def _settled():
    return _settled.eps


def test_a_fingerprint_sees_what_a_users_module_holds(monkeypatch):
    settings = types.ModuleType("users_settings")
    settings.__file__, settings.EPS = "/home/user/users_settings.py", 0.1
    monkeypatch.setitem(sys.modules, "users_settings", settings)

    def reads():
        from users_settings import EPS
        return EPS

    def imports():
        import nothing_of_this_name
        return nothing_of_this_name

    first = fingerprint(reads), fingerprint(settings)
    settings.EPS = 0.3
    assert fingerprint(reads) != first[0] and fingerprint(settings) != first[1]
    plain = fingerprint(_settled)
    _settled.eps = 1
    try:
        assert fingerprint(_settled) != plain
    finally:
        del _settled.eps
    with pytest.raises(UnidentifiedError, match="nothing_of_this_name"):
        fingerprint(imports)
    assert fingerprint(np) == fingerprint(np), "a library counts by its name"


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, images):
        return self.scale * images.flatten(1)[:, :3]


def test_fingerprints_tell_models_and_functions_apart_by_content(mmc, sce):
    def one(x):
        return x + 1

    def rename(function, name):
        function.__qualname__ = name
        return function
    assert fingerprint(one) == fingerprint(one) and fingerprint(one) != fingerprint(rename(lambda x: x + 2, one.__qualname__))
    assert fingerprint(Scaled(2.0)) == fingerprint(Scaled(2.0)) != fingerprint(Scaled(3.0))  # no parameter differs
    assert fingerprint(mmc) != fingerprint(sce)
    assert fingerprint(functools.partial(attacks.pgd, epsilon=0.1)) != fingerprint(functools.partial(attacks.pgd, epsilon=0.2))
    assert fingerprint(np.float32(2)) == fingerprint(2.0) and fingerprint(1) != fingerprint(True) != fingerprint("1")
    hooked = Scaled(2.0)
    hooked.register_forward_hook(lambda module, given, output: output + 1)
    assert fingerprint(hooked) != fingerprint(Scaled(2.0))
    recursive = [1]
    recursive.append(recursive)
    assert fingerprint(recursive) and fingerprint(torch.jit.script(nn.Linear(2, 2)))
    with pytest.raises(UnidentifiedError, match="Generator"):
        fingerprint(torch.Generator())
