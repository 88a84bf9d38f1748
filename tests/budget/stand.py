"""What a scenario stands on: a simulator, a store, proxies, keys, calls; and the accounts of all of them at the end."""

import asyncio
import datetime
import itertools
import json
import tempfile
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

import accounts
import money
from client import Client
from processes import MASTER_KEY, ROOT, Proxy, Redis, Simulator
from switch import Switch

# Tokens as many as a request can cause, billed as soon as it arrives: an upper bound is then what the call costs, also
# of a call whose proxy was killed.
BASE_RULE = {"tokens": "bytes", "bill": "arrived"}

# Metrics of a proxy that are zero when nothing is left to be done.
AT_REST_ZERO = (
    "dheera_ai_requests_in_flight",
    "dheera_ai_journal_backlog",
    "dheera_ai_leases_open",
)


@dataclass
class Call:
    """A request to a model."""

    path: str
    body: bytes
    streamed: bool

    @classmethod
    def make(cls, operation="converse", model=None, text="Hello there, how are you?", max_tokens=100):
        if operation.startswith("converse"):
            body = {"messages": [{"role": "user", "content": [{"text": text}]}]}
            body["inferenceConfig"] = {"maxTokens": max_tokens}
        else:
            body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": max_tokens}
            body["messages"] = [{"role": "user", "content": text}]
        model = model or ("nova" if operation.startswith("converse") else "claude")
        path = f"/bedrock/model/{urllib.parse.quote(model, safe='')}/{operation}"
        return cls(path, json.dumps(body, separators=(",", ":")).encode(), "stream" in operation)


@dataclass
class Key:
    secret: str
    key_id: str
    # In nano-dollars and for ever; None for keys without a budget or with a period.
    limit: int | None = None


