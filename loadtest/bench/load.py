"""The load generators and what they say: wrk for HTTP/1.1, h2load for h2c, stream-load for event streams."""

import json
import re
import resource
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from processes import Failed, pinned

LUA = Path(__file__).parent / "lua"


@dataclass(frozen=True)
class Result:
    """What a generator counted. `figures` are named as in results.json: microseconds end in `_us`."""

    requests: int
    seconds: float
    errors: dict[str, int] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> str | None:
        """Why the run is not valid: what went wrong how often."""
        wrong = ", ".join(f"{count} {kind}" for kind, count in sorted(self.errors.items()) if count)
        return wrong or (None if self.requests else "no request was answered")


@dataclass(frozen=True)
class Call:
    """One request to repeat."""

    url: str
    headers: dict[str, str]
    body: Path
    keys: Path | None = None

    def header_file(self) -> Path:
        path = self.body.with_suffix(".headers")
        path.write_text("".join(f"{name}: {value}\n" for name, value in self.headers.items()))
        return path


@dataclass(frozen=True)
class Generators:
    core: int
    stream_load: Path
    log: Path

    def run(self, command: list, limit_s: float) -> tuple[str, float]:
        """What the command says, and the CPU seconds that it took."""
        before = children_cpu_s()
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(map(str, command))}\n".encode())
            process = subprocess.Popen(pinned(command, self.core), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=log, text=True, start_new_session=True)
            try:
                said, _ = process.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                raise Failed(f"{command[0]} did not end within {limit_s:.0f} s") from None
            finally:
                process.kill()
                process.wait()
            log.write(said.encode())
        if process.returncode:
            raise Failed(f"{Path(command[0]).name} ended with {process.returncode}: {said.strip()[-300:]} ({self.log})")
        return said, children_cpu_s() - before

    def wrk(self, call: Call, seconds: int, connections: int) -> Result:
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "--latency",
                   "-s", LUA / "requests.lua", call.url, "--", call.body, call.header_file()]
        said, cpu = self.run([*command, *([call.keys] if call.keys else [])], seconds + 90)
        return with_cpu(parse_wrk(said), cpu)

    def h2load(self, call: Call, seconds: int, connections: int, streams: int) -> Result:
        """Concurrent streams on few connections, each request on a stream of its own."""
        log = call.body.with_suffix(".h2load")
        log.unlink(missing_ok=True)
        headers = [part for name, value in call.headers.items() for part in ("-H", f"{name}: {value}")]
        command = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", f"--log-file={log}",
                   f"--data={call.body}", *headers, call.url]
        said, cpu = self.run(command, seconds + 90)
        return with_cpu(parse_h2load(said, log.read_text(), seconds), cpu)

    def uploads(self, call: Call, count: int, connections: int) -> Result:
        """So many requests, each read to its end: a time would cut off those that take long."""
        headers = [part for name, value in call.headers.items() for part in ("-H", f"{name}: {value}")]
        command = ["h2load", "--h1", "-t1", f"-c{connections}", f"-n{count}", f"--data={call.body}", *headers, call.url]
        begun = time.monotonic()
        said, cpu = self.run(command, 300)
        return with_cpu(parse_h2load(said, "", time.monotonic() - begun), cpu)

    def streams(self, call: Call, count: int, *options: str, limit_s: float) -> Result:
        headers = [part for name, value in call.headers.items() for part in ("--header", f"{name}: {value}")]
        command = [self.stream_load, "--url", call.url, *headers, "--body-file", call.body, "--streams", count]
        said, cpu = self.run([*command, *options], limit_s)
        return with_cpu(parse_streams(said), cpu)

    def make_keys(self, url: str, master_key: str, first: int, last: int) -> float:
        """Makes the keys `first`+1 to `last`; gives the seconds it took."""
        begun = time.monotonic()
        command = ["wrk", "-t1", "-c32", "-d3600s", "--timeout", "60s", "-s", LUA / "keys.lua", url, "--", master_key,
                   first, last]
        with subprocess.Popen(pinned(command, self.core), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                              start_new_session=True) as process:
            try:
                said = next((line for line in process.stdout if line.startswith(("MADE", "REFUSED"))), "nothing")
            finally:
                process.kill()
        if not said.startswith("MADE"):
            raise Failed(f"the keys were not made: {said.strip()}")
        return time.monotonic() - begun


def children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def with_cpu(result: Result, cpu: float) -> Result:
    return Result(result.requests, result.seconds, result.errors, result.figures | {"load_cpu_s": round(cpu, 3)})


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def parse_wrk(said: str) -> Result:
    match = re.search(r"^RESULT (\{.*\})$", said, re.MULTILINE)
    if not match:
        raise Failed(f"wrk gave no result: {said.strip()[-300:]}")
    told = json.loads(match.group(1))
    errors = {f"{kind} errors": told[kind] for kind in ("connect", "read", "write", "timeout")}
    errors["answers without success"] = told["status"]
    figures = {name: told[name] for name in ("p50_us", "p90_us", "p99_us", "max_us")}
    return Result(told["requests"], told["duration_us"] / 1e6, errors, figures)


def parse_h2load(said: str, log: str, seconds: float) -> Result:
    """Counts from the summary, latencies from the log: begin in µs since 1970, status, duration in µs."""
    counts = re.search(r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, "
                       r"(\d+) timeout", said)
    if not counts:
        raise Failed(f"h2load gave no result: {said.strip()[-300:]}")
    _, done, succeeded, failed, errored, timeout = map(int, counts.groups())
    # What is under way when the time is over is no error, and h2load counts it as none.
    errors = {"answers without success": done - succeeded, "failed": failed, "errored": errored, "timeout": timeout}
    latencies = sorted(float(line.split()[2]) for line in log.splitlines())
    shares = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99}
    figures = {name: percentile(latencies, share) for name, share in shares.items()} if latencies else {}
    return Result(succeeded, seconds, errors, figures)


def parse_streams(said: str) -> Result:
    """The one JSON object of stream-load: counts, errors by kind, times in microseconds by name."""
    told = json.loads(said[said.index("{"):])
    figures = {"frames": told["frames"]}
    for name in ("ttft", "gap", "transit"):
        # A time that was never measured has only its count.
        figures |= {f"{name}_{share}_us": told[f"{name}_us"][share] for share in ("p50", "p99", "p99.9", "max")
                    if share in told[f"{name}_us"]}
    return Result(told["finished"], told["elapsed_s"], dict(told["errors"]), figures)
