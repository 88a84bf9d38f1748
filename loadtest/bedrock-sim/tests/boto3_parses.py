"""Every family's answer, parsed by boto3 1.44.5 (pip install boto3==1.44.5), with real signatures.

    python tests/boto3_parses.py path/to/bedrock-sim

Starts the binary on a free port, exits 0 when every check holds.
"""

import json
import subprocess
import sys
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

KEYS = dict(aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
MESSAGES = [{"role": "user", "content": [{"text": "Tell me about streams, please"}]}]
CHECKED = 0


def check(condition, what):
    global CHECKED
    CHECKED += 1
    if not condition:
        raise SystemExit(f"FAILED: {what}")


def control(url, method, path, body=None):
    request = urllib.request.Request(url + path, method=method, data=json.dumps(body).encode() if body else None)
    return json.load(urllib.request.urlopen(request))


def clients(url):
    config = Config(retries={"total_max_attempts": 1})
    return lambda name: boto3.client(name, region_name="us-west-2", endpoint_url=url, config=config, **KEYS)


def converse(runtime):
    answer = runtime.converse(modelId="us.anthropic.claude-3-5-sonnet-20240620-v1:0", messages=MESSAGES)
    check("Tell me" in answer["output"]["message"]["content"][0]["text"], "converse text")
    check(answer["usage"]["totalTokens"] == answer["usage"]["inputTokens"] + answer["usage"]["outputTokens"], "total")
    tiered = runtime.converse(
        modelId="amazon.nova-pro-v1:0", messages=MESSAGES, serviceTier={"type": "flex"},
        performanceConfig={"latency": "optimized"}, inferenceConfig={"maxTokens": 3},
        guardrailConfig={"guardrailIdentifier": "gr12345678", "guardrailVersion": "1", "trace": "enabled"},
    )
    check(tiered["serviceTier"] == {"type": "flex"} and tiered["stopReason"] == "max_tokens", "tier")
    check(tiered["trace"]["guardrail"]["inputAssessment"]["gr12345678"]["invocationMetrics"]["usage"]["topicPolicyUnits"] == 1, "guardrail trace")
    cached = runtime.converse(
        modelId="amazon.nova-pro-v1:0",
        messages=[{"role": "user", "content": [{"text": "long " * 50}, {"cachePoint": {"type": "default"}}]}],
    )
    check(cached["usage"]["cacheWriteInputTokens"] > 0 and len(cached["usage"]["cacheDetails"]) == 2, "cache")
    tool = {"tools": [{"toolSpec": {"name": "look", "inputSchema": {"json": {}}}}], "toolChoice": {"any": {}}}
    called = runtime.converse(modelId="amazon.nova-pro-v1:0", messages=MESSAGES, toolConfig=tool)
    check(called["output"]["message"]["content"][0]["toolUse"]["name"] == "look", "tool")
    events = list(runtime.converse_stream(modelId="amazon.nova-pro-v1:0", messages=MESSAGES)["stream"])
    check("metadata" in events[-1] and "messageStart" in events[0], "stream order")
    text = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)
    check(text.startswith("You said: Tell me"), "stream text")


