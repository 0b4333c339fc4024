"""The caller's modes of torch, kept out of what is computed here."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar, cast

import torch
from torch import nn

_Function = TypeVar("_Function", bound=Callable[..., Any])


def on_the_cpu(function: _Function) -> _Function:
    """Let a function make its tensors on the CPU, whatever torch.set_default_device says: what it draws is the same on every machine."""
    @functools.wraps(function)
    def called(*arguments, **options):
        with torch.device("cpu"):
            return function(*arguments, **options)
    return cast(_Function, called)


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode and each of its modules back afterwards, also on errors, by the doors that modules override.

    A model that is in it already is not touched; torch.export's modules have no modes, and keep what they were exported in.
    """
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]  # frozen TorchScript has none
    trains = any(training for _, training in modes)
    try:
        if trains:
            try:
                model.eval()
            except NotImplementedError:  # it holds a module of torch.export
                for module, _ in modes:
                    module.training = False
        yield
    finally:
        for module, training in modes if trains else ():  # parents first: a child that differs from its parent is put back after it
            if module.training != training:
                with suppress(NotImplementedError):
                    module.train(training)
        for module, training in modes if trains else ():  # that of a child of two parents, whose modes differ
            if module.training != training:
                module.training = training


@contextmanager
def aside(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for code that freezes nothing, and the parameters' gradients laid aside, so that it adds nothing to them."""
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        with in_evaluation(model):
            for parameter, _ in gradients:
                parameter.grad = None
            yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient


@contextmanager
def own_modes(device: torch.device, *, gradients: bool = False, exact: bool = True) -> Iterator[None]:
    """Let nothing of the caller's modes hold inside: no inference mode, no autocast, gradients only where they are asked for.

    With `exact`, float32 is float32 on CUDA too, where convolutions round to TF32 by default: the same logits in another layout would
    differ in their fourth digit, and an attack's success that a plain pass must confirm would be undone by rounding.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(gradients))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        if exact and device.type == "cuda":
            _without_tf32(stack)
        yield


def _without_tf32(stack):
    # torch has two generations of these settings; where the caller mixes them, the older ones cannot be read.
    cudnn: Any = torch.backends.cudnn  # whose settings torch's stubs do not know
    matmul: Any = torch.backends.cuda.matmul
    mkldnn: Any = torch.backends.mkldnn
    parts = (cudnn.conv, cudnn.rnn, matmul)
    for part in (*parts, mkldnn.matmul):  # put back last, since the older ones set them too
        stack.callback(setattr, part, "fp32_precision", part.fp32_precision)
    with suppress(RuntimeError):
        stack.callback(setattr, cudnn, "allow_tf32", cudnn.allow_tf32)
    with suppress(RuntimeError):
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
    cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    for part in parts:
        part.fp32_precision = "ieee"
