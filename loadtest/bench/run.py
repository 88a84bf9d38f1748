"""The load test: what the proxy costs, beside no proxy, bare Pingora, nginx, Envoy and LiteLLM.

    loadtest/bench/run.py --list
    loadtest/bench/run.py --quick
    loadtest/bench/run.py --scenario converse-1k streams --target bare dheera --passes 5

`make loadtest` installs and builds what is needed and runs it. The target has one core, the load generator, the
simulator and Redis another one. Each run starts its processes anew; targets take turns in an order that rotates from
pass to pass, so that what a machine does at some time falls on all of them. Figures are medians over the passes.
"""

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from processes import Failed
from scenarios import SCENARIOS, Scenario, run_once
from stand import ROOT, Session
from targets import TARGETS


def rotated(names: list, turn: int) -> list:
    """A B C, B C A, C A B: each comes at every place."""
    turn %= max(1, len(names))
    return names[turn:] + names[:turn]


def plan(scenarios: list[Scenario], wanted: list[str] | None, passes: int) -> list[tuple[Scenario, str, int]]:
    """All runs in their order: scenario by scenario, pass by pass."""
    runs = []
    for scenario in scenarios:
        names = [name for name in scenario.targets if not wanted or name in wanted]
        for turn in range(passes):
            runs += [(scenario, name, turn + 1) for name in rotated(names, turn)]
    return runs


class Progress:
    """A line a run: what, which pass, its figures, and how long the rest may take."""

    def __init__(self, total: int):
        self.total = total
        self.done = 0
        self.begun = time.monotonic()

    def begins(self, what: str) -> None:
        print(f"[{self.done + 1:3}/{self.total}] {what:58}", end="", flush=True)

    def ended(self, row: dict) -> None:
        self.done += 1
        each = (time.monotonic() - self.begun) / self.done
        left = each * (self.total - self.done)
        print(f"{summary(row)}  ({left / 60:.0f} min left)" if left >= 60 else f"{summary(row)}  ({left:.0f} s left)",
              flush=True)


def summary(row: dict) -> str:
    if reason := row.get("not_run") or row.get("invalid"):
        return ("NOT RUN: " if "not_run" in row else "INVALID: ") + reason
    figures = row["figures"]
    cost = f"{figures['cpu_us']:9.1f} µs CPU/request" if "cpu_us" in figures else " " * 23
    return f"{cost} {figures['rps']:9.0f} req/s"


def run_all(session: Session, runs: list, seconds: int, rows: list[dict]) -> None:
    progress = Progress(len(runs))
    for scenario, name, turn in runs:
        progress.begins(f"{scenario.label}  {name}  pass {turn}")
        row = run_once(session, scenario, TARGETS[name], seconds)
        rows.append({"scenario": scenario.name, "point": scenario.point, "target": name, "pass": turn} | row)
        progress.ended(row)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="explain every scenario and target, and exit")
    parser.add_argument("--scenario", nargs="+", metavar="NAME", help="only these (default: all that --list does not except)")
    parser.add_argument("--target", nargs="+", metavar="NAME", choices=list(TARGETS), help="only these")
    parser.add_argument("--passes", type=int, default=3, help="how often each is measured (default 3)")
    parser.add_argument("--seconds", type=int, default=5, help="how long each run is measured (default 5)")
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release", metavar="DIR",
                        help="where dheera_ai, bedrock-sim, bare-pingora and stream-load are (default target/release)")
    parser.add_argument("--results", type=Path, default=ROOT / "loadtest/results", metavar="DIR",
                        help="where results.json, report.md and charts go (default loadtest/results)")
    return parser.parse_args()


def explain() -> None:
    print("Scenarios:")
    for scenario in SCENARIOS:
        print(f"  {scenario.name:18} {scenario.about}\n{'':21}targets: {', '.join(scenario.targets)}")
    print("\nTargets:")
    for target in TARGETS.values():
        print(f"  {target.name:18} {target.about}")


def chosen(options: argparse.Namespace) -> list[Scenario]:
    if not options.scenario:
        return [scenario for scenario in SCENARIOS if not scenario.on_request]
    return [scenario for scenario in SCENARIOS if scenario.name in options.scenario]


def medians(rows: list[dict]) -> None:
    groups = {}
    for row in rows:
        groups.setdefault((row["scenario"], row["point"], row["target"]), []).append(row)
    for (scenario, _, target), group in groups.items():
        costs = [row["figures"]["cpu_us"] for row in group if "cpu_us" in row.get("figures", {})]
        if costs:
            print(f"{scenario:18} {target:18} {statistics.median(costs):8.1f} µs ({min(costs):.1f}..{max(costs):.1f})")


def main() -> int:
    options = arguments()
    if options.list:
        explain()
        return 0
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    rows: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="loadtest-") as directory:
        session = Session(options.bin.resolve(), Path(directory))
        try:
            run_all(session, plan(chosen(options), options.target, options.passes), options.seconds, rows)
        except KeyboardInterrupt:
            print("\nbroken off", file=sys.stderr)
    medians(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
