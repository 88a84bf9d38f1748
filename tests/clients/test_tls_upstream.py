"""The way to AWS is TLS. A terminator in front of the simulator stands in for it, with a certificate of a CA of our own:
the proxy has to trust it through AWS_CA_BUNDLE, to refuse it without, and to refuse it under another name."""

import subprocess

import pytest
from botocore.exceptions import ClientError
from conftest import KEY, client
from tap import Tap

MESSAGES = [{"role": "user", "content": [{"text": "Hello"}]}]


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
    terminator = Tap(_simulator.url, authority / "server.pem", authority / "server.key")
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
