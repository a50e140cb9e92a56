"""Peak memory of a process and its children, watched from outside."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_EVERY_S = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Peak:
    """The most that a process tree was seen to hold, in bytes."""

    def __init__(self, pid: int) -> None:
        self.pid, self.bytes = pid, 0

    def look(self) -> None:
        """One look; of a lone process the system's own high-water mark, which misses nothing."""
        tree = list(_tree(self.pid))
        held = sum(_resident(pid) for pid in tree)
        if len(tree) == 1:
            held = max(held, high_water(self.pid))
        self.bytes = max(self.bytes, held)


@contextmanager
def watched(peak: Peak) -> Iterator[None]:
    """Looks ten times a second while the body runs, and once at its end."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_EVERY_S):
            peak.look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        peak.look()


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = [
            int(child)
            for thread in Path(f"/proc/{pid}/task").iterdir()
            for child in (thread / "children").read_text().split()
        ]
    except OSError:  # it ended meanwhile
        return
    for child in children:
        yield from _tree(child)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


def high_water(pid: int) -> int:
    """The most bytes that a process was resident in, by the system's own count; 0 where it has none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
