"""Runs programs under callgrind: single pieces of work, and the whole proxy."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

# Behind this directory: both have a run.py.
sys.path.append(str(Path(__file__).resolve().parents[1] / "budget"))

import money
from counts import Profile
from processes import DEADLINE_S, ROOT, Process, Proxy, Simulator

# The function of benches/instructions/main.rs that repeats a case.
COUNTED = "instructions::counted"
# One that the proxy's worker runs for each request.
SERVING = "::proxy_1to1::"
CALLGRIND = ("valgrind", "--tool=callgrind", "--quiet")


@dataclass(frozen=True)
class Built:
    """What was compiled for measuring."""

    instructions: Path
    proxy: Path
    simulator: Path


def build() -> Built:
    command = ["cargo", "build", "--locked", "--profile", "bench", "--target-dir", "target/bench"]
    # The whole workspace decides on the features, so that `make bench` finds the same build.
    command += ["--workspace", "--bin", "dheera_ai", "--bin", "bedrock-sim", "--bench", "instructions"]
    command += ["--message-format", "json-render-diagnostics"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit("bench: it does not compile")
    found = executables(done.stdout)
    return Built(found["instructions"], found["dheera_ai"], found["bedrock-sim"])


def executables(messages: str) -> dict[str, Path]:
    """Programs by name, of what cargo tells in JSON."""
    told = (json.loads(line) for line in messages.splitlines() if line.startswith("{"))
    made = (message for message in told if message.get("executable"))
    return {message["target"]["name"]: Path(message["executable"]) for message in made}


def annotated(output: Path) -> Profile:
    command = ["callgrind_annotate", "--threshold=100", "--auto=no", "--tree=none", str(output)]
    return Profile.of(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@dataclass(frozen=True)
class Case:
    name: str
    count: int


def cases(built: Built) -> list[Case]:
    """What `instructions` can measure: a name and a number of repetitions in each line."""
    told = subprocess.run([built.instructions], check=True, capture_output=True, text=True).stdout
    return [Case(name, int(count)) for name, count in (line.split() for line in told.splitlines())]


def piece(built: Built, case: Case, directory: Path) -> Profile:
    """Instructions of one repetition."""
    output = directory / "piece.out"
    command = [*CALLGRIND, f"--toggle-collect={COUNTED}", f"--callgrind-out-file={output}", built.instructions, case.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {case.name} failed:\n{done.stderr}")
    return annotated(output).each(case.count)


@dataclass(frozen=True)
class Load:
    """Requests to the whole proxy, of which few are made and then three times as many: what both have, the start and
    the end, cancels out."""

    name: str
    operation: str
    requests: int
    # What one request counts for.
    frames: int = 1


# Of a stream's events all but four have a piece of text.
STREAM_FRAMES = 100
LOADS = (
    Load("proxy/converse_1_kb", "converse", 300),
    Load("proxy/stream_frame", "converse-stream", 16, STREAM_FRAMES),
)
# Frame by frame, as a model writes, and slower than the slowed-down proxy reads.
STREAM = {
    "match": {"operation": "ConverseStream"},
    "frames": STREAM_FRAMES - 4,
    "frame_bytes": 40,
    "frame_rate_hz": 200,
}


class CountedProxy(Proxy):
    """The proxy under callgrind, with one worker. Only the worker's thread is counted: what the others do, the commits of
    the store above all, goes by the clock, and would be more or less of each request by how fast the machine is."""

    # Everything takes fifty times as long.
    deadline_s = 10 * DEADLINE_S

    def command(self) -> list:
        callgrind = [*CALLGRIND, "--separate-threads=yes", f"--callgrind-out-file={self.directory}/callgrind.out"]
        return [*callgrind, *super().command(), "--num-workers", "1"]


def worker(directory: Path) -> Path:
    """What the worker's thread did; callgrind writes a file for each thread."""
    served = [path for path in directory.glob("callgrind.out-*") if SERVING in path.read_text()]
    if len(served) != 1:
        raise SystemExit(f"bench: {len(served)} threads in {directory} called {SERVING}, not one")
    return served[0]


def whole(built: Built, load: Load, directory: Path) -> Profile:
    """Instructions of one request, or of one frame."""
    few, many = load.requests, 3 * load.requests
    base = served(built, load, few, directory / f"{few}")
    more = served(built, load, many, directory / f"{many}")
    return more.beyond(base).each((many - few) * load.frames)


def served(built: Built, load: Load, requests: int, directory: Path) -> Profile:
    with ended(Simulator(directory / "simulator", built.simulator)) as simulator:
        simulator.behave(STREAM)
        with ended(CountedProxy("proxy", directory / "proxy", built.proxy, simulator)) as proxy:
            proxy.start()
            key = proxy.must("POST", "/key/generate", {"max_budget": money.dollars(1_000 * money.NANO)})["key"]
            ask(proxy.url, key, load, requests)
            if status := proxy.stop():
                raise SystemExit(f"bench: the proxy ended with {status}; see {proxy.output}")
            return annotated(worker(proxy.directory))


@contextmanager
def ended(process: Process) -> Iterator:
    try:
        yield process
    finally:
        process.stop()


def ask(url: str, key: str, load: Load, requests: int) -> None:
    """One request after the other, over one connection."""
    text = "All work and no play makes Jack a dull boy. " * 20
    message = {"role": "user", "content": [{"text": text}]}
    body = json.dumps({"messages": [message], "inferenceConfig": {"maxTokens": 100}}).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=CountedProxy.deadline_s)
    try:
        for _ in range(requests):
            connection.request("POST", f"/bedrock/model/nova/{load.operation}", body, headers)
            answer = connection.getresponse()
            read = answer.read()
            if answer.status != 200:
                raise SystemExit(f"bench: the proxy answered {answer.status}: {read[:500]!r}")
    finally:
        connection.close()
