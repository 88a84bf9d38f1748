"""The store away, a period's end, a proxy killed a hundred times: what holds then, and that nothing is lost afterwards."""

import asyncio
import json
import random
import time
from collections import Counter

from processes import MASTER_KEY
from stand import Call, Checks, Stand


def _statuses(answers):
    return dict(Counter(answer.status or answer.error for answer in answers))


async def redis_down(options):
    """Without Redis a key with a budget gets 503 and one without limits goes on; nothing is lost."""
    checks = Checks("redis_down: kill -9 of Redis under 2 proxies, calls in flight")
    stand = await Stand.open(options, "redis", 2, rule={"delay_ms": 1000})
    try:
        call = Call.make("converse")
        cost = await stand.cost(call)
        limited = await stand.key(limit=10_000 * cost)
        free = await stand.key()
        # Known to every proxy: what is cached goes on.
        warm = [await stand.call(key, call, proxy) for key in (limited, free) for proxy in stand.proxies]
        checks.equal("before", _statuses(warm), {200: len(warm)})
        in_flight = [asyncio.create_task(stand.call(limited, call)) for _ in range(20)]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(stand.redis[0].kill)
        checks.equal("calls in flight when Redis died", _statuses(await asyncio.gather(*in_flight)), {200: 20})

        # A slice of the budget may be left to spend from; it ends.
        async def refused():
            answers = await asyncio.gather(*(stand.call(limited, call) for _ in range(10)))
            return answers if all(answer.status == 503 for answer in answers) else None

        answers, deadline = None, time.monotonic() + 60
        while answers is None and time.monotonic() < deadline:
            answers = await refused()
        checks.that("a key with a budget is refused with 503", answers is not None)
        checks.that("and told when to try again", bool(answers) and all("retry-after" in a.headers for a in answers))
        unlimited = await asyncio.gather(*(stand.call(free, call) for _ in range(20)))
        checks.equal("a key without limits meanwhile", _statuses(unlimited), {200: 20})
        health = await stand.client.call(stand.proxies[0].url, "GET", "/health/liveliness")
        checks.equal("liveness meanwhile", health.status, 200)

        await asyncio.to_thread(stand.redis[0].start)
        begun = time.monotonic()

        async def served():
            while (await stand.call(limited, call)).status != 200:
                await asyncio.sleep(0.05)

        await asyncio.wait_for(served(), 60)
        checks.note(f"served again {time.monotonic() - begun:.2f} s after Redis was back, one call of 1 s included")
        checks.that("everybody counted the same", await stand.settled("accounts"))
    finally:
        await stand.close()
    return checks.failed


async def reset_boundary(options, store="embedded", proxies=1, seconds=5, windows=4, per_window=25):
    """A budget that starts anew every few seconds, under constant load: no window holds more calls than it is worth."""
    checks = Checks(f"reset_boundary: {per_window} calls every {seconds} s, {windows} windows, {store}, {proxies} proxies")
    stand = await Stand.open(options, store, proxies)
    try:
        call = Call.make("converse")
        cost = await stand.cost(call)
        key = await stand.key(limit=per_window * cost, budget_duration=f"{seconds}s")
        answers = []
        # From the beginning of a window: they snap to multiples of their length.
        begin = (time.time() // seconds + 1) * seconds
        end = begin + windows * seconds
        await asyncio.sleep(begin - time.time())

        async def press():
            while time.time() < end - 0.05:
                answers.append(await stand.call(key, call))
                await asyncio.sleep(0.005)

        await asyncio.gather(*(press() for _ in range(6)))
        served = [answer for answer in answers if answer.status == 200]
        inside = Counter()
        for answer in served:
            if answer.begun_at // seconds == answer.ended_at // seconds:
                inside[int(answer.begun_at // seconds)] += 1
        checks.note(f"{_statuses(answers)}; inside windows: {list(inside.values())}")
        checks.that(f"no window holds more than {per_window}", all(count <= per_window for count in inside.values()))
        # A call that is under way at the end may count in the window it began in.
        checks.that(f"served in all: {len(served)}", windows * per_window <= len(served) <= (windows + 1) * per_window)
        checks.that("everybody counted the same", await stand.settled("accounts"))
    finally:
        await stand.close()
    return checks.failed


async def crash(options, times=100, clients=8):
    """A proxy with the embedded store, killed with -9 again and again while it serves and makes keys."""
    checks = Checks(f"crash: an embedded proxy killed {times} times while {clients} clients call it")
    stand = await Stand.open(options, "embedded", 1)
    chance = random.Random(options.seed)
    proxy = stand.proxies[0]
    outcomes, over = Counter(), asyncio.Event()
    try:
        calls = [Call.make(operation, max_tokens=tokens) for tokens in (1, 50, 300)
                 for operation in ("converse", "converse-stream", "invoke", "invoke-with-response-stream")]
        dearest = max([await stand.cost(call) for call in calls])
        keys = [await stand.key(limit=100_000 * dearest), await stand.key(limit=200 * dearest)]
        secrets = []

        async def press():
            while not over.is_set():
                answer = await stand.call(chance.choice(keys), chance.choice(calls))
                outcomes[answer.status or "no answer"] += 1
                if not answer.status:
                    await asyncio.sleep(0.02)

        async def make_keys():
            while not over.is_set():
                body = b'{"max_budget":1}'
                answer = await stand.client.call(proxy.url, "POST", "/key/generate", MASTER_KEY, body)
                if answer.whole and answer.status == 200:
                    secrets.append(answer)
                await asyncio.sleep(0.05)

        pressing = [asyncio.create_task(press()) for _ in range(clients)] + [asyncio.create_task(make_keys())]
        for _ in range(times):
            await asyncio.sleep(chance.uniform(0.05, 0.5))
            await asyncio.to_thread(proxy.kill)
            await asyncio.to_thread(proxy.start)
        over.set()
        await asyncio.gather(*pressing)
        checks.note(f"answers: {dict(outcomes)}; keys made: {len(secrets)}")
        checks.that("calls were served", outcomes[200] > times)
        lost = 0
        for answer in secrets:
            key_id = json.loads(answer.body)["key_id"]
            status, _ = await asyncio.to_thread(proxy.admin, "GET", f"/key/info?key={key_id}")
            lost += status != 200
        checks.equal("keys that were told to a client and are gone", lost, 0)
        checks.that("everybody counted the same", await stand.settled("accounts"))
    finally:
        await stand.close()
    return checks.failed


async def run_redis_down(options):
    return await redis_down(options)


async def run_reset_boundary(options):
    failed = []
    for store, proxies in [("embedded", 1), ("redis", 3)]:
        if options.store in (None, store):
            failed += await reset_boundary(options, store, proxies)
    return failed


async def run_crash(options):
    return await crash(options, 10 if options.quick else 100)