@dataclass
class Stand:
    """Everything a scenario started."""

    directory: Path
    binary: Path
    rest_s: float
    simulator: Simulator
    client: Client
    redis: list = field(default_factory=list)
    proxies: list = field(default_factory=list)
    keys: list = field(default_factory=list)
    switch: Switch | None = None
    answered: set = field(default_factory=set)
    turns: itertools.count = field(default_factory=itertools.count)

    @classmethod
    async def open(cls, options, store="embedded", proxies=1, replica=False, rule=None, **settings):
        """`settings` go to `general_settings`."""
        directory = Path(tempfile.mkdtemp(prefix="budget-", dir=options.directory))
        binaries = ROOT / "target" / options.profile
        simulator = Simulator(directory / "simulator", options.simulator or binaries / "bedrock-sim")
        stand = cls(directory, options.proxy or binaries / "dheera_ai", options.rest, simulator, Client())
        try:
            simulator.behave(BASE_RULE | (rule or {}))
            port = await stand._open_store(store, replica)
            for number in range(proxies):
                proxy = stand.proxy(f"proxy-{number}", port, settings)
                stand.proxies.append(proxy)
                await asyncio.to_thread(proxy.start)
        except BaseException:
            await stand.close()
            raise
        return stand

    def proxy(self, name, redis_port, settings):
        return Proxy(name, self.directory / name, self.binary, self.simulator, redis_port, settings)

    async def _open_store(self, store, replica):
        if store == "embedded":
            return None
        master = Redis("redis", self.directory / "redis")
        self.redis.append(master)
        await asyncio.to_thread(master.start)
        if not replica:
            return master.port
        await self.add_replica()
        self.switch = await Switch(master.port).open()
        return self.switch.port

    async def add_replica(self):
        """A server that follows the first one."""
        replica = Redis(f"redis-{len(self.redis)}", self.directory / f"redis-{len(self.redis)}", self.redis[0].port)
        self.redis.append(replica)
        await asyncio.to_thread(replica.start)
        await eventually(replica.in_sync, "the replica to catch up")

    @property
    def simulators(self):
        """Everybody who bills."""
        return [self.simulator]

    async def close(self):
        self.client.close()
        statuses = {}
        for process in [*self.proxies, *self.simulators, *self.redis]:
            statuses[process.name] = await asyncio.to_thread(process.stop)
        if self.switch:
            await self.switch.close()
        return statuses

    # Keys.

    async def key(self, limit=None, **fields):
        """Makes a key; `limit` in nano-dollars."""
        body = dict(fields)
        if limit is not None:
            body["max_budget"] = money.dollars(limit)
        made = await self.admin("POST", "/key/generate", body)
        for_ever = limit if "budget_duration" not in fields else None
        key = Key(made["key"], made.get("key_id") or made["token_id"], for_ever)
        self.keys.append(key)
        return key

    async def admin(self, method, path, body=None, proxy=None):
        """Asks a proxy that runs."""
        proxy = proxy or next(proxy for proxy in self.proxies if proxy.alive)
        return await asyncio.to_thread(proxy.must, method, path, body)

    async def spent(self, key):
        """Nano-dollars, as the proxies tell of a key."""
        answer = await self.admin("GET", f"/key/info?key={key.key_id}")
        return money.nano(answer["info"]["spend"])

    # Calls.

    async def call(self, key, call, proxy=None, **leaving):
        proxy = proxy or self.proxies[next(self.turns) % len(self.proxies)]
        answer = await self.client.call(proxy.url, "POST", call.path, key.secret if key else MASTER_KEY, call.body, **leaving)
        if answer.whole and answer.status == 200:
            self.answered.add(answer.call_id)
        return answer

    async def cost(self, call):
        """What a call costs, by the simulator's bill of one that the master key makes."""
        before = await asyncio.to_thread(lambda: self.simulator.billed()["total_nano_usd"])
        answer = await self.call(None, call)
        assert answer.status == 200, answer
        return await asyncio.to_thread(lambda: self.simulator.billed()["total_nano_usd"]) - before

    # Accounts.

    async def rest(self):
        """Waits until every proxy is idle and has told the store everything; gives what is still open otherwise."""
        for proxy in self.proxies:
            if not proxy.alive:
                await asyncio.to_thread(proxy.start)

        def open_still():
            found = []
            for proxy in self.proxies:
                sums = proxy.metrics()
                # The scrape itself is one request in flight.
                sums["dheera_ai_requests_in_flight"] -= 1
                found += [f"{proxy.name}: {name} {sums[name]:.0f}" for name in AT_REST_ZERO if sums.get(name)]
            return found

        deadline = time.monotonic() + self.rest_s
        while (found := await asyncio.to_thread(open_still)) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        # Request records gather for some milliseconds.
        await asyncio.sleep(0.5)
        return found

    def _entries(self, proxy):
        today = datetime.datetime.now(datetime.UTC).date()
        day = datetime.timedelta(days=1)
        query = {"start_date": today - day, "end_date": today + day, "page_size": 1000}
        entries = []
        while True:
            page = proxy.must("GET", "/spend/logs?" + urllib.parse.urlencode(query))
            entries += [accounts.Entry.of(row) for row in page["data"]]
            if page["next_page_token"] is None:
                return entries
            query["page_token"] = page["next_page_token"]

    def _books(self):
        proxy = self.proxies[0]
        metrics = [proxy.metrics() for proxy in self.proxies]
        today = datetime.datetime.now(datetime.UTC).date()
        total = proxy.must("GET", f"/global/spend?start_date={today - datetime.timedelta(days=1)}")
        infos = [(key, proxy.must("GET", f"/key/info?key={key.key_id}")["info"]) for key in self.keys]
        return accounts.Books(
            entries=self._entries(proxy),
            accounts=[
                accounts.Account(key.key_id, money.nano(info.get("total_spend", info["spend"])), key.limit)
                for key, info in infos
            ],
            global_spend=money.nano(total["spend"]),
            records=[record for proxy in self.proxies for record in proxy.records()],
            bill=[row for simulator in self.simulators for row in simulator.rows()],
            billed_total=sum(simulator.billed()["total_nano_usd"] for simulator in self.simulators),
            answered=self.answered,
            overrun=int(sum(sums.get("dheera_ai_budget_overrun_nano_usd_total", 0) for sums in metrics)),
            open_leases=int(max(sums.get("dheera_ai_leases_open", 0) for sums in metrics)),
        )

    async def settled(self, title):
        """Comes to rest, compares everything and prints it; true when all is exact."""
        open_still = await self.rest()
        verdict = accounts.reconcile(await asyncio.to_thread(self._books))
        if open_still:
            verdict.faults.append((f"no rest within {self.rest_s:.0f} s", open_still))
        verdict.print(title)
        return not verdict.faults


async def eventually(condition, what, deadline_s=60):
    """Waits, without holding up the loop, until a blocking `condition` gives something."""
    deadline = time.monotonic() + deadline_s
    while not (value := await asyncio.to_thread(condition)):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        await asyncio.sleep(0.05)
    return value


class Checks:
    """Collects what should be and what is."""

    def __init__(self, title):
        self.title = title
        self.failed = []
        print(f"\n== {title}", flush=True)

    def equal(self, what, seen, expected):
        self.that(f"{what}: {seen}, expected {expected}", seen == expected)

    def that(self, what, holds):
        print(f"  {'ok  ' if holds else 'FAIL'} {what}", flush=True)
        if not holds:
            self.failed.append(f"{self.title}: {what}")

    def note(self, what):
        print(f"       {what}", flush=True)
