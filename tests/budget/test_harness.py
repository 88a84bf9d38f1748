"""The harness itself, which has to notice every difference it looks for.

    BEDROCK_SIM=target/debug/bedrock-sim python3 -m unittest discover tests/budget
"""

import asyncio
import dataclasses
import os
import sys
import tempfile
import unittest
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import accounts
import money
from client import Client
from processes import ROOT, Redis, Simulator, sums_of_metrics
from stand import Call, eventually
from switch import Switch


def books():
    """Two calls of one key that everybody counted the same, and one whose proxy was killed."""
    entry = accounts.Entry
    return accounts.Books(
        entries=[
            entry("c1", "k", 100, "request", "exact"),
            entry("c2", "k", 50, "request", "unknown"),
            entry("c3", "k", 70, "expired", ""),
            entry("c3", "k", -20, "corrected", "exact"),
        ],
        accounts=[accounts.Account("k", 200, 200)],
        global_spend=200,
        records=[
            {"call_id": "c1", "aws_request_id": "a1", "cost_nano_usd": 100, "usage_certainty": "exact"},
            {"call_id": "c2", "aws_request_id": "a2", "usage_certainty": "unknown"},
            {"call_id": "c4", "cost_nano_usd": 0},
        ],
        bill=[
            {"request_id": "a1", "cost_nano_usd": 100},
            {"request_id": "a2", "cost_nano_usd": 40},
            {"request_id": "a3", "cost_nano_usd": 50},
        ],
        billed_total=190,
        answered={"c1"},
    )


class Reconciling(unittest.TestCase):
    def faults(self, **changes):
        return [what for what, _ in accounts.reconcile(dataclasses.replace(books(), **changes)).faults]

    def test_books_that_agree_have_no_fault(self):
        self.assertEqual(self.faults(), [])

    def test_every_difference_is_found(self):
        one = books()
        rows = one.bill
        for fault, changes in {
            "the log's sum is not the daily sums'": {"global_spend": 201},
            "an account is not the sum of its entries": {"accounts": [accounts.Account("k", 199, 200)]},
            "a budget is overspent": {"accounts": [accounts.Account("k", 200, 199)]},
            "spent beyond what was reserved": {"overrun": 1},
            "still reserved at rest": {"open_leases": 1},
            "a request record is not what was booked": {"records": [one.records[0] | {"cost_nano_usd": 99}, *one.records[1:]]},
            "a client was answered and nothing was booked": {"answered": {"c9"}},
            "a call with stated usage is not booked as billed": {"bill": [rows[0] | {"cost_nano_usd": 99}, *rows[1:]], "billed_total": 189},
            "a call is booked below its bill": {"bill": [rows[0], rows[1] | {"cost_nano_usd": 51}, rows[2]], "billed_total": 201},
            "calls without an id of AWS are booked below their bill": {"bill": [*rows[:2], rows[2] | {"cost_nano_usd": 51}], "billed_total": 191},
            "less is booked than billed": {"billed_total": 201, "bill": []},
            "the simulator lost rows of its bill": {"bill": rows[:2]},
        }.items():
            with self.subTest(fault):
                self.assertIn(fault, self.faults(**changes))

    def test_a_call_that_was_booked_twice_is_found(self):
        twice = [*books().entries, accounts.Entry("c1", "k", 100, "request", "exact")]
        found = self.faults(entries=twice, global_spend=300, accounts=[accounts.Account("k", 300, 300)])
        self.assertEqual(found, ["a request record is not what was booked", "a call with stated usage is not booked as billed"])

    def test_rows_of_the_spend_log_are_read_exactly(self):
        row = money.load(
            '{"request_id":"r","api_key":null,"spend":-0.000000001,"metadata":{"kind":"corrected","certainty":null}}')
        self.assertEqual(accounts.Entry.of(row), accounts.Entry("r", "", -1, "corrected", ""))


class Money(unittest.TestCase):
    def test_amounts_survive_json(self):
        for amount in (0, 1, -1, 12_870_000, 40 * money.NANO, 9_007_199_254_740_991):
            text = money.dump({"max_budget": money.dollars(amount), "name": "x"})
            self.assertEqual(money.nano(money.load(text)["max_budget"]), amount)
            self.assertNotIn("e", text.replace("name", "").replace("max_budget", ""))
        self.assertEqual(money.dump([money.dollars(12_870_000)]), "[0.01287]")

    def test_what_is_finer_than_a_nano_dollar_is_refused(self):
        self.assertRaises(ValueError, money.nano, Decimal("0.0000000001"))


