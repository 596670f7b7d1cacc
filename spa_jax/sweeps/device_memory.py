"""How much memory a device may use, and how many members of a grid fit into it."""

import os
from pathlib import Path
from typing import Any

import jax

# Of what a device says it has; the rest is for fragmentation and what else lives there.
_SHARE_OF_DEVICE = 0.9
# Of the main memory: a machine does other things too.
_SHARE_OF_HOST = 0.5
_CONTROL_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def memory_limit(device: Any) -> int | None:
    """Bytes that a device may use.

    Args:
      device: of this process. A CPU device gets its share of half the main memory, or of half of
        what the control group allows if that is less.

    Returns:
      The bytes; None where neither the device nor the operating system tells.
    """
    known = device.memory_stats() or {}
    if "bytes_limit" in known:
        return int(_SHARE_OF_DEVICE * known["bytes_limit"])
    if device.platform != "cpu":
        return None
    total = _main_memory()
    return None if total is None else int(_SHARE_OF_HOST * total / jax.local_device_count("cpu"))


def members_that_fit(
    size: int, wanted: int, num_devices: int, needed: int | None, limit: int | None
) -> int:
    """How many members to try next in one program, until it fits.

    Args:
      size: members in the program now, 1 or more.
      wanted: members of the whole grid.
      num_devices: that share the members.
      needed: bytes that this program needs on each device; None: not known.
      limit: bytes that each device may use; None: not known.

    Returns:
      `size` if the program fits, if nobody can tell, or if it has one member on each device, which
      is the least. Otherwise fewer: a multiple of `num_devices`, and such that the chunks that the
      grid is cut into are of about one size.

    Example:
      >>> members_that_fit(25, wanted=25, num_devices=1, needed=225, limit=100)
      9
    """
    if needed is None or limit is None or needed <= limit or size <= num_devices:
        return size
    # What members need grows about in proportion; the images, which they share, do not.
    most = max(min(int(size * limit / needed), size - 1) // num_devices, 1) * num_devices
    chunks = -(-wanted // most)
    return -(-wanted // (chunks * num_devices)) * num_devices


def _main_memory() -> int | None:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    try:
        return min(total, int(_CONTROL_GROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # there is none, or it says "max"
        return total
