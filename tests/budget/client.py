"""An HTTP/1.1 client on asyncio that does what a load test of budgets needs: many calls at once, leaving in the middle of
an answer, and never, ever sending a request twice on its own."""

import asyncio
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HEAD_BYTES_MAX = 1 << 20


@dataclass
class Answer:
    """What came of a request. `status` is 0 when no header came, `whole` says that the body came to its end."""

    status: int = 0
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    error: str = ""
    begun_at: float = 0.0
    ended_at: float = 0.0

    @property
    def call_id(self):
        return self.headers.get("x-dheera-ai-call-id", "")

    @property
    def error_type(self):
        return self.headers.get("x-amzn-errortype", "")


class Client:
    """Sends requests; keeps connections that can be used again."""

    def __init__(self, timeout_s=120):
        self.timeout_s = timeout_s
        self.idle = {}

    def close(self):
        for pool in self.idle.values():
            for _, writer in pool:
                writer.close()
        self.idle.clear()

    async def call(self, url, method, path, key=None, body=b"", headers=(), leave_after_s=None, leave_after_bytes=None):
        """One request. `leave_after_s` closes the connection that long after sending, whatever has come;
        `leave_after_bytes` once that much of the body is here."""
        answer = Answer(begun_at=time.time())
        address = urlsplit(url)
        host = (address.hostname, address.port)
        writer = None
        try:
            async with asyncio.timeout(self.timeout_s):
                reader, writer = await self._connection(host)
                writer.write(self._head(address.netloc, method, path, key, body, headers) + body)
                await writer.drain()
                try:
                    async with asyncio.timeout(leave_after_s):
                        reusable = await self._read(reader, answer, leave_after_bytes)
                except TimeoutError:
                    answer.error, reusable = "left", False
                if reusable:
                    self.idle.setdefault(host, []).append((reader, writer))
                    writer = None
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError) as error:
            answer.error = f"{type(error).__name__}: {error}"
        finally:
            if writer is not None:
                writer.close()
            answer.ended_at = time.time()
        return answer

    async def _connection(self, host):
        pool = self.idle.get(host, [])
        while pool:
            reader, writer = pool.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(*host, limit=HEAD_BYTES_MAX)

    @staticmethod
    def _head(authority, method, path, key, body, headers):
        lines = [f"{method} {path} HTTP/1.1", f"host: {authority}", f"content-length: {len(body)}"]
        if body:
            lines.append("content-type: application/json")
        if key:
            lines.append(f"authorization: Bearer {key}")
        lines += [f"{name}: {value}" for name, value in headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def _read(self, reader, answer, leave_after_bytes):
        """Reads an answer; says whether the connection can be used again."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        answer.status = int(head[0].split(" ", 2)[1])
        answer.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = bytearray()
        chunked = "chunked" in answer.headers.get("transfer-encoding", "")
        length = answer.headers.get("content-length")
        try:
            async for piece in self._pieces(reader, chunked, None if length is None else int(length)):
                body += piece
                if leave_after_bytes is not None and len(body) >= leave_after_bytes:
                    answer.error = "left"
                    return False
            answer.whole = True
        finally:
            answer.body = bytes(body)
        return (chunked or length is not None) and answer.headers.get("connection", "").lower() != "close"

    @staticmethod
    async def _pieces(reader, chunked, length):
        if chunked:
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                yield await reader.readexactly(size)
                await reader.readexactly(2)
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
        elif length is not None:
            while length:
                piece = await reader.read(min(length, 65536))
                if not piece:
                    raise EOFError("the body is cut")
                length -= len(piece)
                yield piece
        else:
            while piece := await reader.read(65536):
                yield piece
