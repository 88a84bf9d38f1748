"""Real processes: the simulator, proxies, Redis servers. Each is started on a free port, stopped by its own process id,
and leaves its output in a file of the run's directory, where it is still there after `kill -9`."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import money

ROOT = Path(__file__).resolve().parents[2]
MASTER_KEY = "sk-master-of-the-budget-tests-0123456789"
ACCESS_KEY, SECRET = "AKIDEXAMPLE", "not-a-real-secret-key"
# Generous: a loaded machine may be slow, and only a hang should fail.
DEADLINE_S = 60
# What a model of the configuration is called here, and its id at Bedrock.
MODELS = {
    "nova": "amazon.nova-pro-v1:0",
    "claude": "anthropic.claude-sonnet-4-5-20250929-v1:0",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, what, deadline_s=DEADLINE_S):
    """Waits for `condition` to give something, and gives it."""
    deadline = time.monotonic() + deadline_s
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.01)


class Process:
    """A child process. `start` may be called again after `kill` or `stop`."""

    # For what it says, and for its end.
    deadline_s = DEADLINE_S

    def __init__(self, name, directory):
        self.name = name
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.output = self.directory / "output.log"
        self.process = None
        self.starts = 0

    def _spawn(self, command, environment=None):
        assert not self.alive, f"{self.name} runs already"
        self.starts += 1
        begun_at = self.output.stat().st_size if self.output.exists() else 0
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=self.directory,
                env={"PATH": os.environ["PATH"]} | (environment or {}),
            )
        return begun_at

    @property
    def alive(self):
        return self.process is not None and self.process.poll() is None

    def said(self, pattern, since):
        """Waits until the process says something that fits."""

        def found():
            with self.output.open("rb") as output:
                output.seek(since)
                text = output.read().decode(errors="replace")
            if match := re.search(pattern, text):
                return match
            assert self.alive, f"{self.name} ended with {self.process.returncode}:\n{text[-4000:]}"
            return None

        return until(found, f"{self.name} to say {pattern}", self.deadline_s)

    def kill(self):
        """What the kernel does to a process that is out of memory."""
        if self.alive:
            self.process.send_signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def stop(self):
        """What an operator does; gives the exit status."""
        if self.process is None:
            return 0
        if self.alive:
            self.process.terminate()
            try:
                self.process.wait(timeout=self.deadline_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode


class Simulator(Process):
    def __init__(self, directory, binary, *options):
        super().__init__("simulator", directory)
        command = [binary, "--port", "0", "--prices", ROOT / "conf/prices.yaml", "--access-key", ACCESS_KEY]
        command += ["--secret", SECRET, "--no-record", "--bill-rows", "2000000", *options]
        since = self._spawn(command)
        self.url = self.said(r"LISTENING on (http://\S+)", since).group(1)

    def control(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, method=method, data=data)
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return json.load(answer)

    def behave(self, *rules):
        self.control("PUT", "/_sim/behaviour", {"rules": list(rules)})

    def counters(self):
        return self.control("GET", "/_sim/counters")

    def billed(self):
        return self.control("GET", "/billed")

    def rows(self, page=20_000):
        """All rows of the bill."""
        rows = []
        while more := self.control("GET", f"/_sim/billed/rows?from={len(rows)}&limit={page}"):
            rows += more
        return rows


class Redis(Process):
    """A Redis server that appends to its file, as one that keeps money must."""

    def __init__(self, name, directory, replica_of=None):
        super().__init__(name, directory)
        self.port = free_port()
        self.replica_of = replica_of

    def start(self):
        command = ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--dir", self.directory, "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "everysec", "--repl-diskless-sync-delay", "0"]
        if self.replica_of is not None:
            command += ["--replicaof", "127.0.0.1", self.replica_of]
        self._spawn(command)
        until(self._answers, f"{self.name} to answer")
        return self

    def _answers(self):
        assert self.alive, f"{self.name} ended:\n{self.output.read_text()[-2000:]}"
        with contextlib.suppress(OSError, RuntimeError):
            return self.command("PING") == "PONG"
        return False

    def promote(self):
        """Makes a replica a master. What its master did after this is lost."""
        self.command("REPLICAOF", "NO", "ONE")
        self.replica_of = None

    def in_sync(self):
        """Whether a replica has everything, also in its file: that is written anew after the first copy."""
        info = self.command("INFO", "replication") + self.command("INFO", "persistence")
        signs = ("master_link_status:up", "master_sync_in_progress:0", "aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0")
        return all(sign in info for sign in signs)

    def command(self, *parts):
        """One command in Redis's protocol."""
        request = b"*%d\r\n" % len(parts)
        for part in parts:
            data = str(part).encode()
            request += b"$%d\r\n%s\r\n" % (len(data), data)
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as stream:
                return _reply(stream)


