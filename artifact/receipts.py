"""Receipts: what came out of one training, evaluation or notebook, written whole and believed only as far as it proves itself.

A receipt's name ends in its identity, the hash of every setting that the result depends on. Reading one recomputes that identity from the
settings that it holds, the checksum of its content, and every accuracy from the per-image outcomes behind it: what is edited, swapped,
cut or flipped is named with the remedy, and never drawn.
"""

import contextlib
import contextvars
import hashlib
import json
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mmclib.files import write_whole
from mmclib.intervals import wilson_interval

# Part of every identity: raise it when a change of the code changes numbers, and all receipts become work to do again.
REVISION = 1
KEYS = {"identity", "kind", "model", "model_identity", "checkpoint_sha256", "target_sha256", "data", "config", "results", "provenance",
        "sha256"}
_READ: contextvars.ContextVar[dict[Path, None] | None] = contextvars.ContextVar("_READ", default=None)
SHARES = ("accuracy", "test_accuracy", "success", "zero_gradients")


def identity(kind: str, **settings) -> str:
    """Hash what a result depends on to 12 hexadecimal digits."""
    text = json.dumps({"revision": REVISION, "kind": kind, **settings}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def pack(flags) -> str:
    """Booleans (N,) as hexadecimal text, most significant bit first."""
    return np.packbits(np.asarray(flags.cpu() if hasattr(flags, 'cpu') else flags)).tobytes().hex()


def unpack(text: str, count: int) -> np.ndarray:
    """The booleans (count,) behind `pack`; ValueError where the text holds fewer or more."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))
    if len(bits) != -(-count // 8) * 8 or bits[count:].any():
        raise ValueError(f"its outcomes are not those of {count} images")
    return bits[:count].astype(bool)


def checksum(receipt: dict) -> str:
    """The sha256 of a receipt's content, the checksum itself left out."""
    content = {key: value for key, value in receipt.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def seconds(receipt: dict) -> float:
    """What a receipt took by the clock, in seconds, that of interrupted runs which it went on from included.

    `provenance.seconds` are those of the last process alone; a training's epochs and an attack's own clock go on.
    """
    made = receipt["provenance"]
    return max([made.get("seconds") or 0.0, *made.get("epoch_seconds", [])[-1:], receipt.get("results", {}).get("seconds") or 0.0])


def write_receipt(path: Path, receipt: dict) -> None:
    """Write a receipt with its checksum as JSON, so that it is there whole or not at all, also after a power cut."""
    receipt = json.loads(json.dumps(receipt, allow_nan=False))  # as it will be read: lists for tuples, text for keys
    receipt["sha256"] = checksum(receipt)
    write_whole(Path(path), (json.dumps(receipt, indent=1, allow_nan=False) + "\n").encode())


def read_receipt(path: Path) -> dict:
    """Read and verify a receipt; ValueError names the file, what is wrong with it, and what to do.

    A receipt that was written without a checksum is verified by its identity and its outcomes alone.
    """
    path = Path(path)
    try:
        receipt = _parse(path)
        _verify(receipt, path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path} is damaged ({_words(error)}); delete it and run the same command again") from None
    if (read := _READ.get()) is not None:
        read[path] = None
    return receipt


def together(paths: Iterable[Path]) -> str:
    """One hash of the results that several receipts hold, of those that are there; how long they took and when does not count."""
    found = {path.name: read_receipt(path)["results"] for path in set(paths) if path.exists()}
    return identity("receipts", of={name: {key: value for key, value in found[name].items() if key != "seconds"} for name in sorted(found)})


@contextlib.contextmanager
def receipts_read() -> Iterator[dict[Path, None]]:
    """The receipts that are read within, each once, in the order in which they were asked for: what a table was drawn from."""
    token = _READ.set({})
    try:
        yield _READ.get()
    finally:
        _READ.reset(token)


def _words(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, (TypeError, AttributeError, OverflowError)):
        return "a value has another type than a receipt's"
    return " ".join(str(error).split())


def _parse(path: Path) -> dict:
    def once(pairs):
        if len(dict(pairs)) != len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} is there twice")
        return dict(pairs)

    def refuse(text):
        raise ValueError(f"it holds {text}, which is no number")

    def number(text):
        if not np.isfinite(value := float(text)):
            refuse(text)
        return value

    receipt = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=once, parse_constant=refuse, parse_float=number)
    if not isinstance(receipt, dict):
        raise ValueError(f"it holds a {type(receipt).__name__} where a receipt should be")
    return receipt


