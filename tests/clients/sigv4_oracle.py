"""Signs random requests with botocore, for tests/sigv4_oracle.rs to sign again and compare.

Usage: sigv4_oracle.py SEED COUNT. Prints one JSON object a line; the same seed gives the same lines. Only the signer of
botocore is used: nothing is sent. Written for botocore 1.44.5.
"""

import datetime
import json
import random
import string
import sys
from unittest import mock

import botocore
from botocore.auth import SIGNED_HEADERS_BLACKLIST, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import quote
from botocore.credentials import Credentials
from botocore.utils import percent_encode_sequence

HOST = "bedrock-runtime.us-east-1.amazonaws.com"
WORDS = string.ascii_letters + string.digits + "-_.~"
SECRET = string.ascii_letters + string.digits + "/+="
MODELS = [
    "us.anthropic.claude-3-5-sonnet-20240620-v1:0",
    "amazon.nova-sonic-v1:0",
    "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3",
    "arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/x y+z%",
    "modèle-ሴ",
]


def word(rng, alphabet, low, high):
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(low, high)))


def segment(rng):
    """One path segment as some client sends it: escaped by boto3, by the Anthropic SDKs, or hardly at all."""
    model = rng.choice(MODELS)
    kind = rng.randrange(6)
    if kind == 0:
        return quote(model, safe="-_.~")
    if kind == 1:
        return model.replace("/", "%2F").replace(" ", "%20")
    if kind == 2:
        return quote(model, safe="-_.~").lower()
    if kind == 3:
        return word(rng, WORDS + ":@!$&'()*+,;=é", 1, 12).replace(".", "-")
    if kind == 4:
        return word(rng, "%+:", 1, 3) + word(rng, string.hexdigits, 1, 4)
    return rng.choice(["model", "converse", "converse-stream", "invoke", "agents", "sessions"])


def path(rng):
    parts = [segment(rng) for _ in range(rng.randint(0, 5))]
    return "/" + "/".join(parts) + ("/" if parts and rng.random() < 0.3 else "")


def query(rng):
    part = WORDS + " +:/%&=é,"
    return [(word(rng, part, 1, 6), word(rng, part, 0, 8)) for _ in range(rng.choice([0, 0, 1, 2, 5]))]


def headers(rng):
    names = ["content-type", "accept", "x-amzn-bedrock-trace", "x-amz-target", "anthropic-beta", "x-amz-meta"]
    value = WORDS + "/;=,\"  \té"
    return [(rng.choice(names), word(rng, value, 0, 24)) for _ in range(rng.randint(0, 6))]


def signed_line(rng):
    moment = datetime.datetime.fromtimestamp(rng.randrange(0, 4_102_444_800), datetime.timezone.utc)
    token = word(rng, SECRET, 1, 400) if rng.random() < 0.4 else None
    credentials = Credentials("AKIA" + word(rng, string.ascii_uppercase, 16, 16), word(rng, SECRET, 1, 80), token)
    region = rng.choice(["us-east-1", "us-west-2", "eu-central-1", "ap-northeast-1", "us-gov-west-1"])
    service = rng.choice(["bedrock", "bedrock-agentcore"])
    method = rng.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"])
    body = rng.randbytes(rng.choice([0, 1, 64, 65, 300])) if method in ("POST", "PUT", "PATCH") else b""
    raw_path, pairs = path(rng), query(rng)
    wire_query = percent_encode_sequence(pairs)

    # botocore signs a query that stands in the URL and one that is held apart by two routes; both must agree.
    in_url = rng.random() < 0.5
    request = AWSRequest(
        method=method,
        url=f"https://{HOST}{raw_path}" + (f"?{wire_query}" if in_url and pairs else ""),
        params=None if in_url else pairs,
        data=body,
    )
    for name, value in headers(rng):
        request.headers[name] = value
    with mock.patch("botocore.auth.get_current_datetime", return_value=moment):
        SigV4Auth(credentials, service, region).add_auth(request)

    authorization = request.headers["Authorization"]
    signed = [(name.lower(), value) for name, value in request.headers.items()]
    signed = [(name, value) for name, value in signed if name not in (*SIGNED_HEADERS_BLACKLIST, "authorization")]
    signed.append(("host", HOST))
    rng.shuffle(signed)
    return {
        "method": method,
        "path": raw_path,
        "query": wire_query,
        "headers": in_signed_order(request, signed),
        "payload_hex": body.hex(),
        "access_key_id": credentials.access_key,
        "secret_access_key": credentials.secret_key,
        "session_token": credentials.token,
        "region": region,
        "service": service,
        "unix_seconds": int(moment.timestamp()),
        "authorization": authorization,
    }


def in_signed_order(request, signed):
    """Sorts the values of repeated names back into the order they were signed in."""
    values = {name: list(request.headers.get_all(name) or [HOST]) for name, _ in signed}
    return [(name, values[name].pop(0)) for name, _ in signed]


def main():
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    print(f"botocore {botocore.__version__}, seed {seed}", file=sys.stderr)
    rng = random.Random(seed)
    for _ in range(count):
        print(json.dumps(signed_line(rng)))


if __name__ == "__main__":
    main()
