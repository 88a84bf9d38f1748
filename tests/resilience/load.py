"""The load, in a process of its own, so that neither the scenario nor a forwarder can slow it down.

    python3 load.py '{"url": "http://127.0.0.1:4000", "key": "sk-…", "rate": 200, "mix": {"converse": 1}}'

Open loop with `rate` (requests per second, sent when they are due, whatever became of those before), closed loop with
`workers`. Each request that ended is a JSON line on stdout (`Result` of pressure.py); the last line is a summary that
says how late requests were sent, so that a load that fell behind is seen. A line on stdin, or its end, stops it: what
is open is waited for. Nothing is ever sent twice, so what a client of another make would repeat is seen here.
"""

import asyncio
import json
import random
import resource
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "budget"))

from stand import Call
from wire import MODELLED_EXCEPTIONS, Answer, Damaged, Frames


class Connection(asyncio.Protocol):
    """One connection and the exchange on it, if there is one."""

    def __init__(self):
        self.transport = None
        self.exchanges = 0
        self.exchange = None
        self.open = True

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if self.exchange is None:
            # Nobody asked for anything.
            self.transport.abort()
        else:
            self.exchange.received(data)

    def connection_lost(self, error):
        self.open = False
        if self.exchange is not None:
            self.exchange.lost(error)

    def begin(self, exchange, data):
        self.exchange = exchange
        self.exchanges += 1
        self.transport.write(data)

    def end(self, reusable):
        self.exchange = None
        if not reusable:
            self.transport.abort()


class Exchange:
    """A request and what came of it."""

    def __init__(self, streamed):
        self.answer = Answer()
        self.frames = Frames() if streamed else None
        self.header_at = self.content_at = None
        self.names = []
        self.trouble = ""
        self.done = asyncio.get_running_loop().create_future()

    def received(self, data):
        try:
            body = self.answer.feed(data)
            if self.header_at is None and self.answer.status:
                self.header_at = time.monotonic()
            if self.frames and self.answer.status == 200 and body:
                self.names += self.frames.feed(body)
                if self.content_at is None and any("Delta" in name for _, name in self.names):
                    self.content_at = time.monotonic()
        except Damaged as error:
            self._finish(f"damaged: {error}")
        else:
            if self.answer.whole:
                self._finish("")

    def lost(self, error):
        self.answer.closed()
        self._finish("" if self.answer.whole else "reset" if error else "closed")

    def _finish(self, trouble):
        if not self.done.done():
            self.trouble = trouble
            self.done.set_result(None)

    def verdict(self):
        """One word for what the client has seen. `silent` is what must never be: an end that looks like a success."""
        if not self.answer.status:
            return self.trouble or "hang"
        if self.answer.status != 200:
            return "refused" if self.answer.whole else "cut"
        if self.names and self.names[-1][0] in ("exception", "error"):
            kind, name = self.names[-1]
            return "exception" if kind == "exception" and name in MODELLED_EXCEPTIONS else "unmodelled"
        if self.trouble:
            return self.trouble.split(":")[0] if self.trouble.startswith("damaged") else "cut"
        if not self.answer.whole:
            return "hang"
        if self.frames is None:
            return "ok"
        return "ok" if ("event", "metadata") in self.names and not self.frames.buffer else "silent"


