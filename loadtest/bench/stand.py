"""Where targets run: a session of many runs, and for each run a simulator, a directory and processes of its own."""

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import processes
from load import Generators
from processes import Failed, Process

ROOT = Path(__file__).resolve().parents[2]
ACCESS_KEY, SECRET, REGION = "AKIDEXAMPLE", "not-a-real-secret-key", "us-west-2"
# Debian has nginx and redis-server where the PATH of a user need not lead.
PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Demand:
    """What a scenario wants of simulator and target."""

    deployments: int = 1
    keys: int = 1
    # How many of them call, at most.
    calling: int = 10_000
    tls: bool = False
    h2c: bool = False
    frames: int = 100
    rate: int = 0
    throttled_region: str | None = None
    buffered_mb: int | None = None
    # Writes the request log where it takes no space.
    quiet: bool = False
    # Of so many requests at least one has its signature verified: enough to notice, too few to cost.
    verify_every: int = 100


@dataclass(frozen=True)
class Tls:
    certificate: Path
    key: Path
    authority: Path


@dataclass
class Session:
    """What all runs share."""

    binaries: Path
    directory: Path
    target_core: int = 0
    load_core: int = 1
    # Prepared stores by kind and number of keys; how many keys were made for each in how many seconds.
    stores: dict[tuple[str, int], Path] = field(default_factory=dict)
    made_keys: dict[tuple[str, int], tuple[int, float]] = field(default_factory=dict)
    # Whether the files of runs stay.
    keep: bool = False
    runs: int = 0
    tls: Tls | None = None

    @property
    def envoy(self) -> Path | None:
        return next(ROOT.glob(".venv-loadtest/lib/python*/site-packages/envoy/_bin/envoy"), None)

    @property
    def litellm(self) -> Path:
        return ROOT / ".venv-litellm/bin/litellm"

    def binary(self, name: str) -> Path:
        return self.binaries / name

    def no_binary(self, name: str) -> str | None:
        return None if self.binary(name).exists() else f"{self.binary(name)} is not built"

    def most_keys(self, kind: str, limit: int) -> int:
        return max((keys for stored, keys in self.stores if stored == kind and keys <= limit), default=0)

    def certificates(self) -> Tls:
        if not self.tls:
            self.tls = make_certificates(self.directory / "tls")
        return self.tls

    def prepare(self, target, demand: Demand) -> None:
        """Keeps a store with the keys that the scenario wants, if there is none yet."""
        if demand.keys < 2 or (target.kind, demand.keys) in self.stores:
            return
        with Stand(self, "prepare", Demand()) as stand:
            store = target.prepare(stand, demand)
            stand.stop()
            kept = self.directory / f"store-{target.kind}-{demand.keys}"
            shutil.move(store, kept)
            self.made_keys[target.kind, demand.keys] = stand.made_keys
            self.stores[target.kind, demand.keys] = kept


class Stand(contextlib.ExitStack):
    """One run. Leaving it ends its processes and removes its directory."""

    def __init__(self, session: Session, name: str, demand: Demand, verify_every: int = 0):
        super().__init__()
        self.session = session
        session.runs += 1
        self.directory = session.directory / f"{session.runs:03}-{name}"
        self.demand = demand
        # 0 for a target that does not sign.
        self.verify_every = verify_every
        self.made_keys = (0, 0.0)
        self.processes: list[Process] = []

    def __enter__(self):
        super().__enter__()
        if not self.session.keep:
            self.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.callback(self.stop)
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self.directory.mkdir(parents=True)
            self._simulator()
            undo.pop_all()
        return self

    def _simulator(self) -> None:
        demand = self.demand
        command = [self.binary("bedrock-sim"), "--canned", "--port", 0, "--access-key", ACCESS_KEY, "--secret", SECRET,
                   "--verify-every", self.verify_every,
                   "--frames", demand.frames, "--rate", demand.rate]
        if demand.throttled_region:
            command += ["--throttle-region", demand.throttled_region]
        self.simulator = self.process("simulator", command, self.load_core)
        self.simulator_url = self.simulator.said(r"LISTENING on (http://\S+)")
        self.upstream = self.simulator_url
        if demand.tls:
            # Late, as nginx is a target too.
            from targets import start_nginx

            port = processes.free_port()
            start_nginx(self, "upstream", port, self.upstream_address, self.load_core, tls_in=True, tls_out=False)
            self.upstream = f"https://localhost:{port}"

    def stop(self) -> None:
        """Ends the processes, the latest first."""
        while self.processes:
            self.processes.pop().stop()

    @property
    def upstream_address(self) -> str:
        return self.upstream.split("//")[1].replace("localhost", "127.0.0.1")

    @property
    def load_core(self) -> int:
        return self.session.load_core

    @property
    def target_core(self) -> int:
        return self.session.target_core

    @property
    def generators(self) -> Generators:
        return Generators(self.load_core, self.binary("stream-load"), self.session.directory / "generators.log")

    def binary(self, name: str) -> Path:
        return self.session.binary(name)

    def certificates(self) -> Tls:
        return self.session.certificates()

    def process(self, name, command, core, environment=None) -> Process:
        process = Process(name, command, self.directory, core, {"PATH": PATH} | (environment or {}))
        self.processes.append(process)
        return process

    def target(self, name, command, environment=None) -> Process:
        return self.process(name, command, self.target_core, environment)

    def make_keys(self, url: str, master_key: str, first: int, last: int) -> None:
        self.made_keys = last - first, self.generators.make_keys(url, master_key, first, last)

    def counters(self) -> dict:
        with urllib.request.urlopen(f"{self.simulator_url}/_sim/counters", timeout=10) as answer:
            return json.load(answer)


def trusting() -> ssl.SSLContext:
    """For this machine's own certificate, which nobody vouches for."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2, context=trusting()) as answer:
            return answer.status == 200
    except OSError:
        return False


def post(url: str, key: str, body: dict) -> dict:
    request = urllib.request.Request(url, method="POST", data=json.dumps(body).encode(), headers={
        "Authorization": f"Bearer {key}", "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30, context=trusting()) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as refusal:
        raise Failed(f"POST {url}: {refusal.code} {refusal.read(500).decode(errors='replace')}") from None


def make_certificates(directory: Path) -> Tls:
    """An authority, and a certificate of it for localhost."""
    directory.mkdir(parents=True, exist_ok=True)
    tls = Tls(directory / "server.pem", directory / "server.key", directory / "ca.pem")
    ca_key, request, names = directory / "ca.key", directory / "server.csr", directory / "names"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        ["req", "-x509", *curve, "-keyout", ca_key, "-out", tls.authority, "-days", "7", "-subj", "/CN=load test"],
        ["req", *curve, "-keyout", tls.key, "-out", request, "-subj", "/CN=localhost"],
        ["x509", "-req", "-in", request, "-CA", tls.authority, "-CAkey", ca_key, "-CAcreateserial", "-days", "7",
         "-extfile", names, "-out", tls.certificate],
    ):
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    return tls
