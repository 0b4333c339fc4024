"""Seeds derived from what they are for, so that no two purposes share a stream and none depends on the order of calls."""

import hashlib

__all__ = ["derive"]


def derive(*parts: object) -> int:
    """Hash the parts (strings, integers) to a seed in [0, 2**63)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
