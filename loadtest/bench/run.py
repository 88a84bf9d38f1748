#!/usr/bin/env python3
"""The load test: what the proxy costs, beside no proxy, bare Pingora, nginx, Envoy and LiteLLM.

    loadtest/bench/run.py --list
    loadtest/bench/run.py --quick
    loadtest/bench/run.py --scenario converse-1k streams --target direct bare dheera --passes 5

`make loadtest` installs and builds what is needed and runs it. The target has one core; load generator, simulator and
Redis have another one. Each run starts its processes anew; targets take turns in an order that rotates from pass to
pass, so that what a machine does at some time falls on all of them. Figures are medians over the passes.
"""

import argparse
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import growth
import report
import results
from scenarios import SCENARIOS, Scenario, Streams, run_once
from stand import ROOT, Session
from targets import TARGETS

NOT_QUICK = ("litellm", "dheera-off", "dheera-redis-all")
Run = tuple[Scenario, str, int]


def rotated(names: list, turn: int) -> list:
    """A B C, B C A, C A B: each comes at every place."""
    turn %= max(1, len(names))
    return names[turn:] + names[:turn]


def plan(scenarios: list[Scenario], wanted: list[str] | None, passes: int) -> list[Run]:
    """All runs in their order: scenario by scenario, pass by pass. A curve goes up, down, and up again."""
    groups: dict[str, list[Scenario]] = {}
    for scenario in scenarios:
        groups.setdefault(scenario.name, []).append(scenario)
    runs: list[Run] = []
    for points in groups.values():
        for turn in range(passes):
            for scenario in points if turn % 2 == 0 else reversed(points):
                names = [name for name in scenario.targets if not wanted or name in wanted]
                runs += [(scenario, name, turn + 1) for name in rotated(names, turn)]
    return runs


class Progress:
    """A line a run: what, which pass, its figures, and how long the rest may take."""

    def __init__(self, runs: list[Run], seconds: int):
        # The weights are guesses until runs have been measured.
        self.weights = [guess_s(scenario, name, seconds) for scenario, name, _ in runs]
        self.passes = max((turn for *_, turn in runs), default=0)
        self.done = 0
        self.begun = time.monotonic()

    def begins(self, scenario: Scenario, name: str, turn: int) -> None:
        what = f"{scenario.label:26} {name:17} pass {turn} of {self.passes}"
        print(f"[{self.done + 1:3}/{len(self.weights)}] {what}  ", end="", flush=True)

    def ended(self, row: dict) -> None:
        self.done += 1
        spent, rest = sum(self.weights[:self.done]), sum(self.weights[self.done:])
        left = (time.monotonic() - self.begun) / spent * rest
        print(f"{summary(row)}  ({told_time(left)} left)", flush=True)


def told_time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def guess_s(scenario: Scenario, name: str, seconds: int) -> float:
    """How long a run may take: starting, warming up, measuring, ending."""
    slow = 12 if name == "litellm" else 0
    # Streams begin one after the other and are read to their end, both times.
    ramps = 6 if isinstance(scenario.load, Streams) else 0
    return length_s(scenario, seconds) + 2 + slow + ramps


def length_s(scenario: Scenario, seconds: int | None) -> int:
    return max(scenario.least_s, seconds or scenario.seconds)


def summary(row: dict) -> str:
    if reason := row.get("not_run"):
        return f"NOT RUN: {reason}"
    if reason := row.get("invalid"):
        return f"INVALID: {reason}"
    figures = row["figures"]
    if "frame_cpu_us" in figures:
        cost = f"{figures['frame_cpu_us']:9.2f} µs/frame  "
    else:
        cost = f"{figures['cpu_us']:9.1f} µs/request" if "cpu_us" in figures else " " * 20
    return f"{cost} {figures['rps']:9,.0f} /s"


