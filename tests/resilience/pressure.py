"""The handle of a load process, what its requests came to, and figures made of that."""

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# An answer is awaited for a minute by the load itself; only a hang takes longer than this.
STOP_DEADLINE_S = 150


@dataclass(slots=True)
class Result:
    """One request. Times in seconds; `at` is when it was due, the others count from then."""

    streamed: bool
    at: float
    took: float
    header: float | None
    content: float | None
    # `ok`; `exception` (a modelled frame at the end); everything else is a failure: `refused` (a whole answer with
    # another status), `silent`, `cut`, `closed`, `reset`, `hang`, `unreachable`, `damaged`, `unmodelled`.
    verdict: str
    status: int
    exception: str
    error_type: str
    retry_after: bool
    call_id: str
    deployment: str
    attempts: int
    # Exchanges that the connection had carried before.
    used_before: int

    @property
    def ok(self):
        return self.verdict == "ok"

    @property
    def ended_at(self):
        return self.at + self.took

    @property
    def until_useful(self):
        """Until the answer, or until the first content of a stream."""
        return self.content if self.streamed and self.content is not None else self.took

    @property
    def told(self):
        """A short text for lists of failures."""
        what = " ".join(str(part) for part in (self.status or "", self.error_type, self.exception) if part)
        kind = "stream" if self.streamed else "whole"
        where = f"of {self.deployment}" if self.deployment else f"on a connection used {self.used_before} times before"
        return " ".join(part for part in (kind, self.verdict, what, where, f"({self.call_id or 'no call id'})") if part)


class Pressure:
    """A running load."""

    def __init__(self, process, begun_at):
        self.process = process
        self.begun_at, self.ended_at = begun_at, None
        self.results = []
        self.summary = None
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, url, key, **plan):
        plan = {"url": url, "key": key, "mix": {"converse": 1, "converse-stream": 1}} | plan
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("load.py")), json.dumps(plan),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 20)
        return cls(process, time.time())

    async def _read(self):
        async for line in self.process.stdout:
            row = json.loads(line)
            if "summary" in row:
                self.summary, self.ended_at = row["summary"], time.time()
            else:
                self.results.append(Result(**row))

    async def stop(self):
        """Sends nothing more, waits for what is open, and gives all results."""
        if self.process.returncode is None:
            self.process.stdin.close()
            try:
                async with asyncio.timeout(STOP_DEADLINE_S):
                    await self._reading
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
                raise AssertionError("the load did not come to its end") from None
        if self.summary is None:
            raise AssertionError("the load broke off; its error is above")
        return self.results

    @property
    def lag(self):
        """How far the load fell behind: one that does so measures itself."""
        share = self.summary["cpu_s"] / max(0.1, self.ended_at - self.begun_at)
        late = "/".join(f"{self.summary[name] * 1000:.1f}" for name in ("late_p50_s", "late_p99_s"))
        return f"the load took {share:.0%} of a core and was p50/p99 {late} ms late"

    async def close(self):
        """Ends the load at once, if it still runs."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        self._reading.cancel()

    async def seen(self, condition, what, deadline_s=60):
        """Waits until `condition` holds for the results so far."""
        deadline = time.monotonic() + deadline_s
        while not condition(self.results):
            if self.process.returncode is not None:
                raise AssertionError(f"the load ended while waiting for {what}")
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain for {what}")
            await asyncio.sleep(0.02)

    async def flows(self, count=50):
        """Waits for so many further answers."""
        enough = len(self.results) + count
        await self.seen(lambda results: len(results) >= enough, f"{count} answers")


def percentile(values, share):
    """The value that `share` of all do not exceed; None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def milliseconds(seconds):
    return None if seconds is None else round(seconds * 1000, 1)


def latency(results):
    """p50 and p99 in milliseconds of how long clients waited for something useful."""
    times = [result.until_useful for result in results if result.ok]
    return {"count": len(times), "p50_ms": milliseconds(percentile(times, 0.5)),
            "p99_ms": milliseconds(percentile(times, 0.99))}


def verdicts(results):
    counts = Counter(result.verdict for result in results)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()) or "none"


def failures(results):
    return [result for result in results if not result.ok]