class Load:
    def __init__(self, plan):
        self.plan = plan
        self.address = urlsplit(plan["url"])
        self.idle = []
        self.open = set()
        self.late = []
        self.count = 0
        self.over = asyncio.Event()
        self.chance = random.Random(plan.get("seed", 1))
        self.calls = [self._call(name, weight) for name, weight in plan["mix"].items()]
        self.weights = [weight for _, _, weight in self.calls]

    def _call(self, operation, weight):
        plan = self.plan
        text = "word " * plan.get("words", 10)
        call = Call.make(operation, model=plan.get("model"), text=text, max_tokens=plan.get("max_tokens", 20))
        head = (
            f"POST {call.path} HTTP/1.1\r\nhost: {self.address.netloc}\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {plan['key']}\r\ncontent-length: {len(call.body)}\r\n\r\n"
        )
        return call.streamed, head.encode() + call.body, weight

    async def _connection(self):
        while self.idle:
            connection = self.idle.pop()
            if connection.open and not connection.transport.is_closing():
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self.address.hostname, self.address.port)
        return connection

    async def one(self, due):
        streamed, data, _ = self.chance.choices(self.calls, self.weights)[0]
        exchange = Exchange(streamed)
        begun, at = time.monotonic(), time.time()
        self.late.append(begun - due)
        connection, used_before, trouble = None, 0, ""
        try:
            async with asyncio.timeout(self.plan.get("timeout_s", 60)):
                connection = await self._connection()
                used_before = connection.exchanges
                connection.begin(exchange, data)
                await exchange.done
        except TimeoutError:
            trouble = "hang"
        except OSError:
            trouble = "unreachable" if connection is None else "reset"
        if connection is not None:
            reusable = exchange.answer.reusable and not trouble and connection.open
            connection.end(reusable)
            if reusable:
                self.idle.append(connection)
        self._tell(exchange, streamed, due, begun, at, used_before, trouble)
        return trouble or exchange.verdict()

    def _tell(self, exchange, streamed, due, begun, at, used_before, trouble):
        def after(moment):
            return None if moment is None else round(moment - due, 5)

        headers = exchange.answer.headers
        self.count += 1
        print(json.dumps({
            "streamed": streamed, "at": round(at - (begun - due), 5), "took": after(time.monotonic()),
            "header": after(exchange.header_at), "content": after(exchange.content_at),
            "verdict": trouble or exchange.verdict(), "status": exchange.answer.status,
            "exception": exchange.names[-1][1] if exchange.names and exchange.names[-1][0] != "event" else "",
            "error_type": headers.get("x-amzn-errortype", ""), "retry_after": "retry-after" in headers,
            "call_id": headers.get("x-dheera-ai-call-id", ""),
            "deployment": headers.get("x-dheera-ai-deployment", ""),
            "attempts": int(headers.get("x-dheera-ai-attempts") or 0), "used_before": used_before,
        }, separators=(",", ":")), flush=True)

    async def open_loop(self):
        interval = 1 / self.plan["rate"]
        due = time.monotonic()
        while not self.over.is_set():
            due += interval
            if (left := due - time.monotonic()) > 0:
                await asyncio.sleep(left)
            task = asyncio.create_task(self.one(due))
            self.open.add(task)
            task.add_done_callback(self.open.discard)

    async def closed_loop(self):
        async def worker():
            while not self.over.is_set():
                if await self.one(time.monotonic()) != "ok":
                    # A refusal costs the client nothing; without a pause refusals would be all there is.
                    await asyncio.sleep(self.plan.get("pause_s", 0.05))

        await asyncio.gather(*(worker() for _ in range(self.plan["workers"])))

    async def run(self):
        loop = asyncio.get_running_loop()
        # The scenario says when it is over, or goes away, which ends stdin.
        loop.add_reader(sys.stdin, lambda: (loop.remove_reader(sys.stdin), self.over.set()))
        await (self.open_loop() if "rate" in self.plan else self.closed_loop())
        if self.open:
            await asyncio.wait(self.open)
        for connection in self.idle:
            connection.transport.abort()
        used = resource.getrusage(resource.RUSAGE_SELF)
        late = sorted(self.late) or [0]
        print(json.dumps({"summary": {
            "sent": self.count, "cpu_s": round(used.ru_utime + used.ru_stime, 3),
            "late_p50_s": round(late[len(late) // 2], 5), "late_p99_s": round(late[len(late) * 99 // 100], 5),
        }}), flush=True)


if __name__ == "__main__":
    asyncio.run(Load(json.loads(sys.argv[1])).run())
