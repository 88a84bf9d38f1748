"""Clients that abuse HTTP/2 and HTTP/1.1 against the running proxy: it stays up, takes little memory, serves the others
all the time, and keeps nothing of them afterwards: no connection, no request in flight, no money set aside.
"""

import json
import re
import resource
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from decimal import Decimal

import pytest
from conftest import DEADLINE_S, KEY, OLD_BOTO3, ROOT, client

if OLD_BOTO3:
    pytest.skip("frames do not depend on boto3: they are tried beside the newer one", allow_module_level=True)

from frames import (  # noqa: E402
    ENHANCE_YOUR_CALM, NO_ERROR, PREFACE, PROTOCOL_ERROR, REFUSED_STREAM, Polite, Wire,
    block, data, headers, raw, reset,
)
from hyperframe.frame import (  # noqa: E402
    DataFrame, GoAwayFrame, PingFrame, PriorityFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame,
)

MIB = 1024 * 1024
GROWTH_MAX = 64 * MIB
# Pingora's default, which the proxy keeps.
STREAMS_MAX = 100
CONVERSE = "/bedrock/model/my-claude-model/converse"
STREAM = "/bedrock/model/my-claude-model/converse-stream"
# What the abusers call where their bill is looked at: nobody else calls it.
OWN = "/bedrock/model/my-bedrock-model/converse"
OWN_MODEL = "us.anthropic.claude-3-5-sonnet-20240620-v1:0"
MESSAGES = [{"role": "user", "content": [{"text": "Hello"}]}]
BODY = json.dumps({"messages": MESSAGES, "inferenceConfig": {"maxTokens": 10}}).encode()
# 4 MB: a few of them are more than the buffers of two sockets hold.
LARGE = {"frames": 200, "frame_bytes": 20_000}


def fields(path=CONVERSE, key=KEY, method="POST", **more):
    """The header fields of a request."""
    pseudo = [(":method", method), (":scheme", "http"), (":authority", "proxy.test"), (":path", path)]
    others = [(name.replace("_", "-"), value) for name, value in more.items()]
    return [*pseudo, ("authorization", f"Bearer {key}"), *others]


def request(stream, *flags, body=BODY, **more):
    """A whole request, as bytes on the wire."""
    return headers(stream, fields(**more)) + data(stream, body, "END_STREAM", *flags)


def ids(count, first=1):
    return range(first, first + 2 * count, 2)


# ---- what holds for every abuse


class Neighbour(threading.Thread):
    """An honest client that calls all the time, and notes what went wrong."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call, self.calls, self.failures, self.enough = call, 0, [], threading.Event()

    def run(self):
        while not self.enough.is_set():
            try:
                self.call()
            except Exception as failure:
                self.failures.append(repr(failure))
                return
            self.calls += 1


def wait_until(condition, what):
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def memory(proxy, name):
    """A line of the process's status, in bytes."""
    with open(f"/proc/{proxy.process.pid}/status") as status:
        return int(re.search(rf"^{name}:\s+(\d+) kB$", status.read(), re.MULTILINE).group(1)) * 1024


def connections(proxy):
    """Connections that the proxy has not closed, on its side."""
    port = proxy.url.rsplit(":", 1)[1]
    with open("/proc/net/tcp") as table:
        rows = [row.split() for row in table.read().splitlines()[1:]]
    return sum(row[1].endswith(f":{int(port):04X}") and row[3] in ("01", "08") for row in rows)


