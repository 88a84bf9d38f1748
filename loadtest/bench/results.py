"""What the runs gave: raw rows, what is derived from them, medians over the passes; and where they were made."""

import json
import os
import platform
import re
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from stand import PATH, ROOT, Session

# The kernel's kilobytes, of 1024 bytes, in a megabyte.
KB_PER_MB = 1_000_000 / 1024
# What a target adds to `direct` of the same pass.
ADDED = ("p50_us", "p99_us", "ttft_p50_us", "ttft_p99_us", "gap_p99_us", "transit_p50_us", "transit_p99_us")


@dataclass(frozen=True)
class Figure:
    """The median over the passes, and the least and the most."""

    median: float
    least: float
    most: float


def valid(row: dict) -> bool:
    return "figures" in row and "invalid" not in row


def derived(rows: list[dict]) -> list[dict]:
    """The rows with what each adds to `direct` in its pass, its streams' memory, and its memory beyond what is idle."""
    direct = {(row["scenario"], row["point"], row["pass"]): row["figures"]
              for row in rows if row["target"] == "direct" and valid(row)}
    return [row | {"figures": row["figures"] | more_figures(
        row["figures"], direct.get((row["scenario"], row["point"], row["pass"])))} if "figures" in row else row
        for row in rows]


def more_figures(figures: dict, direct: dict | None) -> dict:
    more = {}
    for name in ADDED if direct else ():
        if name in figures and name in direct:
            more[f"added_{name}"] = round(figures[name] - direct[name], 1)
    if "rss_peak_kb" in figures:
        more["rss_grown_kb"] = figures["rss_peak_kb"] - figures["rss_idle_kb"]
    return more


class Medians:
    """Figures by scenario, target and point, over the valid rows."""

    def __init__(self, rows: list[dict]):
        self.groups: dict[tuple, list[dict]] = {}
        self.rows = derived(rows)
        for row in self.rows:
            self.groups.setdefault((row["scenario"], row["target"], row["point"]), []).append(row)

    def get(self, name: str, scenario: str, target: str, point: int | None = None) -> Figure | None:
        values = [row["figures"][name] for row in self.groups.get((scenario, target, point), ())
                  if valid(row) and name in row["figures"]]
        return Figure(statistics.median(values), min(values), max(values)) if values else None

    def median(self, name: str, scenario: str, target: str, point: int | None = None) -> float | None:
        figure = self.get(name, scenario, target, point)
        return figure.median if figure else None

    def scenarios(self) -> list[str]:
        return list(dict.fromkeys(scenario for scenario, _, _ in self.groups))

    def targets(self, scenario: str) -> list[str]:
        return list(dict.fromkeys(target for named, target, _ in self.groups if named == scenario))

    def points(self, scenario: str) -> list[int]:
        return sorted({point for named, _, point in self.groups if named == scenario and point is not None})

    def wrong(self, scenario: str, target: str, point: int | None = None) -> str | None:
        """Why passes of a target do not count."""
        reasons = [row.get("not_run") or row.get("invalid") for row in self.groups.get((scenario, target, point), ())]
        return next((reason for reason in reasons if reason), None)

    def as_json(self) -> list[dict]:
        told = []
        for (scenario, target, point), group in self.groups.items():
            names = dict.fromkeys(name for row in group if valid(row) for name, value in row["figures"].items()
                                  if isinstance(value, (int, float)))
            figures = {name: vars(self.get(name, scenario, target, point)) for name in names}
            told.append({"scenario": scenario, "target": target, "point": point, "passes": len(group),
                         "valid": sum(map(valid, group)), "figures": figures})
        return told


def first_line(*command, pattern: str = r"(.+)") -> str | None:
    """What a program says of its version."""
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60,
                              env=dict(os.environ, PATH=PATH))
    except OSError:
        return None
    match = re.search(pattern, done.stdout + done.stderr)
    return match.group(1).strip() if match else None


def machine() -> dict:
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {
        "processor": model.group(1) if model else platform.processor(), "cores": os.cpu_count(),
        "memory_gb": round(int(memory.group(1)) / 1e6, 1) if memory else None, "kernel": platform.release(),
        "load_average": [round(average, 2) for average in os.getloadavg()],
    }


def versions(session: Session) -> dict:
    litellm = next(ROOT.glob(".venv-litellm/lib/python*/site-packages/litellm-*.dist-info"), None)
    return {
        "dheera_ai": first_line(session.binary("dheera_ai"), "version"),
        "rustc": first_line("rustc", "--version"),
        "nginx": first_line("nginx", "-v", pattern=r"nginx/(\S+)"),
        "envoy": session.envoy and first_line(session.envoy, "--version", pattern=r"version: \w+/([\d.]+)"),
        "litellm": litellm.name.removeprefix("litellm-").removesuffix(".dist-info") if litellm else None,
        "redis": first_line("redis-server", "--version", pattern=r"v=(\S+)"),
        "wrk": first_line("wrk", "-v", pattern=r"wrk (\S+)"),
        "h2load": first_line("h2load", "--version", pattern=r"nghttp2/(\S+)"),
        "python": platform.python_version(),
    }


def provenance(session: Session) -> dict:
    changed = first_line("git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no")
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": first_line("git", "-C", ROOT, "rev-parse", "HEAD"), "uncommitted_changes": bool(changed),
        "machine": machine(), "versions": versions(session),
    }


def write(path: Path, told: dict, rows: list[dict]) -> None:
    medians = Medians(rows)
    path.write_text(json.dumps(told | {"medians": medians.as_json(), "rows": medians.rows}, indent=1) + "\n")
