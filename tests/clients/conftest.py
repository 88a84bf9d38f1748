"""Starts the simulator and the proxy, both as the binaries that users get, and stops them by their process ids.

Nothing of this shell's AWS settings reaches the proxy or boto3: what a test does not set is not there.
"""

import json
import os
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from decimal import Decimal
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-test-0123456789abcdef"
ACCESS_KEY, SECRET = "AKIDEXAMPLE", "not-a-real-secret-key"
# Generous: a loaded machine may be slow, and only a hang should fail.
DEADLINE_S = 60
# The suite is run under several versions; scripts/test says which one it means.
BOTO3 = os.environ.get("DHEERA_TEST_BOTO3", "1.44")
assert boto3.__version__.startswith(BOTO3 + "."), f"boto3 {boto3.__version__} is here, {BOTO3} was meant"
OLD_BOTO3 = BOTO3 != "1.44"

for name in [name for name in os.environ if name.startswith(("AWS_", "DHEERA_AI_"))]:
    del os.environ[name]
os.environ |= {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}


class Process:
    """A child process that says on standard output where it listens; every other line is kept."""

    def __init__(self, command, says, environment, log):
        self.log = log
        self.lines = []
        self.changed = threading.Condition()
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment,
            )
        self.urls = []
        listening = re.compile(says + r" on (https?://\S+)")
        self.reader = threading.Thread(target=self._read, args=(listening,), daemon=True)
        self.reader.start()
        try:
            self.wait(lambda: self.urls, f"{command[0]} to say where it listens")
        except BaseException:
            self.stop()
            raise

    @property
    def url(self):
        return self.urls[0]

    def _read(self, announcement):
        for line in self.process.stdout:
            with self.changed:
                if found := announcement.match(line):
                    self.urls.append(found.group(1))
                else:
                    self.lines.append(line)
                self.changed.notify_all()

    def wait(self, condition, what):
        deadline = time.monotonic() + DEADLINE_S
        with self.changed:
            while not condition():
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"waited in vain for {what}; its log:\n{self.log.read_text()[-4000:]}")
                self.changed.wait(timeout=0.1)

    def stop(self):
        """Ends the process as an operator would, and gives its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.reader.join()
        return self.process.returncode


class Simulator(Process):
    def control(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, method=method, data=data)
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return json.load(answer)

    def requests(self, last=None):
        return self.control("GET", "/_sim/requests" + (f"?last={last}" if last else ""))

    def forget(self):
        self.control("DELETE", "/_sim/requests")
        self.control("DELETE", "/_sim/behaviour")

    def demand(self, *rules):
        self.control("PUT", "/_sim/behaviour", {"rules": list(rules)})


class Proxy(Process):
    @property
    def secure_url(self):
        """Where it speaks TLS, if that is a port of its own."""
        self.wait(lambda: len(self.urls) == 2, "the port of TLS")
        return self.urls[1]

    def record(self, call_id):
        """The request record of a call."""
        found = []

        def arrived():
            found[:] = [line for line in self.lines if call_id in line]
            return bool(found)

        self.wait(arrived, f"the record of {call_id}")
        assert len(found) == 1, found
        return json.loads(found[0])

    def manage(self, path, body=None):
        """What the management API answers to the master key: a POST if there is a body, which must succeed."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return json.load(answer, parse_float=Decimal)

    def get(self, path, **headers):
        """Status and text of a GET."""
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def binary(name):
    path = ROOT / "target/debug" / name
    assert path.exists(), f"{path} is missing: make build"
    return path


@pytest.fixture(scope="session")
def start_simulator(tmp_path_factory):
    """Starts simulators that take the credentials of conf/demo.yaml."""
    started = []

    def start():
        command = [binary("bedrock-sim"), "--port", "0", "--prices", ROOT / "conf/prices.yaml"]
        command += ["--access-key", ACCESS_KEY, "--secret", SECRET]
        started.append(Simulator(command, "LISTENING", {}, tmp_path_factory.mktemp("log") / "simulator.log"))
        return started[-1]

    yield start
    statuses = [simulator.stop() for simulator in started]
    assert not any(statuses), f"a simulator did not end cleanly: {statuses}"


