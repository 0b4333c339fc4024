"""The caller's modes of torch, kept out of what is computed here."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch


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
    parts = (cudnn.conv, cudnn.rnn, matmul)
    for part in parts:  # put back last, since the older ones set them too
        stack.callback(setattr, part, "fp32_precision", part.fp32_precision)
    with suppress(RuntimeError):
        stack.callback(setattr, cudnn, "allow_tf32", cudnn.allow_tf32)
    with suppress(RuntimeError):
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
    cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    for part in parts:
        part.fp32_precision = "ieee"
