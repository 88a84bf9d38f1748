"""The harness itself, which has to notice every failure it looks for."""

import asyncio
import contextlib
import io
import json
import socket
import ssl
import struct
import sys
import tempfile
import unittest
import zlib
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "budget")]

import faults
import forwarder
import lifecycle
import overload
import timeline
from load import Exchange
from pressure import Pressure, Result, failures, latency, percentile, verdicts
from regions import REGIONS, Certificates, Names, host
from report import Report, told
from wire import Answer, Damaged, Frames


def frame(kind, name, payload=b"{}"):
    """A frame, written by the format's description."""
    headers = b""
    for key, value in ((":message-type", kind), (f":{kind}-type" if kind != "error" else ":error-code", name)):
        headers += bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    data = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers + payload
    return data + struct.pack(">I", zlib.crc32(data))


OPENING, DELTA, END = frame("event", "messageStart"), frame("event", "contentBlockDelta"), frame("event", "metadata")
THROTTLED = frame("exception", "throttlingException")


def chunked(*chunks):
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Dheera-AI-Call-Id: c1\r\n\r\n"


class Wire(unittest.TestCase):
    def test_frames_are_the_same_however_they_are_split(self):
        data = OPENING + DELTA + THROTTLED
        for size in range(1, len(data)):
            frames = Frames()
            seen = [one for at in range(0, len(data), size) for one in frames.feed(data[at:at + size])]
            self.assertEqual(seen, [
                ("event", "messageStart"), ("event", "contentBlockDelta"), ("exception", "throttlingException")])
            self.assertFalse(frames.buffer)

    def test_every_changed_byte_of_a_frame_is_noticed(self):
        for at in range(len(DELTA)):
            damaged = bytearray(DELTA)
            damaged[at] ^= 0xff
            with self.assertRaises(Damaged):
                # What follows, because a wrong length may wait for more.
                Frames().feed(bytes(damaged) + OPENING)

    def test_answers_are_the_same_however_they_are_split(self):
        whole = STREAM_HEAD + chunked(b"abc", b"de") + b"0\r\n\r\n"
        for size in range(1, len(whole)):
            answer = Answer()
            body = b"".join(bytes(answer.feed(whole[at:at + size])) for at in range(0, len(whole), size))
            self.assertEqual((answer.status, body, answer.whole, answer.reusable), (200, b"abcde", True, True))

    def test_an_answer_without_its_end_is_not_whole(self):
        for cut in (
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc", STREAM_HEAD + chunked(b"abc"),
            STREAM_HEAD + chunked(b"abc") + b"0\r\n", b"HTTP/1.1 200 OK\r\n",
        ):
            answer = Answer()
            answer.feed(cut)
            answer.closed()
            self.assertFalse(answer.whole, cut)

    def test_an_answer_without_a_length_ends_with_its_connection(self):
        answer = Answer()
        answer.feed(b"HTTP/1.1 503 Busy\r\n\r\nabc")
        self.assertFalse(answer.whole)
        answer.closed()
        self.assertEqual((answer.status, answer.whole, answer.reusable), (503, True, False))

    def test_nonsense_is_refused(self):
        for nonsense in (b"\x16\x03\x01\r\n\r\n", b"HTTP/1.1 OK\r\n\r\n", STREAM_HEAD + b"xyz\r\n"):
            with self.assertRaises(Damaged):
                Answer().feed(nonsense)


