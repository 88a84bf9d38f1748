"""The network between the proxy and each region, in a process of its own: TLS in front of the simulators, and on demand
what a network does on its bad days.

    python3 forwarder.py '{"upstreams": [9001, 9002], "certificate": "server.pem", "wrong_certificate": "other.pem"}'

The first line on stdout names the ports. Then each line on stdin is `{"region": 0, "mode": "refuse"}`; it is answered
by a line when the mode is in force. A new mode other than `pass` first resets every connection of the region, because
one that is kept would know nothing of it. Ends when stdin ends.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import sys

MODES = {
    "pass": "forwards",
    "refuse": "nobody listens",
    "reset": "connections are reset as soon as they are accepted",
    "not_tls": "a server that does not speak TLS answers",
    "wrong_certificate": "a server with another name's certificate answers",
    "silent": "connections are accepted and nothing is ever said",
}


class Half(asyncio.Protocol):
    """One of the two connections of a path; bytes go to the other, at the speed that it takes them."""

    def __init__(self, path):
        self.path = path
        self.other = None
        self.transport = None
        self.early = []

    def connection_made(self, transport):
        self.transport = transport
        self.path.opened(self)

    def data_received(self, data):
        if self.other is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)

    def eof_received(self):
        return False

    def connection_lost(self, error):
        self.path.lost(self)

    def pause_writing(self):
        if self.other:
            self.other.transport.pause_reading()

    def resume_writing(self):
        if self.other:
            with contextlib.suppress(RuntimeError):
                self.other.transport.resume_reading()


class Path:
    """A connection of the proxy and the one to the simulator that it is joined with."""

    def __init__(self, region):
        self.region = region
        self.front = Half(self)
        self.back = None
        self.over = False

    def opened(self, half):
        if half is self.front:
            self.region.paths.add(self)
            self.region.start(self._join())

    async def _join(self):
        back = Half(self)
        try:
            await asyncio.get_running_loop().create_connection(lambda: back, "127.0.0.1", self.region.upstream)
        except OSError:
            self.reset()
            return
        if self.over:
            back.transport.abort()
            return
        self.back = back
        self.front.other, back.other = back, self.front
        for half in (self.front, back):
            half.other.transport.writelines(half.early)
            half.early.clear()

    def lost(self, half):
        self.over = True
        self.region.paths.discard(self)
        other = self.back if half is self.front else self.front
        if other is not None and other.transport is not None:
            # What was written still leaves.
            other.transport.close()

    def reset(self):
        self.over = True
        self.region.paths.discard(self)
        for half in (self.front, self.back):
            if half is not None and half.transport is not None:
                _reset_on_close(half.transport.get_extra_info("socket"))
                half.transport.abort()


def _reset_on_close(connection):
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Region:
    def __init__(self, upstream, right, wrong):
        self.upstream = upstream
        self.contexts = {"pass": right, "wrong_certificate": wrong}
        self.mode = "pass"
        self.paths = set()
        self.held = []
        self.tasks = set()
        self.listener = _bound(0)
        self.port = self.listener.getsockname()[1]
        self.accepting = None

    def start(self, work):
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def listen(self):
        self.listener.listen(1024)
        self.accepting = self.start(self._accept(self.listener))

    async def _accept(self, listener):
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.mode in self.contexts:
                self.start(self._take(connection, self.contexts[self.mode]))
            elif self.mode == "not_tls":
                with contextlib.suppress(OSError):
                    connection.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                self.held.append(connection)
            elif self.mode == "silent":
                self.held.append(connection)
            else:
                _reset_on_close(connection)
                connection.close()

    async def _take(self, connection, context):
        loop = asyncio.get_running_loop()
        # A handshake that the other side refuses is what some modes are for.
        with contextlib.suppress(OSError):
            await loop.connect_accepted_socket(lambda: Path(self).front, connection, ssl=context)

    def change(self, mode):
        if mode not in MODES:
            raise ValueError(mode)
        refused_before, self.mode = self.mode == "refuse", mode
        for connection in self.held:
            connection.close()
        self.held.clear()
        if mode != "pass":
            for path in list(self.paths):
                path.reset()
        if mode == "refuse" and not refused_before:
            self.accepting.cancel()
            self.listener.close()
            # Bound and not listening: the port stays ours, and whoever connects is refused.
            self.listener = _bound(self.port)
        elif refused_before and mode != "refuse":
            self.listen()


def _bound(port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.setblocking(False)
    return listener


def _context(certificate):
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def main(plan):
    right, wrong = (_context(plan.get(name)) for name in ("certificate", "wrong_certificate"))
    regions = [Region(upstream, right, wrong) for upstream in plan["upstreams"]]
    for region in regions:
        region.listen()
    print(json.dumps({"ports": [region.port for region in regions]}), flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        command = json.loads(line)
        regions[command["region"]].change(command["mode"])
        print(json.dumps(command), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(json.loads(sys.argv[1])))
