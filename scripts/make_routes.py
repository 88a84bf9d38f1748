#!/usr/bin/env python3
"""Writes src/aws/routes.json: every operation of the Bedrock services, from the service models that botocore ships.

    python3 -m venv venv && venv/bin/pip install botocore==1.44.5
    venv/bin/python scripts/make_routes.py > src/aws/routes.json

Routes, headers, streams and authentication are facts of the models. Who may call an operation (`access`) and where its
usage is to be found (`metering`) are decisions of ours; they stand in the tables below, each with its reason. The
script refuses to write anything when a table names an operation that the models do not have, or when an operation of
bedrock-runtime is in no table: a new way to spend money must not slip in as free.
"""

import json
import re
import sys

import botocore
import botocore.loaders

BOTOCORE_VERSION = "1.44.5"
DATE = "2026-11-22"

# AWS's endpoint prefixes, in the order of `Service::ALL`.
SERVICES = [
    "bedrock",
    "bedrock-runtime",
    "bedrock-agent",
    "bedrock-agent-runtime",
    "bedrock-data-automation",
    "bedrock-data-automation-runtime",
    "bedrock-agentcore",
    "bedrock-agentcore-control",
]

# --- metering ---------------------------------------------------------------------------------------------------------

# Every operation of bedrock-runtime stands here, the free ones too.
METERING_RUNTIME = {
    "ApplyGuardrail": "ApplyGuardrail",
    "Converse": "Converse",
    "ConverseStream": "ConverseStream",
    "CountTokens": "Free",  # AWS does not charge for counting.
    "GetAsyncInvoke": "Free",  # Status only.
    "InvokeGuardrailChecks": "GuardrailChecks",
    "InvokeModel": "InvokeModel",
    "InvokeModelWithBidirectionalStream": "InvokeModelBidirectional",
    "InvokeModelWithResponseStream": "InvokeModelStream",
    "ListAsyncInvokes": "Free",
    "StartAsyncInvoke": "StartAsyncInvoke",
}

# Operations elsewhere that say what they used.
METERING_REPORTED = {
    ("bedrock-agent-runtime", "InvokeAgent"): "AgentTrace",
    ("bedrock-agent-runtime", "InvokeFlow"): "FlowTrace",
    ("bedrock-agent-runtime", "InvokeInlineAgent"): "AgentTrace",
    ("bedrock-agent-runtime", "Rerank"): "Rerank",
    ("bedrock-agentcore", "InvokeHarness"): "Harness",
}

