"""The C library's allocator in training on a CPU: memory that was freed is kept, so that its pages are not
faulted in again.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> bool:
    """Let glibc take large blocks from its heap and give none of it back; of this process, for good.

    A feature map of more than 32 MB is otherwise mapped anew for each update and unmapped after it, and the
    kernel clears each of its pages: at batch 256 that took longer than the arithmetic
    (`ablations/bench/README.md`).

    Returns:
        Whether it was glibc's allocator, and took it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; another system
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
