"""Tensors on disk: safetensors files written atomically and checked by sha256, and the last two states of a training."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from mmclib.checks import warn
from mmclib.files import write_whole

__all__ = ["digest", "file_sha256", "load_model_state", "load_state", "remove_states", "save_model", "save_state", "save_tensors"]

KEPT = 2
_NAME = re.compile(r"state-(\d{9})-([0-9a-f]{16})\.safetensors")


def save_model(path: str | Path, model: torch.nn.Module, metadata: dict) -> str:
    """Write a model's state and JSON-able metadata as safetensors, whole or not at all, and return the file's sha256."""
    return save_tensors(path, model.state_dict(), metadata)


def digest(*parts: bytes | torch.Tensor) -> str:
    """Return the sha256, 16 hexadecimal digits, of bytes and tensors in their order."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes):
            total.update(part)
        else:
            total.update(repr((part.dtype, tuple(part.shape))).encode())
            total.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()[:16]


def file_sha256(path: str | Path) -> str:
    """Return a file's sha256 as 64 hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def save_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: dict) -> str:
    """Write tensors by name and JSON-able metadata like `save_model`."""
    content = _pack(tensors, metadata)
    write_whole(Path(path), content)
    return hashlib.sha256(content).hexdigest()


def load_model_state(path: str | Path) -> tuple[dict, dict]:
    """Return the tensors by name (on the CPU) and the metadata of a file made by `save_model`.

    Raises FileNotFoundError where there is none and ValueError where it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads((file.metadata() or {}).get("json", "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ValueError(f"checkpoint {path} cannot be read ({error})") from None


def save_state(folder: str | Path, number: int, tensors: Mapping[str, torch.Tensor], metadata: dict) -> Path:
    """Write a training's state into the folder and keep the two of the highest numbers; the file name carries number and sha256."""
    folder = Path(folder)
    content = _pack(tensors, metadata)
    path = folder / f"state-{number:09d}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    write_whole(path, content)
    for old in [*_states(folder)[KEPT:], *_abandoned(folder)]:
        old.unlink(missing_ok=True)
    return path


def load_state(folder: str | Path) -> tuple[dict, dict] | None:
    """Return tensors and metadata of a folder's newest whole state, or None where there is none.

    A damaged file is told of in a warning and set aside, and the one before it is taken.
    """
    found = _states(Path(folder))
    for place, path in enumerate(found):
        try:
            if path.stem.endswith(hashlib.sha256(path.read_bytes()).hexdigest()[:16]):
                return load_model_state(path)
        except FileNotFoundError:  # another process has written newer ones
            return load_state(folder)
        path.rename(path.with_suffix(".damaged"))
        then = f"training goes on from the one before it, {found[place + 1].name}" if place + 1 < len(found) else "training starts anew"
        warn(f"checkpoint {path} is damaged (its sha256 is not the one in its name); {then}", UserWarning)
    return None


def remove_states(folder: str | Path) -> None:
    """Remove a folder's states, which a finished training no longer needs: damaged and half-written ones, and half a model, too."""
    folder = Path(folder)
    for path in [*_states(folder), *folder.glob("state-*.damaged"), *folder.glob(".*.safetensors.[0-9]*")]:
        path.unlink(missing_ok=True)


def _abandoned(folder: Path) -> list[Path]:
    """What killed processes left half written; what a living one writes just now is its own."""
    return [path for path in folder.glob(".state-*") if path.suffix[1:].isdigit() and not _lives(int(path.suffix[1:]))]


def _lives(pid: int) -> bool:
    if os.name == "nt":  # where asking would be a signal
        return True
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return pid != os.getpid()  # of our own all are written


def _states(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("state-*.safetensors") if _NAME.fullmatch(path.name)), reverse=True)


def _pack(tensors, metadata) -> bytes:
    # Values only: a layout such as channels_last is the business of the model that loads them.
    # Cloned, because safetensors refuses tensors that share memory, as tied weights do.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, {"json": json.dumps(metadata, allow_nan=False, sort_keys=True)})