# Operations that cost money by the call, or bind their caller to pay, and whose answer holds no usage.
# Not here, hence free: reads, sessions, tags, deletions, configuration, and storage that is billed by the month.
METERING_UNREPORTED = {
    "bedrock": {
        "CreateAdvancedPromptOptimizationJob": "a job that runs models",
        "CreateEvaluationJob": "a job that runs models, and a judge model",
        "CreateMarketplaceModelEndpoint": "instance hours until it is deleted",
        "CreateModelCustomizationJob": "training, by token or by hour",
        "CreateModelInvocationJob": "batch inference: the bill of a whole file of prompts",
        "CreateProvisionedModelThroughput": "model units by the hour, possibly for six months",
        "StartAutomatedReasoningPolicyBuildWorkflow": "models read documents and write rules",
        "StartAutomatedReasoningPolicyTestWorkflow": "models validate every test case",
        "UpdateMarketplaceModelEndpoint": "changes the number of instances",
        "UpdateProvisionedModelThroughput": "changes what is provisioned",
    },
    "bedrock-agent": {
        "IngestKnowledgeBaseDocuments": "embeds (and possibly parses) documents with models",
        "StartIngestionJob": "embeds (and possibly parses) a data source with models",
    },
    "bedrock-agent-runtime": {
        "AgenticRetrieveStream": "a model plans and runs the queries",
        "GenerateQuery": "a model writes SQL",
        "OptimizePrompt": "a model rewrites the prompt",
        "RetrieveAndGenerate": "a model answers; the answer has no usage member",
        "RetrieveAndGenerateStream": "as RetrieveAndGenerate",
        "StartFlowExecution": "runs a flow, models and all, after the answer has left",
    },
    "bedrock-data-automation": {
        "InvokeBlueprintOptimizationAsync": "models read the sample documents",
        "InvokeDataAutomationLibraryIngestionJob": "a job over the caller's files",
    },
    "bedrock-data-automation-runtime": {
        "InvokeDataAutomation": "by page, image or second of media",
        "InvokeDataAutomationAsync": "as InvokeDataAutomation",
    },
    "bedrock-agentcore": {
        "CreateEvent": "by event; may start the extraction of memories by a model",
        "Evaluate": "a judge model; its token usage stands per result, not per call",
        "GetResourceApiKey": "by token or key that is handed out",
        "GetResourceOauth2Token": "by token or key that is handed out",
        "GetResourcePaymentToken": "by token or key that is handed out",
        "IngestData": "a model extracts memories",
        "InvokeAgentRuntime": "the agent's compute and whatever it calls; the body is its own",
        "InvokeAgentRuntimeCommand": "compute of the runtime session",
        "InvokeBrowser": "compute of the browser session",
        "InvokeCodeInterpreter": "compute of the interpreter session",
        "InvokeWebSearch": "by query",
        "ProcessPayment": "moves the caller's money",
        "RetrieveMemoryRecords": "by retrieval",
        "StartBatchEvaluation": "a job of judge models",
        "StartBrowserSession": "compute by the second until it stops",
        "StartCodeInterpreterSession": "compute by the second until it stops",
        "StartDatasetGeneration": "a job that runs models",
        "StartMemoryExtractionJob": "a model extracts memories",
        "StartRecommendation": "a job that runs models",
    },
    "bedrock-agentcore-control": {
        "CreateCapacityProvider": "capacity by the hour",
        "CreateOnlineEvaluationConfig": "judge models over live traffic until it is switched off",
        "StartPolicyGeneration": "a model writes policies",
        "UpdateCapacityProvider": "changes what is provisioned",
        "UpdateOnlineEvaluationConfig": "may switch the evaluation on, or widen it",
    },
}

# --- access -----------------------------------------------------------------------------------------------------------

# Data planes: what applications call all day.
INVOKE_SERVICES = {
    "bedrock-runtime",
    "bedrock-agent-runtime",
    "bedrock-data-automation-runtime",
    "bedrock-agentcore",
}

# Operations of a data plane that no key may call unless it was named for it.
WRITE_ON_DATA_PLANE = {
    "bedrock-agentcore": {
        "CompleteResourceTokenAuth": "binds a user's consent to a token",
        "GetResourceApiKey": "answers with a stored secret",
        "GetResourceOauth2Token": "answers with a stored secret",
        "GetResourcePaymentToken": "answers with a stored secret",
        "GetWorkloadAccessToken": "answers with a token that opens the vault",
        "GetWorkloadAccessTokenForJWT": "answers with a token that opens the vault",
        "GetWorkloadAccessTokenForUserId": "answers with a token that opens the vault, for a user the caller names",
        "InvokeAgentRuntimeCommand": "a shell beside the agent, with the agent's role",
        "CreatePaymentInstrument": "money",
        "CreatePaymentSession": "money",
        "DeletePaymentInstrument": "money",
        "DeletePaymentSession": "money",
        "ProcessPayment": "money",
    },
}

# --- authentication ---------------------------------------------------------------------------------------------------

# The models give the auth trait for the whole service; AWS's "Bedrock API keys" page excepts this operation.
BEARER_REFUSED = {("bedrock-runtime", "InvokeModelWithBidirectionalStream")}

# A header that decides who calls or where it goes is never taken from a client, whatever a model says.
HEADERS_NEVER = {
    "authorization",
    "host",
    "x-amz-date",
    "x-amz-content-sha256",
    "x-amz-security-token",
    "content-length",
    "transfer-encoding",
    "connection",
}


def require(condition, message):
    if not condition:
        sys.exit(f"make_routes.py: {message}")


def metering_of(service, name):
    if service == "bedrock-runtime":
        return METERING_RUNTIME[name]
    if name in METERING_UNREPORTED.get(service, {}):
        return "Unreported"
    return METERING_REPORTED.get((service, name), "Free")


