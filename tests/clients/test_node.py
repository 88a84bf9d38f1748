"""The JavaScript clients beyond what test_sdks.py asks of every client: HTTP/2 as the AWS SDK speaks it, conversations
in both directions, the clients of the other services, and Claude Code.
"""

import json
import os
import re
import subprocess

import pytest
from conftest import ACCESS_KEY, DEADLINE_S, KEY, ROOT, SECRET
from registry import PROMPT
from registry_node import CLIENTS, FOLDER, VERSIONS

NAME, MODEL = "my-claude-model", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
SONIC = "amazon.nova-2-sonic-v1:0"


@pytest.fixture
def drive(tmp_path):
    """Runs a driver of tests/clients/node with some jobs, and gives its answers."""
    kept = ("PATH", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED")
    environment = {name: os.environ[name] for name in kept} | {"HOME": str(tmp_path)}

    def run(driver, *jobs, **more):
        done = subprocess.run(
            ["node", FOLDER / driver], input="".join(json.dumps(job) + "\n" for job in jobs), env=environment | more,
            capture_output=True, text=True, timeout=3 * DEADLINE_S, check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture
def key(proxy):
    """A virtual key of the test's own, with a key pair."""
    return proxy.manage("/key/generate", {"max_budget": 100, "sigv4": True})


def job(proxy, scenario, key=KEY, auth="sigv4", model=NAME, **more):
    url, secret = f"{proxy.url}/bedrock", "anything"
    return {"scenario": scenario, "url": url, "key": key, "secret": secret, "auth": auth, "model": model} | more


def records_of(proxy, key, count):
    """The request records of a key, once there are so many."""
    found = []

    def arrived():
        found[:] = [line for line in proxy.lines if key["key_id"] in line]
        return len(found) >= count

    proxy.wait(arrived, f"{count} records of {key['key_id']}")
    return [json.loads(line) for line in found]


def test_the_clients_are_those_that_are_pinned():
    lock = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    for name, version in VERSIONS.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), (name, version)
        installed = json.loads((FOLDER / "node_modules" / name / "package.json").read_text())["version"]
        assert installed == version == lock[f"node_modules/{name}"]["version"], name
    for client in CLIENTS:
        assert client.package in VERSIONS and (ROOT / client.command[1]).is_file()


def test_a_thousand_calls_over_plain_http2_go_without_an_error(drive, proxy, simulator, key):
    """The AWS SDK opens a connection for each call, and says GOAWAY on it while the answer is still to come."""
    simulator.control("DELETE", "/billed")
    [got] = drive("many.mjs", job(proxy, "many", key["key"], "bearer", requests=1000, concurrency=16))
    assert (got["failures"], got["events"], got["connections"]) == ([], 1000, 1000)
    records = records_of(proxy, key, 1000)
    assert len(records) == 1000 and {record["status"] for record in records} == {200}
    bills = simulator.control("GET", "/_sim/billed/rows")
    assert len(bills) == 1000
    assert sum(record["cost_nano_usd"] for record in records) == sum(bill["cost_nano_usd"] for bill in bills) > 0


@pytest.mark.parametrize("pair", [False, True], ids=["key", "pair"])
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_conversation_flows_both_ways_at_once(drive, proxy, dev_cert, simulator, key, tls, pair):
    """Each of a hundred events waits for the answers to the one before. The simulator checks the signature of each; with
    a key pair the proxy does, too."""
    more = {"url": f"{proxy.secure_url}/bedrock"} if tls else {}
    more |= {"key": key["aws_access_key_id"], "secret": key["aws_secret_access_key"]} if pair else {"key": key["key"]}
    [got] = drive("sonic.mjs", job(proxy, "conversation", model=SONIC, turns=100, **more), **dev_cert["trust"])
    assert (got.get("turns"), got["events"]) == (100, 200), got
    [sent] = simulator.requests()
    assert (sent["http_version"], sent["status"], sent["finished"], sent["violations"]) == ("HTTP/2", 200, True, [])
    assert (sent["auth"]["ok"], sent["auth"]["access_key_id"]) == (True, ACCESS_KEY)
    assert simulator.control("GET", "/_sim/counters")["authentication_failures"] == 0
    [record] = records_of(proxy, key, 1)
    assert (record["status"], record["usage_certainty"], record["cost_nano_usd"] > 0) == (200, "exact", True), record
    assert got["usage"] == {name: record["usage"][f"{name}_tokens"] for name in ("input", "output")}


@pytest.mark.parametrize(
    "what, code, status",
    [
        (dict(key="sk-never-made-0123456789"), "AccessDeniedException", 403),
        (dict(secret="another"), "AccessDeniedException", 403),
        (dict(model="no-such-model"), "ResourceNotFoundException", 404),
    ],
)
def test_a_conversation_that_may_not_begin_is_refused(what, code, status, drive, proxy, simulator, key):
    if "secret" in what:
        what = what | {"key": key["aws_access_key_id"]}
    [got] = drive("sonic.mjs", job(proxy, "conversation", turns=5, **{"model": SONIC} | what))
    assert (got["error"]["class"], got["error"]["code"], got["error"]["status"]) == (code, code, status)
    assert simulator.requests() == []


@pytest.mark.parametrize(
    "fault, code, message",
    [
        (
            {"kind": "exception_frame", "name": "modelStreamErrorException", "message": "Lost the thread"},
            "ModelStreamErrorException", "Lost the thread",
        ),
        ({"kind": "cut"}, "ServiceUnavailableException", "The connection to the model broke"),
        ({"kind": "reset"}, "ServiceUnavailableException", "The connection to the model broke"),
    ],
    ids=["exception_frame", "cut", "reset"],
)
def test_a_conversation_that_breaks_off_says_why(fault, code, message, drive, proxy, simulator, key):
    simulator.demand({"match": {"model": SONIC}, "fault": fault | {"after_frames": 4}})
    [got] = drive("sonic.mjs", job(proxy, "conversation", key["key"], model=SONIC, turns=5))
    assert (got["error"]["class"], got["error"]["code"]) == (code, code), got
    assert message in got["error"]["message"] and "audioInput" in got["text_so_far"]
    [record] = records_of(proxy, key, 1)
    # Two events were answered and are paid for.
    assert record["usage"]["output_tokens"] == 10 and record["cost_nano_usd"] > 0, record


CALLS = {
    "agent": "InvokeAgent",
    "flow": "InvokeFlow",
    "retrieve": "Retrieve",
    "retrieve-and-generate": "RetrieveAndGenerateStream",
    "models": "ListFoundationModels",
    "profile": "GetInferenceProfile",
}


def test_the_other_services_give_what_they_give_without_the_proxy(drive, proxy, simulator):
    through = [job(proxy, call) for call in CALLS]
    # What belongs to no model goes to the region of conf/demo.yaml's credentials.
    of_aws = {"url": simulator.url, "key": ACCESS_KEY, "secret": SECRET, "region": "us-east-1"}
    direct = [one | of_aws for one in through]
    answers = drive("services.mjs", *through, *direct)
    ours, theirs = answers[: len(CALLS)], answers[len(CALLS) :]
    sent = simulator.requests()
    assert [one["operation"] for one in sent] == list(CALLS.values()) * 2
    for call, our, their, arrived, expected in zip(CALLS, ours, theirs, sent, sent[len(CALLS) :]):
        assert our["answer"] == their["answer"] != {}, call
        assert arrived["auth"]["ok"] and arrived["violations"] == [], call
        for same in ("service", "operation", "method", "path", "query", "body_sha256"):
            assert arrived[same] == expected[same], (call, same)


# What Claude Code asks before its question where it holds credentials: which models there are, and which it may call.
# With CLAUDE_CODE_SKIP_BEDROCK_AUTH it asks nothing of the kind with a key; that way is among those of test_sdks.py.
INQUIRIES = ["ListInferenceProfiles", "InvokeModel", "InvokeModel", "InvokeModel"]


@pytest.mark.parametrize(
    "auth, only, inquiries",
    [
        ("bedrock-key", True, INQUIRIES[:1]),
        ("sigv4", False, INQUIRIES),
    ],
)
def test_claude_code_answers_a_prompt(auth, only, inquiries, drive, proxy, simulator, key):
    [got] = drive("claude.mjs", job(proxy, "chat", key["key"], auth, only=only))
    assert PROMPT in got.get("text", ""), got
    sent = simulator.requests()
    assert [one["operation"] for one in sent] == [*inquiries, "InvokeModelWithResponseStream"]
    assert all(one["auth"]["ok"] and one["violations"] == [] for one in sent)
    assert sent[-1]["model"] == MODEL
    records = records_of(proxy, key, len(sent))
    assert len(records) == len(sent)
    [answer] = [record for record in records if record["operation"] == "InvokeModelWithResponseStream"]
    assert got["usage"] == {name: answer["usage"][f"{name}_tokens"] for name in ("input", "output")}
    assert answer["cost_nano_usd"] > 0


@pytest.mark.parametrize("auth", ["bedrock-key", "sigv4"])
def test_claude_code_shows_why_it_is_refused(auth, drive, proxy, simulator):
    spent = proxy.manage("/key/generate", {"max_budget": 0.000001})
    wrong, poor = drive(
        "claude.mjs",
        job(proxy, "chat", "sk-never-made-0123456789", auth),
        job(proxy, "chat", spent["key"], auth),
    )
    assert wrong["error"]["class"] == "exit 1" and wrong["error"]["status"] == 403
    assert "The API key is not valid" in wrong["error"]["message"]
    assert poor["error"]["class"] == "exit 1" and poor["error"]["status"] == 400
    assert "The budget of this key does not cover this call" in poor["error"]["message"]
    records = [record for record in records_of(proxy, spent, 1) if record["operation"] != "ListInferenceProfiles"]
    assert [record["reason"] for record in records] == ["over_budget"]
    assert [one for one in simulator.requests() if one["operation"] != "ListInferenceProfiles"] == []


@pytest.mark.parametrize("kind", ["exception_frame", "cut"])
def test_claude_code_asks_again_without_a_stream_when_one_breaks(kind, drive, proxy, simulator, key):
    more = {"name": "throttlingException"} if kind == "exception_frame" else {}
    fault = {"kind": kind, "after_frames": 2} | more
    simulator.demand({"match": {"operation": "InvokeModelWithResponseStream"}, "fault": fault})
    [got] = drive("claude.mjs", job(proxy, "stream", key["key"], "bearer"))
    assert PROMPT in got.get("text", ""), got
    operations = [record["operation"] for record in records_of(proxy, key, 2)]
    assert operations == ["InvokeModelWithResponseStream", "InvokeModel"]
