"""The TLS port with a certificate of `dheera_ai dev-cert`, trusted as its output says. It is how boto3 from 1.44 on sends a
key as bearer token: over http it refuses."""

import json
import os
import re
import socket
import ssl
import subprocess
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import SSLError
from conftest import DEADLINE_S, KEY, ROOT, binary

MESSAGES = [{"role": "user", "content": [{"text": "Hello"}]}]


@pytest.fixture(scope="module")
def secure(start_proxy, dev_cert):
    """A proxy with a certificate and one port: only TLS is spoken."""
    proxy = start_proxy(DHEERA_AI_MASTER_KEY=KEY, **dev_cert["files"])
    assert proxy.url.startswith("https://127.0.0.1:")
    return proxy


@pytest.fixture
def bearer(secure, dev_cert, monkeypatch):
    """boto3 clients that have the key as bearer token, and no other credentials; each remembers how it authenticated."""
    monkeypatch.setenv("AWS_CA_BUNDLE", dev_cert["ca"])
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)

    def make(service):
        config = Config(retries={"total_max_attempts": 1}, read_timeout=DEADLINE_S)
        made = boto3.Session().client(
            service, region_name="us-east-1", endpoint_url=f"{secure.url}/bedrock", config=config
        )
        made.sent = []
        made.meta.events.register(
            "before-send.*.*", lambda request, **_: made.sent.append(bytes(request.headers["Authorization"]))
        )
        return made

    return make


def test_boto3_sends_a_key_as_bearer_token(bearer, simulator):
    runtime = bearer("bedrock-runtime")
    answer = runtime.converse(modelId="my-claude-model", messages=MESSAGES)
    assert answer["output"]["message"]["content"][0]["text"]

    events = list(runtime.converse_stream(modelId="my-claude-model", messages=MESSAGES)["stream"])
    assert "messageStart" in events[0] and events[-1]["metadata"]["usage"]["outputTokens"] > 0

    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
    invoked = runtime.invoke_model(modelId="my-claude-model", body=json.dumps(body))
    assert json.load(invoked["body"])["content"][0]["text"]
    streamed = runtime.invoke_model_with_response_stream(modelId="my-claude-model", body=json.dumps(body))
    chunks = [json.loads(event["chunk"]["bytes"]) for event in streamed["body"]]
    assert chunks[0]["type"] == "message_start" and chunks[-1]["type"] == "message_stop"

    assert "modelSummaries" in bearer("bedrock").list_foundation_models()
    assert runtime.sent == [b"Bearer " + KEY.encode()] * 4
    assert all(request["auth"]["ok"] for request in simulator.requests())


def test_boto3_refuses_a_certificate_it_was_not_told_to_trust(bearer, monkeypatch, simulator):
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with pytest.raises(SSLError):
        bearer("bedrock-runtime").converse(modelId="my-claude-model", messages=MESSAGES)
    assert simulator.requests() == []


@pytest.mark.parametrize("option, version", [("--http2", "2"), ("--http1.1", "1.1"), ("--no-alpn", "1.1")])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_curl_speaks_both_versions(secure, dev_cert, simulator, option, version, host):
    url = f"https://{host}:{urlsplit(secure.url).port}"
    curl = ["curl", "--silent", "--show-error", "--fail", option, "--cacert", dev_cert["ca"]]
    key = ["-H", f"Authorization: Bearer {KEY}"]
    body = ["-H", "Content-Type: application/json", "-d", json.dumps({"messages": MESSAGES})]
    for path, arguments in [
        ("/bedrock/model/my-claude-model/converse", key + body),
        ("/bedrock/model/my-claude-model/converse-stream", key + body),
        ("/health/liveliness", []),
        ("/metrics", key),
    ]:
        command = curl + arguments + ["--output", os.devnull, "--write-out", "%{http_code} %{http_version}", url + path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout == f"200 {version}", (path, done.stdout, done.stderr)


def test_curl_refuses_a_certificate_it_was_not_told_to_trust(secure):
    done = subprocess.run(["curl", "--silent", secure.url + "/health/liveliness"], capture_output=True, check=False)
    assert done.returncode == 60


def connected(secure, context, session=None):
    url = urlsplit(secure.url)
    plain = socket.create_connection((url.hostname, url.port), timeout=DEADLINE_S)
    return context.wrap_socket(plain, server_hostname="localhost", session=session)


def test_strict_verification_passes(secure, dev_cert):
    """Python's default from 3.13 on."""
    context = ssl.create_default_context(cafile=dev_cert["ca"])
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    with connected(secure, context) as stream:
        assert stream.version() == "TLSv1.3"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(secure, dev_cert, version):
    context = ssl.create_default_context(cafile=dev_cert["ca"])
    context.minimum_version = context.maximum_version = version
    session = None
    for resumed in (False, True, True):
        with connected(secure, context, session) as stream:
            # With TLS 1.3 the ticket comes with the first bytes of an answer.
            stream.sendall(b"GET /health/liveliness HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert stream.recv(65536).startswith(b"HTTP/1.1 200")
            assert stream.session_reused is resumed
            session = stream.session


def test_every_line_of_dev_cert_can_be_used(secure, dev_cert):
    variables = {"AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}
    assert set(dev_cert["trust"]) == variables and set(dev_cert["trust"].values()) == {dev_cert["ca"]}
    port = urlsplit(secure.url).port
    said = dev_cert["says"].replace("localhost:4000", f"localhost:{port}").replace("config.yaml", f"{ROOT}/conf/demo.yaml")
    environment = {"PATH": f"{binary('dheera_ai').parent}:{os.environ['PATH']}", "DHEERA_AI_MASTER_KEY": KEY}
    commands = re.findall(r"^(?:curl|dheera_ai) .*", said, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        # The one that starts a proxy is checked instead: the port is taken.
        command = command.replace("dheera_ai --config", "dheera_ai check --config")
        done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