class Verdicts(unittest.IsolatedAsyncioTestCase):
    async def verdict(self, data, lost=False, streamed=True):
        exchange = Exchange(streamed)
        exchange.received(data)
        if lost:
            exchange.lost(None)
        return exchange.verdict()

    async def test_each_end_of_a_stream_has_its_word(self):
        end = b"0\r\n\r\n"
        for verdict, data, lost in [
            ("ok", chunked(OPENING, DELTA, END) + end, False),
            ("silent", chunked(OPENING, DELTA) + end, False),
            ("silent", end, False),
            ("silent", chunked(OPENING, DELTA, END, DELTA[:20]) + end, False),
            ("exception", chunked(OPENING, DELTA, THROTTLED) + end, False),
            ("exception", chunked(THROTTLED) + end, False),
            ("unmodelled", chunked(OPENING, frame("error", "oops")) + end, False),
            ("unmodelled", chunked(OPENING, frame("exception", "madeUpException")) + end, False),
            ("cut", chunked(OPENING, DELTA), True),
            ("cut", chunked(OPENING, DELTA, END), True),
            ("damaged", chunked(DELTA[:-1] + b"!") + end, False),
            ("hang", chunked(OPENING, DELTA), False),
        ]:
            self.assertEqual(await self.verdict(STREAM_HEAD + data, lost), verdict, (data, lost))

    async def test_each_end_of_another_answer_has_its_word(self):
        head = b"HTTP/1.1 %s\r\ncontent-length: 3\r\n\r\n"
        for verdict, data, lost in [
            ("ok", head % b"200 OK" + b"abc", False),
            ("cut", head % b"200 OK" + b"ab", True),
            ("refused", head % b"503 Busy" + b"abc", False),
            ("cut", head % b"503 Busy" + b"ab", True),
            ("hang", head % b"200 OK", False),
            ("closed", b"", True),
        ]:
            self.assertEqual(await self.verdict(data, lost, streamed=False), verdict, (data, lost))


def result(**changes):
    return Result(**{
        "streamed": False, "at": 0.0, "took": 0.1, "header": 0.1, "content": None, "verdict": "ok", "status": 200,
        "exception": "", "error_type": "", "retry_after": False, "call_id": "c", "deployment": "r", "attempts": 1,
        "used_before": 0} | changes)


class Figures(unittest.TestCase):
    def test_percentiles_are_values_that_occurred(self):
        self.assertEqual([percentile(range(100), share) for share in (0, 0.5, 0.99, 1)], [0, 50, 99, 99])
        self.assertIsNone(percentile([], 0.5))

    def test_only_answers_have_a_latency_and_streams_that_of_their_content(self):
        self.assertEqual(
            latency([result(took=0.3), result(streamed=True, took=5, content=0.2), result(verdict="cut", took=9)]),
            {"count": 2, "p50_ms": 300.0, "p99_ms": 300.0})
        self.assertEqual(verdicts([result(), result(), result(verdict="cut")]), "2 ok, 1 cut")
        self.assertEqual(len(failures([result(), result(verdict="exception")])), 1)

    def test_goodput_counts_what_was_served_in_time(self):
        results = [result(at=0.5), result(at=0.95), result(at=0.5, verdict="refused")]
        self.assertEqual(overload.goodput(results, 0.0, 1.0), 1.0)

    def test_a_check_that_finds_something_fails(self):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            report = Report("x", "y")
            report.none("errors", [])
            self.assertEqual(report.failed, [])
            report.none("errors", range(12))
        self.assertEqual(len(report.failed), 1)
        self.assertIn("and 2 more", output.getvalue())
        self.assertEqual(told({"a": 1.234, "b": None}), "a 1.23, b -")


