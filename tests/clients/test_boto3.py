"""boto3 as applications use it: every call through the proxy gives what the same call gives without it.

The suite runs under several versions of boto3, because 1.44 changed how bearer tokens and retries work.
"""

import json

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError, InvalidEndpointConfigurationError
from conftest import ACCESS_KEY, BOTO3, KEY, OLD_BOTO3, client, result

NAME, MODEL, REGION = "my-claude-model", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us-west-2"
MESSAGES = [{"role": "user", "content": [{"text": "Tell me a story"}]}]
BODY = json.dumps(
    {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}
)
PROFILE = "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/demo12345678"

# Service, method, arguments through the proxy, and what differs in those sent directly.
OF_A_MODEL = [
    ("converse", dict(messages=MESSAGES, inferenceConfig={"maxTokens": 7})),
    ("converse", dict(messages=MESSAGES, serviceTier={"type": "flex"}, performanceConfig={"latency": "optimized"})),
    ("converse_stream", dict(messages=MESSAGES)),
    ("invoke_model", dict(body=BODY)),
    ("invoke_model", dict(body=BODY, contentType="application/json", accept="application/json", trace="ENABLED")),
    ("invoke_model_with_response_stream", dict(body=BODY)),
    ("count_tokens", dict(input={"converse": {"messages": MESSAGES}})),
    ("count_tokens", dict(input={"invokeModel": {"body": BODY.encode()}})),
]
if BOTO3 == "1.39":  # It knows neither service tiers nor CountTokens.
    OF_A_MODEL = [one for one in OF_A_MODEL if one[0] != "count_tokens" and "serviceTier" not in one[1]]
RERANK = dict(
    queries=[{"type": "TEXT", "textQuery": {"text": "capital of France"}}],
    sources=[
        {"type": "INLINE", "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": text}}}
        for text in ("Paris", "Lyon", "Berlin")
    ],
    rerankingConfiguration={
        "type": "BEDROCK_RERANKING_MODEL",
        "bedrockRerankingConfiguration": {
            "modelConfiguration": {"modelArn": "arn:aws:bedrock:us-east-1::foundation-model/cohere.rerank-v3-5:0"}
        },
    },
)
FLOW = dict(
    flowIdentifier="FLOW123456", flowAliasIdentifier="ALIAS12345",
    inputs=[{"content": {"document": "Hello"}, "nodeName": "FlowInputNode", "nodeOutputName": "document"}],
)
OF_NO_MODEL = [
    (
        "bedrock-runtime", "apply_guardrail",
        dict(
            guardrailIdentifier="guardrailIdentifier", guardrailVersion="1", source="INPUT",
            content=[{"text": {"text": "Is this sentence fine?"}}],
        ),
    ),
    ("bedrock-runtime", "list_async_invokes", dict(maxResults=3, sortOrder="Ascending")),
    ("bedrock-agent-runtime", "retrieve", dict(knowledgeBaseId="KB12345678", retrievalQuery={"text": "What?"})),
    (
        "bedrock-agent-runtime", "invoke_agent",
        dict(agentId="AGENT12345", agentAliasId="ALIAS12345", sessionId="s1", inputText="Hello", enableTrace=True),
    ),
    ("bedrock-agent-runtime", "invoke_flow", FLOW),
    ("bedrock-agent-runtime", "rerank", RERANK),
    ("bedrock", "list_foundation_models", dict(byProvider="anthropic")),
    ("bedrock", "get_inference_profile", dict(inferenceProfileIdentifier=PROFILE)),
    ("bedrock-agent", "list_agents", dict()),
]


def succeed(one, method, arguments):
    answer = getattr(one, method)(**arguments)
    return answer["ResponseMetadata"], result(answer)


@pytest.mark.parametrize("method, arguments", OF_A_MODEL, ids=[f"{one[0]}-{at}" for at, one in enumerate(OF_A_MODEL)])
def test_a_call_by_model_name_gives_what_the_same_call_to_its_deployment_gives(
    method, arguments, through, direct, proxy, simulator
):
    metadata, ours = succeed(through("bedrock-runtime"), method, dict(arguments, modelId=NAME))
    _, theirs = succeed(direct("bedrock-runtime", region=REGION), method, dict(arguments, modelId=MODEL))
    assert ours == theirs and ours
    sent, expected = simulator.requests(last=2)
    for same in ("operation", "model", "method", "path", "query", "body_sha256"):
        assert sent[same] == expected[same], same
    assert sent["auth"]["ok"] and sent["auth"]["region"] == REGION
    headers = metadata["HTTPHeaders"]
    assert headers["x-dheera-ai-model-id"] == MODEL
    record = proxy.record(headers["x-dheera-ai-call-id"])
    assert (record["status"], record["model_name"], record["aws_request_id"]) == (200, NAME, metadata["RequestId"])
    # Counting tokens is free; everything else has a price, exact to the nano-dollar.
    assert (record["cost_nano_usd"] > 0) == (method != "count_tokens"), record


