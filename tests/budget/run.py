"""Hard budgets, live: real proxies, real Redis servers, the simulator, and faults.

    python3 tests/budget/run.py burst redis_down reset_boundary crash
    python3 tests/budget/run.py soak --minutes 30 --seed 7

Needs the binaries (`make build`, or `--profile release`), `redis-server` and Python 3.11; no packages. What the processes
said stays in a directory under `--directory` when something failed.
"""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import burst
import outages
import soak

SCENARIOS = {
    "burst": burst.run,
    "redis_down": outages.run_redis_down,
    "reset_boundary": outages.run_reset_boundary,
    "crash": outages.run_crash,
    "soak": soak.run,
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="+", choices=SCENARIOS)
    parser.add_argument("--profile", default="debug", help="which binaries: debug or release (default debug)")
    parser.add_argument("--proxy", type=Path, help="the proxy's binary, if not that of --profile")
    parser.add_argument("--simulator", type=Path, help="the simulator's binary, if not that of --profile")
    parser.add_argument("--directory", type=Path, help="where the processes keep their files")
    parser.add_argument("--store", choices=("embedded", "redis"), help="only with this store")
    parser.add_argument("--quick", action="store_true", help="fewer crashes, no waiting for a minute to pass")
    parser.add_argument("--rest", type=float, default=180, metavar="SECONDS", help="how long to wait for rest at the end")
    parser.add_argument("--seed", type=int, default=1)
    group = parser.add_argument_group("soak")
    group.add_argument("--minutes", type=float, default=2)
    group.add_argument("--clients", type=int, default=24)
    group.add_argument("--proxies", type=int, default=3)
    group.add_argument("--failover", action="store_true", help="only the run with failovers")
    group.add_argument("--kill-proxy-every", type=float, default=10, metavar="SECONDS", help="0: never")
    group.add_argument("--kill-redis-every", type=float, default=15, metavar="SECONDS", help="0: never")
    group.add_argument("--failover-every", type=float, default=20, metavar="SECONDS", help="0: no run with failovers")
    group.add_argument("--failover-lag", type=float, default=0.4, metavar="SECONDS",
                       help="the most that the replica misses")
    group.add_argument("--bill", choices=("full", "delivered", "arrived"), help="how the simulator bills")
    return parser.parse_args()


def main():
    options = arguments()
    # Whoever ends this ends what it started: asyncio turns SIGINT into a cancellation.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    keep = options.directory is not None
    options.directory = Path(tempfile.mkdtemp(prefix="budget-tests-", dir=options.directory))
    failed = []
    for name in options.scenarios:
        failed += asyncio.run(SCENARIOS[name](options))
    print()
    for what in failed:
        print(f"FAILED {what}")
    if failed or keep:
        print(f"what the processes said: {options.directory}")
    else:
        shutil.rmtree(options.directory)
        print("all as it should be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