def _verify(receipt: dict, path: Path) -> None:
    kind, results = receipt["kind"], receipt["results"]
    _require(receipt.keys() <= KEYS, f"a receipt has no key {next(iter(receipt.keys() - KEYS), '')!r}")
    _require(isinstance(results, dict), "results is no mapping of names to values")
    _require("sha256" not in receipt or receipt["sha256"] == checksum(receipt), "its sha256 is not that of its content")
    if kind == "model":
        made = identity("model", **receipt["config"])
        name, folder, count = f"{receipt['model']}-{made}", "models", receipt["data"]["test_images"]
        _require(path.parent.name == folder, f"a model's receipt lies under {folder}/")
        share = unpack(results["test_correct"], count).mean()
        _agrees(results["test_accuracy"], share, "test_accuracy", count)
    elif kind == "evaluation":
        config, count = dict(receipt["config"]), receipt["data"]["images"]
        fixed = {key: config.pop(key) for key in ("attack", "targeted", "seed")}
        made = identity("evaluation", model=receipt["model_identity"], images=count, settings=config, **fixed)
        name = f"{fixed['attack']}-{'targeted-' * fixed['targeted']}{made}"
        _require(path.parent.name == receipt["model"], f"it is of model {receipt['model']!r}, and its folder is another's")
        _recompute(results, count)
    elif kind == "notebook":
        made, name = receipt.get("identity"), path.stem  # of a notebook's settings it holds none
        _require("models" != path.parent.name and "evaluations" != path.parent.parent.name, "a notebook's receipt lies under notebooks/")
        # Before there was an identity in it there was no checksum either; what is left for such a one is its form.
        _require(made is None or name.endswith(f"-{made}"), f"its identity {made} is not its file's")
        _require(made is None or "sha256" in receipt, "its sha256 is missing")
    else:
        raise ValueError(f"there is no kind {kind!r} of receipt")
    _require(kind == "notebook" or receipt["identity"] == made,
             f"its identity {receipt.get('identity')} is not that of its settings, {made}")
    _require(path.stem == name, f"by what it holds its name is {name}.json")


def _recompute(value, count: int) -> None:
    # Accuracy and interval, wherever they stand, must be those of the outcomes beside them.
    if not isinstance(value, dict):
        return
    if "distance" in value:
        _distances(value, unpack(value["correct"], count))
    for flags in value.get("raised", {}).values():
        unpack(flags, count)
    for name in SHARES:
        if isinstance(share := value.get(name), (int, float, bool)):
            _require(isinstance(share, (int, float)) and not isinstance(share, bool) and 0 <= share <= 1, f"{name} is {share}")
    if "correct" in value or "interval" in value or isinstance(value.get("accuracy"), (int, float)):
        flags = unpack(value["correct"], count)
        if "accuracy" in value:
            _agrees(value["accuracy"], flags.mean(), "accuracy", count)
            right = wilson_interval(int(flags.sum()), count)
            _require(np.allclose(value["interval"], right, rtol=0, atol=1e-9),
                     f"its interval is {value['interval']}, and its outcomes say {list(right)}")
    for inner in value.values():
        _recompute(inner, count)


def _distances(value, correct) -> None:
    # The least distances of the images, of which those that are still correct have none.
    listed = value["distance"]
    _require(len(listed) == len(correct) and all(isinstance(one, (int, float)) and one >= 0 for one in listed),
             f"its distances are not those of {len(correct)} images")
    found = [distance for distance, still in zip(listed, correct, strict=True) if not still]
    middle, said = statistics.median(found) if found else None, value["median_distance"]
    _require(said == middle, f"median_distance is {said}, and its distances say {middle}")


def _agrees(said, share: float, name: str, count: int) -> None:
    _require(isinstance(said, (int, float)) and not isinstance(said, bool) and abs(said - share) <= 1e-9,
             f"{name} is {said}, and the outcomes of its {count} images say {share:g}")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
