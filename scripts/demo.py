#!/usr/bin/env python3
"""Starts the simulator and the proxy, makes the calls a newcomer would make, and shows what came of each; then makes a
virtual key with a small budget, and uses it up.

Nothing leaves this machine: the simulator stands in for AWS. Every call goes through boto3 exactly as an application
would make it, with the proxy as `endpoint_url` and the proxy's key in the place of AWS credentials.
"""

import argparse
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parent.parent
# The master key. It may do everything; clients get virtual keys.
KEY = "sk-demo-0123456789abcdef"
BUDGET_USD = "0.001"
BOLD, DIM, RESET = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


class Process:
    """A child process that says on standard output where it listens."""

    def __init__(self, command, environment):
        self.command = [str(part) for part in command]
        self.log = tempfile.TemporaryFile(mode="w+", prefix="dheera-demo-")
        # A session of its own: Ctrl-C in a terminal is for the demo, which then stops its processes in order.
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment, start_new_session=True
        )
        self.lines = queue.Queue()

    def wait_for(self, says):
        """The address that the process says it listens on."""
        for line in self.process.stdout:
            if match := re.search(says + r" on (http://\S+)", line):
                break
        else:
            self.process.wait()
            self.log.seek(0)
            raise SystemExit(f"{self.command[0]} did not start:\n{self.log.read()}")
        # What it prints later: the proxy writes one JSON record per request.
        threading.Thread(target=lambda: [self.lines.put(line) for line in self.process.stdout], daemon=True).start()
        return match.group(1)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


