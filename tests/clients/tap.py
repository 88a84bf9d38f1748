"""Stands between a client and a server: takes its connections, with TLS or without, passes every byte on, and notes what
was spoken."""

import asyncio
import ssl
import threading
from urllib.parse import urlsplit

PRIOR_KNOWLEDGE = b"PRI * HTTP/2.0"


class Tap:
    """Passes the bytes of connections to a port of its own on to `target`, which speaks no TLS, and back. With the
    files of a certificate and its key it is a TLS server that offers both versions of HTTP."""

    def __init__(self, target, certificate=None, key=None):
        self.target = urlsplit(target)
        self.names, self.heard = [], set()
        self.loop = asyncio.new_event_loop()
        context = self._context(certificate, key) if certificate else None
        self.server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context))
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _context(self, certificate, key):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["h2", "http/1.1"])
        context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        return context

    def _run(self):
        self.loop.run_forever()
        self.loop.run_until_complete(self._end())
        self.loop.close()

    async def _end(self):
        self.server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader, writer):
        try:
            to_reader, to_writer = await asyncio.open_connection(self.target.hostname, self.target.port)
            opening = await reader.read(65536)
            self.heard.add(version(opening, writer.get_extra_info("ssl_object")))
            to_writer.write(opening)
            await asyncio.gather(self._pass(reader, to_writer), self._pass(to_reader, writer))
        except OSError:
            writer.close()

    @staticmethod
    async def _pass(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


def version(opening, tls):
    """The version of HTTP that a connection begins with, as docs/clients.md calls it."""
    if opening.startswith(PRIOR_KNOWLEDGE):
        return "h2" if tls else "h2c"
    return "HTTP/1.1"
