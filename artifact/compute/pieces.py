"""The parts of a measurement that are done, in a file that an interrupted one goes on from."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

from artifact.receipts import checksum
from mmclib.files import write_whole


class Pieces:
    """What the parts of a measurement gave, by name, in the file `path`: numbers, texts, and lists and dicts of them.

    `of` is the fingerprint of what they are of; a file of something else, or a damaged one, is begun anew. Who writes the receipt removes
    the file.
    """

    def __init__(self, path: Path, of: str):
        self.path, self.kept = path, {"of": of, "parts": {}}
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):  # whatever it holds, doing the work again is right
            found = json.loads(path.read_bytes())
            if found.pop("sha256") == checksum(found) and found["of"] == of:
                self.kept = found

    def once(self, name: str, make: Callable[[], object]):
        """What this part gave: as it is kept, or made now and kept."""
        parts = self.kept["parts"]
        if name not in parts:
            parts[name] = json.loads(json.dumps(make(), allow_nan=False))
            write_whole(self.path, json.dumps(self.kept | {"sha256": checksum(self.kept)}).encode())
        return parts[name]