@pytest.mark.parametrize("service, method, arguments", OF_NO_MODEL, ids=[one[1] for one in OF_NO_MODEL])
def test_a_call_without_a_model_gives_what_it_gives_without_the_proxy(
    service, method, arguments, through, direct, simulator
):
    _, ours = succeed(through(service), method, arguments)
    _, theirs = succeed(direct(service), method, arguments)
    assert ours == theirs
    sent, expected = simulator.requests(last=2)
    for same in ("service", "operation", "method", "path", "query", "body_sha256"):
        assert sent[same] == expected[same], same


@pytest.mark.parametrize("name", ["aws/anthropic/claude-sonnet", "my-profile-model", "amazon.nova-lite-v1:0", PROFILE])
def test_names_with_slashes_and_unlisted_ids_and_arns_are_served(name, through):
    answer = through("bedrock-runtime").converse(modelId=name, messages=MESSAGES)
    assert "Tell me a story" in answer["output"]["message"]["content"][0]["text"]


def test_the_key_may_be_a_bearer_token_or_boto3_says_why_not(proxy, simulator, monkeypatch):
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)
    runtime = boto3.Session().client("bedrock-runtime", region_name="us-east-1", endpoint_url=f"{proxy.url}/bedrock")
    if OLD_BOTO3:
        assert runtime.converse(modelId=NAME, messages=MESSAGES)["usage"]["totalTokens"] > 0
        assert simulator.requests()[0]["auth"]["kind"] == "sigv4"
    else:
        with pytest.raises(InvalidEndpointConfigurationError, match="Bearer authorization requires an HTTPS endpoint"):
            runtime.converse(modelId=NAME, messages=MESSAGES)
        assert simulator.requests() == []


@pytest.mark.parametrize("header, value", [("x-api-key", KEY), ("Authorization", f"Bearer {KEY}")])
def test_the_key_may_be_a_header_of_an_unsigned_request(header, value, proxy, simulator):
    runtime = boto3.Session().client(
        "bedrock-runtime", region_name="us-east-1", endpoint_url=f"{proxy.url}/bedrock",
        config=Config(signature_version=UNSIGNED),
    )
    runtime.meta.events.register("before-send.*.*", lambda request, **_: request.headers.update({header: value}))
    assert runtime.converse(modelId=NAME, messages=MESSAGES)["usage"]["totalTokens"] > 0
    [sent] = simulator.requests()
    assert sent["auth"]["access_key_id"] == ACCESS_KEY and sent["violations"] == []


def test_the_key_may_be_a_header_beside_made_up_aws_credentials(proxy, simulator):
    agents = client("bedrock-agent-runtime", f"{proxy.url}/bedrock", key="my-fake-key-id", secret="my-fake-access-key")
    add = lambda request, **_: request.headers.update({"x-dheera-ai-api-key": KEY})  # noqa: E731
    agents.meta.events.register("before-send.*.*", add)
    answer = agents.invoke_agent(agentId="AGENT12345", agentAliasId="ALIAS12345", sessionId="12345", inputText="Hello")
    assert b"".join(event["chunk"]["bytes"] for event in answer["completion"])
    assert simulator.requests()[0]["violations"] == []


def raised(one, method, **arguments):
    with pytest.raises(ClientError) as caught:
        getattr(one, method)(**arguments)
    return caught.value


@pytest.mark.parametrize("service, method, arguments", [OF_NO_MODEL[0], OF_NO_MODEL[2]], ids=["runtime", "agents"])
def test_a_wrong_key_is_access_denied_and_reaches_nobody(service, method, arguments, proxy, simulator):
    one = client(service, f"{proxy.url}/bedrock", key="sk-wrong", attempts=3)
    error = raised(one, method, **arguments)
    assert isinstance(error, one.exceptions.AccessDeniedException)
    assert "key is not valid" in error.response["Error"]["Message"]
    assert error.response["ResponseMetadata"]["RetryAttempts"] == 0 and simulator.requests() == []


@pytest.mark.parametrize("name", ["my-cluade-model", "no such model"])
def test_an_unknown_model_is_resource_not_found(name, through, simulator):
    runtime = through("bedrock-runtime", attempts=3)
    error = raised(runtime, "converse", modelId=name, messages=MESSAGES)
    assert isinstance(error, runtime.exceptions.ResourceNotFoundException)
    assert name in error.response["Error"]["Message"] and "/v1/models" in error.response["Error"]["Message"]
    assert error.response["ResponseMetadata"]["RetryAttempts"] == 0 and simulator.requests() == []


def test_throttling_of_one_deployment_goes_unnoticed(through, simulator):
    simulator.demand({"match": {"times": 1}, "fault": {"kind": "throttle"}})
    answer = through("bedrock-runtime").converse(modelId="my-bedrock-model", messages=MESSAGES)
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-dheera-ai-attempts"] == "2"
    assert {one["auth"]["region"] for one in simulator.requests()} == {"us-west-2", "us-east-1"}


