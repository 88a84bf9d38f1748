"""Three times more than the proxy lets in. What it does serve must stay what it was, what it does not is refused with a
time to come back, its memory stays bounded, and a key that asks for little gets it whoever else asks for much."""

import asyncio
import time
from dataclasses import dataclass

from pressure import Pressure, failures, latency, milliseconds, percentile, verdicts
from regions import Single
from report import Report

# What the proxy may need for requests that wait or are refused.
GROWTH_MAX_KB = 64 * 1024


@dataclass
class Room:
    """What the proxy lets in, and how long each call takes. Far below what proxy and load can do, so that nothing but
    admission decides."""

    in_flight: int
    queued: int
    service_ms: int


# 160 calls a second; 40 are as much as binaries without optimisation take three times of on two cores.
FULL, QUICK = Room(16, 32, 100), Room(8, 16, 200)


def goodput(results, begin, end):
    """Answers a second that were served in a time."""
    return sum(result.ok and begin <= result.ended_at < end for result in results) / (end - begin)


async def closed_loop(stand, key, workers, seconds):
    load = await Pressure.start(stand.proxies[0].url, key.secret, workers=workers, mix={"converse": 1})
    try:
        await load.flows(workers * 2)
        begin = time.time()
        await asyncio.sleep(seconds)
        end = time.time()
        return goodput(await load.stop(), begin, end)
    finally:
        await load.close()


async def peak(stand, key, report, room, seconds):
    """The most that a closed loop gets through, with as many workers as there are permits and more."""
    figures = {}
    for workers in (room.in_flight, room.in_flight + room.queued // 4, room.in_flight + room.queued):
        figures[workers] = round(await closed_loop(stand, key, workers, seconds), 1)
    report.figure("closed_loop", figures, f"closed loop, served per second by workers: {figures}")
    return max(figures.values())


async def sampled(proxy, over):
    """Memory, until it is over."""
    samples = []
    while not over.is_set():
        samples.append(await asyncio.to_thread(proxy.resident_kb))
        await asyncio.sleep(0.1)
    return samples


async def flood(stand, keys_and_rates, seconds):
    """Open loops beside each other; results of each, begin and end of the time they all ran, memory."""
    over = asyncio.Event()
    loads, sampling = [], asyncio.create_task(sampled(stand.proxies[0], over))
    try:
        for key, rate in keys_and_rates:
            loads.append(await Pressure.start(stand.proxies[0].url, key.secret, rate=rate, mix={"converse": 1}))
        # The queue fills.
        await asyncio.gather(*(load.flows(20) for load in loads))
        begin = time.time()
        await asyncio.sleep(seconds)
        end = time.time()
        results = [await load.stop() for load in loads]
        lags = [load.lag for load in loads]
    finally:
        over.set()
        for load in loads:
            await load.close()
        memory = await sampling
    return results, lags, begin, end, memory


def refusals(report, what, results):
    refused = failures(results)
    expected = ("refused", 503, "ServiceUnavailableException")
    report.none(f"{what}: refusals other than 503 ServiceUnavailableException",
                [r.told for r in refused if (r.verdict, r.status, r.error_type) != expected])
    report.none(f"{what}: refusals without Retry-After",
                [r.told for r in refused if r.status == 503 and not r.retry_after])
    times = [r.took for r in refused]
    return {"count": len(refused), "p50_ms": milliseconds(percentile(times, 0.5)),
            "p99_ms": milliseconds(percentile(times, 0.99))}


async def run(options):
    seconds, room = (4, QUICK) if options.quick else (30, FULL)
    report = Report("overload", (
        f"{room.in_flight} in flight, {room.queued} queued, {room.service_ms} ms each; three times too much"))
    stand = await Single.open(
        options, "embedded", 1, rule={"delay_ms": room.service_ms}, max_in_flight_requests=room.in_flight,
        max_queued_requests=room.queued, admission_queue_timeout=1)
    proxy = stand.proxies[0]
    try:
        key, modest = await stand.key(limit=10**15), await stand.key(limit=10**15)
        best = await peak(stand, key, report, room, 2 if options.quick else 10)
        before_kb = await asyncio.to_thread(proxy.resident_kb)

        (results,), (lag,), begin, end, memory = await flood(stand, [(key, 3 * best)], seconds)
        served = goodput(results, begin, end)
        report.note(f"{len(results)} requests, {verdicts(results)}; {lag}")
        report.that(f"goodput {served:.1f}/s is at least 90 % of the peak of {best:.1f}/s", served >= 0.9 * best)
        report.that("requests were refused", bool(failures(results)))
        figures = refusals(report, "overload", results)
        report.figure("refused", figures)
        report.figure("served", latency(results))
        report.figure("goodput", {"peak": best, "overload": round(served, 1), "share": round(served / best, 3)}, "")
        growth = max(memory) - before_kb
        report.figure("memory_mib", {"before": round(before_kb / 1024, 1), "max": round(max(memory) / 1024, 1)})
        report.that(f"memory grew by {growth} KiB, at most {GROWTH_MAX_KB}", growth <= GROWTH_MAX_KB)
        concurrent = await asyncio.to_thread(lambda: stand.simulator.counters()["max_concurrent"]["all"])
        report.that(f"never more than {room.in_flight} at the upstream: {concurrent}", concurrent <= room.in_flight)

        # The modest key asks for a quarter of its half.
        (greedy, other), _, begin, end, _ = await flood(stand, [(key, 3 * best), (modest, best / 8)], seconds)
        report.note(f"greedy: {verdicts(greedy)}; modest: {verdicts(other)}")
        report.none("refusals of a key that asks for an eighth, beside one that asks for three times too much",
                    [r.told for r in failures(other)])
        report.figure("modest", latency(other))
        total = goodput(greedy + other, begin, end)
        report.that(f"two keys: goodput {total:.1f}/s is at least 90 % of the peak", total >= 0.9 * best)
        report.that("everybody counted the same", await stand.settled("accounts"))
    finally:
        statuses = await stand.close()
    report.that(f"clean exits: {statuses}", not any(statuses.values()))
    return report
