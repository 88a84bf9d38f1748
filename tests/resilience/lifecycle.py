"""A process that is stopped, replaced and configured anew while requests come in and streams are open."""

import asyncio
import contextlib
import json
import signal
import subprocess
import time
import urllib.error

from pressure import Pressure, failures, latency, verdicts
from processes import DEADLINE_S
from regions import Single
from report import Report
from stand import eventually

# A stream takes about a second, so half as many as come in a second are open at any time.
RULE = {"frames": 8, "frame_rate_hz": 10, "delay_ms": 20}
# Between two upgrades or reloads, so many requests are answered.
BETWEEN = 50


async def opened(options, store, **settings):
    stand = await Single.open(options, store, 1, rule=RULE, **settings)
    try:
        return stand, await stand.key(limit=10**15)
    except BaseException:
        await stand.close()
        raise


def stores(options):
    return [options.store] if options.store else ["embedded", "redis"]


async def accounted(stand, report, what, results):
    stand.answered |= {result.call_id for result in results if result.ok}
    report.that(f"{what}: everybody counted the same, nothing is reserved", await stand.settled(f"accounts, {what}"))


# Upgrades.


async def replaced(proxy):
    """One upgrade; seconds until the new process served and until the old one was gone, and its exit status."""
    begun = time.monotonic()
    old = await asyncio.to_thread(proxy.replace)
    old.send_signal(signal.SIGQUIT)
    await asyncio.to_thread(proxy.ready)
    served_s = time.monotonic() - begun
    await eventually(lambda: old.poll() is not None, f"the old process {old.pid} to end", 2 * DEADLINE_S)
    return served_s, time.monotonic() - begun, old.returncode


async def upgrades(options, report, store, count):
    stand, key = await opened(options, store)
    proxy = stand.proxies[0]
    load, times, statuses = None, [], []
    try:
        load = await Pressure.start(proxy.url, key.secret, rate=options.rate)
        await load.flows(BETWEEN)
        for _ in range(count):
            ready_s, gone_s, status = await replaced(proxy)
            times.append((ready_s, gone_s))
            statuses.append(status)
            await load.flows(BETWEEN)
        results = await load.stop()
        report.note(f"{store}: {len(results)} requests, {verdicts(results)}; {load.lag}")
        report.none(f"{store}: failed requests over {count} upgrades", [r.told for r in failures(results)])
        report.equal(f"{store}: exit statuses of the old processes", sorted(set(statuses)), [0])
        report.figure(f"upgrades_{store}", {
            "count": len(times), "ready_s_max": round(max(t[0] for t in times), 2),
            "gone_s_max": round(max(t[1] for t in times), 2), "requests": len(results), "latency": latency(results)})
        await accounted(stand, report, store, results)
    finally:
        if load:
            await load.close()
        exits = await stand.close()
    report.that(f"clean exits: {exits}", not any(exits.values()))


async def run_upgrades(options):
    count = 3 if options.quick else 50
    report = Report("upgrades", f"{count} in a row under {options.rate:.0f} requests/s, half of them streams")
    for store in stores(options):
        await guarded(report, f"upgrades with {store}", upgrades(options, report, store, count))
    return report


async def guarded(report, what, work):
    """Runs a part of a scenario; when it breaks off, the others are still of interest."""
    try:
        await work
    except (AssertionError, OSError, subprocess.SubprocessError, urllib.error.URLError) as error:
        report.that(f"{what}: {str(error)[-1500:] or type(error).__name__}", False)


# Reloads.

INVALID = (
    {"router_settings": {"num_retires": 1}},
    {"router_settings": {"num_retries": 99}},
    {"model_list": [{"model_name": "nova", "dheera_ai_params": {"model": "openai/gpt"}}]},
    {"general_settings": {"max_request_size_mb": 0}, "no_such_section": {}},
)


