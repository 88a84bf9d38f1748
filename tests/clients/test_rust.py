"""The AWS SDK for Rust beyond what test_sdks.py asks of every client: the environment's bearer token, TLS with HTTP/2,
and conversations in both directions."""

import json
import os
import subprocess
import tomllib

import pytest
from conftest import DEADLINE_S, KEY, ROOT
from registry import PROMPT
from registry_rust import CLIENTS, DEPENDENCIES

NAME, SONIC = "my-claude-model", "amazon.nova-2-sonic-v1:0"
TURNS = 100


@pytest.fixture
def drive(tmp_path):
    """Runs the driver with some jobs, and gives its answers."""
    kept = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED", "NO_PROXY")

    def run(*jobs, **environment):
        [command] = CLIENTS[0].command
        done = subprocess.run(
            [ROOT / command], input="".join(json.dumps(job) + "\n" for job in jobs), capture_output=True, text=True,
            env={name: os.environ[name] for name in kept} | {"HOME": str(tmp_path)} | environment,
            timeout=DEADLINE_S, check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture
def key(proxy):
    """A virtual key of the test's own, with a key pair."""
    return proxy.manage("/key/generate", {"max_budget": 100, "sigv4": True})


def signer(key, pair):
    """What signs a job: the key's pair, or the key as access key id with any secret."""
    if pair:
        return {"key": key["aws_access_key_id"], "secret": key["aws_secret_access_key"]}
    return {"key": key["key"], "secret": "anything"}


def test_the_sdk_is_the_one_that_is_pinned():
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    locked = {(package["name"], package["version"]) for package in packages}
    for name in ("aws-sdk-bedrockruntime", "aws-sdk-bedrockagentruntime"):
        version = DEPENDENCIES[name]["version"]
        assert version.startswith("=") and (name, version.removeprefix("=")) in locked, name


def test_the_bearer_token_of_the_environment_is_a_key(drive, proxy, simulator):
    job = {"scenario": "chat", "url": f"{proxy.url}/bedrock", "model": NAME, "auth": "environment"}
    [answer] = drive(job, AWS_BEARER_TOKEN_BEDROCK=KEY)
    assert PROMPT in answer["text"], answer
    [refused] = drive(job, AWS_BEARER_TOKEN_BEDROCK="sk-never-made-0123456789")
    assert refused["error"]["code"] == "AccessDeniedException", refused


@pytest.mark.parametrize("auth", ["bearer", "sigv4"])
def test_every_call_works_over_tls(drive, proxy, dev_cert, simulator, auth):
    scenarios = ("chat", "stream", "invoke", "invoke-stream", "agent")
    call = {"url": f"{proxy.secure_url}/bedrock", "key": KEY, "secret": "anything", "model": NAME, "auth": auth}
    answers = drive(*[call | {"scenario": name} for name in scenarios], **dev_cert["trust"])
    for scenario, answer in zip(scenarios, answers, strict=True):
        assert "error" not in answer and answer["text"], (scenario, answer)
    assert all(request["auth"]["ok"] for request in simulator.requests())


def test_a_server_that_cannot_prove_itself_gets_nothing(drive, proxy, simulator):
    url = f"{proxy.secure_url}/bedrock"
    [answer] = drive({"scenario": "chat", "key": KEY, "model": NAME, "auth": "bearer", "url": url})
    assert answer["error"]["class"] == "DispatchFailure", answer
    assert simulator.requests() == []


@pytest.mark.parametrize("pair", [False, True], ids=["key", "pair"])
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_conversation_goes_on_for_a_hundred_turns_and_is_paid_for(drive, proxy, dev_cert, simulator, key, tls, pair):
    """Each input waits for the answer to the one before it, over HTTP/2 as over HTTP/1.1, which the SDK speaks to
    http:// URLs. The simulator verifies the signature of every frame; with a key pair the proxy does, too."""
    simulator.control("DELETE", "/billed")
    job = {"scenario": "conversation", "url": f"{proxy.secure_url if tls else proxy.url}/bedrock", "turns": TURNS}
    [answer] = drive(job | {"model": SONIC, "auth": "sigv4"} | signer(key, pair), **dev_cert["trust"])
    assert "error" not in answer, answer
    heard = [json.loads(line)["event"]["textInput"]["content"] for line in answer["text"].splitlines()]
    assert heard == [f"input {number}" for number in range(1, TURNS + 1)]
    # An echo and a usage event for each.
    assert answer["events"] == 2 * TURNS
    [request] = simulator.requests()
    assert (request["auth"]["ok"], request["violations"], request["http_version"]) == (True, [], "HTTP/2"), request
    [bill] = simulator.control("GET", "/_sim/billed/rows")
    total = bill["usage"]
    assert answer["usage"] == {
        "input": total["input"] + total["audio_input"], "output": total["output"] + total["audio_output"],
    }
    found = []

    def settled():
        found[:] = [line for line in proxy.lines if key["key_id"] in line]
        return bool(found)

    proxy.wait(settled, "the record of the conversation")
    [record] = [json.loads(line) for line in found]
    assert (record["status"], record["cost_nano_usd"]) == (200, bill["cost_nano_usd"]), record


def test_a_conversation_signed_with_another_secret_is_refused(drive, proxy, simulator, key):
    job = {"scenario": "conversation", "url": f"{proxy.url}/bedrock", "model": SONIC, "auth": "sigv4"}
    [answer] = drive(job | signer(key, True) | {"secret": "another"})
    assert (answer["error"]["code"], answer["error"]["status"]) == ("AccessDeniedException", 403), answer
    assert simulator.requests() == []


def test_an_exception_ends_a_conversation_by_its_name(drive, proxy, dev_cert, simulator, key):
    simulator.demand({"fault": {"kind": "exception_frame", "after_frames": 4, "name": "throttlingException"}})
    job = {"scenario": "conversation", "url": f"{proxy.secure_url}/bedrock", "model": SONIC, "auth": "sigv4"}
    [answer] = drive(job | signer(key, False), **dev_cert["trust"])
    assert (answer["error"]["class"], answer["events"]) == ("ThrottlingException", 4), answer
