"""Minutes of mixed calls with everything going wrong that can: clients that leave, an upstream that fails, proxies and
Redis killed with -9, a failover to a replica that has not seen everything. At the end everybody must have counted the same.

A failover loses what the old master had acknowledged and not yet copied. Spend is exact again once the journals were
replayed; a budget may for that moment have been admitted beyond its limit, by no more than was in flight. The tight keys
are therefore checked against their limits only in runs without failover."""

import asyncio
import random
import time
from collections import Counter

from stand import BASE_RULE, Call, Checks, Stand

OPERATIONS = ("converse", "converse-stream", "invoke", "invoke-with-response-stream")
FAULTS = (
    {"kind": "throttle", "retry_after_s": 1},
    {"kind": "error", "status": 500, "error_type": "InternalServerException"},
    {"kind": "error", "status": 503, "error_type": "ServiceUnavailableException"},
    {"kind": "error", "status": 400, "error_type": "ValidationException"},
    {"kind": "cut", "after_frames": 2},
    {"kind": "cut_mid_frame", "after_frames": 1},
    {"kind": "bad_crc", "frame": 1},
    {"kind": "exception_frame", "after_frames": 1, "name": "modelStreamErrorException"},
    {"kind": "stall_mid_stream", "after_frames": 1, "ms": 1500},
    {"kind": "reset", "after_frames": 1},
    {"kind": "reset"},
    {"kind": "slow_body", "bytes": 200, "interval_ms": 5},
)


