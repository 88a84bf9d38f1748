"""Runs every client under every condition, all against one proxy and one simulator, and keeps what came of it.

Each pair of client and condition is a cell with a virtual key, a model name and an AWS account of its own. The account
stands in the ARN of its model, so the simulator's faults meet one cell only and its bill is told apart; the key stands
in the proxy's request records, so its requests are counted there. Clients run side by side, the jobs of one in turn.
"""

import json
import subprocess
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone

from conftest import ACCESS_KEY, DEADLINE_S, ROOT, SECRET
from registry import CODES, PROMPT
from tap import Tap

REGION = "us-west-2"
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
GPT = "openai.gpt-oss-120b-1:0"
FRAMES = 2
# Started processes at a time: most of a job is waiting, but starting a client takes a core for a second.
CLIENTS_AT_ONCE = 8
# Generous: five attempts of an old boto3 take half a minute, and the machine may be loaded.
JOB_DEADLINE_S = 4 * DEADLINE_S


@dataclass(frozen=True)
class Condition:
    """The way to the proxy, and what is wrong, where anything is: at Bedrock, with the key, with the model's name or in
    its configuration."""

    scenario: str = "chat"
    https: bool = False
    tapped: bool = False  # through a Tap, which hears the version of HTTP
    pair: bool = False  # signed with a key pair
    fault: dict | None = None
    times: int | None = None  # so often Bedrock fails; always without
    key: dict = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)


def error(status, name):
    return {"kind": "error", "status": status, "error_type": name, "message": f"Malformed: ünïcode {status}"}


CONDITIONS = {
    "chat": Condition(key={"max_budget": 1}),
    "stream": Condition("stream", key={"max_budget": 1}),
    "invoke": Condition("invoke", key={"max_budget": 1}),
    "invoke-stream": Condition("invoke-stream", key={"max_budget": 1}),
    "agent": Condition("agent"),
    "https": Condition(https=True, key={"max_budget": 1}),
    "https-stream": Condition("stream", https=True, key={"max_budget": 1}),
    "pair": Condition(pair=True, key={"max_budget": 1}),
    "pair-stream": Condition("stream", pair=True, key={"max_budget": 1}),
    "pair-agent": Condition("agent", pair=True),
    "pair-https": Condition(https=True, pair=True, key={"max_budget": 1}),
    "version": Condition(tapped=True),
    "version-https": Condition(https=True, tapped=True),
    "wrong_key": Condition(),
    "wrong_secret": Condition(pair=True),
    "unknown_model": Condition(),
    "invalid": Condition(fault=error(400, "ValidationException")),
    "over_budget": Condition(key={"max_budget": 0.000001}),
    # The one call that the key may have in flight is there already, see `occupied`.
    "busy": Condition(fault={"kind": "stall_mid_stream", "after_frames": 1}, times=1, key={"max_parallel_requests": 1}),
    "internal_error": Condition(fault=error(500, "InternalServerException")),
    "throttled_once": Condition(fault={"kind": "throttle"}, times=1),
    "unavailable_once": Condition(fault=error(503, "ServiceUnavailableException"), times=1),
    "timeout": Condition(fault={"kind": "stall_before_header"}, parameters={"timeout": 0.5}),
    "exception_frame": Condition(
        "stream",
        fault={
            "kind": "exception_frame", "after_frames": FRAMES, "name": "throttlingException", "message": "Slow down",
        },
    ),
    "cut_between_frames": Condition("stream", fault={"kind": "cut", "after_frames": FRAMES}),
    "cut_in_frame": Condition("stream", fault={"kind": "cut_mid_frame", "after_frames": FRAMES}),
}
SUCCESSES = ("chat", "stream", "invoke", "invoke-stream", "agent", "https", "https-stream")
SUCCESSES += ("pair", "pair-stream", "pair-agent", "pair-https")
VERSIONS = ("version", "version-https")
RECOVERIES = ("throttled_once", "unavailable_once")


def meets(client, name):
    """Whether a client has a cell for a condition."""
    condition = CONDITIONS[name]
    if condition.pair:
        fits = client.signs
    elif condition.https:
        # Those that send nothing over http:// meet every condition over https://.
        fits = client.auth == "bearer" and (condition.tapped or not client.https_only)
    else:
        fits = not (condition.tapped and client.https_only)
    return fits and condition.scenario in client.scenarios and (name in client.errors or name not in CODES)


