"""Clients that leave in the middle of streams. Read to its end, an answer costs what it is billed, to the nano-dollar;
when that is bounded, what is charged is never below the bill."""

import asyncio
import random
from collections import Counter

from regions import Single
from report import Report
from stand import Call

AT_ONCE = 100
FRAMES, FRAME_RATE_HZ, DELAY_MS = 10, 20, 50


async def leave(stand, key, count, seed):
    """Calls streams and leaves each at a random point: after a time, perhaps before the header, or after some bytes."""
    chance = random.Random(seed)
    calls = [Call.make(operation, max_tokens=tokens, model="nova", text="word " * words)
             for operation in ("converse-stream",) for tokens in (20, 200) for words in (1, 300)]
    room = asyncio.Semaphore(AT_ONCE)
    whole_s = (DELAY_MS / 1000) + FRAMES / FRAME_RATE_HZ

    async def one():
        if chance.random() < 0.5:
            leaving = {"leave_after_s": chance.uniform(0, whole_s)}
        else:
            leaving = {"leave_after_bytes": chance.randint(1, 2000)}
        async with room:
            return await stand.call(key, chance.choice(calls), **leaving)

    answers = await asyncio.gather(*(one() for _ in range(count)))
    return Counter(answer.error or answer.status for answer in answers)


async def totals(stand):
    """Nano-dollars billed and booked, at rest."""
    open_still = await stand.rest()
    books = await asyncio.to_thread(stand._books)
    return open_still, books.billed_total, sum(entry.cost for entry in books.entries)


async def drained(options, report, count):
    rule = {"frames": FRAMES, "frame_rate_hz": FRAME_RATE_HZ, "delay_ms": DELAY_MS, "tokens": "words", "bill": "full"}
    stand = await Single.open(options, "embedded", 1, rule=rule, drain_timeout=60)
    try:
        key = await stand.key(limit=10**15)
        ends = await leave(stand, key, count, options.seed)
        open_still, billed, booked = await totals(stand)
        report.note(f"read to the end: {count} streams: {dict(ends)}; {stand.simulator.billed()['count']} were billed")
        report.that("clients left in the middle", ends["left"] > count / 2)
        report.none("read to the end: still open at rest", open_still)
        report.equal("read to the end: nano-dollars booked (expected: billed)", booked, billed)
        report.that("read to the end: everybody counted the same", await stand.settled("accounts"))
        report.figure("drained", {"streams": count, "billed_nano_usd": billed, "booked_nano_usd": booked}, "")
    finally:
        statuses = await stand.close()
    report.that(f"clean exits: {statuses}", not any(statuses.values()))


async def bounded(options, report, count):
    # A stream goes on for longer than it is read on.
    rule = {"frames": FRAMES, "frame_rate_hz": FRAME_RATE_HZ, "delay_ms": DELAY_MS, "tokens": "words", "bill": "full"}
    stand = await Single.open(options, "embedded", 1, rule=rule, drain_timeout=0.1)
    try:
        key = await stand.key(limit=10**15)
        ends = await leave(stand, key, count, options.seed + 1)
        open_still, billed, booked = await totals(stand)
        billed_calls = stand.simulator.billed()["count"]
        report.note(f"read on for 0.1 s: {count} streams: {dict(ends)}; {billed_calls} were billed")
        report.none("read on for 0.1 s: still open at rest", open_still)
        report.that(f"read on for 0.1 s: {booked} nano-dollars booked, at least the bill of {billed}", booked >= billed)
        unknown = [r for r in stand.proxies[0].records() if r.get("usage_certainty") in ("partial", "unknown")]
        report.that(f"the bound was reached ({len(unknown)} calls of unknown usage)", bool(unknown))
        report.that("read on for 0.1 s: everybody counted the same", await stand.settled("accounts"))
        report.figure("bounded", {"streams": count, "billed_nano_usd": billed, "booked_nano_usd": booked}, "")
    finally:
        statuses = await stand.close()
    report.that(f"clean exits: {statuses}", not any(statuses.values()))


async def run(options):
    count = 200 if options.quick else 2000
    report = Report("disconnects", f"{count} streams, each left at a random point")
    await drained(options, report, count)
    await bounded(options, report, count)
    return report
