"""The C library's memory policy: on a CPU every step frees and takes hundreds of megabytes, which should not go to the system and back."""

import ctypes
import sys
from functools import cache

# mallopt's parameters (malloc.h) and values: never trim the heap, serve blocks up to 32 MiB (the most it takes) from it, and grow it
# by 256 MiB at a time.
_POLICY = ((-1, 2**31 - 1), (-3, 2**25), (-2, 2**28))


@cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the next step; True where that worked, False on systems with another C library.

    Page faults are an eighth of a training step of the n = 5 network on two cores otherwise. Memory stays with the process.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(*setting) == 1 for setting in _POLICY)
