"""Counts the instructions of what the proxy does for a request, and compares them with benches/instructions.json.

    python3 tests/instructions/run.py check
    python3 tests/instructions/run.py check --only sign usage
    python3 tests/instructions/run.py baseline

Ends with 0 when nothing has grown by more than 5 %, 1 when something has, 2 when there is no baseline, or one that another
compiler made or that is for another processor. Needs valgrind, cargo and Python 3.11; no packages.
"""

import argparse
import datetime
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import measure
from baseline import REMEDY, Baseline, Comparison, Maker
from counts import Profile
from measure import Built

TOLERANCE = 0.05
# Two runs may differ by this much before their figures are stored: the whole proxy has threads and a clock.
SPREAD_OF_PIECE = 0.005
SPREAD_OF_PROXY = 0.02

GOOD, GREW, NOT_COMPARABLE = 0, 1, 2

Measure = Callable[[], Profile]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("check", "baseline"), help="compare with the baseline, or make it anew")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="only cases whose names contain one of these texts")
    parser.add_argument("--file", type=Path, default=measure.ROOT / "benches/instructions.json", help="the baseline")
    parser.add_argument("--directory", type=Path, help="keep what callgrind and the processes wrote here")
    return parser.parse_args()


def measures(built: Built, directory: Path, only: list[str] | None) -> Iterator[tuple[str, float, Measure]]:
    """What is to be measured: name, spread, and how."""

    def wanted(name: str) -> bool:
        return only is None or any(text in name for text in only)

    for case in measure.cases(built):
        if wanted(case.name):
            yield case.name, SPREAD_OF_PIECE, lambda case=case: measure.piece(built, case, directory)
    for load in measure.LOADS:
        if wanted(load.name):
            runs = (Path(tempfile.mkdtemp(prefix=f"{load.operation}-", dir=directory)) for _ in range(2))
            yield load.name, SPREAD_OF_PROXY, lambda load=load, runs=runs: measure.whole(built, load, next(runs))


def make(built: Built, options: argparse.Namespace) -> int:
    """Measures everything twice and stores it, if both agree."""
    cases, loose = {}, []
    for name, spread, run in measures(built, options.directory, options.only):
        first, second = run(), run()
        apart = abs(first.instructions / second.instructions - 1)
        print(f"{name:32} {first.instructions:14,.0f}  two runs {apart:.2%} apart", flush=True)
        cases[name] = first
        if apart > spread:
            loose.append(name)
    if loose:
        print(f"bench: not repeatable, nothing stored: {', '.join(loose)}", file=sys.stderr)
        return GREW
    maker = Maker.here()
    if options.only is not None and options.file.exists():
        before = Baseline.load(options.file)
        if before.maker != maker:
            print(f"bench: {options.file} was made elsewhere; make all of it anew, without --only", file=sys.stderr)
            return NOT_COMPARABLE
        cases = before.cases | cases
    Baseline(datetime.date.today().isoformat(), maker, cases).store(options.file)
    print(f"stored in {options.file}")
    return GOOD


def comparable(baseline: Baseline) -> bool:
    differences = baseline.maker.differences(Maker.here())
    for difference in differences:
        print(f"bench: {difference}", file=sys.stderr)
    if differences:
        print(f"bench: instructions cannot be compared; {REMEDY}", file=sys.stderr)
    return not differences


def check(built: Built, baseline: Baseline, options: argparse.Namespace) -> int:
    status, seen = GOOD, set()
    print(f"against the baseline of {baseline.date}")
    for name, _, run in measures(built, options.directory, options.only):
        seen.add(name)
        if name not in baseline.cases:
            print(f"{name:32} is not in the baseline: make bench-baseline ARGS='--only {name}'")
            status = GREW
            continue
        comparison = Comparison(name, baseline.cases[name], run(), TOLERANCE)
        print(comparison.told(), flush=True)
        if comparison.grew:
            status = GREW
            for function, before, now in comparison.growth():
                print(f"    {before:12,.0f} -> {now:12,.0f}  {function}")
        if comparison.shrank:
            print(f"    lower the baseline: make bench-baseline ARGS='--only {name}'")
    if options.only is None and (gone := baseline.cases.keys() - seen):
        print(f"in the baseline and not measured any more: {', '.join(sorted(gone))}; make bench-baseline")
    print("INSTRUCTIONS OK" if status == GOOD else "INSTRUCTIONS FAILED")
    return status


def main() -> int:
    options = arguments()
    keep = options.directory is not None
    if keep:
        options.directory.mkdir(parents=True, exist_ok=True)
    options.directory = Path(tempfile.mkdtemp(prefix="instructions-", dir=options.directory))
    baseline = None
    try:
        if options.what == "check":
            if not options.file.exists():
                print(f"bench: there is no {options.file}; {REMEDY}", file=sys.stderr)
                return NOT_COMPARABLE
            baseline = Baseline.load(options.file)
            # Known before minutes are spent on compiling.
            if not comparable(baseline):
                return NOT_COMPARABLE
        built = measure.build()
        return make(built, options) if baseline is None else check(built, baseline, options)
    finally:
        if not keep:
            shutil.rmtree(options.directory)


if __name__ == "__main__":
    sys.exit(main())
