"""Memory that a training frees and takes again at every step."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = 2**30  # bytes


def keep_freed_memory() -> bool:
    """Let the process keep memory it frees, for its next step; return whether the C library can (glibc).

    By default glibc maps large blocks, such as activations, anew each time, and the system clears their pages at the
    first touch: of a ResNet-20's training step on a CPU that takes about 5 %. The setting is the whole process's, and
    stays: what it once used it holds, up to a GiB at the end of its heap, until it ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, KEPT) and mallopt(M_TRIM_THRESHOLD, KEPT))
