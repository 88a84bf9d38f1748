"""What comes back from a proxy, read strictly: HTTP/1.1 answers and event-stream frames, fed piece by piece. Knows no
sockets and no clock. The frame reader is written anew: it cannot share a mistake with the proxy or the simulator."""

import zlib
from dataclasses import dataclass, field

PRELUDE_BYTES, CRC_BYTES = 12, 4
# What ConverseStream models beside its events, by AWS's service model of bedrock-runtime.
MODELLED_EXCEPTIONS = {
    "internalServerException", "modelStreamErrorException", "validationException", "throttlingException",
    "serviceUnavailableException",
}


class Damaged(Exception):
    """What came is not what HTTP or the event-stream format allow."""


class Frames:
    """Takes the bytes of an event stream and gives (message type, name) of each whole frame."""

    def __init__(self):
        self.buffer = bytearray()

    def feed(self, data):
        self.buffer += data
        found = []
        while len(self.buffer) >= PRELUDE_BYTES:
            total = int.from_bytes(self.buffer[:4], "big")
            if zlib.crc32(self.buffer[:8]) != int.from_bytes(self.buffer[8:12], "big"):
                raise Damaged("the checksum of a frame's lengths is wrong")
            if len(self.buffer) < total:
                break
            frame = bytes(self.buffer[:total])
            del self.buffer[:total]
            if zlib.crc32(frame[:-CRC_BYTES]) != int.from_bytes(frame[-CRC_BYTES:], "big"):
                raise Damaged("the checksum of a frame is wrong")
            headers = _headers(frame[PRELUDE_BYTES:PRELUDE_BYTES + int.from_bytes(frame[4:8], "big")])
            kind = headers.get(":message-type", "")
            name = {"event": ":event-type", "exception": ":exception-type", "error": ":error-code"}.get(kind, "")
            found.append((kind, headers.get(name, "")))
        return found


def _headers(data):
    """The headers of a frame; Bedrock's are all texts (type 7)."""
    headers, at = {}, 0
    while at < len(data):
        name_end = at + 1 + data[at]
        name = data[at + 1:name_end].decode()
        if data[name_end] != 7:
            raise Damaged(f"header {name} is no text")
        value_at = name_end + 3
        value_end = value_at + int.from_bytes(data[name_end + 1:value_at], "big")
        headers[name] = data[value_at:value_end].decode()
        at = value_end
    return headers


@dataclass
class Answer:
    """An answer as it comes. `feed` gives what came of the body; `whole` says that it came to its end."""

    status: int = 0
    headers: dict = field(default_factory=dict)
    whole: bool = False
    _buffer: bytearray = field(default_factory=bytearray)
    # Bytes left of the body, or of the present chunk; None while a size line is awaited.
    _left: int | None = None
    _chunked: bool = False
    _to_the_end: bool = False
    _trailer: bool = False

    def feed(self, data):
        """Takes bytes of the connection, gives those of the body among them."""
        self._buffer += data
        body = bytearray()
        if not self.status and not self._head():
            return body
        if self._to_the_end:
            body, self._buffer = self._buffer, bytearray()
            return body
        while not self.whole:
            if self._left:
                part = self._buffer[:self._left]
                if not part:
                    break
                del self._buffer[:len(part)]
                body += part
                self._left -= len(part)
            elif not self._chunked:
                self.whole = True
            elif not self._line():
                break
        return body

    def closed(self):
        """The connection has ended: the end of an answer without a length."""
        if self._to_the_end:
            self.whole = True

    @property
    def reusable(self):
        return self.whole and not self._to_the_end and self.headers.get("connection", "").lower() != "close"

    def _head(self):
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return False
            lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
            del self._buffer[:end + 4]
            parts = lines[0].split(" ", 2)
            if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
                raise Damaged(f"no status line: {lines[0][:80]!r}")
            if parts[1] >= "200":
                break
        self.status = int(parts[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = self.headers.get("content-length")
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "")
        self._to_the_end = not self._chunked and length is None and self.status not in (204, 304)
        self._left = None if self._chunked else int(length or 0)
        return True

    def _line(self):
        """Takes the line before a chunk, after it, or after the last one; false while it is not there."""
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[:end + 2]
        if self._trailer:
            self.whole = not line
        elif self._left == 0:
            self._left = None
        else:
            try:
                self._left = int(line.split(b";")[0], 16)
            except ValueError:
                raise Damaged(f"no chunk size: {line[:80]!r}") from None
            self._trailer = self._left == 0
        return True
