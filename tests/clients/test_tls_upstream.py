"""The way to AWS is TLS. A terminator in front of the simulator stands in for it, with a certificate of a CA of our own:
the proxy has to trust it through AWS_CA_BUNDLE, to refuse it without, and to refuse it under another name."""

import asyncio
import ssl
import subprocess
import threading
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from conftest import KEY, client

MESSAGES = [{"role": "user", "content": [{"text": "Hello"}]}]


class Terminator:
    """Takes TLS connections on a port of its own and passes their bytes to the simulator, and back."""

    def __init__(self, certificate, key, target):
        self.target = urlsplit(target)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.context.set_alpn_protocols(["h2", "http/1.1"])
        self.names = []
        self.context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)
        )
        self.port = self.server.sockets[0].getsockname()[1]
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    async def _serve(self, reader, writer):
        try:
            to_reader, to_writer = await asyncio.open_connection(self.target.hostname, self.target.port)
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
        self.server.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A CA, and a certificate of it for `localhost`."""
    at = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=at, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test CA", "-days", "2")
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (at / "names").write_text("subjectAltName=DNS:localhost")
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2"]
    openssl("x509", "-req", "-in", "server.csr", "-out", "server.pem", *signing)
    return at


@pytest.fixture(scope="module")
def terminator(authority, _simulator):
    terminator = Terminator(authority / "server.pem", authority / "server.key", _simulator.url)
    yield terminator
    terminator.stop()


def converse(proxy):
    return client("bedrock-runtime", f"{proxy.url}/bedrock").converse(modelId="my-claude-model", messages=MESSAGES)


def test_a_call_goes_over_tls_with_the_bundle(start_proxy, authority, terminator, simulator):
    proxy = start_proxy(
        DHEERA_AI_MASTER_KEY=KEY,
        AWS_ENDPOINT_URL=f"https://localhost:{terminator.port}",
        AWS_CA_BUNDLE=str(authority / "ca.pem"),
    )
    for _ in range(3):
        assert converse(proxy)["output"]["message"]["content"][0]["text"]
    request = simulator.requests()[-1]
    assert request["auth"]["ok"], request
    assert request["host"] == f"localhost:{terminator.port}"
    assert set(terminator.names) == {"localhost"}


@pytest.mark.parametrize("host, bundle", [("localhost", None), ("127.0.0.1", "ca.pem")])
def test_a_server_that_cannot_prove_itself_gets_nothing(start_proxy, authority, terminator, simulator, host, bundle):
    environment = {"AWS_CA_BUNDLE": str(authority / bundle)} if bundle else {}
    proxy = start_proxy(
        DHEERA_AI_MASTER_KEY=KEY, AWS_ENDPOINT_URL=f"https://{host}:{terminator.port}", **environment
    )
    with pytest.raises(ClientError) as raised:
        converse(proxy)
    assert raised.value.response["Error"]["Code"] == "ServiceUnavailableException"
    assert simulator.requests() == []