def test_throttling_of_all_deployments_is_throttling_which_boto3_retries(through, simulator):
    simulator.demand({"fault": {"kind": "throttle"}})
    runtime = through("bedrock-runtime", attempts=2)
    error = raised(runtime, "converse", modelId="my-bedrock-model", messages=MESSAGES)
    assert isinstance(error, runtime.exceptions.ThrottlingException)
    # Two deployments for each of boto3's two attempts.
    assert [one["status"] for one in simulator.requests()] == [429] * 4


def test_bedrocks_own_errors_pass_unchanged(through, direct, simulator):
    fault = {"kind": "error", "status": 400, "error_type": "ValidationException", "message": "Malformed: ünïcode"}
    simulator.demand({"fault": fault})
    of_both = []
    for runtime in (through("bedrock-runtime", attempts=3), direct("bedrock-runtime", attempts=3)):
        error = raised(runtime, "converse", modelId="amazon.nova-lite-v1:0", messages=MESSAGES)
        assert isinstance(error, runtime.exceptions.ValidationException)
        of_both.append({name: error.response[name] for name in ("Error", "message") if name in error.response})
    assert of_both[0] == of_both[1] and of_both[0]["Error"]["Message"] == "Malformed: ünïcode"
    assert len(simulator.requests()) == 2


@pytest.mark.parametrize(
    "service, method, arguments, member",
    [
        ("bedrock-runtime", "converse_stream", dict(modelId=NAME, messages=MESSAGES), "stream"),
        ("bedrock-runtime", "invoke_model_with_response_stream", dict(modelId=NAME, body=BODY), "body"),
        ("bedrock-agent-runtime", "invoke_agent", OF_NO_MODEL[3][2], "completion"),
    ],
)
def test_an_exception_in_the_middle_of_a_stream_is_raised_with_its_code(
    service, method, arguments, member, through, proxy, simulator
):
    fault = {"kind": "exception_frame", "after_frames": 2, "name": "throttlingException", "message": "Slow down"}
    simulator.demand({"fault": fault})
    answer = getattr(through(service), method)(**arguments)
    events = []
    with pytest.raises(EventStreamError) as caught:
        events.extend(answer[member])
    assert caught.value.response["Error"] == {"Code": "throttlingException", "Message": "Slow down"}
    record = proxy.record(answer["ResponseMetadata"]["HTTPHeaders"]["x-dheera-ai-call-id"])
    assert (record["reason"], record["error_type"]) == ("exception_frame", "throttlingException"), record


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "cut", "after_frames": 2},
        {"kind": "reset", "after_frames": 2},
        {"kind": "cut_mid_frame", "after_frames": 2},
        {"kind": "cut_mid_frame", "after_frames": 2, "clean": True},
    ],
)
def test_a_stream_that_breaks_does_not_look_complete(fault, through, proxy, simulator):
    simulator.demand({"fault": fault})
    answer = through("bedrock-runtime").converse_stream(modelId=NAME, messages=MESSAGES)
    with pytest.raises(EventStreamError) as caught:
        list(answer["stream"])
    assert caught.value.response["Error"]["Code"] == "serviceUnavailableException"
    record = proxy.record(answer["ResponseMetadata"]["HTTPHeaders"]["x-dheera-ai-call-id"])
    assert record["reason"] == "upstream_broke", record


def test_words_arrive_one_by_one(through, simulator):
    """The first event is there while the rest of the answer has not been sent: the simulator stops after it."""
    simulator.demand({"fault": {"kind": "stall_mid_stream", "after_frames": 3, "ms": 1500}})
    stream = iter(through("bedrock-runtime").converse_stream(modelId=NAME, messages=MESSAGES)["stream"])
    first = [next(stream) for _ in range(3)]
    [sent] = simulator.requests()
    assert not sent["finished"] and "messageStart" in first[0]
    assert "metadata" in list(stream)[-1]


def test_metrics_need_the_key_and_show_the_calls(through, proxy):
    through("bedrock-runtime").converse(modelId=NAME, messages=MESSAGES)
    assert proxy.get("/metrics")[0] == 403
    status, text = proxy.get("/metrics", Authorization=f"Bearer {KEY}")
    assert status == 200 and 'model_name="my-claude-model"' in text and KEY not in text


def test_an_option_in_a_header_arrives_or_the_call_is_refused(through, simulator):
    """A guardrail that stays behind in silence would be a call without a guardrail."""
    value = "zürich"
    runtime = through("bedrock-runtime")

    def add(request, **_):
        request.headers["X-Amzn-Bedrock-GuardrailIdentifier"] = value

    runtime.meta.events.register("before-sign.*.*", add)
    try:
        runtime.invoke_model(modelId=NAME, body=BODY)
    except runtime.exceptions.ValidationException:
        assert simulator.requests() == []
    else:
        [sent] = simulator.requests()
        assert dict(sent["headers"]).get("x-amzn-bedrock-guardrailidentifier") == value