class Demo:
    def __init__(self, proxy, url, lines):
        self.proxy = proxy
        self.url = url
        self.lines = lines
        self.runtime = self.client("bedrock-runtime", KEY)
        self.agents = self.client("bedrock-agent-runtime", KEY)

    def client(self, service, key, attempts=1):
        return boto3.client(
            service,
            endpoint_url=f"{self.url}/bedrock",
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key="anything",
            config=Config(retries={"total_max_attempts": attempts}),
        )

    def title(self, text):
        print(f"\n{BOLD}== {text}{RESET}")

    def record(self):
        """The proxy's record of the call that just ended."""
        try:
            return json.loads(self.lines.get(timeout=10))
        except queue.Empty:
            raise SystemExit("the proxy wrote no record of the call") from None

    def show(self, header_cost=None):
        record = self.record()
        usage = ", ".join(f"{name} {count}" for name, count in record.get("usage", {}).items()) or "none reported"
        cost = f"${record['cost_usd']}" if "cost_usd" in record else f"not known ({record.get('unpriced')})"
        print(f"   usage: {usage}")
        print(f"   cost:  {cost}" + (f"  (x-dheera-ai-response-cost: {header_cost})" if header_cost else ""))
        print(f"   {DIM}record: {json.dumps(record)}{RESET}")
        if record["status"] != 200:
            raise SystemExit(f"the call failed with status {record['status']}")
        return record

    @staticmethod
    def header(answer, name):
        return answer["ResponseMetadata"]["HTTPHeaders"].get(name)

    def run(self):
        messages = [{"role": "user", "content": [{"text": "Say hello to a new colleague."}]}]

        self.title("Converse  (model name my-bedrock-model of conf/demo.yaml)")
        answer = self.runtime.converse(modelId="my-bedrock-model", messages=messages)
        print("  ", answer["output"]["message"]["content"][0]["text"])
        self.show(self.header(answer, "x-dheera-ai-response-cost"))

        self.title("ConverseStream  (words appear as they come)")
        print("   ", end="", flush=True)
        for event in self.runtime.converse_stream(modelId="my-claude-model", messages=messages)["stream"]:
            if delta := event.get("contentBlockDelta"):
                print(delta["delta"].get("text", ""), end="", flush=True)
        print()
        self.show()

        self.title("InvokeModel  (the model's own request form)")
        body = json.dumps(
            {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
        )
        answer = self.runtime.invoke_model(modelId="my-claude-model", body=body)
        print("  ", json.loads(answer["body"].read())["content"][0]["text"])
        self.show(self.header(answer, "x-dheera-ai-response-cost"))

        self.title("InvokeModelWithResponseStream")
        print("   ", end="", flush=True)
        answer = self.runtime.invoke_model_with_response_stream(modelId="my-claude-model", body=body)
        for event in answer["body"]:
            chunk = json.loads(event["chunk"]["bytes"])
            if chunk.get("type") == "content_block_delta":
                print(chunk["delta"].get("text", ""), end="", flush=True)
        print()
        self.show()

        self.title("ApplyGuardrail")
        answer = self.runtime.apply_guardrail(
            guardrailIdentifier="guardrailIdentifier",
            guardrailVersion="1",
            source="INPUT",
            content=[{"text": {"text": "Is this sentence fine?"}}],
        )
        print("   action:", answer["action"])
        self.show(self.header(answer, "x-dheera-ai-response-cost"))

        self.title("Retrieve  (a knowledge base, on bedrock-agent-runtime)")
        answer = self.agents.retrieve(knowledgeBaseId="KB12345678", retrievalQuery={"text": "What do we sell?"})
        for result in answer["retrievalResults"][:2]:
            print("  ", result["content"]["text"])
        self.show(self.header(answer, "x-dheera-ai-response-cost"))

        self.title("InvokeAgent  (its trace tells the tokens, but not the model and so no price)")
        answer = self.agents.invoke_agent(
            agentId="AGENT12345", agentAliasId="ALIAS12345", sessionId="demo", inputText="Hello", enableTrace=True
        )
        print("   ", end="", flush=True)
        for event in answer["completion"]:
            if chunk := event.get("chunk"):
                print(chunk["bytes"].decode(), end="", flush=True)
        print()
        self.show()

    def ask(self, path, body=None):
        """What the proxy itself answers to the master key."""
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        data = None if body is None else body.encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=10) as response:
            return response.read().decode()

    def budget(self):
        body = f'{{"key_alias": "newcomer", "max_budget": {BUDGET_USD}}}'
        self.title(f"POST /key/generate {body}  (a virtual key that may spend a tenth of a cent)")
        key = json.loads(self.ask("/key/generate", body))["key"]
        print("  ", key)

        self.title("Converse with the virtual key, until its budget is used up")
        # With retries: boto3 knows that this refusal is not worth one.
        runtime = self.client("bedrock-runtime", key, attempts=3)
        messages = [{"role": "user", "content": [{"text": "Hello"}]}]
        for number in range(1, 11):
            try:
                answer = runtime.converse(
                    modelId="my-claude-model", messages=messages, inferenceConfig={"maxTokens": 20}
                )
            except runtime.exceptions.ServiceQuotaExceededException as refusal:
                error, metadata = refusal.response["Error"], refusal.response["ResponseMetadata"]
                print(f"   call {number}: {error['Code']}: {error['Message']}")
                print(f"           retries by boto3: {metadata['RetryAttempts']}")
                self.record()
                break
            cost, spent, left = (
                self.header(answer, f"x-dheera-ai-{name}") for name in ("response-cost", "key-spend", "key-remaining")
            )
            print(f"   call {number}: cost ${cost}, spent ${spent} (x-dheera-ai-key-spend), left ${left}")
            self.record()
        else:
            raise SystemExit("the budget did not refuse anything")

    def command(self, *arguments):
        """Runs the proxy's own program, which talks to the running proxy."""
        self.title(" ".join(["dheera_ai", *arguments]))
        environment = os.environ | {"DHEERA_AI_URL": self.url, "DHEERA_AI_MASTER_KEY": KEY}
        done = subprocess.run([self.proxy, *arguments], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
        for line in done.stdout.splitlines():
            print("  ", line)

    def booked(self):
        """Waits until what was spent is in the store, which takes some milliseconds."""
        deadline = time.monotonic() + 10
        while not re.search(r"^dheera_ai_journal_backlog 0$", self.ask("/metrics"), re.MULTILINE):
            if time.monotonic() > deadline:
                raise SystemExit("what was spent did not reach the store")
            time.sleep(0.02)

    def metrics(self):
        self.title("GET /metrics  (what these calls left there)")
        for line in self.ask("/metrics").splitlines():
            if re.match(r"dheera_ai_(requests|usage|cost_nano_usd|unpriced_requests|denied)(_total)?\{", line):
                print("  ", line)


def isolate():
    """Leaves nothing of this shell's AWS settings to the demo: a profile or a token of yours must not be used for it."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "DHEERA_AI_"))]:
        del os.environ[name]
    os.environ |= {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxy", required=True, help="the dheera_ai binary")
    parser.add_argument("--simulator", required=True, help="the bedrock-sim binary")
    arguments = parser.parse_args()
    isolate()
    started = []
    # Keys, budgets and the spend log of this demo; a proxy of yours keeps its own elsewhere.
    store = tempfile.TemporaryDirectory(prefix="dheera-demo-")

    def start(says, command, **environment):
        # Known before it is waited for, so that an interruption finds it too.
        started.append(Process(command, os.environ | environment))
        url = started[-1].wait_for(says)
        print(f"   {url}")
        return url

    try:
        print("Starting the simulator (it stands in for AWS; nothing leaves this machine) ...")
        simulator = [arguments.simulator, "--port", "0", "--rate", "20", "--prices", ROOT / "conf/prices.yaml"]
        simulator += ["--access-key", "AKIDEXAMPLE", "--secret", "not-a-real-secret-key"]
        simulator_url = start("LISTENING", simulator)
        print("Starting the proxy with conf/demo.yaml ...")
        proxy = [arguments.proxy, "--config", ROOT / "conf/demo.yaml", "--host", "127.0.0.1", "--port", "0"]
        environment = {"DHEERA_AI_MASTER_KEY": KEY, "DHEERA_AI_STORE_PATH": store.name, "AWS_ENDPOINT_URL": simulator_url}
        proxy_url = start("RUNNING", proxy, **environment)
        demo = Demo(arguments.proxy, proxy_url, started[-1].lines)
        demo.run()
        demo.budget()
        demo.booked()
        demo.command("key", "list")
        demo.command("spend", "--by", "key")
        demo.metrics()
    finally:
        # A second Ctrl-C must not leave anything behind either.
        for ending in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ending, signal.SIG_IGN)
        codes = [process.stop() for process in reversed(started)]
        store.cleanup()
    if any(codes):
        raise SystemExit(f"a process did not end cleanly: {codes}")
    print(f"\n{BOLD}Done.{RESET} Nothing is left running. Next: README.md, \"Five minutes with curl\".")


def interrupted(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    # In a pipe, too, lines and words appear as they come.
    sys.stdout.reconfigure(line_buffering=True)
    # Some shells start background jobs with SIGINT ignored; the demo can always be interrupted.
    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, interrupted)
    try:
        main()
    except KeyboardInterrupt:
        print("\nInterrupted. Nothing is left running.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read this stopped reading, as `head` does. What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
