"""curl, as users type it: the commands run in bash letter by letter; only host and port are replaced.

The first set is what users of pass-through proxies have in their own notes and scripts; the second is taken out of this
project's documents, so that these cannot rot.
"""

import json
import os
import re
import subprocess

import documents
import pytest
from conftest import DEADLINE_S, KEY

HEADERS = "-H 'Authorization: Bearer sk-1234' \\\n-H 'Content-Type: application/json' \\\n"
CONVERSE = """-d '{
    "messages": [
        {"role": "user", "content": [{"text": "Hello, how are you?"}]}
    ],
    "inferenceConfig": {"maxTokens": 100}
}'"""
CLAUDE = """-d '{
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hello"}]
}'"""
COHERE = """-d '{"prompt": "Hello", "max_tokens": 100}'"""
BODIES = {"my-bedrock-model": CLAUDE, "my-claude-model": CLAUDE, "my-cohere-model": COHERE}
SERVED_BY = {
    "my-bedrock-model": "us.anthropic.claude-3-5-sonnet-20240620-v1:0",
    "my-claude-model": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "my-cohere-model": "cohere.command-text-v14",
    "cohere.command-r-v1:0": "cohere.command-r-v1:0",
}
# The price book has no list price of it; that must show, and not be taken for free.
UNPRICED = {"cohere.command-r-v1:0"}
ACTIONS = {
    "converse": "Converse",
    "converse-stream": "ConverseStream",
    "invoke": "InvokeModel",
    "invoke-with-response-stream": "InvokeModelWithResponseStream",
}
GUARDRAIL = """curl "http://0.0.0.0:4000/bedrock/guardrail/guardrailIdentifier/version/guardrailVersion/apply" \\
    -H 'Authorization: Bearer sk-anything' \\
    -H 'Content-Type: application/json' \\
    -X POST \\
    -d '{
      "content": [{"text": {"text": "Hello world"}}],
      "source": "INPUT"
    }'"""
# The braces are curl's own pattern for one alternative: the id arrives without them.
KNOWLEDGE_BASE = """curl -X POST "http://0.0.0.0:4000/bedrock/knowledgebases/{knowledgeBaseId}/retrieve" \\
-H 'Authorization: Bearer sk-anything' \\
-H 'Content-Type: application/json' \\
-d '{
    "retrievalConfiguration": {
        "vectorSearchConfiguration": {"numberOfResults": 3, "overrideSearchType": "HYBRID"}
    },
    "retrievalQuery": {"text": "What do we sell?"}
}'"""


