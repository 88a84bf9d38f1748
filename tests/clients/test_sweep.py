"""Every operation that boto3 knows in Bedrock's eight services, once through the proxy and once without it: what
arrives must be the same request, at the same host, recognised as the same operation, with a valid signature; and what
comes back must be the same result.

Inputs are generated from boto3's own service models: required members, every header, query and path member, texts that
match their patterns. Each service has a simulator of its own, so that a request for the wrong host does not arrive.
"""

import re

import boto3
import botocore.session
import pytest
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError
from conftest import ACCESS_KEY, BOTO3, KEY, SECRET, client, result
from inputs import Inputs

# Operations with a method, by version of boto3.
OPERATIONS = {
    "1.44": {
        "bedrock": 108,
        "bedrock-runtime": 10,
        "bedrock-agent": 86,
        "bedrock-agent-runtime": 35,
        "bedrock-data-automation": 27,
        "bedrock-data-automation-runtime": 6,
        "bedrock-agentcore": 75,
        "bedrock-agentcore-control": 175,
    },
    "1.43": {
        "bedrock": 108,
        "bedrock-runtime": 10,
        "bedrock-agent": 75,
        "bedrock-agent-runtime": 33,
        "bedrock-data-automation": 27,
        "bedrock-data-automation-runtime": 6,
        "bedrock-agentcore": 65,
        "bedrock-agentcore-control": 153,
    },
    "1.39": {
        "bedrock": 66,
        "bedrock-runtime": 8,
        "bedrock-agent": 72,
        "bedrock-agent-runtime": 31,
        "bedrock-data-automation": 14,
        "bedrock-data-automation-runtime": 5,
    },
}[BOTO3]
TOTAL = {"1.44": 522, "1.43": 477, "1.39": 196}[BOTO3]
# boto3 offers no method for it.
NO_METHOD = {("bedrock-runtime", "InvokeModelWithBidirectionalStream")}
# AWS gave these other paths after boto3 1.43.62; what that version sends is no operation of Bedrock's any more.
MOVED = {"ListDatasets", "ListDatasetVersions", "ListDatasetExamples"} if BOTO3 == "1.43" else set()
# To which services boto3 sends a bearer token over http://. Only the first version that knew them sent one to agents.
TAKES_BEARER = {"1.44": (), "1.43": ("bedrock", "bedrock-runtime"), "1.39": tuple(OPERATIONS)}[BOTO3]
CASES = [(service, "sigv4") for service in OPERATIONS] + [(service, "bearer") for service in TAKES_BEARER]
SAME = ("service", "operation", "model", "method", "path", "query", "host", "body_len", "body_sha256", "status")
# They belong to a connection or to an attempt, not to the request.
NOT_COMPARED = {"amz-sdk-invocation-id", "amz-sdk-request", "authorization", "user-agent", "x-amz-date"}
# Modelled by some operations. boto3 has signed them up to 1.43 and no longer does; either is valid.
TRACING = {"baggage", "traceparent", "tracestate"}


@pytest.fixture(scope="module")
def simulators(start_simulator):
    """A simulator for each service."""
    return {service: start_simulator() for service in OPERATIONS}


@pytest.fixture(scope="module")
def spread_proxy(start_proxy, simulators):
    """A proxy that finds each service at its own simulator."""
    names = {service: f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}" for service in simulators}
    places = {names[service]: simulator.url for service, simulator in simulators.items()}
    return start_proxy(AWS_ENDPOINT_URL="http://127.0.0.1:9", DHEERA_AI_MASTER_KEY=KEY, **places)


def operations(service):
    model = botocore.session.get_session().get_service_model(service)
    return [model.operation_model(name) for name in model.operation_names if (service, name) not in NO_METHOD]


def call(one, operation, arguments):
    """What an application gets: a result, or an error."""
    try:
        return result(getattr(one, xform_name(operation.name))(**arguments))
    except ClientError as error:
        return error.response["Error"]
    except BotoCoreError as error:
        return repr(error)


def signed(request):
    """What the signature covers: whose credentials, region, service, and the names of headers."""
    authorization = dict(request["headers"])["authorization"]
    form = r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/(\S+), SignedHeaders=(\S+), Signature=[0-9a-f]{64}"
    account, scope, names = re.fullmatch(form, authorization).groups()
    return account, scope, set(names.split(";")) - TRACING


def compared(request):
    return sorted(pair for pair in request["headers"] if pair[0] not in NOT_COMPARED)


def differences(sent, expected):
    """In what two requests that arrived differ, without the date and all that depends on it."""
    unlike = [(one, sent[one], expected[one]) for one in (*SAME, "violations") if sent[one] != expected[one]]
    unlike += [("auth", one["auth"]) for one in (sent, expected) if not one["auth"]["ok"]]
    for name, of in (("headers", compared), ("signed", signed)):
        if of(sent) != of(expected):
            unlike.append((name, of(sent), of(expected)))
    return unlike


@pytest.mark.parametrize("service, auth", CASES)
def test_every_operation_arrives_as_it_was_sent(service, auth, spread_proxy, simulators, monkeypatch):
    simulator, presented, found, same, moved = simulators[service], set(), [], 0, set()
    theirs = client(service, simulator.url, ACCESS_KEY, SECRET, parameter_validation=False, signature_version="v4")
    if auth == "bearer":
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)
    ours = client(service, f"{spread_proxy.url}/bedrock", parameter_validation=False)
    ours.meta.events.register("before-send.*.*", lambda request, **_: presented.add(scheme(request)))
    for operation in operations(service):
        arguments = Inputs(service, operation)
        outcomes = [call(one, operation, arguments.make()) for one in (ours, theirs)]
        arrived = simulator.requests(last=2)
        simulator.control("DELETE", "/_sim/requests")
        unknown = [outcome.get("Code") for outcome in outcomes] == ["UnknownOperationException"] * 2
        if operation.name in MOVED and unknown:
            moved.add(operation.name)
            continue
        unlike = differences(*arrived) if len(arrived) == 2 else [("arrived", len(arrived), outcomes)]
        unlike += [] if outcomes[0] == outcomes[1] else [("result", *outcomes)]
        if arrived and (arrived[0]["service"], arrived[0]["operation"]) != (service, operation.name):
            unlike.append(("arrived as", arrived[0]["service"], arrived[0]["operation"], arrived[0]["path"]))
        found += [(operation.name, *one) for one in unlike]
        same += not unlike
    assert not found, "\n".join(map(str, found))
    assert moved == (MOVED if service == "bedrock-agentcore-control" else set())
    assert same + len(moved) == OPERATIONS[service]
    assert presented == {"Bearer" if auth == "bearer" else "AWS4-HMAC-SHA256"}


def scheme(request):
    authorization = request.headers["Authorization"]
    return (authorization.decode() if isinstance(authorization, bytes) else authorization).split()[0]


def test_the_sweep_leaves_no_operation_out():
    known = [name for name in boto3.Session().get_available_services() if name.startswith("bedrock")]
    assert sorted(known) == sorted(OPERATIONS)
    for service, count in OPERATIONS.items():
        one = client(service, "http://127.0.0.1:1")
        assert all(hasattr(one, xform_name(operation.name)) for operation in operations(service))
        assert len(operations(service)) == count, service
    assert sum(OPERATIONS.values()) == TOTAL