class Soak:
    def __init__(self, options, stand):
        self.options = options
        self.stand = stand
        self.chance = random.Random(options.seed)
        self.outcomes = Counter()
        self.events = Counter()
        self.over = asyncio.Event()
        self.overspent = []

    async def keys(self):
        """Keys that nobody exhausts, and some that are exhausted soon."""
        typical = await self.stand.cost(Call.make("converse", max_tokens=200))
        self.keys_in_use = [await self.stand.key(limit=10_000_000 * typical) for _ in range(3)]
        self.tight = [await self.stand.key(limit=count * typical) for count in (10, 300, 3000)]
        self.keys_in_use += self.tight

    def _call(self):
        text = "word " * self.chance.randint(1, 200)
        return Call.make(self.chance.choice(OPERATIONS), text=text, max_tokens=self.chance.randint(1, 400))

    def _leaving(self):
        dice = self.chance.random()
        if dice < 0.08:
            return {"leave_after_s": self.chance.uniform(0, 0.05)}
        if dice < 0.2:
            return {"leave_after_bytes": self.chance.randint(1, 2000)}
        return {}

    async def press(self):
        while not self.over.is_set():
            answer = await self.stand.call(self.chance.choice(self.keys_in_use), self._call(), **self._leaving())
            what = answer.status or "no answer"
            self.outcomes["left" if answer.error == "left" else what] += 1
            # A refusal costs the client nothing; without a pause refusals would be all there is.
            if answer.status != 200:
                await asyncio.sleep(self.chance.uniform(0.01, 0.1))

    async def spoil(self):
        """Other faults every second. Streams are slow enough to be left in the middle."""
        base = BASE_RULE | ({"bill": self.options.bill} if self.options.bill else {})
        while not self.over.is_set():
            faults = self.chance.sample(FAULTS, 3)
            rules = [{"match": {"skip": self.chance.randint(0, 20), "times": 3}, "fault": fault} for fault in faults]
            rules.append(base | {"frame_rate_hz": self.chance.choice((0, 20, 200)), "delay_ms": self.chance.choice((0, 0, 20, 300))})
            await asyncio.to_thread(self.stand.simulator.behave, *rules)
            await self._pause(1)
        await asyncio.to_thread(self.stand.simulator.behave, base)

    async def kill_proxies(self):
        while await self._pause(self.chance.uniform(0.5, 1.5) * self.options.kill_proxy_every):
            proxy = self.chance.choice(self.stand.proxies)
            await asyncio.to_thread(proxy.kill)
            self.events["proxies killed"] += 1
            await asyncio.sleep(self.chance.uniform(0, 3))
            await asyncio.to_thread(proxy.start)

    async def kill_redis(self):
        while await self._pause(self.chance.uniform(0.5, 1.5) * self.options.kill_redis_every):
            redis = self.stand.redis[0]
            await asyncio.to_thread(redis.kill)
            self.events["Redis killed"] += 1
            await asyncio.sleep(self.chance.uniform(0, 2))
            await asyncio.to_thread(redis.start)

    async def fail_over(self):
        """The replica stops following, the master goes on for a while and dies, the replica takes its place."""
        while await self._pause(self.chance.uniform(0.5, 1.5) * self.options.failover_every):
            master, replica = self.stand.redis[0], self.stand.redis[-1]
            await asyncio.to_thread(replica.promote)
            await asyncio.sleep(self.chance.uniform(0, self.options.failover_lag))
            await asyncio.to_thread(master.kill)
            self.stand.switch.to(None)
            await asyncio.sleep(self.chance.uniform(0, 1))
            self.stand.switch.to(replica.port)
            self.events["failovers"] += 1
            self.stand.redis[:] = [replica]
            await self.stand.add_replica()

    async def watch(self):
        """Limits hold at every moment, not only at the end."""
        while await self._pause(2):
            for key in self.tight:
                try:
                    spent = await self.stand.spent(key)
                except (OSError, AssertionError, StopIteration, RuntimeError):
                    # The proxy that was asked was killed.
                    continue
                self.events["balances looked at"] += 1
                if spent > key.limit:
                    self.overspent.append(f"{key.key_id}: {spent} of {key.limit}")

    async def _pause(self, seconds):
        """False when it is over."""
        try:
            await asyncio.wait_for(self.over.wait(), seconds)
        except TimeoutError:
            return True
        return False

    async def run(self):
        await self.keys()
        options = self.options
        tasks = [self.press() for _ in range(options.clients)] + [self.spoil(), self.watch()]
        if options.kill_proxy_every:
            tasks.append(self.kill_proxies())
        if options.failover_every and self.stand.switch:
            tasks.append(self.fail_over())
        elif options.kill_redis_every and self.stand.redis:
            tasks.append(self.kill_redis())
        running = [asyncio.create_task(task) for task in tasks]
        end = time.monotonic() + options.minutes * 60
        while time.monotonic() < end:
            done, _ = await asyncio.wait(running, timeout=min(30, max(0.1, end - time.monotonic())),
                                         return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            print(f"       {end - time.monotonic():5.0f} s left; {dict(self.outcomes)}; {dict(self.events)}", flush=True)
        self.over.set()
        await asyncio.gather(*running)


async def soak(options, store, proxies, failover):
    what = " with failovers" if failover else ""
    checks = Checks(f"soak: {options.minutes} minutes, {options.clients} clients, {store}, {proxies} proxies{what}, seed {options.seed}")
    stand = await Stand.open(options, store, proxies, replica=failover)
    try:
        soak = Soak(options, stand)
        await soak.run()
        checks.note(f"answers: {dict(soak.outcomes)}; {dict(soak.events)}")
        checks.that("calls were served", soak.outcomes[200] > 0)
        if failover:
            for key in soak.tight:
                over = max(0, await stand.spent(key) - key.limit)
                checks.note(f"{key.key_id}: {over} n$ beyond its limit of {key.limit}")
                key.limit = None
        else:
            checks.equal("limits that were exceeded at any moment", soak.overspent, [])
        checks.that("everybody counted the same", await stand.settled("accounts"))
        counters = await asyncio.to_thread(stand.simulator.counters)
        checks.equal("requests that must not reach AWS", counters["violations"] + counters["authentication_failures"], 0)
    finally:
        await stand.close()
    return checks.failed


async def run(options):
    failed = []
    if options.store in (None, "embedded") and not options.failover:
        failed += await soak(options, "embedded", 1, False)
    if options.store in (None, "redis") and not options.failover:
        failed += await soak(options, "redis", options.proxies, False)
    if options.failover or (options.store is None and options.failover_every):
        failed += await soak(options, "redis", options.proxies, True)
    return failed
