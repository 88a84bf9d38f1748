"""What the proxy is meant to reach, each with what was measured. A goal that is missed is said to be missed."""

from collections.abc import Callable
from dataclasses import dataclass

from results import KB_PER_MB, Medians

ONE_K, ALONE = "converse-1k", "converse-1k-alone"
UPLOAD_BYTES = 16 * 20_000_000


@dataclass(frozen=True)
class Verdict:
    goal: str
    # "reached", "missed" or "not measured".
    state: str
    measured: str


@dataclass(frozen=True)
class Goal:
    text: str
    judge: Callable[[Medians], tuple[bool, str] | None]

    def verdict(self, medians: Medians) -> Verdict:
        judged = self.judge(medians)
        if judged is None:
            return Verdict(self.text, "not measured", "")
        return Verdict(self.text, "reached" if judged[0] else "missed", judged[1])


def at_most(value: float | None, other: float | None, factor: float, unit: str, than: str) -> tuple[bool, str] | None:
    """Whether `value` is at most `factor` times `other`."""
    if value is None or not other:
        return None
    return value <= factor * other, f"{value:.1f} {unit}, {than} {other:.1f} {unit}: {value / other:.2f} ×"


def cost(target: str, other: str, factor: float):
    return lambda medians: at_most(medians.median("cpu_us", ONE_K, target), medians.median("cpu_us", ONE_K, other),
                                   factor, "µs", other)


def throughput(medians: Medians):
    ours, theirs = medians.median("rps", ONE_K, "dheera"), medians.median("rps", ONE_K, "litellm")
    if not ours or not theirs:
        return None
    return ours >= 100 * theirs, f"{ours:,.0f} req/s, LiteLLM {theirs:,.0f} req/s: {ours / theirs:,.0f} ×"


def latency(medians: Medians):
    return at_most(medians.median("added_p50_us", ALONE, "dheera"), medians.median("added_p50_us", ALONE, "bare"), 1.5,
                   "µs", "bare")


def gaps(scenario: str):
    def judge(medians: Medians):
        ours, bare = (medians.median("added_gap_p99_us", scenario, target) for target in ("dheera", "bare"))
        if ours is None or bare is None:
            return None
        transit = [medians.median("transit_p99_us", scenario, target) for target in ("dheera", "bare", "direct")]
        delays = " / ".join(f"{value:,.0f}" for value in transit if value is not None)
        # What bare Pingora adds may be nothing or less: then so may the proxy.
        allowed = bare + 0.1 * abs(bare)
        return ours <= allowed, (f"adds {ours:,.0f} µs to the p99 of direct, bare {bare:,.0f} µs; transit delay p99 of "
                                 f"dheera / bare / direct: {delays} µs")

    return judge


def idle(medians: Medians):
    value = medians.median("rss_idle_kb", ONE_K, "dheera")
    return value and (value / KB_PER_MB <= 40, f"{value / KB_PER_MB:.1f} MB")


def stream_memory(medians: Medians):
    grown = medians.median("rss_grown_kb", "streams", "dheera")
    # Of a thousand streams: as many kilobytes each as megabytes together.
    return grown and (grown / KB_PER_MB <= 40, f"{grown / KB_PER_MB:.1f} KB")


def soak(medians: Medians):
    judged = []
    for target in ("dheera", "dheera-redis"):
        for row in medians.groups.get(("soak", target, None), ()):
            if "invalid" in row:
                return False, f"{target}: {row['invalid']}"
            if "figures" in row:
                judged.append((target, *flatness(row["figures"]["rss_samples_kb"])))
    if not judged:
        return None
    return (all(after <= 1.05 * before for _, before, after in judged),
            "; ".join(f"{target}: {before / KB_PER_MB:.1f} MB in the second quarter, {after / KB_PER_MB:.1f} MB in the last"
                      for target, before, after in judged))


def flatness(samples: list[int]) -> tuple[float, float]:
    """The middle of the second quarter, when everything is warm, and of the last."""
    quarter = max(1, len(samples) // 4)
    second, last = sorted(samples[quarter:2 * quarter] or samples), sorted(samples[-quarter:])
    return second[len(second) // 2], last[len(last) // 2]


def upload(medians: Medians):
    grown = medians.median("rss_grown_kb", "upload-20m", "dheera")
    return grown and (grown * 1024 <= 1.3 * UPLOAD_BYTES, f"{grown * 1024 / UPLOAD_BYTES:.2f} ×")


def growth(scenario: str, target: str, last: int):
    def judge(medians: Medians):
        points = [point for point in medians.points(scenario) if medians.median("cpu_us", scenario, target, point)]
        if len(points) < 2:
            return None
        least, most = (medians.median("cpu_us", scenario, target, point) for point in (points[0], points[-1]))
        told = f"{least:.1f} µs at {points[0]:,}, {most:.1f} µs at {points[-1]:,}: {most / least:.2f} ×"
        if points[-1] < last and most <= 1.1 * least:
            return None
        return most <= 1.1 * least, told

    return judge


GOALS = (
    Goal("`dheera` takes at most 1.4 × the CPU of `bare` for a request (converse-1k)", cost("dheera", "bare", 1.4)),
    Goal("`dheera` takes less CPU for a request than `envoy` (converse-1k)", cost("dheera", "envoy", 1.0)),
    Goal("`dheera-redis` takes at most 1.7 × the CPU of `bare` (converse-1k)", cost("dheera-redis", "bare", 1.7)),
    Goal("`dheera` serves at least 100 × the requests of LiteLLM on one core (converse-1k)", throughput),
    Goal("`dheera` adds at most 1.5 × what `bare` adds to the p50 of one connection (converse-1k-alone)", latency),
    Goal("`dheera` adds to the p99 of gaps between frames what `bare` adds, within 10 % (streams)", gaps("streams")),
    Goal("the same with as many streams as a core carries with ease (streams-200)", gaps("streams-200")),
    Goal("`dheera` idle takes at most 40 MB", idle),
    Goal("`dheera` takes at most 40 KB for an open stream at 1,000 (streams)", stream_memory),
    Goal("the memory of `dheera` does not grow in 30 minutes (soak)", soak),
    Goal("uploads take at most 1.3 × their bytes in flight (upload-20m)", upload),
    Goal("1,000,000 keys cost at most 10 % more CPU than 10 (growth-keys)", growth("growth-keys", "dheera", 1_000_000)),
    Goal("1,000 deployments cost at most 10 % more CPU than 1 (growth-deployments)",
         growth("growth-deployments", "dheera", 1000)),
)
