"""Every operation that boto3 knows in Bedrock's eight services, once through the proxy and once without it: what arrives
must be the same request, recognised as the same operation, with a valid signature.

Inputs are generated from boto3's own service models: required members, every header, query and path member, texts that
match their patterns.
"""

import boto3
import botocore.session
import pytest
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError
from conftest import OLD_BOTO3, client, result
from inputs import Inputs

SERVICES = {
    "bedrock": 108,
    "bedrock-runtime": 10,
    "bedrock-agent": 86,
    "bedrock-agent-runtime": 35,
    "bedrock-data-automation": 27,
    "bedrock-data-automation-runtime": 6,
    "bedrock-agentcore": 75,
    "bedrock-agentcore-control": 175,
}
# boto3 offers no method for it.
NO_METHOD = {("bedrock-runtime", "InvokeModelWithBidirectionalStream")}
# AWS gave these other paths after boto3 1.43.62; what that version sends is no operation of Bedrock's any more.
MOVED = {"ListDatasets", "ListDatasetVersions", "ListDatasetExamples"} if OLD_BOTO3 else set()
SAME = ("service", "operation", "model", "method", "path", "query", "body_len", "body_sha256", "violations", "status")


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


def modelled_headers(operation):
    members = operation.input_shape.members.values() if operation.input_shape else ()
    bound = [member.serialization for member in members if member.serialization.get("location") == "header"]
    return {one.get("name", "").lower() for one in bound} | {"x-amz-target", "content-type", "accept"}


@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_arrives_as_it_was_sent(service, through, direct, simulator):
    ours, theirs = (make(service, parameter_validation=False) for make in (through, direct))
    differences, moved = [], set()
    for operation in operations(service):
        arguments = Inputs(service, operation)
        outcomes = [call(one, operation, arguments.make()) for one in (ours, theirs)]
        sent, expected = (simulator.requests(last=2) + [None, None])[:2]
        simulator.control("DELETE", "/_sim/requests")
        if operation.name in MOVED and [outcome.get("Code") for outcome in outcomes] == ["UnknownOperationException"] * 2:
            moved.add(operation.name)
            continue
        if sent is None or expected is None:
            differences.append((operation.name, "did not arrive", outcomes))
            continue
        if (sent["service"], sent["operation"]) != (service, operation.name):
            differences.append((operation.name, "arrived as", sent["service"], sent["operation"], sent["path"]))
        if not sent["auth"]["ok"]:
            differences.append((operation.name, "auth", sent["auth"]))
        unlike = [same for same in SAME if sent[same] != expected[same]]
        differences += [(operation.name, one, sent[one], expected[one]) for one in unlike]
        headers = modelled_headers(operation)
        of_both = [sorted(pair for pair in one["headers"] if pair[0] in headers) for one in (sent, expected)]
        if of_both[0] != of_both[1]:
            differences.append((operation.name, "headers", *of_both))
        if outcomes[0] != outcomes[1]:
            differences.append((operation.name, "result", *outcomes))
    assert moved == (MOVED if service == "bedrock-agentcore-control" else set())
    assert not differences, "\n".join(map(str, differences))


def test_the_sweep_leaves_no_operation_out():
    counts = {service: len(operations(service)) for service in SERVICES}
    known = [name for name in boto3.Session().get_available_services() if name.startswith("bedrock")]
    assert sorted(known) == sorted(SERVICES)
    for service in SERVICES:
        one = client(service, "http://127.0.0.1:1")
        assert all(hasattr(one, xform_name(operation.name)) for operation in operations(service))
    if OLD_BOTO3:
        assert all(counts[service] <= SERVICES[service] for service in SERVICES) and sum(counts.values()) == 477, counts
    else:
        assert counts == SERVICES and sum(counts.values()) == 522