class Timelines(unittest.TestCase):
    @staticmethod
    def even(region, begin, end, per_s):
        return [timeline.Attempt(begin + n / per_s, region, False) for n in range(int((end - begin) * per_s))]

    def use(self, attempts):
        return timeline.use(attempts, "bad", 10, 20, fair_per_s=50, window_s=0.4)

    def test_traffic_that_stops_is_followed_by_probes(self):
        probes = [timeline.Attempt(at, "bad", True) for at in (12, 16)]
        use = self.use(self.even("good", 10, 20, 100) + self.even("bad", 5, 10.5, 50) + probes)
        self.assertAlmostEqual(use.stopped_after_s, 0.48, places=2)
        self.assertEqual((use.asked, use.probes), (27, 2))

    def test_traffic_that_goes_on_has_not_stopped(self):
        self.assertIsNone(self.use(self.even("bad", 5, 25, 50)).stopped_after_s)

    def test_a_region_that_nobody_asked_has_stopped_at_once(self):
        use = self.use(self.even("good", 10, 20, 100))
        self.assertEqual((use.stopped_after_s, use.share), (0.0, 0.0))

    def test_a_request_log_tells_each_attempt(self):
        record = {"time": "2026-11-23T06:15:24.5Z", "attempts": [
            {"deployment": "a", "status": 500, "setback": "server_error"}, {"deployment": "b", "status": 200}]}
        first, second = timeline.attempts([record, {"time": "2026-11-23T06:15:24Z"}])
        self.assertEqual((first.region, first.failed, second.region, second.failed), ("a", True, "b", False))
        self.assertEqual(first.at, timeline.moment("2026-11-23T06:15:24Z") + 0.5)

    def test_half_of_the_fair_share_is_a_flow(self):
        probes, flow = [1.0, 2.0], [3 + at / 100 for at in range(100)]
        self.assertEqual(timeline.flows_from(probes + flow, 100, 0.4), 3.0)
        self.assertEqual(timeline.flows_from(probes + flow, 200, 0.4), 3.0)
        self.assertIsNone(timeline.flows_from(probes + flow, 210, 0.4))
        self.assertIsNone(timeline.flows_from(probes, 100, 0.4))


class Excuses(unittest.TestCase):
    def test_only_a_modelled_end_of_a_stream_of_the_region_is_excused(self):
        def excused(cut=False, **changes):
            return faults.Faults.excused(result(**{"deployment": faults.REGION} | changes), cut)

        self.assertTrue(excused(streamed=True, verdict="exception", exception="modelStreamErrorException"))
        self.assertFalse(excused(streamed=True, verdict="exception", deployment=REGIONS[0]))
        for verdict in ("silent", "cut", "hang", "closed", "reset", "unmodelled", "damaged"):
            self.assertFalse(excused(cut=True, streamed=True, verdict=verdict), verdict)
        self.assertTrue(excused(cut=True, verdict="refused", status=408))
        self.assertFalse(excused(cut=False, verdict="refused", status=408))
        self.assertFalse(excused(cut=True, verdict="refused", status=503))

    def test_faults_have_distinct_names_and_one_way_to_happen(self):
        self.assertEqual(len({fault.name for fault in faults.FAULTS}), len(faults.FAULTS))
        for fault in faults.FAULTS:
            self.assertEqual(sum(bool(way) for way in (fault.rule, fault.mode, fault.nameless)), 1, fault.name)
            self.assertIn(fault.mode, {None, *forwarder.MODES})

    def test_only_a_new_connection_can_come_too_late(self):
        self.assertFalse(lifecycle.accepted(result(verdict="unreachable", status=0)))
        self.assertFalse(lifecycle.accepted(result(verdict="reset", status=0)))
        self.assertTrue(lifecycle.accepted(result(verdict="reset", status=0, used_before=1)))
        self.assertTrue(lifecycle.accepted(result(verdict="cut", status=200)))


