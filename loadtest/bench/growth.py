"""Growth curves: the same load on ever more keys, deployments, bytes and streams; and the soak, which grows in time."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import bodies
import measure
from load import Call, Result
from scenarios import KB, MB, Load, Scenario, Streams
from stand import Demand, Stand
from targets import Running

KEYS = (10, 100, 1000, 10_000, 100_000)
ALL_KEYS = (*KEYS, 1_000_000)
DEPLOYMENTS = (1, 10, 100, 1000)
BODIES = (KB, 16 * KB, 256 * KB, MB, 4 * MB, 16 * MB)
STREAMS = (1, 10, 100, 1000, 2000)
# Of each point.
SECONDS = 2


def curves(full: bool) -> tuple[Scenario, ...]:
    stores = ("dheera", "dheera-redis") if full else ("dheera",)
    keys = [Scenario("growth-keys", "keys in the store, of which up to 1,000 call in turn", stores, seconds=SECONDS,
                     demand=Demand(keys=count, calling=1000), point=count) for count in (ALL_KEYS if full else KEYS)]
    deployments = [Scenario("growth-deployments", "deployments under one name", ("dheera",), seconds=SECONDS,
                            demand=Demand(deployments=count), point=count) for count in DEPLOYMENTS]
    sizes = [Scenario("growth-body", "bytes of a Converse request", ("bare", "dheera"), point=size,
                      seconds=SECONDS,
                      body=partial(bodies.converse if size <= 256 * KB else bodies.document, size),
                      demand=Demand(verify_every=100 if size <= 256 * KB else 5),
                      load=Load(connections=16 if size <= MB else 4), least_s=1 if size <= MB else 4) for size in BODIES]
    streams = [Scenario("growth-streams", "open streams of 50 frames a second", ("bare", "dheera"), point=count,
                        seconds=SECONDS, operation="converse-stream",
                        demand=Demand(rate=50, verify_every=1), load=Streams(connections=count))
               for count in STREAMS]
    return (*keys, *deployments, *sizes, *streams)


class Soak(Scenario):
    """Converse and streams at once, for half an hour; memory every ten seconds."""

    EVERY_S = 10

    def requests(self, stand: Stand, call: Call, seconds: int) -> Result:
        streamed = Call(call.url.removesuffix("converse") + "converse-stream", call.headers, call.body)
        with ThreadPoolExecutor() as pool:
            streams = pool.submit(Streams(connections=200).requests, stand, streamed, seconds)
            result = Load(connections=8).requests(stand, call, seconds)
            more = streams.result()
        errors = {f"{kind} of Converse": count for kind, count in result.errors.items()}
        errors |= {f"{kind} of streams": count for kind, count in more.errors.items()}
        # Frames have no share of their own in the CPU, and the two generators none in each other's.
        figures = {name: value for name, value in (more.figures | result.figures).items()
                   if name not in ("frames", "load_cpu_s")}
        return Result(result.requests + more.requests, result.seconds, errors, figures)

    def memory(self, running: Running, seconds: int) -> measure.Memory:
        return measure.Memory(list(running.roots), every_s=min(self.EVERY_S, seconds / 20))


SOAK = Soak("soak", "Converse with 8 connections and 200 open streams at once for 30 minutes; memory every 10 s",
            ("dheera", "dheera-redis"), demand=Demand(rate=50, quiet=True), on_request=True, seconds=1800)
