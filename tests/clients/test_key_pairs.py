"""Key pairs in boto3's hands: it signs with the secret instead of sending a key, every operation passes, and what is
signed with another secret, for another body or for another time does not."""

import base64
import json
import urllib.error
import urllib.request
from decimal import Decimal

import pytest
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError
from conftest import DEADLINE_S, client, result
from inputs import Inputs
from test_keys import CALLS, call, spent
from test_sweep import MOVED, OPERATIONS, operations


@pytest.fixture
def make_pair(proxy, simulator):
    """Makes keys with a pair."""
    return lambda **fields: proxy.manage("/key/generate", fields | {"sigv4": True})


@pytest.fixture
def signing(proxy):
    """boto3 clients that sign with a pair."""

    def make(pair, service="bedrock-runtime", **more):
        access = dict(key=pair["aws_access_key_id"], secret=pair["aws_secret_access_key"]) | more
        return client(service, f"{proxy.url}/bedrock", **access)

    return make


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_pair_looks_like_one_of_aws_and_its_secret_is_shown_once(make_pair, proxy):
    pair = make_pair(key_alias="looks")
    assert len(pair["aws_access_key_id"]) == 20 and pair["aws_access_key_id"].isalnum()
    assert len(base64.b64decode(pair["aws_secret_access_key"], validate=True)) == 30
    for path in (f"/key/info?key={pair['key_id']}", "/key/list?return_full_object=true&key_alias=looks"):
        shown = json.dumps(proxy.manage(path), default=str)
        assert pair["aws_access_key_id"] in shown and pair["aws_secret_access_key"] not in shown


@pytest.mark.parametrize("method", CALLS)
def test_every_way_to_call_a_model_is_signed_and_charged(method, make_pair, signing, proxy):
    pair = make_pair(max_budget=1)
    header = call(signing(pair), method)
    record = proxy.record(header["x-dheera-ai-call-id"])
    assert record["key_id"] == pair["key_id"]
    cost = Decimal(record["cost_usd"])
    assert cost > 0 and spent(proxy, pair, cost) == cost


@pytest.mark.parametrize("service", OPERATIONS)
def test_every_operation_that_boto3_signs_is_verified(service, make_pair, signing, simulator):
    pair = make_pair(allowed_operations=["*"])
    one, missing = signing(pair, service, parameter_validation=False), []
    for operation in operations(service):
        simulator.control("DELETE", "/_sim/requests")
        try:
            result(getattr(one, xform_name(operation.name))(**Inputs(service, operation).make()))
        except (BotoCoreError, ClientError) as error:
            # The simulator may not like an input that is made up; what counts is that it gets it.
            outcome = str(error)
        else:
            outcome = "an answer"
        arrived = [(sent["service"], sent["operation"], sent["auth"]["ok"]) for sent in simulator.requests()]
        if arrived != [(service, operation.name, True)] and operation.name not in MOVED:
            missing.append((operation.name, arrived, outcome))
    assert missing == []


def test_another_secret_is_refused_and_not_tried_again(make_pair, signing, simulator):
    pair = make_pair()
    with pytest.raises(ClientError) as caught:
        call(signing(pair, secret="another", attempts=3), "converse")
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
    assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 0
    assert "secret access key" in str(caught.value) and not simulator.requests()


def test_the_budget_of_the_key_holds(make_pair, signing, simulator):
    runtime = signing(make_pair(max_budget=0))
    with pytest.raises(ClientError) as caught:
        call(runtime, "converse")
    assert caught.value.response["Error"]["Code"] == "ServiceQuotaExceededException" and not simulator.requests()


def test_a_presigned_url_is_good_as_it_is_and_no_other(make_pair, signing, simulator):
    # boto3 presigns what has no body: of a body it would make parameters of the URL.
    bedrock = signing(make_pair(), "bedrock")
    url = bedrock.generate_presigned_url("list_guardrails", Params={"maxResults": 3}, ExpiresIn=60)
    status, answer = get(url)
    assert status == 200, answer
    sent = simulator.requests()[-1]
    assert sent["auth"]["ok"] and sent["operation"] == "ListGuardrails" and "X-Amz" not in json.dumps(sent["query"]), sent
    for other in (url.replace("Expires=60", "Expires=90"), url.replace("maxResults=3", "maxResults=4"), url + "&a=1"):
        status, answer = get(other)
        assert status == 403 and "does not match" in answer["message"], answer
    assert len(simulator.requests()) == 1