class Reloads:
    def __init__(self, stand, report):
        self.proxy = stand.proxies[0]
        self.stand = stand
        self.report = report
        self.valid = dict(self.proxy.content)
        self.wrong = []

    async def names(self):
        """Model names that are served."""
        answer = await self.stand.admin("GET", "/v1/models")
        return {model["id"] for model in answer["data"]}

    def count(self, result):
        """Reloads so far that came to `result`, or to anything."""
        text = self.proxy.metrics_text()
        sums = 0
        for line in text.splitlines():
            if line.startswith("dheera_ai_config_reloads_total{") and f'result="{result}"' in line:
                sums += float(line.rpartition(" ")[2])
        return int(sums)

    async def one(self, number, valid, by_signal):
        """Changes the file and has it read. A valid change is a further model name, so that it can be seen."""
        name = f"extra-{number}"
        if valid:
            extra = [entry | {"model_name": name, "model_info": {}} for entry in self.valid["model_list"][:1]]
            self.proxy.configure(**(self.valid | {"model_list": self.valid["model_list"] + extra}))
        else:
            sections = INVALID[number // 2 % len(INVALID)]
            content = self.valid | {key: self.valid.get(key, {}) | value if isinstance(value, dict) else value
                                    for key, value in sections.items()}
            self.proxy.configure(**content)
        before = await self.names()
        result = "applied" if valid else "refused"
        counted = await asyncio.to_thread(self.count, result)
        if by_signal:
            self.proxy.process.send_signal(signal.SIGHUP)
        else:
            status, answer = await asyncio.to_thread(self.proxy.admin, "POST", "/config/reload")
            if status != (200 if valid else 400) or (not valid and not answer.get("problems")):
                told = json.dumps(answer, default=str)[:300]
                self.wrong.append(f"POST of {'a valid' if valid else 'an invalid'} file: {status} {told}")
        await eventually(lambda: self.count(result) > counted, f"a reload that is {result}")
        after = await self.names()
        if valid and name not in after:
            self.wrong.append(f"{name} is not served after its reload")
        if not valid and after != before:
            self.wrong.append(f"an invalid file changed what is served: {sorted(before)} -> {sorted(after)}")
        # The invalid sections that are not in a valid file must not stay.
        for section in set(self.proxy.content) - set(self.valid):
            del self.proxy.content[section]


async def reloads(options, report, count):
    stand, key = await opened(options, options.store or "embedded")
    proxy = stand.proxies[0]
    load = None
    try:
        load = await Pressure.start(proxy.url, key.secret, rate=options.rate)
        await load.flows(BETWEEN)
        reloads = Reloads(stand, report)
        begun, pid = time.monotonic(), proxy.process.pid
        for number in range(count):
            await reloads.one(number, valid=number % 2 == 0, by_signal=number % 4 < 2)
        took = time.monotonic() - begun
        await load.flows(BETWEEN)
        results = await load.stop()
        report.none("reloads that did not do what they should", reloads.wrong)
        report.note(f"{len(results)} requests, {verdicts(results)}; {load.lag}")
        report.none(f"failed requests over {count} reloads", [r.told for r in failures(results)])
        report.that("it is the same process", proxy.alive and proxy.process.pid == pid)
        report.figure("reloads", {
            "count": count, "seconds": round(took, 2), "requests": len(results), "latency": latency(results)})
        proxy.configure(**reloads.valid)
        await accounted(stand, report, "reloads", results)
    finally:
        if load:
            await load.close()
        exits = await stand.close()
    report.that(f"clean exits: {exits}", not any(exits.values()))


async def run_reloads(options):
    count = 10 if options.quick else 100
    report = Report("reloads", f"{count}, half of them invalid, under {options.rate:.0f} requests/s")
    await guarded(report, "reloads", reloads(options, report, count))
    return report


# Stopping.


def accepted(result):
    """Whether the proxy had taken the request's connection: a new one may have waited in the kernel's queue when the
    port was closed, and then nobody ever saw it."""
    return result.verdict != "unreachable" and not (
        result.verdict in ("reset", "closed") and result.used_before == 0 and not result.status)


async def term(options, report, store, count):
    stand, key = await opened(options, store)
    proxy = stand.proxies[0]
    load, everything, statuses, times, not_taken = None, [], [], [], 0
    try:
        for _ in range(count):
            load = await Pressure.start(proxy.url, key.secret, rate=options.rate)
            await load.flows(BETWEEN)
            process, begun = proxy.process, time.monotonic()
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(AssertionError):
                await eventually(lambda: process.poll() is not None, "the end of the proxy", 2 * DEADLINE_S)
            times.append(time.monotonic() - begun)
            statuses.append(process.poll())
            results = await load.stop()
            not_taken += sum(not accepted(result) for result in results)
            everything += [result for result in results if accepted(result)]
            await asyncio.to_thread(proxy.kill)
            await asyncio.to_thread(proxy.start)
        report.note(f"{store}: {len(everything)} requests accepted, {verdicts(everything)}; {not_taken} came too late")
        failed = [r.told for r in failures(everything)]
        report.none(f"{store}: accepted requests that failed over {count} stops", failed)
        report.that(f"{store}: it was asked for more than it took", not_taken > 0)
        report.equal(f"{store}: exit statuses", sorted(set(statuses), key=str), [0])
        report.figure(f"term_{store}", {
            "count": count, "gone_s_max": round(max(times), 2), "requests": len(everything)})
        await accounted(stand, report, store, everything)
    finally:
        if load:
            await load.close()
        exits = await stand.close()
    report.that(f"clean exits: {exits}", not any(exits.values()))


async def run_term(options):
    count = 2 if options.quick else 20
    report = Report("term", f"SIGTERM under {options.rate:.0f} requests/s, half of them streams, {count} times")
    for store in stores(options):
        await guarded(report, f"term with {store}", term(options, report, store, count))
    return report