def access_of(service, name, model):
    if name in WRITE_ON_DATA_PLANE.get(service, {}):
        return "Write"
    if service in INVOKE_SERVICES:
        return "Invoke"
    # Some Get* and List* (ListTagsForResource of two services) lack the `readonly` trait, and some operations that
    # have it are named otherwise (ValidateFlowDefinition).
    return "Read" if model.get("readonly") or re.match(r"(Get|List)[A-Z]", name) else "Write"


def streams_of(shapes, shape_name):
    """How a body arrives, and the exceptions that its event stream models."""
    for member in shapes[shape_name].get("members", {}).values() if shape_name else []:
        shape = shapes[member["shape"]]
        if shape.get("eventstream"):
            events = shape["members"].items()
            return "EventStream", [name for name, event in events if shapes[event["shape"]].get("exception")]
        if shape.get("streaming"):
            return "Raw", []
    return "None", []


def headers_of(shapes, shape_name):
    names = set()
    for member in shapes[shape_name].get("members", {}).values() if shape_name else []:
        require(member.get("location") != "headers", f"{shape_name}: a map of headers has no fixed names")
        if member.get("location") == "header":
            names.add(member["locationName"].lower())
    require(not names & HEADERS_NEVER, f"{shape_name} takes {sorted(names & HEADERS_NEVER)} from the client")
    return sorted(names)


def operation_of(service, document, name):
    metadata, shapes, model = document["metadata"], document["shapes"], document["operations"][name]
    input_shape = model.get("input", {}).get("shape")
    output, exceptions = streams_of(shapes, model.get("output", {}).get("shape"))
    both_ways = streams_of(shapes, input_shape)[0] == "EventStream"
    headers = headers_of(shapes, input_shape)
    row = {
        "service": service,
        "name": name,
        "method": model["http"]["method"],
        "template": model["http"]["requestUri"],
        "access": access_of(service, name, model),
        "metering": metering_of(service, name),
        "streaming": "Bidirectional" if both_ways else output,
        "stream_exceptions": exceptions,
        "bearer": "smithy.api#httpBearerAuth" in model.get("auth", metadata["auth"])
        and (service, name) not in BEARER_REFUSED,
    }
    if metadata["protocol"] == "json":
        row["target"] = f"{metadata['targetPrefix']}.{name}"
        headers = sorted({*headers, "x-amz-target"})
    row["request_headers"] = headers
    # What is the default of the reader is left out.
    defaults = {
        "metering": "Free",
        "streaming": "None",
        "stream_exceptions": [],
        "bearer": False,
        "request_headers": [],
    }
    return {key: value for key, value in row.items() if key not in defaults or value != defaults[key]}


def check_tables(documents):
    """Every operation that a table names exists, and bedrock-runtime is complete."""
    named = set(METERING_REPORTED) | BEARER_REFUSED
    named |= {("bedrock-runtime", name) for name in METERING_RUNTIME}
    for table in (METERING_UNREPORTED, WRITE_ON_DATA_PLANE):
        named |= {(service, name) for service, names in table.items() for name in names}
    known = {(service, name) for service, document in documents.items() for name in document["operations"]}
    require(named <= known, f"not in the models: {sorted(named - known)}")
    unnamed = {name for service, name in known if service == "bedrock-runtime"} - set(METERING_RUNTIME)
    require(not unnamed, f"bedrock-runtime operations without metering: {sorted(unnamed)}")


def main():
    if botocore.__version__ != BOTOCORE_VERSION:
        sys.exit(f"this needs botocore {BOTOCORE_VERSION}, found {botocore.__version__}")
    loader = botocore.loaders.Loader()
    documents = {service: loader.load_service_model(service, "service-2") for service in SERVICES}
    check_tables(documents)
    rows = [
        operation_of(service, document, name)
        for service, document in documents.items()
        for name in sorted(document["operations"])
    ]
    source = f"AWS service models as shipped in botocore {BOTOCORE_VERSION}; written by scripts/make_routes.py"
    print("{")
    print(f'"source": {json.dumps(source)},')
    print(f'"date": {json.dumps(DATE)},')
    print('"operations": [')
    print(",\n".join(json.dumps(row, separators=(",", ":")) for row in rows))
    print("]\n}")


if __name__ == "__main__":
    main()
