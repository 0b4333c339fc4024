"""Counter-based random numbers: each draw is a hash of (seed, purpose, counter, position), so it depends on nothing else.

An image carries its own seed; what is drawn for it does not depend on the batch it is in, on the order of work or on the device.
The hash is the finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) in wrapping int64 arithmetic, which is exact on CPU and
CUDA.
"""

import math
from numbers import Integral

import torch

from mmclib import seeds

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # as signed int64; the odd increment of SplitMix64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def _shift(words, bits):
    # torch shifts int64 arithmetically; the mask makes the shift logical
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _mix(words):
    words = (words ^ _shift(words, 30)) * _MIX_1
    words = (words ^ _shift(words, 27)) * _MIX_2
    return words ^ _shift(words, 31)


def image_seeds(seed, count, device="cpu") -> torch.Tensor:
    """Give each of `count` images a seed of its own, int64 (count,); a tensor of seeds is checked and passed through.

    Raises ValueError when `seed` is neither an integer nor an int64 tensor of shape (count,).
    """
    if isinstance(seed, torch.Tensor):
        if seed.dtype != torch.int64 or tuple(seed.shape) != (count,):
            raise ValueError(f"seed must be an integer or int64 of shape ({count},), got {seed.dtype} of shape {tuple(seed.shape)}")
        return seed.to(device)
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise ValueError(f"seed must be an integer or an int64 tensor of shape ({count},), got {type(seed).__name__}")
    base = torch.tensor(seeds.derive("images", int(seed)), dtype=torch.int64, device=device)
    return _mix(base + torch.arange(1, count + 1, dtype=torch.int64, device=device) * _GOLDEN)


def words(seed, count, purpose, counter=0) -> torch.Tensor:
    """Draw 64 random bits for each of `count` positions and each seed, as int64 (*seed.shape, count).

    `counter` is an integer or an int64 tensor that broadcasts against `seed`; `purpose` is any string.
    """
    stream = torch.tensor(seeds.derive("counter", purpose), dtype=torch.int64, device=seed.device)
    counter = torch.as_tensor(counter, dtype=torch.int64, device=seed.device)  # in a tensor the product wraps, as it must
    key = _mix(_mix(seed ^ stream) + (counter + 1) * _GOLDEN)
    return _mix(key.unsqueeze(-1) + torch.arange(1, count + 1, dtype=torch.int64, device=seed.device) * _GOLDEN)


def uniform(seed, shape, purpose, counter=0) -> torch.Tensor:
    """Draw float32 numbers uniform on [-1, 1) in steps of 2**-23, of shape (*broadcast of seed and counter, *shape)."""
    bits = _shift(words(seed, math.prod(shape), purpose, counter), 40)
    return (bits.to(torch.float32) * 2.0**-23 - 1).reshape(*bits.shape[:-1], *shape)


def normal(seed, shape, purpose, counter=0) -> torch.Tensor:
    """Draw float32 standard normal numbers (Box-Muller in float64), of shape (*broadcast of seed and counter, *shape)."""
    bits = words(seed, math.prod(shape), purpose, counter)
    radius = (_shift(bits, 32) + 1).double() * 2.0**-32  # in (0, 1]: the logarithm is finite
    angle = (bits & (2**32 - 1)).double() * 2.0**-32
    draws = (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()
    return draws.to(torch.float32).reshape(*bits.shape[:-1], *shape)


def signs(seed, shape, purpose, counter=0) -> torch.Tensor:
    """Draw float32 numbers -1 or +1 with equal chance (64 from one hash), of shape (*broadcast of seed and counter, *shape)."""
    count = math.prod(shape)
    bits = words(seed, -(-count // 64), purpose, counter)
    expanded = (bits.unsqueeze(-1) >> torch.arange(64, device=seed.device)) & 1
    drawn = expanded.flatten(-2)[..., :count].to(torch.float32) * 2 - 1
    return drawn.reshape(*drawn.shape[:-1], *shape)
