"""Processes of a load test: pinned to a core, waited for until they say that they serve, ended with everything of theirs."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

# Generous: a Python proxy takes its time, and only a hang should fail.
DEADLINE_S = 90


class Failed(Exception):
    """A run that cannot be measured, and why."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, what: str, deadline_s: float = DEADLINE_S, pause_s: float = 0.02):
    """Waits for `condition` to give something, and gives it."""
    deadline = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"waited {deadline_s:.0f} s in vain for {what}")
        time.sleep(pause_s)
    return value


def answers(url: str, wanted: int | None = None) -> bool:
    """Whether something answers there, with any status or with the wanted one."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return wanted in (None, answer.status)
    except urllib.error.HTTPError as refusal:
        return wanted in (None, refusal.code)
    except OSError:
        return False


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def pinned(command: list, core: int) -> list[str]:
    """The command on one core, ended by the kernel should this process die."""
    return ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(core), *(str(part) for part in command)]


@dataclass
class Process:
    """A child process in a session of its own: Ctrl-C is for the harness, which then ends its processes."""

    name: str
    command: list
    directory: Path
    core: int
    environment: dict | None = None

    def __post_init__(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self.stdout = self.directory / f"{self.name}.out"
        self.stderr = self.directory / f"{self.name}.err"
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with self.stdout.open("ab") as out, self.stderr.open("ab") as err:
            self.process = subprocess.Popen(
                pinned(self.command, self.core), stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=self.directory,
                env=inherited | (self.environment or {}), start_new_session=True)

    @property
    def pid(self) -> int:
        return self.process.pid

    def check(self) -> None:
        if self.process.poll() is not None:
            last = (tail(self.stderr) or tail(self.stdout)).strip()
            raise Failed(f"{self.name} ended with {self.process.returncode}: {last}")

    def said(self, pattern: str) -> str:
        """What the first group of the pattern stands for, once the process says it."""

        def found():
            self.check()
            with self.stdout.open("rb") as out:
                return re.search(pattern, out.read(65536).decode(errors="replace"))

        return until(found, f"{self.name} to say {pattern}").group(1)

    def serves(self, condition, what: str) -> None:
        until(lambda: self.check() or condition(), f"{self.name} to {what}")

    def stop(self) -> None:
        """Asks it to end, and ends its whole process group if it does not."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


def tail(path: Path, size: int = 2000) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode(errors="replace")
