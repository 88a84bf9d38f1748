"""The report: goals first, then a table a scenario, then curves. Every figure comes from results.json as it is."""

from dataclasses import dataclass

from goals import GOALS
from results import KB_PER_MB, Figure, Medians
from targets import TARGETS


@dataclass(frozen=True)
class Column:
    title: str
    figure: str
    scale: float = 1
    digits: int = 0
    # Whether the least and the most of the passes stand beside the median.
    spread: bool = False


CPU = Column("CPU µs/request", "cpu_us", digits=1, spread=True)
REDIS = Column("Redis CPU µs", "redis_cpu_us", digits=1)
MEMORY = (Column("RSS idle MB", "rss_idle_kb", KB_PER_MB, 1), Column("RSS peak MB", "rss_peak_kb", KB_PER_MB, 1))
REQUESTS = (
    CPU, Column("req/s", "rps", spread=True), Column("p50 µs", "p50_us"), Column("p99 µs", "p99_us"),
    Column("adds to p50 µs", "added_p50_us", spread=True), Column("adds to p99 µs", "added_p99_us"), REDIS, *MEMORY)
STREAMS = (
    Column("CPU µs/frame", "frame_cpu_us", digits=2, spread=True), Column("streams/s", "rps"),
    Column("first frame p50 µs", "ttft_p50_us"), Column("adds", "added_ttft_p50_us"),
    Column("gap p99 µs", "gap_p99_us"), Column("adds to gap p99", "added_gap_p99_us", spread=True),
    Column("transit p50 µs", "transit_p50_us"), Column("transit p99 µs", "transit_p99_us", spread=True),
    REDIS, *MEMORY, Column("RSS grown MB", "rss_grown_kb", KB_PER_MB, 1))
UPLOADS = (CPU, Column("req/s", "rps", digits=1), *MEMORY, Column("RSS grown MB", "rss_grown_kb", KB_PER_MB, 1))


def shown(figure: Figure | None, column: Column) -> str:
    if figure is None:
        return ""
    median, least, most = (f"{value / column.scale:,.{column.digits}f}" for value in vars(figure).values())
    return f"{median} ({least}..{most})" if column.spread else median


def table(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def columns_of(scenario: str) -> tuple[Column, ...]:
    if "stream" in scenario:
        return STREAMS
    return UPLOADS if scenario.startswith("upload") else REQUESTS


def goals(medians: Medians, all_of_them: bool = True) -> str:
    verdicts = [goal.verdict(medians) for goal in GOALS]
    verdicts = [verdict for verdict in verdicts if all_of_them or verdict.state != "not measured"]
    lines = [[verdict.goal, f"**{verdict.state}**" if verdict.state == "missed" else verdict.state, verdict.measured]
             for verdict in verdicts]
    return table(["goal", "", "measured"], lines)


def used(medians: Medians, scenario: str, columns: tuple[Column, ...]) -> list[Column]:
    """Without those that no target has."""
    cells = [(target, point) for named, target, point in medians.groups if named == scenario]
    return [column for column in columns
            if any(medians.get(column.figure, scenario, target, point) for target, point in cells)]


def section(medians: Medians, scenario: str, about: str) -> str:
    columns = used(medians, scenario, columns_of(scenario))
    cost_of = columns[0].figure
    bare = medians.median(cost_of, scenario, "bare")
    lines, notes = [], []
    for target in sorted(medians.targets(scenario), key=list(TARGETS).index):
        cost = medians.median(cost_of, scenario, target)
        ratio = f"{cost / bare:.2f}" if cost and bare else ""
        lines.append([target, *(shown(medians.get(column.figure, scenario, target), column) for column in columns), ratio])
        if reason := medians.wrong(scenario, target):
            notes.append(f"- {target}: {reason}")
    text = f"## {scenario}\n\n{about}.\n\n{table(['target', *(column.title for column in columns), '× bare'], lines)}\n"
    return text + (f"\nNot valid or not run, and in no figure above:\n\n{chr(10).join(notes)}\n" if notes else "")


def curve(medians: Medians, scenario: str, about: str) -> str:
    cost = STREAMS[0] if scenario == "growth-streams" else CPU
    columns = (cost, *MEMORY)
    lines, notes = [], []
    for point in medians.points(scenario):
        for target in sorted(medians.targets(scenario), key=list(TARGETS).index):
            cells = [shown(medians.get(column.figure, scenario, target, point), column) for column in columns]
            lines.append([f"{point:,}", target, *cells])
            if reason := medians.wrong(scenario, target, point):
                notes.append(f"- {target} at {point:,}: {reason}")
    text = (f"## {scenario}\n\nBy {about}.\n\n![{scenario}]({scenario}.svg)\n\n"
            f"{table(['', 'target', *(column.title for column in columns)], lines)}\n")
    return text + (f"\nNot valid or not run, and in no figure above:\n\n{chr(10).join(notes)}\n" if notes else "")


HOW = """The CPU time of a request is what the target's whole process tree used (`/proc/PID/stat`) over the requests that
were answered. It hardly depends on what else the machine does, unlike throughput and latency. Throughput is bounded by
the core of the target, or by the other core, which has load generator, simulator and Redis: `core` in
`results.json` says how much of its core the target used. "Adds" is the difference to `direct` in the same pass. Each
figure is the median over the passes, in parentheses the least and the most. A run with an error, or in which the
simulator saw a wrong signature, is not valid and in no figure."""


def provenance(told: dict) -> str:
    machine = told["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items() if version)
    changed = " with uncommitted changes" if told["uncommitted_changes"] else ""
    options = told["options"]
    length = f" of {options['seconds']} s" if options["seconds"] else ""
    broken = "" if told["complete"] else "\n\n**The run was broken off: not all was measured.**"
    return (f"{told['date']}, commit {told['commit']}{changed}. {machine['cores']} cores of {machine['processor']}, "
            f"{machine['memory_gb']} GB, Linux {machine['kernel']}; load average at the start "
            f"{', '.join(map(str, machine['load_average']))}. {options['passes']} passes{length}. "
            f"{versions}.{broken}")


def report(told: dict, rows: list[dict], abouts: dict[str, str]) -> str:
    medians = Medians(rows)
    parts = ["# Load test", provenance(told), "## Goals", goals(medians), HOW.replace("`core`", "`core_share`")]
    parts += ["![CPU time of a request](cpu.svg)"] if "converse-1k" in medians.scenarios() else []
    for scenario in medians.scenarios():
        parts.append((curve if medians.points(scenario) else section)(medians, scenario, abouts[scenario]))
    if took := told.get("made_keys"):
        parts.append("## Making keys\n\n" + table(["store", "keys", "made", "seconds"], took))
    parts.append("## Targets\n\n" + table(["target", ""], [[name, target.about] for name, target in TARGETS.items()]))
    return "\n\n".join(part.strip() for part in parts) + "\n"