class Cell:
    """One client under one condition."""

    def __init__(self, number, client, condition):
        self.client, self.condition = client, CONDITIONS[condition]
        self.name, self.id = condition, f"{client.id}-{condition}"
        model = GPT if client.name == "openai" else CLAUDE
        self.model = f"arn:aws:bedrock:{REGION}:{number:012}:inference-profile/{model}"
        self.is_unlisted, self.is_busy = condition == "unknown_model", condition == "busy"
        # Why the proxy does not know whose key it is.
        self.nameless = {"wrong_key": "key_unknown", "wrong_secret": "signature_mismatch"}.get(condition)
        self.key = self.heard = self.answer = self.span = self.driver_status = None
        self.set_aside = set()  # call ids that are none of the client's
        self.records = []  # of its client's calls

    def deployment(self):
        own = {"model": f"bedrock/{self.model}", "aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET}
        return {"model_name": self.id, "dheera_ai_params": own | self.condition.parameters}

    def rule(self):
        matching = {"model": self.model} | ({"times": self.condition.times} if self.condition.times else {})
        return {"match": matching, "fault": self.condition.fault}

    def https(self):
        return self.condition.https or self.client.https_only

    def job(self, url):
        model = "no-such-model" if self.is_unlisted else self.id
        return {"scenario": self.condition.scenario, "url": f"{url}/bedrock", "model": model} | self.credentials()

    def credentials(self):
        if self.condition.pair:
            secret = "another" if self.nameless else self.key["aws_secret_access_key"]
            return {"auth": "sigv4", "key": self.key["aws_access_key_id"], "secret": secret}
        key = "sk-never-made-0123456789" if self.nameless else self.key["key"]
        return {"auth": self.client.auth, "key": key, "secret": "anything"}

    def made(self, record):
        """Whether a request record is of this cell. Some say nobody's name: such cells take turns."""
        # What Claude Code asks the control plane is no call of a model.
        if record["call_id"] in self.set_aside or record.get("service") == "bedrock":
            return False
        if not self.nameless:
            return record.get("key_id") == self.key["key_id"]
        return record.get("reason") == self.nameless and self.span[0] <= arrival(record) <= self.span[1]


def arrival(record):
    return datetime.fromisoformat(record["time"])


class Driver:
    """A client's driver: jobs in, answers out."""

    def __init__(self, client, environment, log):
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                client.command, cwd=ROOT, env=environment | client.environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            )

    def ask(self, job):
        """The driver's answer; what happened to the driver where it gives none."""
        watchdog = threading.Timer(JOB_DEADLINE_S, self.process.kill)
        watchdog.start()
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            return {"error": {"class": "no answer", "code": None, "message": self.log.read_text()[-4000:]}}
        finally:
            watchdog.cancel()

    def stop(self):
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            return self.process.wait(timeout=DEADLINE_S)
        finally:
            self.process.kill()
            self.process.stdout.close()


class Matrix:
    """Cells by their ids, and their run."""

    def __init__(self, clients):
        pairs = [(client, name) for client in clients for name in CONDITIONS if meets(client, name)]
        self.cells = {cell.id: cell for cell in (Cell(1 + at, *pair) for at, pair in enumerate(pairs))}
        self.one_nameless_at_a_time = threading.Lock()

    def keep(self, ids):
        """Leaves out what nobody looks at, so that one client can be tried alone."""
        self.cells = {id: cell for id, cell in self.cells.items() if id in ids}

    def configuration(self):
        deployments = [cell.deployment() for cell in self.cells.values() if not cell.is_unlisted]
        return {
            "model_list": deployments,
            # A call that `occupied` lets go is over at once.
            "general_settings": {"drain_timeout": 0},
            # For agents, which are no deployments.
            "environment_variables": {
                "AWS_REGION": REGION, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
            },
        }

    def run(self, proxy, simulator, certificate, environment, folder):
        simulator.demand(*[cell.rule() for cell in self.cells.values() if cell.condition.fault])
        for cell in self.cells.values():
            pair = {"sigv4": True} if cell.condition.pair else {}
            cell.key = proxy.manage("/key/generate", cell.condition.key | pair)
        by_client = {}
        for cell in self.cells.values():
            by_client.setdefault(cell.client.id, []).append(cell)
        with ThreadPoolExecutor(CLIENTS_AT_ONCE) as threads:
            runs = [
                threads.submit(self._run, cells, proxy, certificate, environment, folder)
                for cells in by_client.values()
            ]
        for run in runs:
            run.result()

    def _run(self, cells, proxy, certificate, environment, folder):
        driver = Driver(cells[0].client, environment, folder / f"{cells[0].client.id}.log")
        try:
            for cell in cells:
                with self._stage(cell, proxy, certificate) as url:
                    started = datetime.now(timezone.utc)
                    cell.answer = driver.ask(cell.job(url))
                    cell.span = started, datetime.now(timezone.utc)
        finally:
            status = driver.stop()
        for cell in cells:
            cell.driver_status = status

    @contextmanager
    def _stage(self, cell, proxy, certificate):
        """Sets up what a cell needs; gives the URL of the proxy."""
        url = proxy.secure_url if cell.https() else proxy.url
        if cell.nameless:
            with self.one_nameless_at_a_time:
                yield url
        elif cell.is_busy:
            with occupied(cell, proxy):
                yield url
        elif cell.condition.tapped:
            with tapped(cell, proxy, certificate) as url:
                yield url
        else:
            yield url

    def account(self, lines):
        """Gives each cell the request records of its client's calls."""
        records = [json.loads(line) for line in lines if line.startswith("{")]
        for cell in self.cells.values():
            cell.records = [record for record in records if cell.made(record)]


@contextmanager
def tapped(cell, proxy, certificate):
    """Another address of the proxy, where the version of HTTP is noted."""
    files = [certificate[name] for name in ("SSL_CERTFILE_PATH", "SSL_KEYFILE_PATH")] if cell.https() else []
    tap = Tap(proxy.url, *files)
    try:
        yield tap.url
    finally:
        tap.stop()
        cell.heard = tap.heard


@contextmanager
def occupied(cell, proxy):
    """A stream that stands still after its first event, and holds the only place that the cell's key has."""
    body = {"messages": [{"role": "user", "content": [{"text": PROMPT}]}]}
    request = urllib.request.Request(
        f"{proxy.url}/bedrock/model/{cell.id}/converse-stream",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {cell.key['key']}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        cell.set_aside.add(answer.headers["x-dheera-ai-call-id"])
        assert answer.read(1)
        yield
