"""Bad days, live: real proxies, three regions, a network that fails, real signals, and somebody who counts.

    python3 tests/resilience/run.py all --quick
    python3 tests/resilience/run.py faults --only throttle stall_mid_stream
    python3 tests/resilience/run.py upgrades reloads term overload slow disconnects --json figures.json

Needs the binaries (`make build`, or `--profile release`), what `scripts/setup` installs, and Python 3.11; no packages.
What the processes said stays in a directory under `--directory` when something failed.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "budget"))

import disconnects
import faults
import lifecycle
import overload
import slow
from regions import children

SCENARIOS = {
    "faults": faults.run,
    "upgrades": lifecycle.run_upgrades,
    "reloads": lifecycle.run_reloads,
    "term": lifecycle.run_term,
    "overload": overload.run,
    "slow": slow.run,
    "disconnects": disconnects.run,
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="+", choices=[*SCENARIOS, "all"])
    parser.add_argument("--quick", action="store_true", help="the short form that `make test` runs")
    parser.add_argument("--profile", default="debug", help="which binaries: debug or release (default debug)")
    parser.add_argument("--proxy", type=Path, help="the proxy's binary, if not that of --profile")
    parser.add_argument("--simulator", type=Path, help="the simulator's binary, if not that of --profile")
    parser.add_argument("--directory", type=Path, help="where the processes keep their files")
    parser.add_argument("--store", choices=("embedded", "redis"), help="only with this store")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go")
    parser.add_argument("--rest", type=float, default=120, metavar="SECONDS",
                        help="how long to wait for rest at the end")
    parser.add_argument("--only", nargs="+", choices=[fault.name for fault in faults.FAULTS], metavar="FAULT",
                        help="faults: only these")
    parser.add_argument("--seconds", type=float, help="faults: how long each lasts (default 30, quick 2)")
    parser.add_argument("--rate", type=float, metavar="PER_SECOND",
                        help="requests a second (default 200; quick 30: debug binaries on two cores)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.rate = options.rate or (30 if options.quick else 200)
    return options


def run(name, options):
    """The failures and the figures of a scenario. One that breaks off has failed; the next one runs all the same."""
    begun = time.monotonic()
    try:
        report = asyncio.run(SCENARIOS[name](options))
        failed, figures = report.failed, report.figures
    except Exception as error:
        traceback.print_exc()
        failed, figures = [f"{name} broke off: {type(error).__name__}: {error}"], {}
    if left := children():
        failed.append(f"{name}: left processes behind: {left}")
        end(left)
    print(f"       {name} took {time.monotonic() - begun:.0f} s", flush=True)
    return failed, figures


def end(processes):
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        except OSError:
            # It has ended by itself.
            pass


def main():
    options = arguments()
    # Whoever ends this ends what it started: asyncio turns SIGINT into a cancellation. A shell that starts this in the
    # background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    keep = options.directory is not None
    options.directory = Path(tempfile.mkdtemp(prefix="resilience-tests-", dir=options.directory))
    names = list(SCENARIOS) if "all" in options.scenarios else options.scenarios
    failed, figures = [], {}
    try:
        for name in names:
            more, figures[name] = run(name, options)
            failed += more
    finally:
        end(children())
    print()
    for what in failed:
        print(f"FAILED {what}")
    if options.json:
        told = {"quick": options.quick, "rate": options.rate, "failed": failed, "figures": figures}
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    if failed or keep:
        print(f"what the processes said: {options.directory}")
    else:
        shutil.rmtree(options.directory)
    print("RESILIENCE FAILED" if failed else "RESILIENCE OK", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
