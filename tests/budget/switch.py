"""A TCP port that leads to one of several servers, as a load balancer or a floating address in front of Redis does. When it
is switched, the connections through it break."""

import asyncio


class Switch:
    def __init__(self, target):
        self.target = target
        self.connections = set()
        self.server = None

    @property
    def port(self):
        return self.server.sockets[0].getsockname()[1]

    async def open(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def close(self):
        self.server.close()
        self._break()
        await self.server.wait_closed()

    def to(self, target):
        """Leads new connections to the port `target`, and breaks the others. `None` refuses all."""
        self.target = target
        self._break()

    def _break(self):
        for writer in list(self.connections):
            writer.transport.abort()

    async def _serve(self, reader, writer):
        self.connections.add(writer)
        upstream = None
        try:
            if self.target is None:
                return
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self.target)
            self.connections.add(upstream)
            both = [asyncio.create_task(_copy(reader, upstream)), asyncio.create_task(_copy(upstream_reader, writer))]
            _, pending = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        except OSError:
            pass
        finally:
            for end in (writer, upstream):
                if end is not None:
                    self.connections.discard(end)
                    end.transport.abort()


async def _copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