def metric(proxy, name):
    _, text = proxy.get("/metrics", Authorization=f"Bearer {KEY}")
    return sum(Decimal(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


def assert_nothing_is_left(proxy):
    wait_until(lambda: connections(proxy) == 0, "the proxy to close its connections")
    # The scrape itself is one.
    wait_until(lambda: metric(proxy, "dheera_ai_requests_in_flight") == 1, "the requests in flight to end")
    assert metric(proxy, "dheera_ai_request_body_bytes_buffered") == 0
    # The ledger looks at its books once in a while.
    for name in ("dheera_ai_leases_open", "dheera_ai_budget_reserved_nano_usd"):
        wait_until(lambda: metric(proxy, name) == 0, f"{name} to be none")


@contextmanager
def unharmed(proxy, growth_max=GROWTH_MAX):
    """Makes honest calls while something happens, and checks afterwards what must hold whatever happened."""
    runtime = client("bedrock-runtime", f"{proxy.url}/bedrock")
    polite = Polite(proxy.url)
    neighbours = [
        Neighbour(lambda: runtime.converse(modelId="my-claude-model", messages=MESSAGES)),
        Neighbour(lambda: list(runtime.converse_stream(modelId="my-claude-model", messages=MESSAGES)["stream"])),
        Neighbour(lambda: polite.call(fields(), BODY)),
    ]
    for neighbour in neighbours:
        neighbour.start()

    def all_called_again():
        calls = [neighbour.calls for neighbour in neighbours]
        again = lambda: all(one.calls > before + 1 or one.failures for one, before in zip(neighbours, calls))
        wait_until(again, "the other clients' calls")

    try:
        all_called_again()
        # Sets the process's peak to what it has now, see proc(5).
        with open(f"/proc/{proxy.process.pid}/clear_refs", "w") as clear:
            clear.write("5")
        before = memory(proxy, "VmRSS")
        yield
        all_called_again()
    finally:
        for neighbour in neighbours:
            neighbour.enough.set()
        for neighbour in neighbours:
            neighbour.join(DEADLINE_S)
        polite.close()
        runtime.close()
    growth = memory(proxy, "VmHWM") - before
    assert [neighbour.failures for neighbour in neighbours] == [[], [], []]
    assert proxy.process.poll() is None, "the proxy has ended"
    assert growth < growth_max, f"{growth / MIB:.0f} MiB more memory"
    assert_nothing_is_left(proxy)


@pytest.fixture(scope="module")
def target(start_proxy):
    """A proxy that nothing else calls."""
    return start_proxy(DHEERA_AI_MASTER_KEY=KEY)


@pytest.fixture(scope="module")
def impatient(start_proxy, tmp_path_factory):
    """A proxy that waits two seconds for its clients, and may have thousands of connections, as may this process."""
    config = tmp_path_factory.mktemp("impatient") / "config.yaml"
    config.write_text((ROOT / "conf/demo.yaml").read_text() + "general_settings:\n  client_idle_timeout: 2\n")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield start_proxy(config, DHEERA_AI_MASTER_KEY=KEY)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


# ---- floods


def flood(proxy, pieces, **how):
    """Sends until all has left, or the proxy ends the connection or stops reading; says how it ended, and why."""
    with Wire(proxy.url) as wire:
        for piece in pieces:
            if not wire.write(piece, **how):
                break
        else:
            wire.be_heard()
        return wire.ended, [frame.error_code for frame in wire.of(GoAwayFrame)]


FIELDS = block(*fields())
ENDLESS = {
    "CONTINUATION, empty": lambda: [raw(0x1, 0x1, 1, FIELDS)] + [raw(0x9, 0, 1) * 100] * 100,
    "CONTINUATION, one header each": lambda: (
        [raw(0x1, 0x1, 1, FIELDS)] + [raw(0x9, 0, 1, block(("a", "b"))) * 100] * 100
    ),
    "CONTINUATION, as large as can be": lambda: (
        [raw(0x1, 0x1, 1, FIELDS)] + [raw(0x9, 0, 1, block(("a", "b" * 16_000)))] * 10_000
    ),
    "DATA, empty": lambda: [headers(1, fields())] + [data(1) * 1000] * 100,
    "DATA, padding alone": lambda: [headers(1, fields())] + [raw(0x0, 0x8, 1, b"\xff" + bytes(255)) * 100] * 100,
}
BEARABLE = {
    "PING": (lambda: [PingFrame(0, b"12345678").serialize() * 1000] * 10, False),
    "PING, its answers unread": (lambda: [PingFrame(0, b"12345678").serialize() * 10_000] * 100, True),
    "SETTINGS": (lambda: [SettingsFrame(0, settings={4: 65_536}).serialize() * 1000] * 10, False),
    "SETTINGS, its answers unread": (lambda: [SettingsFrame(0, settings={4: 65_536}).serialize() * 10_000] * 100, True),
    "WINDOW_UPDATE": (lambda: [WindowUpdateFrame(0, 1).serialize() * 1000] * 100, False),
    "PRIORITY": (lambda: [PriorityFrame(1, depends_on=3, stream_weight=1).serialize() * 1000] * 100, False),
    "PRIORITY of ever new streams": (
        lambda: (b"".join(PriorityFrame(one, stream_weight=1).serialize() for one in ids(1000, first))
                 for first in range(1, 200_001, 2000)),
        False,
    ),
    "frames of an unknown kind": (lambda: [raw(0xEE, 0, 0, bytes(1000)) * 100] * 100, False),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_flood_that_a_request_never_ends_in_ends_its_connection(name, target):
    with unharmed(target):
        how, codes = flood(target, ENDLESS[name]())
        # What is still on its way when the proxy closes makes the system reset the connection, and last words get lost.
        assert codes in ([ENHANCE_YOUR_CALM], [PROTOCOL_ERROR]) or how == "reset" and codes == [], (how, codes)


@pytest.mark.parametrize("name", BEARABLE)
def test_a_flood_of_small_frames_harms_nobody(name, target):
    pieces, deaf = BEARABLE[name]
    with unharmed(target):
        flood(target, pieces(), deaf=deaf)


def test_a_table_of_headers_that_is_used_again_and_again_is_no_bomb(target, simulator):
    """One large header goes into HPACK's table; then each byte of a request stands for all of it."""
    with unharmed(target):
        with Wire(target.url) as wire:
            # A literal that is to be indexed, its value 4,000 bytes long; RFC 7541 sections 5.1 and 6.2.1.
            large = b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000
            bomb = FIELDS + large + b"\xbe" * 12_000
            wire.write(raw(0x1, 0x5, 1, bomb))
            for stream in ids(20, first=3):
                if not wire.write(raw(0x1, 0x5, stream, FIELDS + b"\xbe" * 16_000)):
                    break
            wire.be_heard()
        assert {dict(answer.headers)[":status"] for answer in wire.answers()} <= {"431"}


def test_a_head_over_the_limit_is_refused_and_the_next_one_served(target):
    with unharmed(target), Wire(target.url) as wire:
        wire.write(request(1, x_large="x" * 70_000))
        wire.read_until(lambda: wire.answer(1), "the refusal")
        assert dict(wire.answer(1).headers)[":status"] == "431"
        assert dict(wire.answer(1).headers)["x-amzn-errortype"] == "ValidationException"
        wire.write(request(3))
        wire.read_until(lambda: wire.answer(3), "the answer")
        assert dict(wire.answer(3).headers)[":status"] == "200"


# ---- resets


@pytest.mark.parametrize("batch, count", [(1, 1000), (10, 1000), (500, 20_000)])
def test_a_storm_of_resets_reaches_no_model(batch, count, target, simulator):
    """CVE-2023-44487, with a key that may call: each request is taken back in the write that sends it."""
    key, bill = target.manage("/key/generate", {"max_budget": 1}), billed(simulator)
    with unharmed(target):
        sent = 0
        while sent < count:
            with Wire(target.url) as wire:
                first = 1
                while sent < count and wire.ended is None:
                    storm = (request(one, path=OWN, key=key["key"]) + reset(one) for one in ids(batch, first))
                    wire.write(b"".join(storm))
                    wire.be_heard()
                    sent, first = sent + batch, first + 2 * batch
    assert_paid(target, simulator, key, bill)
    # A reset that comes in another packet than its request may be late.
    assert own_calls(simulator) <= sent // 20


INVALID = {
    "WINDOW_UPDATE of nothing": lambda stream: raw(0x8, 0, stream, bytes(4)),
    "WINDOW_UPDATE over the top": lambda stream: WindowUpdateFrame(stream, 2**31 - 1).serialize() * 2,
    "DATA after the end": lambda stream: data(stream, b"x"),
    "HEADERS after the end": lambda stream: headers(stream, fields()),
    "PRIORITY on itself": lambda stream: PriorityFrame(stream, depends_on=stream).serialize(),
    "PRIORITY too short": lambda stream: raw(0x2, 0, stream, bytes(3)),
}


@pytest.mark.parametrize("name", INVALID)
def test_making_the_proxy_reset_streams_reaches_no_model(name, target, simulator):
    """CVE-2025-8671, "MadeYouReset": a frame that is an error of its stream follows each request."""
    key, bill = target.manage("/key/generate", {"max_budget": 1}), billed(simulator)
    with unharmed(target):
        sent = 0
        while sent < 2000:
            with Wire(target.url) as wire:
                for stream in ids(2000):
                    sent += 1
                    if not wire.write(request(stream, path=OWN, key=key["key"]) + INVALID[name](stream)):
                        break
                wire.be_heard()
    assert_paid(target, simulator, key, bill)
    assert own_calls(simulator) <= sent // 20


def test_late_resets_do_not_outrun_the_limit_of_a_key(target, simulator):
    """Reset when its call is under way, a request no longer counts as a stream; it still counts for its key."""
    simulator.demand({"match": {"model": OWN_MODEL}, "delay_ms": 300, "bill": "arrived"})
    key = target.manage("/key/generate", {"max_budget": 1, "max_parallel_requests": 5})
    bill = billed(simulator)
    with unharmed(target), Wire(target.url) as wire:
        for first in range(1, 500, 100):
            before = own_calls(simulator)
            wire.write(b"".join(request(one, path=OWN, key=key["key"]) for one in ids(50, first)))
            answers = lambda: [frame for frame in wire.answers() if frame.stream_id >= first]
            sent_on = lambda: own_calls(simulator) - before
            wire.read_until(lambda: len(answers()) + sent_on() >= 50, "each request to be refused or sent on")
            assert "429" in {dict(frame.headers)[":status"] for frame in answers()}
            wire.write(b"".join(reset(one) for one in ids(50, first)))
    assert own_calls(simulator) > 5
    counts = simulator.control("GET", "/_sim/counters")["max_concurrent"]["by_model"]
    assert counts[OWN_MODEL] <= 5, counts
    assert_paid(target, simulator, key, bill)


def own_calls(simulator):
    return sum("3-5-sonnet" in seen["path"] for seen in simulator.requests())


def billed(simulator):
    """Nano-dollars that the simulator has asked for the abusers' calls."""
    return simulator.control("GET", "/billed")["by_model"].get(OWN_MODEL, 0)


def assert_paid(proxy, simulator, key, bill_before):
    """Nothing is set aside for the key any more, and it has paid for all that was billed."""
    info = lambda: proxy.manage(f"/key/info?key={key['key_id']}")["info"]
    wait_until(lambda: info()["reserved"] == 0, "the reservations to end")
    assert info()["spend"] * 10**9 >= billed(simulator) - bill_before


# ---- streams


@pytest.mark.parametrize(
    "name, code, frames",
    [
        ("even", PROTOCOL_ERROR, lambda: [request(2)]),
        ("decreasing", PROTOCOL_ERROR, lambda: [request(5) + request(3)]),
        ("used before", PROTOCOL_ERROR, lambda: [request(1, key="sk-wrong"), None, request(1)]),
        ("none", PROTOCOL_ERROR, lambda: [raw(0x1, 0x5, 0, FIELDS)]),
        ("never opened", PROTOCOL_ERROR, lambda: [data(7, BODY)]),
        ("promised by the client", PROTOCOL_ERROR, lambda: [raw(0x5, 0x4, 1, bytes(3) + b"\x02" + FIELDS)]),
    ],
)
def test_a_stream_that_cannot_be_ends_the_connection(name, code, frames, target, simulator):
    with unharmed(target), Wire(target.url) as wire:
        for piece in frames():
            if piece is None:
                wire.read_until(lambda: wire.answer(1), "the answer")
            elif not wire.write(piece):
                break
        wire.read_to_end()
        assert [frame.error_code for frame in wire.of(GoAwayFrame)] == [code], wire.frames
        assert not [frame for frame in wire.answers() if dict(frame.headers)[":status"] == "200"]


def test_streams_over_the_limit_are_refused_alone(target, simulator):
    simulator.demand({"match": {"model": OWN_MODEL}, "delay_ms": 500})
    with unharmed(target), Wire(target.url) as wire:
        over = 50
        # Their bodies do not end, so that all are open at once.
        wire.write(b"".join(headers(one, fields(path=OWN)) for one in ids(STREAMS_MAX + over)))
        wire.read_until(lambda: len(wire.of(RstStreamFrame)) == over, "the refusals")
        refused = wire.of(RstStreamFrame)
        assert {frame.error_code for frame in refused} == {REFUSED_STREAM}
        assert sorted(frame.stream_id for frame in refused) == list(ids(over, first=1 + 2 * STREAMS_MAX))
        assert wire.of(SettingsFrame)[0].settings[SettingsFrame.MAX_CONCURRENT_STREAMS] == STREAMS_MAX
        wire.write(b"".join(data(one, BODY, "END_STREAM") for one in ids(STREAMS_MAX)))
        wire.read_until(lambda: len(wire.answers()) == STREAMS_MAX, "the answers")
        assert {dict(frame.headers)[":status"] for frame in wire.answers()} == {"200"}


def test_a_client_that_says_goodbye_still_gets_its_answer(target, simulator):
    """As the AWS SDK for JavaScript does: GOAWAY(0) while its request is under way."""
    simulator.demand({"match": {"model": OWN_MODEL}, "delay_ms": 500})
    goodbye = GoAwayFrame(0, last_stream_id=0, error_code=NO_ERROR).serialize()
    for path in (OWN, OWN + "-stream"):
        for early in (True, False):
            with Wire(target.url) as wire:
                before = own_calls(simulator)
                head, body = headers(1, fields(path=path)), data(1, BODY, "END_STREAM")
                if early:
                    wire.write(head + goodbye + body)
                else:
                    wire.write(head + body)
                    wait_until(lambda: own_calls(simulator) > before, "the call")
                    wire.write(goodbye)
                ends = lambda: any("END_STREAM" in frame.flags for frame in wire.of(DataFrame))
                wire.read_until(ends, "the answer's end")
                assert dict(wire.answer(1).headers)[":status"] == "200" and not wire.of(RstStreamFrame)
    assert_nothing_is_left(target)


# ---- clients that take their time


SILENT = {
    "nothing": b"",
    "a part of the preface": PREFACE[:10],
    "the preface alone": PREFACE,
    "a head too short for HTTP/1.1": b"GET / HTTP/1.0\r\n\r\n",
    "a header block that does not end": PREFACE + SettingsFrame(0).serialize() + raw(0x1, 0x1, 1, FIELDS),
}


def test_connections_that_say_nothing_are_closed(impatient):
    """A thousand of them, twice. Each takes 64 KiB for Pingora's read buffer and some more, and gives it back."""
    openings, peaks = list(SILENT.values()) * 200, []
    for _ in range(2):
        with unharmed(impatient, growth_max=len(openings) * 128 * 1024), ExitStack() as stack:
            wires = [stack.enter_context(Wire(impatient.url, opening=first)) for first in openings]
            for wire in wires:
                wire.read_to_end()
        peaks.append(memory(impatient, "VmHWM"))
    assert peaks[1] - peaks[0] < 32 * MIB, peaks


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(impatient, simulator):
    """Twice as long as the proxy waits for clients, the upstream says nothing."""
    simulator.demand({"match": {"model": OWN_MODEL}, "delay_ms": 4000})
    with unharmed(impatient), Wire(impatient.url) as busy, Wire(impatient.url) as idle:
        busy.write(request(1, path=OWN))
        idle.write(request(1))
        idle.read_until(lambda: idle.answer(1), "the answer")
        idle.read_to_end()
        busy.read_until(lambda: busy.answer(1), "the answer")
        assert dict(busy.answer(1).headers)[":status"] == "200"


ASKED = {
    "an answer": dict(path=OWN),
    "a refusal": dict(key="sk-wrong"),
    "an unknown path": dict(path="/nothing"),
    "a page": dict(path="/metrics", method="GET"),
}


def test_an_answer_that_the_client_leaves_no_room_for_is_given_up(impatient):
    """Its window is closed from the beginning."""
    closed = {SettingsFrame.INITIAL_WINDOW_SIZE: 0}
    with unharmed(impatient), ExitStack() as stack:
        wires = {name: stack.enter_context(Wire(impatient.url, settings=closed)) for name in ASKED}
        for name, wire in wires.items():
            wire.write(b"".join(request(one, **ASKED[name]) for one in ids(50)))
        for name, wire in wires.items():
            wire.read_until(lambda: len(wire.answers()) == 50, f"the headers of {name}")
            # Busy connections are not closed: that this one is shows that its requests have been given up.
            wire.read_to_end()
            assert not any(frame.data for frame in wire.of(DataFrame)), name


def ended(proxy, known):
    """How the abusers' calls ended, by call id: the reasons in their records."""
    records = [json.loads(line) for line in proxy.lines[known:]]
    return {record["call_id"]: record.get("reason") for record in records if record["model_name"] == "my-bedrock-model"}


@pytest.mark.parametrize("window", [65_535, 2**31 - 1])
def test_answers_that_are_not_read_take_little_memory_and_never_seem_whole(window, impatient, simulator):
    """With a window that is full, and with a socket that is. Who reads on later must see that something is missing."""
    simulator.demand({"match": {"model": OWN_MODEL}, **LARGE})
    streams, known = list(ids(10)), len(impatient.lines)
    with unharmed(impatient), Wire(impatient.url, settings={SettingsFrame.INITIAL_WINDOW_SIZE: window}) as wire:
        wide = WindowUpdateFrame(0, 2**31 - 1 - 65_535).serialize() if window > 65_535 else b""
        wire.write(wide + b"".join(request(one, path=OWN + "-stream") for one in streams), deaf=True)
        wait_until(lambda: len(ended(impatient, known)) == len(streams), "the answers to end")
        given_up = {call for call, reason in ended(impatient, known).items() if reason == "client_gone"}
        # A socket has room for one of them, perhaps.
        assert len(given_up) > len(streams) // 2
        wire.write(b"".join(WindowUpdateFrame(one, 2**16).serialize() for one in [0, *streams]))
        wire.read_until(lambda: wire.ended or len(wire.of(RstStreamFrame)) >= len(given_up))
        whole = {frame.stream_id for frame in wire.of(DataFrame) if "END_STREAM" in frame.flags}
        cut = {frame.stream_id for frame in wire.answers() if dict(frame.headers)["x-dheera-ai-call-id"] in given_up}
        assert cut and not cut & whole


def test_an_http_1_answer_that_is_not_read_never_seems_whole(impatient, simulator):
    simulator.demand({"match": {"model": OWN_MODEL}, **LARGE})
    known = len(impatient.lines)
    with unharmed(impatient), socket.socket() as plain:
        plain.settimeout(DEADLINE_S)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(("127.0.0.1", int(impatient.url.rsplit(":", 1)[1])))
        head = f"POST {OWN}-stream HTTP/1.1\r\nHost: proxy.test\r\nAuthorization: Bearer {KEY}\r\n"
        plain.sendall(f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
        wait_until(lambda: "client_gone" in ended(impatient, known).values(), "the client to be given up")
        received = bytearray()
        try:
            while piece := plain.recv(MIB):
                received += piece
        except ConnectionResetError:
            pass
        assert received.startswith(b"HTTP/1.1 200") and b"hunked" in received[:2000]
        assert not received.endswith(b"0\r\n\r\n"), f"{len(received)} bytes look like a whole answer"


def test_a_body_that_stops_is_not_waited_for(impatient, simulator):
    with unharmed(impatient), Wire(impatient.url) as wire:
        wire.write(b"".join(headers(one, fields(path=OWN)) + data(one, BODY[:5]) for one in ids(50)))
        wire.read_until(lambda: len(wire.answers()) == 50, "the refusals")
        assert {dict(frame.headers)[":status"] for frame in wire.answers()} == {"408"}
    assert own_calls(simulator) == 0


# ---- what is not HTTP/2, and whose name it bears


@pytest.mark.parametrize("start", [PREFACE, PREFACE[:20], b""])
def test_garbage_ends_the_connection(start, target):
    """Bytes that look random and are the same each time."""
    noise = bytes((one * one * 31 + one * 7) % 251 for one in range(1, 4001))
    with unharmed(target), Wire(target.url, opening=start + noise) as wire:
        wire.read_to_end()


ROUTES = {
    "another Host": [("host", "evil.test")],
    "two Hosts": [("host", "proxy.test"), ("host", "evil.test")],
    "a user in Host": [("host", "a@proxy.test")],
}


@pytest.mark.parametrize("name", ROUTES)
def test_a_host_that_contradicts_the_authority_is_refused(name, target, simulator):
    with unharmed(target), Wire(target.url) as wire:
        wire.write(headers(1, fields(path=OWN) + ROUTES[name]) + data(1, BODY, "END_STREAM"))
        wire.read_until(lambda: wire.answer(1), "the refusal")
        assert dict(wire.answer(1).headers)[":status"] == "400"
        wire.write(request(3))
        wire.read_until(lambda: wire.answer(3), "the answer")
        assert dict(wire.answer(3).headers)[":status"] == "200"
    assert own_calls(simulator) == 0


@pytest.mark.parametrize(
    "authority", ["evil.test", "169.254.169.254", "bedrock.us-east-1.amazonaws.com:1", "/key/list"]
)
def test_the_authority_decides_nothing(authority, target, simulator):
    """The request is served by its path alone, or refused; upstream, the host is the configuration's."""
    with unharmed(target), Wire(target.url) as wire:
        changed = [(name, authority if name == ":authority" else value) for name, value in fields(path=OWN)]
        wire.write(headers(1, changed) + data(1, BODY, "END_STREAM"))
        wire.read_until(lambda: wire.answer(1) or wire.of(RstStreamFrame), "an answer")
        if wire.answer(1):
            assert dict(wire.answer(1).headers)[":status"] in ("200", "400")
    own = simulator.url.removeprefix("http://")
    assert {seen["host"] for seen in simulator.requests()} == {own}


@pytest.mark.parametrize(
    "path", ["http://evil.test" + OWN, "//evil.test" + OWN, "evil.test", "*", "", OWN + "\r\nx: y"]
)
def test_a_path_that_is_none_reaches_nothing(path, target, simulator):
    with unharmed(target), Wire(target.url) as wire:
        wire.write(request(1, path=path))
        wire.read_until(lambda: wire.ended or wire.answer(1) or wire.of(RstStreamFrame), "the refusal")
        if wire.answer(1):
            assert dict(wire.answer(1).headers)[":status"] in ("400", "404")
    assert own_calls(simulator) == 0


def test_a_client_that_waits_for_100_continue_keeps_its_connection(target):
    with socket.create_connection(("127.0.0.1", int(target.url.rsplit(":", 1)[1])), timeout=DEADLINE_S) as plain:
        answers = plain.makefile("rb")
        for _ in range(2):
            head = f"POST {CONVERSE} HTTP/1.1\r\nHost: proxy.test\r\nAuthorization: Bearer {KEY}\r\n"
            plain.sendall(f"{head}Content-Length: {len(BODY)}\r\nExpect: 100-continue\r\n\r\n".encode())
            assert answers.readline() == b"HTTP/1.1 100 Continue\r\n" and answers.readline() == b"\r\n"
            plain.sendall(BODY)
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            head = dict(line.decode().strip().lower().split(": ", 1) for line in iter(answers.readline, b"\r\n"))
            assert head["connection"] == "keep-alive"
            assert "output" in json.loads(answers.read(int(head["content-length"])))