BODIES = {
    "us.anthropic.claude-3-5-sonnet-20240620-v1:0": ({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi there"}]}, lambda a: a["usage"]["output_tokens"] and a["content"][0]["text"]),
    "amazon.nova-lite-v1:0": ({"messages": MESSAGES}, lambda a: a["usage"]["outputTokens"]),
    "amazon.titan-text-express-v1": ({"inputText": "Hi there"}, lambda a: a["results"][0]["tokenCount"] and a["inputTextTokenCount"]),
    "us.meta.llama3-3-70b-instruct-v1:0": ({"prompt": "Hi there"}, lambda a: a["prompt_token_count"] and a["generation_token_count"]),
    "us.deepseek.r1-v1:0": ({"prompt": "Hi there"}, lambda a: a["choices"][0]["text"]),
    "mistral.mistral-7b-instruct-v0:2": ({"prompt": "Hi there"}, lambda a: a["outputs"][0]["text"]),
    "qwen.qwen3-32b-v1:0": ({"messages": [{"role": "user", "content": "Hi"}]}, lambda a: a["usage"]["completion_tokens"]),
    "openai.gpt-oss-120b-1:0": ({"messages": [{"role": "user", "content": "Hi"}]}, lambda a: a["usage"]["prompt_tokens"]),
    "ai21.jamba-1-5-large-v1:0": ({"messages": [{"role": "user", "content": "Hi"}]}, lambda a: a["usage"]["completion_tokens"]),
    "us.writer.palmyra-x5-v1:0": ({"messages": [{"role": "user", "content": "Hi"}]}, lambda a: a["usage"]["completion_tokens"]),
    "cohere.command-r-plus-v1:0": ({"message": "Hi there"}, lambda a: a["text"]),
    "cohere.command-text-v14": ({"prompt": "Hi there"}, lambda a: a["generations"][0]["text"]),
    "us.twelvelabs.pegasus-1-2-v1:0": ({"inputPrompt": "what", "mediaSource": {"base64String": "AAAA"}}, lambda a: a["message"]),
}
UNSTREAMED = {
    "amazon.titan-embed-text-v2:0": ({"inputText": "Hi there", "dimensions": 512}, lambda a: len(a["embedding"]) == 512 and a["inputTextTokenCount"]),
    "cohere.embed-english-v3": ({"texts": ["a", "b"], "input_type": "search_document"}, lambda a: len(a["embeddings"]) == 2),
    "amazon.nova-2-multimodal-embeddings-v1:0": ({"singleEmbeddingParams": {"text": {"value": "x"}}}, lambda a: a["embeddings"][0]["embedding"]),
    "twelvelabs.marengo-embed-2-7-v1:0": ({"inputType": "text", "inputText": "x"}, lambda a: a["data"][0]["embedding"]),
    "amazon.titan-image-generator-v2:0": ({"taskType": "TEXT_IMAGE", "imageGenerationConfig": {"numberOfImages": 3}}, lambda a: len(a["images"]) == 3),
    "amazon.nova-canvas-v1:0": ({"taskType": "TEXT_IMAGE"}, lambda a: len(a["images"]) == 1),
    "stability.sd3-5-large-v1:0": ({"prompt": "x"}, lambda a: len(a["images"]) == 1),
    "stability.stable-diffusion-xl-v1": ({"text_prompts": [{"text": "x"}], "steps": 60}, lambda a: a["artifacts"][0]["base64"]),
    "cohere.rerank-v3-5:0": ({"query": "x", "documents": ["a", "b"], "api_version": 2}, lambda a: len(a["results"]) == 2),
}


def invoke(runtime):
    for model, (body, holds) in {**BODIES, **UNSTREAMED}.items():
        response = runtime.invoke_model(modelId=model, body=json.dumps(body))
        check(holds(json.loads(response["body"].read())), f"invoke {model}")
        if model in BODIES:
            headers = response["ResponseMetadata"]["HTTPHeaders"]
            check(int(headers["x-amzn-bedrock-output-token-count"]) > 0, f"token header {model}")
    for model, (body, _) in BODIES.items():
        response = runtime.invoke_model_with_response_stream(modelId=model, body=json.dumps(body), serviceTier="priority")
        check(response["serviceTier"] == "priority", f"tier header {model}")
        chunks = [event["chunk"]["bytes"] for event in response["body"]]
        if "writer" in model:
            check(chunks.pop() == b"[DONE]", "writer ends in [DONE]")
        metrics = json.loads(chunks[-1])["amazon-bedrock-invocationMetrics"]
        check(metrics["outputTokenCount"] > 0 and len(chunks) > 2, f"stream {model}")


def other_runtime(runtime):
    counted = runtime.count_tokens(modelId="amazon.nova-pro-v1:0", input={"converse": {"messages": MESSAGES}})
    answer = runtime.converse(modelId="amazon.nova-pro-v1:0", messages=MESSAGES)
    check(counted["inputTokens"] == answer["usage"]["inputTokens"], "count tokens")
    body = {"input": {"invokeModel": {"body": json.dumps({"messages": MESSAGES}).encode()}}}
    check(runtime.count_tokens(modelId="amazon.nova-pro-v1:0", **body)["inputTokens"] == counted["inputTokens"], "count invoke")
    applied = runtime.apply_guardrail(guardrailIdentifier="gr1", guardrailVersion="1", source="INPUT", content=[{"text": {"text": "x" * 1500}}])
    check(applied["usage"]["contentPolicyUnits"] == 2 and applied["action"] == "NONE", "guardrail")
    started = runtime.start_async_invoke(
        modelId="amazon.nova-reel-v1:0", modelInput={"taskType": "TEXT_VIDEO", "videoGenerationConfig": {"durationSeconds": 12}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://b/x"}},
    )
    check(runtime.get_async_invoke(invocationArn=started["invocationArn"])["status"] == "Completed", "async")
    check(runtime.list_async_invokes()["asyncInvokeSummaries"], "async list")


def agents(client):
    events = list(client.invoke_agent(agentId="ABCDEFGHIJ", agentAliasId="TSTALIASID", sessionId="s1", inputText="Hi you", enableTrace=True)["completion"])
    usages = [event["trace"]["trace"].get(kind, {}).get("modelInvocationOutput", {}).get("metadata", {}).get("usage") for event in events if "trace" in event for kind in ("preProcessingTrace", "orchestrationTrace")]
    check(sum(usage["inputTokens"] for usage in usages if usage) == 2, "agent usage")
    check(b"".join(event["chunk"]["bytes"] for event in events if "chunk" in event).startswith(b"You said: Hi"), "agent text")
    untraced = list(client.invoke_agent(agentId="ABCDEFGHIJ", agentAliasId="TSTALIASID", sessionId="s1", inputText="Hi")["completion"])
    check(all("trace" not in event for event in untraced), "no trace unless asked")
    inline = client.invoke_inline_agent(sessionId="ABCDEFGHIJ", foundationModel="amazon.nova-pro-v1:0", instruction="Be a helpful assistant in all matters of streams.", inputText="Hi", enableTrace=True)
    check(any("trace" in event for event in inline["completion"]), "inline agent")
    flow = client.invoke_flow(flowIdentifier="ABCDEFGHIJ", flowAliasIdentifier="ABCDEFGHIJ", enableTrace=True, inputs=[{"content": {"document": "Hi"}, "nodeName": "In", "nodeOutputName": "document"}])
    check([next(iter(event)) for event in flow["responseStream"]] == ["flowTraceEvent", "flowOutputEvent", "flowCompletionEvent"], "flow")
    check(client.retrieve(knowledgeBaseId="KB12345678", retrievalQuery={"text": "x"})["retrievalResults"][0]["score"] == 0.5, "retrieve")
    configuration = {"type": "KNOWLEDGE_BASE", "knowledgeBaseConfiguration": {"knowledgeBaseId": "KB12345678", "modelArn": "amazon.nova-pro-v1:0"}}
    check(client.retrieve_and_generate(input={"text": "x"}, retrieveAndGenerateConfiguration=configuration)["output"]["text"], "rag")
    stream = client.retrieve_and_generate_stream(input={"text": "x"}, retrieveAndGenerateConfiguration=configuration)
    check(any("output" in event for event in stream["stream"]) and stream["sessionId"], "rag stream")
    source = {"type": "INLINE", "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": "x"}}}
    model = {"modelConfiguration": {"modelArn": "arn:aws:bedrock:us-west-2::foundation-model/cohere.rerank-v3-5:0"}}
    ranked = client.rerank(queries=[{"type": "TEXT", "textQuery": {"text": "x"}}], sources=[source, source], rerankingConfiguration={"type": "BEDROCK_RERANKING_MODEL", "bedrockRerankingConfiguration": model})
    check(len(ranked["results"]) == 2, "rerank")
    optimized = client.optimize_prompt(input={"textPrompt": {"text": "x"}}, targetModelId="amazon.nova-pro-v1:0")
    check([next(iter(event)) for event in optimized["optimizedPrompt"]] == ["analyzePromptEvent", "optimizedPromptEvent"], "optimize")
    check(client.generate_query(queryGenerationInput={"type": "TEXT", "text": "x"}, transformationConfiguration={"mode": "TEXT_TO_SQL", "textToSqlConfiguration": {"type": "KNOWLEDGE_BASE", "knowledgeBaseConfiguration": {"knowledgeBaseArn": "arn:aws:bedrock:us-west-2:123456789012:knowledge-base/KB12345678"}}})["queries"], "query")


def rest(make):
    control_plane = make("bedrock")
    profiles = control_plane.list_inference_profiles(typeEquals="SYSTEM_DEFINED")["inferenceProfileSummaries"]
    check(control_plane.get_inference_profile(inferenceProfileIdentifier=profiles[0]["inferenceProfileArn"])["models"], "profiles")
    check(control_plane.list_foundation_models()["modelSummaries"], "models")
    check(control_plane.get_foundation_model(modelIdentifier="amazon.nova-pro-v1:0")["modelDetails"]["modelId"], "model")
    core = make("bedrock-agentcore")
    arn = "arn:aws:bedrock-agentcore:us-west-2:123456789012:runtime/agent"
    check(b"data: " in core.invoke_agent_runtime(agentRuntimeArn=arn, payload=b'{"prompt":"Hi"}')["response"].read(), "agentcore")
    make("bedrock-agent").prepare_agent(agentId="ABCDEFGHIJ")
    make("bedrock-agent").list_tags_for_resource(resourceArn="arn:aws:bedrock:us-west-2:123456789012:agent/ABCDEFGHIJ")
    make("bedrock-agentcore-control").list_tags_for_resource(resourceArn="arn:aws:bedrock-agentcore:us-west-2:123456789012:runtime/x")
    make("bedrock-data-automation").list_data_automation_projects()
    make("bedrock-data-automation-runtime").get_data_automation_status(invocationArn="arn:aws:bedrock:us-west-2:123456789012:data-automation-invocation/00000000-0000-0000-0000-000000000000")


def faults(url, runtime):
    def once(fault):
        control(url, "PUT", "/_sim/behaviour", {"rules": [{"match": {"times": 1}, "fault": fault}]})

    once({"kind": "throttle"})
    try:
        runtime.converse(modelId="amazon.nova-pro-v1:0", messages=MESSAGES)
        check(False, "throttle")
    except runtime.exceptions.ThrottlingException:
        check(True, "throttle")
    once({"kind": "exception_frame", "after_frames": 2, "name": "modelStreamErrorException", "message": "m"})
    try:
        list(runtime.converse_stream(modelId="amazon.nova-pro-v1:0", messages=MESSAGES)["stream"])
        check(False, "exception frame")
    except EventStreamError as error:
        check(error.response["Error"]["Code"] == "modelStreamErrorException", "exception frame")
    once({"kind": "bad_crc", "frame": 1})
    try:
        list(runtime.converse_stream(modelId="amazon.nova-pro-v1:0", messages=MESSAGES)["stream"])
        check(False, "bad crc")
    except Exception as error:
        check(type(error).__name__ == "ChecksumMismatch", "bad crc")
    wrong = boto3.client("bedrock-runtime", region_name="us-west-2", endpoint_url=url, aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="wrong")
    try:
        wrong.converse(modelId="amazon.nova-pro-v1:0", messages=MESSAGES)
        check(False, "wrong secret")
    except ClientError as error:
        check(error.response["Error"]["Code"] == "InvalidSignatureException", "wrong secret")


def main(binary):
    simulator = subprocess.Popen([binary, "--port", "0", *sys.argv[2:]], stdout=subprocess.PIPE, text=True)
    try:
        url = simulator.stdout.readline().split()[-1]
        make = clients(url)
        runtime = make("bedrock-runtime")
        converse(runtime)
        invoke(runtime)
        other_runtime(runtime)
        agents(make("bedrock-agent-runtime"))
        rest(make)
        counters = control(url, "GET", "/_sim/counters")
        check(counters["authentication_failures"] == 0 and counters["violations"] == 0 and counters["unknown_operations"] == 0, counters)
        for record in control(url, "GET", "/_sim/requests"):
            check(record["status"] in (200, 202, 204), record)
        faults(url, runtime)
        print(f"{CHECKED} checks hold; {counters['requests']} requests; billed {control(url, 'GET', '/billed')['count']}")
    finally:
        simulator.terminate()
        check(simulator.wait(timeout=5) == 0, "clean exit")


if __name__ == "__main__":
    main(sys.argv[1])