def _reply(stream):
    line = stream.readline().rstrip(b"\r\n")
    kind, rest = line[:1], line[1:]
    if kind == b"+":
        return rest.decode()
    if kind == b":":
        return int(rest)
    if kind == b"$":
        length = int(rest)
        return None if length < 0 else stream.read(length + 2)[:-2].decode(errors="replace")
    if kind == b"*":
        return [_reply(stream) for _ in range(int(rest))]
    raise RuntimeError(line.decode(errors="replace") or "no answer")


class Proxy(Process):
    def __init__(self, name, directory, binary, simulator, redis_port=None, settings=None, models=MODELS):
        super().__init__(name, directory)
        self.binary = binary
        self.simulator = simulator
        self.url = None
        self.records_path = self.directory / "requests.jsonl"
        general = {
            "store_path": str(self.directory / "state"),
            "request_log": str(self.records_path),
            **({"redis_url": f"redis://127.0.0.1:{redis_port}/0"} if redis_port else {}),
            **(settings or {}),
        }
        entries = [
            {
                "model_name": model_name,
                "dheera_ai_params": {
                    "model": f"bedrock/{model_id}",
                    "aws_region_name": "us-east-1",
                    "aws_access_key_id": ACCESS_KEY,
                    "aws_secret_access_key": SECRET,
                },
            }
            for model_name, model_id in models.items()
        ]
        self.config = self.directory / "config.yaml"
        # JSON is YAML.
        self.config.write_text(json.dumps({"model_list": entries, "general_settings": general}, indent=1))

    def environment(self):
        return {
            "DHEERA_AI_MASTER_KEY": MASTER_KEY,
            "AWS_ENDPOINT_URL": self.simulator.url,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def command(self):
        return [self.binary, "--config", self.config, "--host", "127.0.0.1", "--port", "0"]

    def start(self):
        since = self._spawn(self.command(), self.environment())
        self.url = self.said(r"RUNNING on (http://\S+)", since).group(1)
        return self

    def admin(self, method, path, body=None):
        """Status and JSON of a page that needs the master key, amounts as decimals."""
        data = None if body is None else money.dump(body).encode()
        headers = {"authorization": f"Bearer {MASTER_KEY}", "content-type": "application/json"}
        request = urllib.request.Request(self.url + path, method=method, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
                return answer.status, money.load(answer.read().decode())
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            return error.code, money.load(text) if text.startswith("{") else {"message": text}

    def must(self, method, path, body=None):
        status, answer = self.admin(method, path, body)
        assert status == 200, f"{method} {path}: {status} {answer}"
        return answer

    def metrics_text(self):
        request = urllib.request.Request(self.url + "/metrics", headers={"authorization": f"Bearer {MASTER_KEY}"})
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return answer.read().decode()

    def metrics(self):
        """Sums of all series by name."""
        return sums_of_metrics(self.metrics_text())

    def records(self):
        """The request log. A last line that `kill -9` cut is left out."""
        if not self.records_path.exists():
            return []
        records = []
        for line in self.records_path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                records.append(money.load(line))
        return records


def sums_of_metrics(text):
    sums = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            sums[name] = sums.get(name, 0) + float(value)
    return sums
