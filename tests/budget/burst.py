"""More calls at once than a limit allows: exactly as many as it allows get through, with one proxy or several."""

import asyncio
from collections import Counter

from stand import Call, Checks, Stand

CALLS, AT_ONCE, UPSTREAM_MS = 40, 120, 300
# A minute is counted in pieces of 5 seconds: never more than the limit in any 60 seconds, and room again after 65.
MINUTE_S = 65


async def _at_once(stand, key, call, count):
    return await asyncio.gather(*(stand.call(key, call) for _ in range(count)))


def _told(answers):
    told = Counter(f"{answer.status} {answer.error_type or answer.error}".strip() for answer in answers)
    return ", ".join(f"{count} × {what}" for what, count in told.most_common())


async def budget(options, store, proxies):
    """A key worth 40 calls, 120 at once, then one by one on every proxy until nobody serves any more."""
    checks = Checks(f"burst: budget of {CALLS} calls, {AT_ONCE} at once, {store}, {proxies} proxies")
    stand = await Stand.open(options, store, proxies, rule={"delay_ms": UPSTREAM_MS})
    try:
        call = Call.make("converse", max_tokens=200)
        cost = await stand.cost(call)
        key = await stand.key(limit=CALLS * cost)
        before = stand.simulator.billed()["count"]
        answers = await _at_once(stand, key, call, AT_ONCE)
        first = sum(answer.status == 200 for answer in answers)
        checks.note(f"a call costs {cost} n$; at once: {_told(answers)}")
        # Money that other proxies hold in slices has to come back before the last calls fit.
        refused, rounds = 0, 0
        while refused < 3 * proxies and rounds < 60:
            more = [await stand.call(key, call, proxy) for proxy in stand.proxies]
            answers += more
            if any(answer.status == 200 for answer in more):
                refused = 0
            else:
                refused += len(more)
                await asyncio.sleep(1)
            rounds += 1
        served = sum(answer.status == 200 for answer in answers)
        checks.note(f"one by one: {served - first} more; in all: {_told(answers)}")
        checks.equal("calls served", served, CALLS)
        checks.equal("calls billed", stand.simulator.billed()["count"] - before, CALLS)
        refusals = {(answer.status, answer.error_type) for answer in answers if answer.status != 200}
        checks.equal("how the others are refused", refusals, {(400, "ServiceQuotaExceededException")})
        told_not_to_retry = all(
            answer.headers.get("x-should-retry") == "false" for answer in answers if answer.status == 400)
        checks.that("SDKs are told not to retry", told_not_to_retry)
        checks.that("everybody counted the same", await stand.settled("accounts"))
        checks.equal("spent", await stand.spent(key), CALLS * cost)
    finally:
        statuses = await stand.close()
    checks.that(f"clean exits: {statuses}", not any(statuses.values()))
    return checks.failed


async def rpm(options, store, proxies, wait_s):
    """40 requests a minute: 40 of 120 pass; after a minute the next ones do."""
    checks = Checks(f"burst: rpm_limit {CALLS}, {AT_ONCE} at once, {store}, {proxies} proxies")
    stand = await Stand.open(options, store, proxies, rule={"delay_ms": UPSTREAM_MS})
    try:
        call = Call.make("converse")
        key = await stand.key(rpm_limit=CALLS)
        answers = await _at_once(stand, key, call, AT_ONCE)
        served = sum(answer.status == 200 for answer in answers)
        checks.note(_told(answers))
        checks.equal("calls served", served, CALLS)
        limited = [answer for answer in answers if answer.status != 200]
        checks.equal("how the others are refused", {(answer.status, answer.error_type) for answer in limited},
                     {(429, "ThrottlingException")})
        hints = {int(answer.headers.get("retry-after", "0")) for answer in limited}
        checks.that(f"Retry-After of {sorted(hints)} s", all(0 < hint <= MINUTE_S for hint in hints))
        if wait_s:
            await asyncio.sleep(wait_s)
            again = await _at_once(stand, key, call, AT_ONCE)
            checks.equal("calls served a minute later", sum(answer.status == 200 for answer in again), CALLS)
        checks.that("everybody counted the same", await stand.settled("accounts"))
    finally:
        await stand.close()
    return checks.failed


async def parallel(options, store, proxies, limit=7):
    """At most 7 at a time, with 120 clients that try again until they are served."""
    checks = Checks(f"burst: max_parallel_requests {limit}, {AT_ONCE} clients, {store}, {proxies} proxies")
    stand = await Stand.open(options, store, proxies, rule={"delay_ms": 50})
    try:
        call = Call.make("converse")
        key = await stand.key(max_parallel_requests=limit)
        refusals = Counter()

        async def until_served():
            while (answer := await stand.call(key, call)).status == 429:
                refusals[answer.error_type] += 1
                await asyncio.sleep(0.05)
            return answer

        answers = await asyncio.gather(*(until_served() for _ in range(AT_ONCE)))
        checks.note(f"{_told(answers)}; refused meanwhile: {dict(refusals)}")
        checks.equal("calls served in the end", sum(answer.status == 200 for answer in answers), AT_ONCE)
        checks.that("somebody had to wait", refusals.total() > 0)
        checks.equal("most at the same time, seen upstream", stand.simulator.counters()["max_concurrent"]["all"], limit)
        checks.that("everybody counted the same", await stand.settled("accounts"))
    finally:
        await stand.close()
    return checks.failed


async def run(options):
    failed = []
    for store, proxies in [("embedded", 1), ("redis", 1), ("redis", 3)]:
        if options.store in (None, store):
            failed += await budget(options, store, proxies)
            failed += await rpm(options, store, proxies, 0 if options.quick else MINUTE_S + 1)
            failed += await parallel(options, store, proxies)
    return failed
