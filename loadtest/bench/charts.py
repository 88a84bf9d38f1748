"""Charts of the report as SVG."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

from results import KB_PER_MB, Medians
from targets import TARGETS

# The same bytes for the same figures.
matplotlib.rcParams |= {"svg.hashsalt": "loadtest", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
OURS, OTHERS = "#c2410c", "#64748b"


def save(figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def cost(medians: Medians, path: Path) -> None:
    """CPU time of a request, by target; LiteLLM would leave no room for the others and is a number."""
    scenario = "converse-1k"
    bars = {target: medians.get("cpu_us", scenario, target) for target in TARGETS if target != "litellm"}
    bars = {target: figure for target, figure in bars.items() if figure}
    if not bars:
        return
    figure, axes = pyplot.subplots(figsize=(7, 0.42 * len(bars) + 1.2))
    middles = [bar.median for bar in bars.values()]
    spread = [[bar.median - bar.least for bar in bars.values()], [bar.most - bar.median for bar in bars.values()]]
    colours = [OURS if target.startswith("dheera") else OTHERS for target in bars]
    axes.barh(list(bars), middles, xerr=spread, color=colours, error_kw={"elinewidth": 1})
    for place, middle in enumerate(middles):
        axes.text(0, place, f" {middle:.1f}", va="center", color="white", fontweight="bold")
    axes.invert_yaxis()
    slow = medians.get("cpu_us", scenario, "litellm")
    axes.set_xlabel("CPU µs per request" + (f"   (litellm: {slow.median:,.0f})" if slow else ""))
    axes.set_title("Converse, 1 KB, 16 connections", loc="left")
    save(figure, path)


def curve(medians: Medians, scenario: str, about: str, path: Path) -> None:
    """What it costs and the memory it takes, over what grows."""
    name = "frame_cpu_us" if scenario == "growth-streams" else "cpu_us"
    panels = ((name, 1, f"CPU µs per {'frame' if name == 'frame_cpu_us' else 'request'}"), ("rss_peak_kb", KB_PER_MB, "RSS peak MB"))
    figure, both = pyplot.subplots(1, 2, figsize=(9, 3.2))
    for axes, (key, scale, title) in zip(both, panels, strict=True):
        for target in medians.targets(scenario):
            found = [(point, medians.get(key, scenario, target, point)) for point in medians.points(scenario)]
            found = [(point, value) for point, value in found if value]
            points = [point for point, _ in found]
            axes.plot(points, [value.median / scale for _, value in found], marker="o", label=target)
            axes.fill_between(points, [value.least / scale for _, value in found],
                              [value.most / scale for _, value in found], alpha=0.2)
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_title(title, loc="left")
        axes.set_xlabel(about.split(",")[0])
    if both[0].lines:
        both[0].legend(frameon=False)
    save(figure, path)


def soak(medians: Medians, path: Path) -> None:
    """Resident memory over the time of the soak."""
    figure, axes = pyplot.subplots(figsize=(7, 3))
    for target in medians.targets("soak"):
        for row in medians.groups["soak", target, None]:
            if samples := row.get("figures", {}).get("rss_samples_kb"):
                step = row["figures"]["seconds"] / len(samples) / 60
                axes.plot([at * step for at in range(len(samples))], [sample / KB_PER_MB for sample in samples], label=target)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes")
    axes.set_title("Resident memory MB", loc="left")
    axes.legend(frameon=False)
    save(figure, path)


def draw(rows: list[dict], abouts: dict[str, str], directory: Path) -> None:
    medians = Medians(rows)
    if "converse-1k" in medians.scenarios():
        cost(medians, directory / "cpu.svg")
    for scenario in medians.scenarios():
        if medians.points(scenario):
            curve(medians, scenario, abouts[scenario], directory / f"{scenario}.svg")
    if "soak" in medians.scenarios():
        soak(medians, directory / "soak.svg")
