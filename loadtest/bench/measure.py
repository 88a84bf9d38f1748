"""What the kernel says of processes: their CPU time and memory, threads and children included."""

import contextlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Stat:
    parent: int
    cpu_s: float


def parse_stat(text: str) -> Stat:
    """A line of /proc/PID/stat: the name in parentheses may itself hold spaces and parentheses."""
    fields = text[text.rindex(")") + 2:].split()
    # After pid and name: state, ppid, …; utime, stime, cutime, cstime are fields 14 to 17 of the whole line.
    return Stat(int(fields[1]), sum(int(field) for field in fields[11:15]) * TICK_S)


def stats() -> dict[int, Stat]:
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                found[int(entry)] = parse_stat(Path(f"/proc/{entry}/stat").read_text())
    return found


def tree(roots: list[int], processes: dict[int, Stat]) -> list[int]:
    """The roots that live and all their descendants."""
    members = [root for root in roots if root in processes]
    for member in members:
        members += [pid for pid, stat in processes.items() if stat.parent == member]
    return members


def cpu_s(roots: list[int]) -> float:
    """CPU seconds of the whole trees since they began; of children that have ended too."""
    processes = stats()
    return sum(processes[pid].cpu_s for pid in tree(roots, processes))


def parse_status(text: str, field: str) -> int:
    """Kilobytes of a field of /proc/PID/status; a process that is ending has none."""
    for line in text.splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def memory_kb(roots: list[int], field: str = "VmRSS") -> int:
    total = 0
    for pid in tree(roots, stats()):
        with contextlib.suppress(OSError):
            total += parse_status(Path(f"/proc/{pid}/status").read_text(), field)
    return total


class Memory:
    """Samples the resident memory of processes while a block runs."""

    def __init__(self, roots: list[int], every_s: float = 0.2):
        self.roots = roots
        self.every_s = every_s
        self.samples: list[int] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self):
        while True:
            self.samples.append(memory_kb(self.roots))
            if self.ended.wait(self.every_s):
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    @property
    def peak_kb(self) -> int:
        return max(self.samples)