class Ran:
    """What became of a command: curl's own configuration file makes it write the header down beside its output."""

    def __init__(self, command, proxy, folder, **environment):
        address = proxy.url.removeprefix("http://")
        replaced = re.sub(r"\b(?:0\.0\.0\.0|127\.0\.0\.1|localhost):4000\b", address, command)
        assert replaced != command, f"no address to replace in: {command}"
        (folder / ".curlrc").write_text(f'silent\nshow-error\nmax-time = {DEADLINE_S}\ndump-header = "{folder}/header"\n')
        environment = {"PATH": os.environ["PATH"], "CURL_HOME": str(folder), "HOME": str(folder)} | environment
        done = subprocess.run(["bash", "-c", replaced], capture_output=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr.decode()
        self.body = done.stdout
        status, *lines = (folder / "header").read_text().strip().splitlines()
        self.status = int(status.split()[1])
        self.headers = dict(re.split(r":\s*", line.lower(), maxsplit=1) for line in lines)


def model_curl(model, action):
    body = CONVERSE if action.startswith("converse") else BODIES[model]
    return f"curl -X POST 'http://0.0.0.0:4000/bedrock/model/{model}/{action}' \\\n{HEADERS}{body}"


CASES = [(model, action) for model in BODIES for action in ACTIONS] + [("cohere.command-r-v1:0", "converse")]


@pytest.mark.parametrize("model, action", CASES)
def test_a_model_is_called(model, action, open_proxy, simulator, tmp_path):
    ran = Ran(model_curl(model, action), open_proxy, tmp_path)
    assert ran.status == 200, ran.body
    [sent] = simulator.requests()
    assert (sent["operation"], sent["model"]) == (ACTIONS[action], SERVED_BY[model])
    assert sent["auth"]["ok"] and sent["violations"] == [] and sent["body"] in model_curl(model, action)
    assert ran.headers["x-dheera-ai-model-id"] == SERVED_BY[model].lower()
    if "stream" in action:
        assert ran.headers["content-type"] == "application/vnd.amazon.eventstream" and b":event-type" in ran.body
    else:
        assert "Hello" in json.dumps(json.loads(ran.body))
        record = open_proxy.record(ran.headers["x-dheera-ai-call-id"])
        if model in UNPRICED:
            assert record["unpriced"] == "unpriced_model" and "x-dheera-ai-response-cost" not in ran.headers
        else:
            assert record["cost_nano_usd"] > 0 and ran.headers["x-dheera-ai-response-cost"] == record["cost_usd"]


def test_a_guardrail_is_applied(open_proxy, simulator, tmp_path):
    ran = Ran(GUARDRAIL, open_proxy, tmp_path)
    assert ran.status == 200 and json.loads(ran.body)["action"] == "NONE"
    assert simulator.requests()[0]["operation"] == "ApplyGuardrail"


def test_a_knowledge_base_is_asked(open_proxy, simulator, tmp_path):
    ran = Ran(KNOWLEDGE_BASE, open_proxy, tmp_path)
    assert ran.status == 200 and json.loads(ran.body)["retrievalResults"]
    [sent] = simulator.requests()
    assert (sent["operation"], sent["path"]) == ("Retrieve", "/knowledgebases/knowledgeBaseId/retrieve")
    assert sent["service"] == "bedrock-agent-runtime"


@pytest.mark.parametrize("option", [f"-u :{KEY}", f"-u {KEY}:", f"-H 'x-api-key: {KEY}'", f"-H 'api-key: {KEY}'"])
def test_the_key_may_stand_elsewhere(option, proxy, tmp_path):
    command = f"curl {option} http://127.0.0.1:4000/bedrock/model/my-claude-model/converse {CONVERSE}"
    assert Ran(command, proxy, tmp_path).status == 200


@pytest.mark.parametrize("option", ["", "-H 'Authorization: Bearer sk-wrong'", "-H 'Authorization: Digest x'"])
def test_without_the_key_nothing_is_served(option, proxy, simulator, tmp_path):
    command = f"curl {option} http://127.0.0.1:4000/bedrock/model/my-claude-model/converse {CONVERSE}"
    ran = Ran(command, proxy, tmp_path)
    assert (ran.status, ran.headers["x-amzn-errortype"]) == (403, "accessdeniedexception")
    assert json.loads(ran.body)["message"] and simulator.requests() == []


def test_the_bare_path_works_like_the_one_below_bedrock(open_proxy, tmp_path):
    command = model_curl("my-claude-model", "converse").replace("/bedrock/", "/")
    assert Ran(command, open_proxy, tmp_path).status == 200


CURLS = documents.curls()


@pytest.mark.parametrize("document, command", CURLS, ids=[f"{document}-{at}" for at, (document, _) in enumerate(CURLS)])
def test_a_curl_of_the_documents_works(document, command, open_proxy, proxy, tmp_path):
    """Against the proxy it is written for: with a master key where the command shows `$DHEERA_AI_MASTER_KEY` or a key
    that was made with it."""
    environment, target = {"DHEERA_AI_MASTER_KEY": KEY}, open_proxy
    if re.search(r"\$(?:DHEERA_AI_MASTER_KEY|PROXY_KEY)\b", command):
        key, target = proxy.manage("/key/generate", {"max_budget": 5}), proxy
        environment |= {"PROXY_KEY": key["key"], "PROXY_KEY_ID": key["key_id"]}
    ran = Ran(command, target, tmp_path, **environment)
    assert ran.status == 200, (document, command, ran.body)


def test_each_document_shows_a_curl():
    assert {document for document, _ in CURLS} == {"conf/demo.yaml", *documents.DOCUMENTS}
