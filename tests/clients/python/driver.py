"""What the drivers of Python clients share: jobs in, answers out, as tests/clients/registry.py says."""

import json
import os
import sys
import traceback

PROMPT = "Tell me a story"
TOKENS_MAX = 100
REGION = "us-west-2"
AGENT = dict(agentId="AGENT12345", agentAliasId="ALIAS12345", sessionId="s1", inputText=PROMPT)
CLAUDE_BODY = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": TOKENS_MAX,
    "messages": [{"role": "user", "content": PROMPT}],
}


class Job:
    """One call to make, and what has come of it so far."""

    def __init__(self, scenario, url, key, model, auth, secret="anything"):
        self.scenario, self.url, self.model = scenario, url, model
        self.auth, self.key, self.secret = auth, key, secret
        self.text, self.events, self.usage = "", 0, {}

    def hears(self, text):
        """Notes an event of the answer, and the text in it."""
        self.events += 1
        self.text += text or ""

    def bills(self, given, taken):
        self.usage = {"input": given, "output": taken}

    def answer(self, function):
        """Makes the call. Whatever the client raises is the answer, too."""
        try:
            function(self)
        except Exception as error:  # noqa: BLE001 - which exceptions a client has is what is asked
            traceback.print_exc()
            return {"error": described(error), "text_so_far": self.text}
        return {"text": self.text, "events": self.events, "usage": self.usage}


def described(error):
    """The error as an application sees it."""
    response = getattr(error, "response", None)
    response = response if isinstance(response, dict) else {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode") or getattr(error, "status_code", None)
    code = response.get("Error", {}).get("Code") or getattr(error, "type", None)
    return {"class": type(error).__name__, "code": code, "status": status, "message": str(error)}


def give_aws_key(job):
    """What an application without settings of its own finds the key in."""
    for name in ("AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.pop(name, None)
    if job.auth == "bearer":
        os.environ["AWS_BEARER_TOKEN_BEDROCK"] = job.key
    else:
        os.environ |= {"AWS_ACCESS_KEY_ID": job.key, "AWS_SECRET_ACCESS_KEY": job.secret}


def serve(function):
    for line in sys.stdin:
        print(json.dumps(Job(**json.loads(line)).answer(function)), flush=True)