class Loads(unittest.IsolatedAsyncioTestCase):
    async def serve(self, answer, per_connection=None):
        """A server that answers every request alike, and closes a connection after so many."""
        async def handle(reader, writer):
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                count = 0
                while per_connection is None or count < per_connection:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if b"content-length" in line)
                    await reader.readexactly(length)
                    writer.write(answer)
                    count += 1
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        self.addCleanup(server.close)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def test_an_open_loop_sends_and_tells_every_request(self):
        headers = b"retry-after: 1\r\nx-amzn-errortype: T\r\ncontent-length: 2\r\n\r\n"
        url = await self.serve(b"HTTP/1.1 429 Busy\r\n" + headers + b"{}")
        load = await Pressure.start(url, "sk-x", rate=20, mix={"converse": 1})
        self.addAsyncCleanup(load.close)
        await load.flows(20)
        results = await load.stop()
        self.assertEqual(load.summary["sent"], len(results))
        seen = {(r.verdict, r.status, r.error_type, r.retry_after) for r in results}
        self.assertEqual(seen, {("refused", 429, "T", True)})
        self.assertTrue(any(r.used_before for r in results))

    async def test_a_connection_that_is_closed_is_not_used_again(self):
        url = await self.serve(STREAM_HEAD + chunked(OPENING, DELTA, END) + b"0\r\n\r\n", per_connection=1)
        load = await Pressure.start(url, "sk-x", workers=2, mix={"converse-stream": 1})
        self.addAsyncCleanup(load.close)
        await load.flows(20)
        results = await load.stop()
        # Whether the end of a connection or the next request comes first is chance; an answer is never lost.
        self.assertLessEqual({r.verdict for r in results}, {"ok", "closed", "reset"})
        self.assertTrue(all(r.used_before for r in results if r.verdict != "ok"))
        self.assertIn("ok", {r.verdict for r in results})

    async def test_nobody_there_is_a_failure(self):
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            load = await Pressure.start(f"http://127.0.0.1:{bound.getsockname()[1]}", "sk-x", rate=100)
            self.addAsyncCleanup(load.close)
            await load.flows(5)
            self.assertEqual({r.verdict for r in await load.stop()}, {"unreachable"})


class Networks(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        directory = tempfile.TemporaryDirectory(prefix="resilience-harness-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        certificates = await asyncio.to_thread(Certificates, self.directory / "certificates")
        self.trust = ssl.create_default_context(cafile=str(certificates.authority))

        async def echo(reader, writer):
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        self.addCleanup(server.close)
        plan = {"upstreams": [server.sockets[0].getsockname()[1]], "certificate": str(certificates.right),
                "wrong_certificate": str(certificates.wrong)}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(forwarder.__file__)), json.dumps(plan), stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE)
        self.addAsyncCleanup(self.gone)
        (self.port,) = json.loads(await self.process.stdout.readline())["ports"]

    async def gone(self):
        self.process.stdin.close()
        self.assertEqual(await self.process.wait(), 0)

    async def change(self, mode):
        self.process.stdin.write(json.dumps({"region": 0, "mode": mode}).encode() + b"\n")
        await self.process.stdout.readline()

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.trust, server_hostname=host(REGIONS[0]))

    async def test_each_mode_fails_in_its_way_and_passes_again(self):
        for mode, error in [
            ("refuse", ConnectionRefusedError), ("reset", ConnectionResetError), ("not_tls", ssl.SSLError),
            ("wrong_certificate", ssl.SSLCertVerificationError),
        ]:
            reader, writer = await self.connect()
            writer.write(b"hello")
            self.assertEqual(await reader.readexactly(5), b"hello")
            await self.change(mode)
            # The open one breaks, a new one cannot be made.
            with contextlib.suppress(ConnectionError):
                self.assertEqual(await reader.read(), b"", mode)
            writer.close()
            with self.assertRaises(error, msg=mode):
                await self.connect()
            await self.change("pass")
        await self.change("silent")
        with self.assertRaises(TimeoutError):
            async with asyncio.timeout(0.2):
                await self.connect()

    def test_names_come_and_go(self):
        names = Names(self.directory / "hosts")
        names.forget(REGIONS[1])
        self.assertNotIn(host(REGIONS[1]), names.path.read_text())
        self.assertIn(host(REGIONS[0]), names.path.read_text())
        names.know(REGIONS[1])
        self.assertIn(f"127.0.0.1 {host(REGIONS[1])}\n", names.path.read_text())


if __name__ == "__main__":
    unittest.main()
