"""Virtual keys as boto3 applications hold them: what a key pays for, what it is refused, and what boto3 makes of that."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from botocore.exceptions import ClientError, EventStreamError
from conftest import DEADLINE_S, client

NAME = "my-claude-model"
MESSAGES = [{"role": "user", "content": [{"text": "Tell me a story"}]}]
BODY = json.dumps(
    {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}
)
LIMIT = {"maxTokens": 100}
CALLS = {
    "converse": dict(modelId=NAME, messages=MESSAGES, inferenceConfig=LIMIT),
    "converse_stream": dict(modelId=NAME, messages=MESSAGES, inferenceConfig=LIMIT),
    "invoke_model": dict(modelId=NAME, body=BODY),
    "invoke_model_with_response_stream": dict(modelId=NAME, body=BODY),
}
METHODS = pytest.mark.parametrize("method", CALLS)


@pytest.fixture
def make_key(proxy):
    """Makes keys with the limits that are given."""
    return lambda **fields: proxy.manage("/key/generate", fields)


@pytest.fixture
def holding(proxy, simulator):
    """boto3 clients that hold a key."""
    return lambda key, service="bedrock-runtime", **more: client(service, f"{proxy.url}/bedrock", key=key["key"], **more)


def call(runtime, method):
    """Makes a call and reads its answer to the end; gives the answer's header."""
    answer = getattr(runtime, method)(**CALLS[method])
    for member in ("stream", "body"):
        # Bodies of answers in one piece are lines to iterate over, those of streams are events.
        list(answer.get(member, ()))
    return answer["ResponseMetadata"]["HTTPHeaders"]


def refused(runtime, method="converse"):
    with pytest.raises(ClientError) as caught:
        call(runtime, method)
    return caught.value


def retries(error):
    return error.response["ResponseMetadata"]["RetryAttempts"]


def spent(proxy, key, at_least):
    """What a key has spent, once the call that has just ended is booked."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        info = proxy.manage(f"/key/info?key={key['key_id']}")["info"]
        if (info["spend"] >= at_least and not info["reserved"]) or time.monotonic() > deadline:
            return info["spend"]
        time.sleep(0.02)


def logged(proxy, key):
    """The one entry that the spend log has of a key; it is written a moment after the spend is booked."""
    deadline = time.monotonic() + DEADLINE_S
    while not (entries := proxy.manage(f"/spend/logs?api_key={key['key_id']}")["data"]) and time.monotonic() < deadline:
        time.sleep(0.02)
    [entry] = entries
    return entry


@METHODS
def test_a_key_is_charged_with_what_its_call_cost(method, make_key, holding, proxy):
    key = make_key(key_alias=f"charged-{method}", max_budget=1)
    header = call(holding(key), method)
    record = proxy.record(header["x-dheera-ai-call-id"])
    assert (record["key_alias"], record["key_id"], record["usage_certainty"]) == (
        f"charged-{method}", key["key_id"], "exact",
    )
    cost = Decimal(record["cost_usd"])
    assert cost > 0 and spent(proxy, key, cost) == cost
    assert Decimal(header["x-dheera-ai-key-max-budget"]) == 1
    if "stream" in method:
        # The header leaves before the cost is known.
        assert Decimal(header["x-dheera-ai-key-spend"]) == 0 and "x-dheera-ai-response-cost" not in header
        assert Decimal(header["x-dheera-ai-key-remaining"]) < 1 - cost
    else:
        assert Decimal(header["x-dheera-ai-response-cost"]) == Decimal(header["x-dheera-ai-key-spend"]) == cost
        assert Decimal(header["x-dheera-ai-key-remaining"]) == 1 - cost
    entry = logged(proxy, key)
    assert (entry["request_id"], entry["spend"]) == (header["x-dheera-ai-call-id"], cost)


def test_the_other_services_take_a_virtual_key_too(make_key, holding, proxy):
    key = make_key()
    agents = holding(key, "bedrock-agent-runtime")
    answer = agents.retrieve(knowledgeBaseId="KB12345678", retrievalQuery={"text": "What do we sell?"})
    assert proxy.record(answer["ResponseMetadata"]["HTTPHeaders"]["x-dheera-ai-call-id"])["key_id"] == key["key_id"]
    control = holding(key, "bedrock")
    assert control.list_foundation_models()["modelSummaries"]
    with pytest.raises(control.exceptions.AccessDeniedException, match="allowed_operations"):
        control.delete_guardrail(guardrailIdentifier="guardrail1")


@METHODS
@pytest.mark.parametrize("key", ["sk-never-made-0123456789", "not-a-key"])
def test_a_wrong_key_is_access_denied(method, key, holding, simulator):
    runtime = holding({"key": key}, attempts=3)
    error = refused(runtime, method)
    assert isinstance(error, runtime.exceptions.AccessDeniedException)
    assert "key is not valid" in error.response["Error"]["Message"]
    assert retries(error) == 0 and simulator.requests() == []


@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
@METHODS
def test_a_budget_that_does_not_last_is_a_quota_that_boto3_does_not_try_again(
    method, mode, make_key, holding, proxy, simulator
):
    key = make_key(max_budget=0.000001)
    runtime = holding(key, retries={"total_max_attempts": 3, "mode": mode})
    error = refused(runtime, method)
    assert isinstance(error, runtime.exceptions.ServiceQuotaExceededException)
    assert "budget" in error.response["Error"]["Message"]
    assert error.response["ResponseMetadata"]["HTTPHeaders"]["x-should-retry"] == "false"
    # One attempt of boto3, and none of the proxy.
    assert retries(error) == 0 and simulator.requests() == []
    assert spent(proxy, key, 0) == 0


def test_a_budget_is_used_up_and_no_more(make_key, holding, proxy, simulator):
    """Every token counts as much as it can, so that the bound is the cost and the budget goes out even."""
    simulator.demand({"tokens": "bytes"})
    probe = make_key(max_budget=1)
    cost = Decimal(call(holding(probe), "converse")["x-dheera-ai-response-cost"])
    key = make_key(max_budget=float(3 * cost))
    runtime = holding(key, attempts=3)
    left = [Decimal(call(runtime, "converse")["x-dheera-ai-key-remaining"]) for _ in range(3)]
    assert left == [2 * cost, cost, 0]
    before = len(simulator.requests())
    error = refused(runtime)
    assert isinstance(error, runtime.exceptions.ServiceQuotaExceededException) and len(simulator.requests()) == before
    assert spent(proxy, key, 3 * cost) == 3 * cost


def test_a_stream_that_outgrows_its_budget_ends_with_an_exception(make_key, holding, proxy, simulator):
    """Not as if it were complete, and not as something to be tried again."""
    simulator.demand({"frames": 400, "frame_bytes": 400})
    key = make_key(max_budget=0.02)
    answer = holding(key).converse_stream(modelId=NAME, messages=MESSAGES)
    events = []
    with pytest.raises(EventStreamError) as caught:
        events.extend(answer["stream"])
    assert caught.value.response["Error"]["Code"] == "validationException", caught.value.response
    assert "budget" in caught.value.response["Error"]["Message"]
    record = proxy.record(answer["ResponseMetadata"]["HTTPHeaders"]["x-dheera-ai-call-id"])
    assert (record["reason"], record["fault"]) == ("budget_exhausted", "limit"), record
    assert 0 < spent(proxy, key, Decimal("0.000000001")) <= Decimal("0.02")


def test_a_rate_is_throttling(make_key, holding, simulator):
    runtime = holding(make_key(rpm_limit=1))
    call(runtime, "converse")
    error = refused(runtime)
    assert isinstance(error, runtime.exceptions.ThrottlingException)
    assert 0 < int(error.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"]) <= 65
    assert len(simulator.requests()) == 1


@pytest.mark.parametrize("mode", ["legacy", "standard"])
def test_throttling_is_tried_again_until_there_is_room(mode, make_key, holding, simulator):
    """A rate of one request may be used by one request; boto3's next attempts are counted, and refused."""
    key = make_key(rpm_limit=1)
    call(holding(key), "converse")
    runtime = holding(key, retries={"total_max_attempts": 2, "mode": mode})
    error = refused(runtime)
    assert isinstance(error, runtime.exceptions.ThrottlingException)
    assert retries(error) == 1 and len(simulator.requests()) == 1

    # As soon as another call has ended there is room: boto3 gets in without anybody noticing.
    simulator.demand({"delay_ms": 700})
    runtime = holding(make_key(max_parallel_requests=1), retries={"total_max_attempts": 12, "mode": mode})
    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(runtime.converse, **CALLS["converse"]) for _ in range(2)]
        tried = [answer.result()["ResponseMetadata"]["RetryAttempts"] for answer in answers]
    assert min(tried) == 0 and max(tried) > 0, tried
    assert len(simulator.requests()) == 1 + len(tried)