class Metrics(unittest.TestCase):
    def test_series_of_a_name_are_added(self):
        text = '# HELP a x\na{b="c d"} 1\na{b="e"} 2\nb 7\n'
        self.assertEqual(sums_of_metrics(text), {"a": 3, "b": 7})


class Clients(unittest.IsolatedAsyncioTestCase):
    async def serve(self, *answers):
        """A server that gives each connection the next of the answers and then closes it."""
        left = list(answers)

        async def handle(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(left.pop(0))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        self.addAsyncCleanup(server.wait_closed)
        self.addCleanup(server.close)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def test_answers_are_read_to_their_end_and_cuts_are_seen(self):
        head = b"HTTP/1.1 200 OK\r\nX-Dheera-AI-Call-Id: c1\r\n"
        url = await self.serve(
            head + b"content-length: 3\r\n\r\nabc",
            head + b"content-length: 4\r\n\r\nabc",
            head + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
            head + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nd",
            b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
            b"",
        )
        client = Client()
        seen = []
        for _ in range(6):
            client.close()
            answer = await client.call(url, "POST", "/", "sk-x", b"{}")
            seen.append((answer.status, answer.body, answer.whole))
        self.assertEqual(seen, [
            (200, b"abc", True), (200, b"abc", False), (200, b"abcde", True), (200, b"abc", False), (503, b"", True),
            (0, b"", False),
        ])

    async def test_a_client_can_leave(self):
        url = await self.serve(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabcdef")
        answer = await Client().call(url, "GET", "/", leave_after_bytes=2)
        self.assertEqual((answer.status, answer.whole, answer.error), (200, False, "left"))


class Processes(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="budget-harness-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def test_the_simulator_delays_counts_and_bills(self):
        binary = Path(os.environ.get("BEDROCK_SIM", ROOT / "target/debug/bedrock-sim")).resolve()
        simulator = Simulator(self.directory, binary)
        self.addCleanup(simulator.stop)
        simulator.behave({"tokens": "bytes", "bill": "arrived", "delay_ms": 300})
        self.assertEqual(simulator.counters()["max_concurrent"], {"all": 0, "by_model": {}, "by_access_key": {}})
        self.assertEqual((simulator.billed()["count"], simulator.rows()), (0, []))
        self.assertEqual(simulator.stop(), 0)

    async def test_a_replica_takes_over_what_it_has_seen(self):
        master = await asyncio.to_thread(Redis("master", self.directory / "master").start)
        self.addCleanup(master.kill)
        replica = await asyncio.to_thread(Redis("replica", self.directory / "replica", master.port).start)
        self.addCleanup(replica.kill)
        await eventually(replica.in_sync, "the replica to catch up")
        switch = await Switch(master.port).open()
        self.addAsyncCleanup(switch.close)
        through = Redis("through", self.directory / "through")
        through.port = switch.port

        def ask(*command):
            return asyncio.to_thread(through.command, *command)

        self.assertEqual(await ask("SET", "kept", 1), "OK")
        await eventually(lambda: replica.command("GET", "kept") == "1", "the copy")
        await asyncio.to_thread(replica.promote)
        await ask("SET", "lost", 1)
        await asyncio.to_thread(master.kill)
        switch.to(None)
        with self.assertRaises((OSError, RuntimeError)):
            await ask("PING")
        switch.to(replica.port)
        self.assertEqual([await ask("GET", "kept"), await ask("GET", "lost")], ["1", None])
        # What was acknowledged survives kill -9.
        await asyncio.to_thread(replica.kill)
        await asyncio.to_thread(replica.start)
        self.assertEqual(await ask("GET", "kept"), "1")


class Calls(unittest.TestCase):
    def test_a_call_has_its_operations_form(self):
        call = Call.make("converse-stream", max_tokens=7)
        self.assertEqual((call.path, call.streamed), ("/bedrock/model/nova/converse-stream", True))
        self.assertEqual(money.load(call.body)["inferenceConfig"], {"maxTokens": 7})
        self.assertEqual(money.load(Call.make("invoke", max_tokens=7).body)["max_tokens"], 7)


if __name__ == "__main__":
    unittest.main()