@pytest.fixture(scope="session")
def _simulator(start_simulator):
    return start_simulator()


@pytest.fixture
def simulator(_simulator):
    """The simulator, with nothing remembered and nothing demanded."""
    _simulator.forget()
    yield _simulator
    _simulator.forget()


@pytest.fixture(scope="session")
def dev_cert(tmp_path_factory):
    """A certificate of `dheera_ai dev-cert`: what the command says, which variables tell clients to trust its `ca`, and
    which a proxy finds it in."""
    directory = tmp_path_factory.mktemp("dev") / "cert"
    command = [binary("dheera_ai"), "dev-cert", "--dir", directory]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    trust = dict(re.findall(r"^export (\w+)=(\S+)", said, re.MULTILINE))
    files = {"SSL_CERTFILE_PATH": str(directory / "cert.pem"), "SSL_KEYFILE_PATH": str(directory / "key.pem")}
    return {"says": said, "trust": trust, "ca": trust["AWS_CA_BUNDLE"], "files": files}


@pytest.fixture(scope="session")
def start_proxy(_simulator, tmp_path_factory):
    """Starts proxies; what they are to have in their environment is the argument."""
    started = []

    def start(config=ROOT / "conf/demo.yaml", *options, **environment):
        command = [binary("dheera_ai"), "--config", config, "--host", "127.0.0.1", "--port", "0", *options]
        store = tmp_path_factory.mktemp("store")
        environment = {"AWS_ENDPOINT_URL": _simulator.url, "DHEERA_AI_STORE_PATH": str(store)} | environment
        started.append(Proxy(command, "RUNNING", environment, tmp_path_factory.mktemp("log") / "proxy.log"))
        return started[-1]

    yield start
    statuses = [proxy.stop() for proxy in started]
    assert not any(statuses), f"a proxy did not end cleanly: {statuses}"


@pytest.fixture(scope="session")
def open_proxy(start_proxy):
    """A proxy without a master key, as the documents' curls have it."""
    return start_proxy()


@pytest.fixture(scope="session")
def start_full_proxy(start_proxy, dev_cert):
    """Starts proxies whose clients need KEY, over http or https, and may have key pairs."""

    def start(config=ROOT / "conf/demo.yaml"):
        secrets = {"DHEERA_AI_MASTER_KEY": KEY, "DHEERA_AI_SALT_KEY": "salt-of-the-tests-of-clients"}
        return start_proxy(config, "--ssl-port", "0", **secrets, **dev_cert["files"])

    return start


@pytest.fixture(scope="session")
def proxy(start_full_proxy):
    return start_full_proxy()


def client(service, endpoint, key=KEY, secret="anything", region="us-east-1", attempts=1, **settings):
    settings = {"retries": {"total_max_attempts": attempts}, "read_timeout": DEADLINE_S} | settings
    return boto3.Session().client(
        service,
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(**settings),
    )


@pytest.fixture
def through(proxy, simulator):
    """boto3 clients that call the proxy, with its key as AWS access key id."""
    return lambda service, **settings: client(service, f"{proxy.url}/bedrock", **settings)


@pytest.fixture
def direct(simulator):
    """boto3 clients that call the simulator itself, as they would call AWS."""
    return lambda service, **settings: client(service, simulator.url, ACCESS_KEY, SECRET, **settings)


def result(answer):
    """What an application gets of an answer, streams read to their end; without what differs between any two calls."""
    if not isinstance(answer, dict):
        return answer
    whole = {}
    for name, value in answer.items():
        if name == "ResponseMetadata":
            continue
        if type(value).__name__ == "EventStream":
            value = list(value)
        elif hasattr(value, "read"):
            value = value.read()
        whole[name] = value
    return whole
