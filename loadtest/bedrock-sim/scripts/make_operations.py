"""Writes src/operations.json from the service models of the installed botocore (PyPI botocore==1.44.5).

    python scripts/make_operations.py > src/operations.json

One operation per line: [service, operation, method, path template, response code, signing name, target, stream, bearer].
"""

import json

import botocore
import botocore.loaders
from botocore.model import ServiceModel

SERVICES = [
    "bedrock",
    "bedrock-agent",
    "bedrock-agent-runtime",
    "bedrock-agentcore",
    "bedrock-agentcore-control",
    "bedrock-data-automation",
    "bedrock-data-automation-runtime",
    "bedrock-runtime",
]
# botocore's trait allows bearer tokens for the whole of bedrock-runtime; AWS documents this operation as refusing them.
BEARER_REFUSED = {"InvokeModelWithBidirectionalStream"}


def stream_kind(operation):
    if operation.has_event_stream_output:
        return "events"
    return "blob" if operation.has_streaming_output else None


def rows():
    loader = botocore.loaders.Loader()
    for service in SERVICES:
        model = ServiceModel(loader.load_service_model(service, "service-2"))
        bearer = "smithy.api#httpBearerAuth" in (model.metadata.get("auth") or [])
        prefix = model.metadata.get("targetPrefix")
        for name in sorted(model.operation_names):
            operation = model.operation_model(name)
            yield [
                service,
                name,
                operation.http["method"],
                operation.http["requestUri"],
                operation.http.get("responseCode", 200),
                model.metadata.get("signingName") or model.metadata["endpointPrefix"],
                f"{prefix}.{name}" if prefix and model.metadata["protocol"] == "json" else None,
                stream_kind(operation),
                bearer and name not in BEARER_REFUSED,
            ]


lines = ",\n".join(json.dumps(row) for row in rows())
print(f'{{"source":"AWS service models as shipped in botocore {botocore.__version__}","date":"2026-11-22","operations":[\n{lines}\n]}}')