def run_all(session: Session, runs: list[Run], seconds: int | None, rows: list[dict]) -> None:
    progress = Progress(runs, seconds)
    for scenario, name, turn in runs:
        progress.begins(scenario, name, turn)
        row = run_once(session, scenario, TARGETS[name], length_s(scenario, seconds))
        rows.append({"scenario": scenario.name, "point": scenario.point, "target": name, "pass": turn} | row)
        progress.ended(row)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="explain every scenario and target, and exit")
    parser.add_argument("--scenario", nargs="+", metavar="NAME", help="only these; `growth` stands for all curves "
                        "(default: all but soak)")
    parser.add_argument("--target", nargs="+", metavar="NAME", choices=list(TARGETS), help="only these")
    parser.add_argument("--passes", type=int, metavar="N", help="how often each is measured (default 3)")
    parser.add_argument("--seconds", type=int, metavar="N",
                        help="how long each run is measured (default 2 to 5, by scenario; soak 1800)")
    parser.add_argument("--quick", action="store_true",
                        help="one pass of a second, without curves and the targets "
                        f"{', '.join(NOT_QUICK)}: whether all works, not how fast")
    parser.add_argument("--full", action="store_true", help="growth-keys to 1,000,000 keys, not 100,000")
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release", metavar="DIR",
                        help="where dheera_ai, bedrock-sim, bare-pingora and stream-load are (default target/release)")
    parser.add_argument("--results", type=Path, default=ROOT / "loadtest/results", metavar="DIR",
                        help="where results.json, report.md and charts go (default loadtest/results)")
    parser.add_argument("--keep", action="store_true", help="keep what the processes said, and say where")
    options = parser.parse_args()
    options.passes = options.passes or (1 if options.quick else 3)
    options.seconds = options.seconds or (1 if options.quick else None)
    return options


def everything(full: bool) -> list[Scenario]:
    return [*SCENARIOS, *growth.curves(full), growth.SOAK]


def explain() -> None:
    print("Scenarios:")
    told = set()
    for scenario in everything(full=True):
        if scenario.name not in told:
            told.add(scenario.name)
            by = "by " if scenario.point is not None else ""
            print(f"  {scenario.name:18} {by}{scenario.about}\n{'':21}targets: {', '.join(scenario.targets)}")
    print("\nTargets:")
    for target in TARGETS.values():
        print(f"  {target.name:18} {target.about}")


def chosen(options: argparse.Namespace) -> list[Scenario]:
    known = everything(options.full)
    if not options.scenario:
        return [one for one in known if not one.on_request and not (options.quick and one.point is not None)]
    wanted = set(options.scenario)
    if unknown := wanted - {one.name for one in known} - {"growth"}:
        raise SystemExit(f"no scenario is called {', '.join(sorted(unknown))}: see --list")
    return [one for one in known if one.name in wanted or (one.point is not None and "growth" in wanted)]


def targets(options: argparse.Namespace) -> list[str] | None:
    if options.quick and not options.target:
        return [name for name in TARGETS if name not in NOT_QUICK]
    return options.target


def describe(options: argparse.Namespace, session: Session) -> dict:
    told = results.provenance(session)
    return told | {"options": {"passes": options.passes, "seconds": options.seconds, "quick": options.quick}}


def write(options: argparse.Namespace, told: dict, rows: list[dict]) -> None:
    abouts = {scenario.name: scenario.about for scenario in everything(options.full)}
    options.results.mkdir(parents=True, exist_ok=True)
    results.write(options.results / "results.json", told, rows)
    (options.results / "report.md").write_text(report.report(told, rows, abouts))
    if importlib.util.find_spec("matplotlib"):
        import charts

        charts.draw(rows, abouts, options.results)
    else:
        print("no charts: matplotlib is not installed here; `make loadtest` uses .venv-loadtest")
    print(f"\n{report.goals(results.Medians(rows), all_of_them=False)}\n\nthe report: {options.results / 'report.md'}")


def main() -> int:
    options = arguments()
    if options.list:
        explain()
        return 0
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("the load test needs two cores: one for the target, one for all else")
    # A shell that starts this in the background has SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    rows: list[dict] = []
    directory = Path(tempfile.mkdtemp(prefix="loadtest-"))
    session = Session(options.bin.resolve(), directory, keep=options.keep)
    told = describe(options, session)
    complete = False
    try:
        run_all(session, plan(chosen(options), targets(options), options.passes), options.seconds, rows)
        complete = True
    except KeyboardInterrupt:
        print("\nbroken off; the processes have been ended", file=sys.stderr)
    finally:
        if options.keep:
            print(f"what the processes said: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    made = [[kind, f"{keys:,}", f"{more:,} more", f"{took:.1f}"] for (kind, keys), (more, took) in session.made_keys.items()]
    write(options, told | {"complete": complete, "made_keys": made}, rows)
    failed = [row for row in rows if "invalid" in row]
    return 0 if complete and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
