"""Driver of boto3, whichever version runs it: Converse, InvokeModel, InvokeAgent; the key is in the environment."""

import json

import boto3
from driver import AGENT, CLAUDE_BODY, PROMPT, REGION, TOKENS_MAX, give_aws_key, serve

MESSAGES = [{"role": "user", "content": [{"text": PROMPT}]}]


def call(job):
    give_aws_key(job)
    service = "bedrock-agent-runtime" if job.scenario == "agent" else "bedrock-runtime"
    one = boto3.Session(region_name=REGION).client(service, endpoint_url=job.url)
    SCENARIOS[job.scenario](one, job)


def chat(runtime, job):
    answer = runtime.converse(modelId=job.model, messages=MESSAGES, inferenceConfig={"maxTokens": TOKENS_MAX})
    job.hears(answer["output"]["message"]["content"][0]["text"])
    job.bills(answer["usage"]["inputTokens"], answer["usage"]["outputTokens"])


def stream(runtime, job):
    answer = runtime.converse_stream(modelId=job.model, messages=MESSAGES, inferenceConfig={"maxTokens": TOKENS_MAX})
    for event in answer["stream"]:
        job.hears(event.get("contentBlockDelta", {}).get("delta", {}).get("text"))
        if usage := event.get("metadata", {}).get("usage"):
            job.bills(usage["inputTokens"], usage["outputTokens"])


def invoke(runtime, job):
    answer = json.load(runtime.invoke_model(modelId=job.model, body=json.dumps(CLAUDE_BODY))["body"])
    job.hears(answer["content"][0]["text"])
    job.bills(answer["usage"]["input_tokens"], answer["usage"]["output_tokens"])


def invoke_stream(runtime, job):
    answer = runtime.invoke_model_with_response_stream(modelId=job.model, body=json.dumps(CLAUDE_BODY))
    for event in answer["body"]:
        part = json.loads(event["chunk"]["bytes"])
        job.hears(part.get("delta", {}).get("text"))
        if metrics := part.get("amazon-bedrock-invocationMetrics"):
            job.bills(metrics["inputTokenCount"], metrics["outputTokenCount"])


def agent(agents, job):
    for event in agents.invoke_agent(**AGENT)["completion"]:
        job.hears(event.get("chunk", {}).get("bytes", b"").decode())


SCENARIOS = {"chat": chat, "stream": stream, "invoke": invoke, "invoke-stream": invoke_stream, "agent": agent}

serve(call)