def test_a_blocked_and_a_deleted_key_are_access_denied(make_key, holding, proxy):
    key = make_key()
    runtime = holding(key)
    call(runtime, "converse")
    for path, works in [("/key/block", False), ("/key/unblock", True), ("/key/delete", False)]:
        proxy.manage(path, {"keys": [key["key"]]} if path == "/key/delete" else {"key": key["key"]})
        # What other threads and replicas remember of a key is looked at anew within a second.
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                call(runtime, "converse")
                error = None
            except ClientError as caught:
                error = caught
            if (error is None) == works or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        assert (error is None) == works, (path, error)
        assert works or isinstance(error, runtime.exceptions.AccessDeniedException), error


def test_a_new_secret_of_a_key_pays_from_the_same_budget(make_key, holding, proxy):
    key = make_key(max_budget=1)
    first = Decimal(call(holding(key), "converse")["x-dheera-ai-response-cost"])
    renewed = proxy.manage(f"/key/{key['key']}/regenerate", {"grace_period": "1h"})
    assert renewed["key_id"] == key["key_id"] and renewed["key"] != key["key"]
    header = call(holding(renewed), "converse")
    assert Decimal(header["x-dheera-ai-key-spend"]) == first + Decimal(header["x-dheera-ai-response-cost"])
    # Still within its grace period.
    call(holding(key), "converse")


def test_a_key_calls_and_sees_its_own_models_only(make_key, holding, proxy, simulator):
    key = make_key(models=["my-claude-*"])
    status, text = proxy.get("/v1/models", Authorization=f"Bearer {key['key']}")
    assert status == 200 and [model["id"] for model in json.loads(text)["data"]] == [NAME]
    runtime = holding(key)
    call(runtime, "converse")
    simulator.forget()
    with pytest.raises(runtime.exceptions.AccessDeniedException, match="my-claude-"):
        runtime.converse(modelId="my-bedrock-model", messages=MESSAGES)
    assert simulator.requests() == []
    status, text = proxy.get("/key/info", Authorization=f"Bearer {key['key']}")
    assert status == 200 and key["key"] not in text and json.loads(text)["info"]["key_id"] == key["key_id"]
    assert proxy.get("/key/list", Authorization=f"Bearer {key['key']}")[0] == 403
