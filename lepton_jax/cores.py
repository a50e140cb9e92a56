"""How many cores there are to compute on."""

import os


def cores() -> int:
    """How many this process may use, where the system tells; else how many there are."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1
