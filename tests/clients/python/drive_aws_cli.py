"""Driver of the AWS CLI: one process of `aws` a job. It has no commands for streams."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from driver import CLAUDE_BODY, PROMPT, REGION, TOKENS_MAX, give_aws_key, serve

AWS = Path(sys.executable).with_name("aws")
MESSAGES = json.dumps([{"role": "user", "content": [{"text": PROMPT}]}])
LIMIT = json.dumps({"maxTokens": TOKENS_MAX})


class Refused(Exception):
    """What `aws` wrote in place of an answer; `response` as botocore's exceptions have it."""

    def __init__(self, complaint):
        super().__init__(complaint)
        found = re.search(r"An error occurred \((\w+)\)", complaint)
        self.response = {"Error": {"Code": found.group(1) if found else None}}


def call(job):
    give_aws_key(job)
    os.environ |= {"AWS_DEFAULT_REGION": REGION, "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": job.url}
    SCENARIOS[job.scenario](job)


def aws(*arguments):
    command = [AWS, "bedrock-runtime", *arguments, "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(done.stderr.strip())
    return done.stdout


def chat(job):
    options = ["--messages", MESSAGES, "--inference-config", LIMIT]
    answer = json.loads(aws("converse", "--model-id", job.model, *options))
    job.hears(answer["output"]["message"]["content"][0]["text"])
    job.bills(answer["usage"]["inputTokens"], answer["usage"]["outputTokens"])


def invoke(job):
    with tempfile.NamedTemporaryFile("r") as out:
        aws("invoke-model", "--model-id", job.model, "--body", json.dumps(CLAUDE_BODY), out.name)
        answer = json.load(out)
    job.hears(answer["content"][0]["text"])
    job.bills(answer["usage"]["input_tokens"], answer["usage"]["output_tokens"])


SCENARIOS = {"chat": chat, "invoke": invoke}

serve(call)
