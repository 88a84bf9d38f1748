"""Three regions: a simulator each, with a name, TLS and a network that can fail in between, and one model name that all
of them serve. Names are those of a hosts file that only the proxy sees, by libnss-wrapper."""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from client import Client
from processes import ACCESS_KEY, ROOT, SECRET, Proxy, Simulator, free_port
from stand import BASE_RULE, Stand

REGIONS = ("us-east-1", "us-west-2", "eu-west-1")
MODEL, MODEL_ID = "nova", "amazon.nova-pro-v1:0"
# A second model, for calls that are to be answered otherwise.
OTHER, OTHER_ID = "other", "amazon.nova-lite-v1:0"
WRAPPER = "libnss_wrapper.so"


def host(region):
    # Never resolved by anybody but the hosts file: `.test` is reserved (RFC 6761).
    return f"bedrock-runtime.{region}.resilience.test"


class Certificates:
    """A CA, the certificate that all regions have, and one for another name."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        self._openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Resilience CA")
        self.authority = directory / "ca.pem"
        self.right = self._made("right", [host(region) for region in REGIONS])
        self.wrong = self._made("wrong", ["elsewhere.resilience.test"])

    def _made(self, name, names):
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        self._openssl("req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={names[0]}")
        extensions = "subjectAltName=" + ",".join(f"DNS:{one}" for one in names)
        (self.directory / f"{name}.ext").write_text(extensions)
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", "-CA", "ca.pem", "-CAkey", "ca.key",
                      "-CAcreateserial", "-extfile", f"{name}.ext", "-days", "2")
        both = self.directory / f"{name}.pem"
        both.write_text((self.directory / f"{name}.crt").read_text() + (self.directory / f"{name}.key").read_text())
        return both

    def _openssl(self, *arguments):
        done = subprocess.run(["openssl", *arguments], cwd=self.directory, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class Names:
    """The hosts file."""

    def __init__(self, path):
        self.path = path
        self.known = set(REGIONS)
        self._write()

    def forget(self, region):
        self.known.discard(region)
        self._write()

    def know(self, region):
        self.known.add(region)
        self._write()

    def _write(self):
        # In one step: the proxy may read at any moment.
        new = self.path.with_suffix(".new")
        new.write_text("".join(f"127.0.0.1 {host(region)}\n" for region in sorted(self.known)))
        new.rename(self.path)

    def environment(self):
        # A name that is gone is asked for in real DNS: not for long.
        return {"LD_PRELOAD": WRAPPER, "NSS_WRAPPER_HOSTS": str(self.path), "RES_OPTIONS": "timeout:1 attempts:1"}


class Network:
    """The forwarder process."""

    def __init__(self, process, ports):
        self.process = process
        self.ports = dict(zip(REGIONS, ports, strict=True))

    @classmethod
    async def start(cls, simulators, certificates):
        plan = {
            "upstreams": [int(simulator.url.rpartition(":")[2]) for simulator in simulators],
            "certificate": str(certificates.right), "wrong_certificate": str(certificates.wrong),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("forwarder.py")), json.dumps(plan),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        return cls(process, json.loads(await process.stdout.readline())["ports"])

    async def change(self, region, mode):
        command = {"region": REGIONS.index(region), "mode": mode}
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        answer = await asyncio.wait_for(self.process.stdout.readline(), 10)
        assert json.loads(answer) == command, answer

    async def close(self):
        if self.process.returncode is None:
            self.process.stdin.close()
            await self.process.wait()


def deployment(model_name, model_id, region, endpoint, id):
    return {
        "model_name": model_name,
        "dheera_ai_params": {
            "model": f"bedrock/{model_id}",
            "aws_region_name": region,
            "aws_bedrock_runtime_endpoint": endpoint,
            "aws_access_key_id": ACCESS_KEY,
            "aws_secret_access_key": SECRET,
        },
        "model_info": {"id": id},
    }


class Gateway(Proxy):
    """A proxy with a configuration that may change, on a port that it keeps: another process can take it over."""

    def __init__(self, name, directory, binary, simulator, redis_port=None, settings=None, models=None, router=None,
                 environment=None):
        super().__init__(name, directory, binary, simulator, redis_port, settings, models={})
        self.port = free_port()
        self.extra_environment = environment or {}
        self.former = []
        content = json.loads(self.config.read_text())
        self.content = content | {"model_list": models, "router_settings": router or {}}
        self.configure()

    def configure(self, **sections):
        """Writes the configuration; `sections` take the place of what it had."""
        self.content |= sections
        # In one step: the proxy may read at any moment.
        new = self.config.with_suffix(".new")
        new.write_text(json.dumps(self.content, indent=1))
        new.rename(self.config)

    def environment(self):
        return super().environment() | self.extra_environment

    def command(self, *options):
        command = [self.binary, "--config", self.config, "--host", "127.0.0.1", "--port", self.port]
        return command + list(options)

    def replace(self):
        """Starts the process that is to take over, and gives the one that is to go."""
        old, self.process = self.process, None
        self.former.append(old)
        self.since = self._spawn(self.command("--upgrade"), self.environment())
        return old

    def ready(self):
        """Waits until the process started last serves."""
        self.url = self.said(r"RUNNING on (http://\S+)", self.since).group(1)

    def stop(self):
        for old in self.former:
            if old.poll() is None:
                old.kill()
                old.wait()
        return super().stop()

    def resident_kb(self, pid=None):
        """Memory in use, in KiB."""
        status = Path(f"/proc/{pid or self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1))


class Single(Stand):
    """A stand with one simulator and no network in between; its proxy can be replaced and configured anew."""

    def proxy(self, name, redis_port, settings):
        models = [deployment(name, id, REGIONS[0], self.simulator.url, name) for name, id in
                  ((MODEL, MODEL_ID), (OTHER, OTHER_ID))]
        return Gateway(name, self.directory / name, self.binary, self.simulator, redis_port, settings, models)


@dataclass
class Regions(Stand):
    """A stand with three simulators behind a network of our own."""

    network: Network | None = None
    names: Names | None = None
    rule: dict = field(default_factory=dict)
    others: list = field(default_factory=list)

    @classmethod
    async def open(cls, options, router=None, rule=None, **settings):
        directory = Path(tempfile.mkdtemp(prefix="regions-", dir=options.directory))
        binaries = ROOT / "target" / options.profile
        program = options.simulator or binaries / "bedrock-sim"
        simulators = []
        try:
            for number, region in enumerate(REGIONS):
                # Seeds that differ only in what request numbers differ in would make the same ids.
                simulators.append(Simulator(directory / region, program, "--seed", str(number + 1 << 40)))
                simulators[-1].name = region
        except BaseException:
            for simulator in simulators:
                simulator.stop()
            raise
        binary = options.proxy or binaries / "dheera_ai"
        stand = cls(directory, binary, options.rest, simulators[0], Client(), others=simulators[1:])
        stand.rule = BASE_RULE | (rule or {})
        try:
            for simulator in simulators:
                simulator.behave(stand.rule)
            certificates = await asyncio.to_thread(Certificates, directory / "certificates")
            stand.names = Names(directory / "hosts")
            stand.network = await Network.start(simulators, certificates)
            # Deployments are named like their regions.
            models = [deployment(MODEL, MODEL_ID, region, f"https://{host(region)}:{port}", region)
                      for region, port in stand.network.ports.items()]
            environment = stand.names.environment() | {"AWS_CA_BUNDLE": str(certificates.authority)}
            stand.proxies.append(Gateway(
                "proxy", directory / "proxy", binary, simulators[0], settings=settings, models=models,
                router=router, environment=environment))
            await asyncio.to_thread(stand.proxies[0].start)
        except BaseException:
            await stand.close()
            raise
        return stand

    @property
    def simulators(self):
        return [self.simulator, *self.others]

    def simulator_of(self, region):
        return self.simulators[REGIONS.index(region)]

    async def close(self):
        statuses = await super().close()
        if self.network:
            await self.network.close()
        return statuses


def children():
    """Processes that this one started and that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name of the program, in parentheses, may hold anything.
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == os.getpid() and state != "Z":
                found.append(int(entry.name))
    return found


