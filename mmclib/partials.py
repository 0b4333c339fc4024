"""What an interrupted evaluation has done so far, in a file that it goes on from."""

from collections.abc import Callable
from pathlib import Path

import torch

from mmclib import checkpoints
from mmclib.checks import warn
from mmclib.fingerprints import UnidentifiedError, fingerprint


class Partial:
    """The columns of the batches done so far, kept in the file `path` (where there is one) until all are done.

    `identify` returns the fingerprint of all that decides about them; it is called only where there is a file. Raises ValueError for a
    path of something else, which is left as it is.
    """

    def __init__(self, path: str | Path | None, identify: Callable[[], str]):
        self.path, self.columns, self.count = None if path is None else Path(path), {}, 0
        if self.path is None:
            return
        try:
            self.fingerprint = identify()
        except UnidentifiedError as what:
            warn(f"{path} is not used: {what} cannot be told from another by its content, so an interrupted evaluation will start over",
                 UserWarning)
            self.path = None
            return
        if self.path.exists():
            _require_own(self.path)
            try:
                columns, kept = checkpoints.load_model_state(self.path)
                if kept["sha256"] != _sum(columns, kept):
                    raise ValueError("its sha256 is not the one it holds")
            except Exception as error:  # whatever is wrong with the file, doing the work again is right
                warn(f"{self.path} cannot be read ({error}); the evaluation starts over", UserWarning)
                return
            if kept["fingerprint"] == self.fingerprint:
                self.count = kept["count"]
                self.columns = {name: [column] for name, column in columns.items()} | {name: [kept[name]] for name in ("norm", "seconds")}
            else:
                warn(f"{self.path} holds another evaluation's work (of other images, another model or other settings), which this one "
                     "replaces from its beginning", UserWarning)

    def add(self, part: slice, columns: dict) -> None:
        """Keep a batch's columns: tensors of its rows on the CPU, `norm` and `seconds`."""
        for name, column in columns.items():
            self.columns.setdefault(name, []).append(column)
        self.count = part.stop
        if self.path is not None:
            tensors, kept = self._joined()
            kept |= {"fingerprint": self.fingerprint, "count": self.count}
            checkpoints.save_tensors(self.path, tensors, kept | {"sha256": _sum(tensors, kept)})

    def joined(self) -> dict:
        """The columns of all images, `norm` and `seconds`."""
        tensors, kept = self._joined()
        return tensors | kept

    def remove(self) -> None:
        """Remove the file, which is no longer needed."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _joined(self):
        tensors = {name: torch.cat(parts) for name, parts in self.columns.items() if name not in ("norm", "seconds")}
        return tensors, {"norm": self.columns["norm"][0], "seconds": sum(self.columns["seconds"])}


def _require_own(path):
    """A partial file, or what a power cut left of one, is safetensors with a fingerprint; all else is a user's, and is not replaced."""
    content = path.read_bytes() if path.is_file() else b"folder"
    # Safetensors: the length of a header in eight bytes, and JSON, one of which a flipped bit leaves as it was.
    ours = not content.strip(b"\0") or content[8:9] == b"{" or int.from_bytes(content[:8], "little") < len(content)
    try:
        columns, kept = checkpoints.load_model_state(path)
        ours = ours and not {"fingerprint", "sha256", "queries", "distortion"}.isdisjoint({*kept, *columns})
    except ValueError:
        pass  # damaged, which is found out next
    if not ours:
        raise ValueError(f"{path} is not what an interrupted evaluation left; let partial name a file that is not there yet")


def _sum(tensors, kept):
    """The sha256 of all that a partial file holds, so that no flipped bit of it is ever used."""
    return fingerprint(tensors, {name: value for name, value in kept.items() if name != "sha256"})
