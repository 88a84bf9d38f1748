"""Writes HTTP/2 frame by frame, as no honest client does, and reads what the other side makes of it.

Frames are hyperframe's and header blocks are hpack's; nothing here keeps to the protocol by itself.
"""

import select
import socket
import time
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded
from hpack import Decoder, Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# What either side may send unless it is told otherwise.
FRAME_BYTES_MAX = 16_384
# Names of error codes, RFC 9113 section 7.
NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 0x0, 0x1, 0x7, 0x8, 0xB
# Generous: only a hang should fail.
DEADLINE_S = 60
# A side that takes no byte for so long is taken to have stopped reading.
STALLED_S = 2


def block(*headers):
    """A header block that leaves nothing in the other side's table, so that it may be sent again and again."""
    return Encoder().encode([NeverIndexedHeaderTuple(name, value) for name, value in headers])


def headers(stream, fields, *flags):
    content = block(*fields)
    first, rest = content[:FRAME_BYTES_MAX], content[FRAME_BYTES_MAX:]
    frames = [HeadersFrame(stream, first, flags=list(flags))]
    while rest:
        frames.append(ContinuationFrame(stream, rest[:FRAME_BYTES_MAX]))
        rest = rest[FRAME_BYTES_MAX:]
    frames[-1].flags.add("END_HEADERS")
    return b"".join(frame.serialize() for frame in frames)


def data(stream, content=b"", *flags):
    return DataFrame(stream, content, flags=list(flags)).serialize()


def reset(stream, code=CANCEL):
    return RstStreamFrame(stream, error_code=code).serialize()


def raw(kind, flags, stream, payload=b""):
    """A frame that hyperframe would not make."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def connected(url):
    address = urlsplit(url)
    opened = socket.create_connection((address.hostname, address.port), timeout=DEADLINE_S)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


class Polite:
    """An honest client with one connection for all its calls, which the h2 library keeps to the protocol."""

    def __init__(self, url):
        self.socket = connected(url)
        self.connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.connection.initiate_connection()

    def close(self):
        self.socket.close()

    def call(self, fields, body):
        """The body of an answer, which must be a success."""
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, fields)
        self.connection.send_data(stream, body, end_stream=True)
        answer, ended = b"", False
        while not ended:
            self.socket.sendall(self.connection.data_to_send())
            received = self.socket.recv(1 << 16)
            assert received, "the connection was closed"
            for event in self.connection.receive_data(received):
                if isinstance(event, ResponseReceived):
                    assert dict(event.headers)[":status"] == "200", event.headers
                elif isinstance(event, DataReceived):
                    answer += event.data
                    self.connection.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, StreamEnded):
                    ended = True
        assert answer
        return answer


class Wire:
    """A connection. `ended` says how the other side ended it: `closed`, `reset`, or None while it has not."""

    def __init__(self, url, settings=None, opening=None):
        self.socket = connected(url)
        self.socket.setblocking(False)
        self.frames = []
        self.ended = None
        self._unread = b""
        self._table = Decoder()
        self._pings = 0
        self.write(PREFACE + SettingsFrame(0, settings=settings or {}).serialize() if opening is None else opening)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def write(self, content, deaf=False):
        """Writes, and reads meanwhile unless `deaf`. True when all of it was taken."""
        left = memoryview(content)
        moved = time.monotonic()
        while left and self.ended is None:
            ready = self._ready(select.POLLOUT if deaf else select.POLLIN | select.POLLOUT)
            if not deaf and ready & ~select.POLLOUT:
                self._read()
                moved = time.monotonic()
            if ready & ~select.POLLIN and self.ended is None:
                try:
                    left = left[self.socket.send(left) :]
                    moved = time.monotonic()
                except BlockingIOError:
                    pass
                except OSError:
                    self._end("reset")
            if time.monotonic() - moved > STALLED_S:
                return False
        return not left

    def read_until(self, condition, what="the connection's end"):
        """Reads until `condition` holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.ended is None, f"the connection ended before {what}: {self.frames[-5:]}"
            assert time.monotonic() < deadline, f"waited in vain for {what}: {self.frames[-5:]}"
            if self._ready(select.POLLIN):
                self._read()

    def read_to_end(self):
        self.read_until(lambda: self.ended is not None)

    def _ready(self, events):
        poll = select.poll()
        poll.register(self.socket, events)
        return next((ready for _, ready in poll.poll(100)), 0)

    def be_heard(self):
        """Reads until the other side has seen all that was written, or has ended the connection, or reads no more."""
        self._pings += 1
        mark = self._pings.to_bytes(8, "big")
        if self.write(PingFrame(0, mark).serialize()):
            answered = lambda: any(ping.opaque_data == mark for ping in reversed(self.of(PingFrame)))
            self.read_until(lambda: self.ended or answered())

    def _read(self):
        try:
            received = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            self._end("reset")
            return
        if not received:
            self._end("closed")
            return
        self._unread += received
        while len(self._unread) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._unread[:9]))
            if len(self._unread) < 9 + length:
                break
            frame.parse_body(memoryview(self._unread[9 : 9 + length]))
            self._unread = self._unread[9 + length :]
            if isinstance(frame, HeadersFrame):
                frame.headers = self._table.decode(frame.data)
            self.frames.append(frame)

    def _end(self, how):
        self.ended = self.ended or how

    def of(self, kind, stream=None):
        """The frames of a kind that have come."""
        found = [frame for frame in self.frames if isinstance(frame, kind)]
        return [frame for frame in found if stream is None or frame.stream_id == stream]

    def answers(self):
        """The heads of all answers, decoded."""
        return self.of(HeadersFrame)

    def answer(self, stream):
        """The head of a stream's answer, once it is here."""
        return next(iter(self.of(HeadersFrame, stream)), None)
