"""What is asked of the targets, and how one run of a scenario on a target is measured."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import bodies
import measure
from load import Call, Result
from processes import Failed
from stand import REGION, Demand, Session, Stand
from targets import Running, Target

PEERS = ("direct", "bare", "nginx", "envoy")
PROXY = ("dheera", "dheera-redis")
KB, MB = 1000, 1000 * 1000


@dataclass(frozen=True)
class Load:
    """How a generator is asked: what is common to warming up and measuring."""

    connections: int = 16
    # Streams of h2load on each connection.
    multiplexed: int = 8

    def requests(self, stand: Stand, call: Call, seconds: int) -> Result:
        if stand.demand.h2c:
            return stand.generators.h2load(call, seconds, self.connections, self.multiplexed)
        return stand.generators.wrk(call, seconds, self.connections)


@dataclass(frozen=True)
class Streams(Load):
    """Open event streams; as one ends another one begins."""

    connections: int = 1000
    ramp_ms: int = 1000

    def requests(self, stand: Stand, call: Call, seconds: int) -> Result:
        return stand.generators.streams(call, self.connections, "--ramp-ms", str(self.ramp_ms), "--seconds",
                                        str(seconds + self.ramp_ms // 1000), limit_s=seconds + 90)


@dataclass(frozen=True)
class Burst(Load):
    """Streams without a pause between frames, in a closed loop."""

    def requests(self, stand: Stand, call: Call, seconds: int) -> Result:
        return stand.generators.streams(call, self.connections, "--burst", "--seconds", str(seconds),
                                        limit_s=seconds + 90)


@dataclass(frozen=True)
class Uploads(Load):
    """All connections send at once, as often as the time may suffice for."""

    def requests(self, stand: Stand, call: Call, seconds: int) -> Result:
        return stand.generators.uploads(call, self.connections * max(1, seconds // 2), self.connections)


@dataclass(frozen=True)
class Scenario:
    name: str
    about: str
    targets: tuple[str, ...]
    body: Callable[[], bytes] = partial(bodies.converse, KB)
    operation: str = "converse"
    demand: Demand = field(default_factory=Demand)
    load: Load = field(default_factory=Load)
    # Runs only when it is named.
    on_request: bool = False
    # How long it is measured if nothing else is said; and what is too short for enough answers.
    seconds: int = 3
    least_s: int = 1
    # Where on its growth curve it is.
    point: int | None = None

    @property
    def label(self) -> str:
        return self.name if self.point is None else f"{self.name} {self.point:,}"

    def requests(self, stand: Stand, call: Call, seconds: int) -> Result:
        return self.load.requests(stand, call, seconds)

    def memory(self, running: Running, seconds: int) -> measure.Memory:
        return measure.Memory(list(running.roots))


def call_of(scenario: Scenario, running: Running, stand: Stand) -> Call:
    body = stand.directory / "request.json"
    body.write_bytes(scenario.body())
    headers = {"Content-Type": "application/json"} | running.headers
    return Call(f"{running.url}/model/{running.model}/{scenario.operation}", headers, body, running.keys)


def run_once(session: Session, scenario: Scenario, target: Target, seconds: int) -> dict:
    """Starts simulator and target anew, warms them up, measures; gives the figures, or why there are none."""
    if reason := target.missing(session):
        return {"not_run": reason}
    try:
        session.prepare(target, scenario.demand)
        verify_every = min(scenario.demand.verify_every, target.verify_every) if target.signs else 0
        with Stand(session, "run", scenario.demand, verify_every) as stand:
            return measured(scenario, target, stand, seconds)
    except Failed as failure:
        return {"invalid": str(failure)}


def measured(scenario: Scenario, target: Target, stand: Stand, seconds: int) -> dict:
    running = target.start(stand, scenario.demand)
    idle_kb = measure.memory_kb(list(running.roots))
    call = call_of(scenario, running, stand)
    warm_up(scenario, target, running, stand, call)
    before = cpu_of(running, stand)
    with scenario.memory(running, seconds) as memory:
        result = scenario.requests(stand, call, seconds)
    used = {name: after - before[name] for name, after in cpu_of(running, stand).items()}
    figures = figures_of(result, used)
    if running.roots:
        peak_kb = max(memory.peak_kb, measure.memory_kb(list(running.roots), "VmHWM"))
        figures |= {"rss_idle_kb": idle_kb, "rss_peak_kb": peak_kb, "rss_samples_kb": memory.samples}
    wrong = [reason for reason in (result.failed, badly_signed(target, stand)) if reason]
    return {"figures": figures} | ({"invalid": "; ".join(wrong)} if wrong else {})


def warm_up(scenario: Scenario, target: Target, running: Running, stand: Stand, call: Call) -> None:
    """Until every key that calls has called once: the first call of a key reads the store."""
    seconds = target.warm_up_s
    while scenario.requests(stand, call, seconds).requests < running.calling and seconds < 60:
        seconds *= 2


def cpu_of(running: Running, stand: Stand) -> dict[str, float]:
    """CPU seconds so far of each part. Redis is counted apart from the proxy."""
    parts = {"cpu": running.roots, "simulator_cpu": (stand.simulator.pid,)}
    if running.redis:
        parts["redis_cpu"] = (running.redis,)
    return {name: measure.cpu_s(list(roots)) for name, roots in parts.items() if roots}


def figures_of(result: Result, used: dict[str, float]) -> dict:
    figures = {"requests": result.requests, "seconds": round(result.seconds, 3)} | result.figures
    if not result.requests:
        return figures
    figures["rps"] = round(result.requests / result.seconds, 1)
    for name, seconds in used.items():
        figures[f"{name}_us"] = round(seconds * 1e6 / result.requests, 3)
    if "cpu" in used:
        figures["core_share"] = round(used["cpu"] / result.seconds, 3)
        if frames := result.figures.get("frames"):
            figures["frame_cpu_us"] = round(used["cpu"] * 1e6 / frames, 3)
    return figures


def badly_signed(target: Target, stand: Stand) -> str | None:
    """What the simulator has against the signatures; nothing when it saw good ones alone."""
    if not target.signs:
        return None
    counters = stand.counters()
    if counters["bad_signatures"]:
        return f"{counters['bad_signatures']} bad signatures"
    return None if counters["verified"] else "no signature was verified"


SCENARIOS = (
    Scenario("converse-1k", "Converse, 1 KB, 16 connections",
             (*PEERS, "litellm", "dheera-off", "dheera", "dheera-redis", "dheera-redis-all"), seconds=5),
    Scenario("converse-1k-alone", "Converse, 1 KB, 1 connection: what a proxy adds to the latency",
             (*PEERS, "dheera-off", *PROXY), load=Load(connections=1)),
    Scenario("converse-16k", "Converse, 16 KB, 16 connections", (*PEERS, "dheera"),
             body=partial(bodies.converse, 16 * KB)),
    Scenario("claude-turn", "a turn of a coding agent on InvokeModel: system prompt, 20 tools, history; 200 KB",
             (*PEERS, "dheera"), body=partial(bodies.claude_turn, 200 * KB), operation="invoke"),
    Scenario("document-5m", "Converse with a document, 5 MB, 4 connections", (*PEERS, "dheera"),
             body=partial(bodies.document, 5 * MB), load=Load(connections=4), demand=Demand(verify_every=10)),
    Scenario("streams", "1,000 open ConverseStream answers of 100 frames, 50 a second each",
             (*PEERS, *PROXY), operation="converse-stream", demand=Demand(rate=50, verify_every=10), load=Streams(), seconds=5),
    Scenario("streams-200", "the same with 200, which leave the core of the target half its time",
             ("direct", "bare", "envoy", *PROXY), operation="converse-stream", demand=Demand(rate=50, verify_every=10),
             load=Streams(connections=200), seconds=5),
    Scenario("stream-burst", "ConverseStream answers of 20 frames at once, 16 connections",
             (*PEERS, "dheera"), operation="converse-stream", demand=Demand(frames=20), load=Burst()),
    Scenario("h2c", "Converse, 1 KB, HTTP/2 without TLS: 4 connections with 8 streams", ("bare", "nginx", "envoy", "dheera"),
             demand=Demand(h2c=True), load=Load(connections=4)),
    Scenario("tls", "Converse, 1 KB, 16 connections, TLS from client to target and from target to simulator",
             (*PEERS, "dheera"), demand=Demand(tls=True)),
    Scenario("keys-10k", "Converse, 1 KB: 10,000 keys in turn", PROXY, demand=Demand(keys=10000)),
    Scenario("deployments-50", "Converse, 1 KB: 50 deployments under one name", ("dheera",),
             demand=Demand(deployments=50)),
    Scenario("failover", "Converse, 1 KB: three regions, of which one always answers 429", ("dheera",),
             demand=Demand(deployments=3, throttled_region=REGION)),
    Scenario("upload-20m", "Converse with a document, 20 MB, 16 at once: the memory it takes", ("bare", "nginx", "envoy", "dheera"),
             body=partial(bodies.document, 20 * MB), load=Uploads(),
             demand=Demand(buffered_mb=512, verify_every=1)),
)
