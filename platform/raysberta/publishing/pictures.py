"""The report's pictures as inline SVG: drawn by matplotlib, no fonts, scripts or files from elsewhere."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raysberta.publishing.facts import Scores, Span

INK, MUTED, LINE, PAPER = "#1f2933", "#66727f", "#dfe4ea", "#ffffff"
ACCENT, BETTER, WORSE, SECOND = "#2f5fd0", "#1f8a5b", "#c2413a", "#e08a1e"
SERIES = (
    "#2f5fd0",
    "#e08a1e",
    "#1f8a5b",
    "#8a5bd0",
    "#c2413a",
    "#2aa3b8",
    "#b8860b",
    "#d05a9b",
    "#5a6b7b",
    "#7fa832",
    "#94a7bd",
    "#a3554a",
)
KEPT = "#a9bff0"
ROOMS = {
    "corpus": ("data", "pairs", "benchmark"),
    "models": ("models", "generators", "vocabulary"),
    "synthesis and mining": ("synthesis", "mining", "mining_synthetic"),
    "training": ("mlm", "mlm_merged", "contrastive", "merge", "temperature"),
    "scores": ("score",),
}
ROOM_COLOURS = {"corpus": "#1f8a5b", "models": "#7b8794", "synthesis and mining": "#e08a1e", "training": "#2f5fd0", "scores": "#8a5bd0"}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#edf0f4",
    "grid.linewidth": 1,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": PAPER,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": "raysberta",
}
WIDTH = 9.2


def changes(scores: Scores) -> str:
    """Each task's base and final score as two dots with a line between; green where it rose, red where it fell."""
    rows = [row for row in scores.rows if row.change is not None][::-1]
    with _drawn(len(rows) * 0.42 + 0.9) as (figure, [axes]):
        for place, row in enumerate(rows):
            base, final = row.scores["base"] or 0.0, row.scores["final"] or 0.0
            colour = BETTER if final >= base else WORSE
            axes.plot([base, final], [place, place], color=colour, linewidth=4, alpha=0.35, solid_capstyle="round")
            axes.scatter([base], [place], s=46, color=PAPER, edgecolor=MUTED, linewidth=1.6, zorder=3, label="base" if not place else None)
            axes.scatter([final], [place], s=58, color=colour, zorder=4, label="final" if not place else None)
            axes.annotate(
                f"{final - base:+.2f}",
                (max(base, final), place),
                xytext=(10, 0),
                textcoords="offset points",
                va="center",
                color=colour,
                fontsize=9,
                weight="bold",
            )
        axes.set_yticks(range(len(rows)), [row.task for row in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("main score x 100")
        axes.margins(x=0.09)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, handletextpad=0.2, columnspacing=1)
        return _svg(figure, "Base and final score of each task")


def means(scores: Scores) -> str:
    """The mean over the tasks after each step."""
    known = [(step, value) for step, value in scores.means.items() if value is not None]
    with _drawn(2.7) as (figure, [axes]):
        places = range(len(known))
        values = [value for _, value in known]
        axes.plot(places, values, color=ACCENT, linewidth=2, marker="o", markersize=6)
        for place, value in enumerate(values):
            axes.annotate(f"{value:.2f}", (place, value), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=9, weight="bold")
        axes.set_xticks(places, [step for step, _ in known])
        axes.tick_params(axis="x", labelcolor=INK)
        axes.margins(x=0.06, y=0.3)
        axes.set_ylabel("mean x 100")
        return _svg(figure, "Mean score after each step")


def stacked(rows: Mapping[str, Mapping[str, int]], title: str, first: str = "kept", unit: str = "documents") -> str:
    """One bar a row, its parts as shares of the row's sum; the part named `first` comes first and pale."""
    names = list(rows)[::-1]
    totals = {name: max(1, sum(rows[name].values())) for name in names}
    overall = {
        part: sum(row.get(part, 0) for row in rows.values()) for part in dict.fromkeys(part for row in rows.values() for part in row)
    }
    parts = sorted(overall, key=lambda part: (part != first, -overall[part]))
    colours = iter(SERIES)
    with _drawn(len(names) * 0.42 + 0.8 + 0.24 * ((len(parts) + 3) // 4)) as (figure, [axes]):
        left = np.zeros(len(names))
        for part in parts:
            widths = np.array([100 * rows[name].get(part, 0) / totals[name] for name in names])
            colour = KEPT if part == first else next(colours, MUTED)
            axes.barh(range(len(names)), widths, left=left, height=0.62, color=colour, edgecolor=PAPER, linewidth=0.8, label=part)
            left += widths
        for place, name in enumerate(names):
            axes.annotate(f"{sum(rows[name].values()):,}", (101, place), va="center", fontsize=9, color=MUTED, annotation_clip=False)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"per cent of {unit}; their number on the right")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, handlelength=1, handleheight=1, columnspacing=1.4)
        return _svg(figure, title)


def amounts(rows: Mapping[str, Mapping[str, int]], title: str, unit: str) -> str:
    """One bar a row, its parts stacked at their size."""
    names = list(rows)[::-1]
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    with _drawn(len(names) * 0.36 + 1.0) as (figure, [axes]):
        left = np.zeros(len(names))
        for part, colour in zip(parts, (ACCENT, SECOND, BETTER, *SERIES[3:]), strict=False):
            widths = np.array([rows[name].get(part, 0) for name in names], float)
            axes.barh(range(len(names)), widths, left=left, height=0.6, color=colour, alpha=0.9, edgecolor=PAPER, linewidth=0.8, label=part)
            left += widths
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel(unit)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, handlelength=1, handleheight=1)
        return _svg(figure, title)


def histograms(found: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> str:
    """Scores of positives and negatives over one another, and the ranks that negatives were taken from."""
    with _drawn(2.9, columns=2) as (figure, [left, right]):
        for name, colour in (("positive", BETTER), ("negative", WORSE)):
            _filled(left, found.get(f"{name}_score", {}), colour, f"{name}s")
        left.set_title("cosine to the query")
        left.legend(loc="upper left")
        _filled(right, found.get("negative_rank", {}), ACCENT, "negatives", density=False)
        right.set_title("rank of the negatives taken")
        right.set_ylabel("negatives")
        left.set_ylabel("density")
        return _svg(figure, title)


def curve(points: Sequence[Mapping[str, float]], title: str) -> str:
    """Loss by step, raw and smoothed, and the learning rate beside it."""
    steps = np.array([point["step"] for point in points], float)
    losses = np.array([point["loss"] for point in points], float)
    rates = np.array([point.get("learning_rate", np.nan) for point in points], float)
    with _drawn(2.9, columns=2, widths=(2, 1)) as (figure, [left, right]):
        left.plot(steps, losses, color=ACCENT, alpha=0.3, linewidth=1.2, marker="o" if len(steps) < 40 else None, markersize=3)
        left.plot(steps, smooth(losses), color=ACCENT, linewidth=2.2)
        left.set_title("loss")
        left.set_xlabel("step")
        left.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        power = int(np.floor(np.log10(np.nanmax(rates)))) if np.nanmax(np.nan_to_num(rates)) > 0 else 0
        right.plot(steps, rates / 10.0**power, color=SECOND, linewidth=2)
        right.set_title(f"learning rate, 1e{power}")
        right.set_xlabel("step")
        right.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        return _svg(figure, title)


def trials(found: Sequence[Mapping[str, float]], setting: str, best: float, title: str) -> str:
    """Score of each trial over what was tried; the best one marked."""
    ordered = sorted(found, key=lambda trial: trial[setting])
    values = [trial[setting] for trial in ordered]
    results = [100 * trial["score"] for trial in ordered]
    with _drawn(2.6) as (figure, [axes]):
        axes.plot(values, results, color=ACCENT, linewidth=2, marker="o", markersize=6)
        for value, result in zip(values, results, strict=True):
            chosen = abs(value - best) < 1e-9
            if chosen:
                axes.scatter([value], [result], s=150, facecolor="none", edgecolor=SECOND, linewidth=2.2, zorder=4)
            weight = "bold" if chosen else "normal"
            axes.annotate(
                f"{result:.2f}", (value, result), xytext=(0, 11), textcoords="offset points", ha="center", fontsize=9, weight=weight
            )
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.set_xlabel(setting)
        axes.set_ylabel("dev mean x 100")
        axes.margins(x=0.08, y=0.35)
        return _svg(figure, title)


def timeline(found: Sequence[Span], cuts: Sequence[float], title: str) -> str:
    """A bar a stage, in the order of their starts."""
    rows = list(found)[::-1]
    end = max(span.ended for span in rows)
    with _drawn(len(rows) * 0.31 + 1.0) as (figure, [axes]):
        for place, span in enumerate(rows):
            colour = ROOM_COLOURS[room(span.stage)]
            axes.barh(place, max(span.seconds, end / 400), left=span.started, height=0.64, color=colour)
            inside = span.ended > 0.86 * end
            axes.annotate(
                f"{span.seconds:,.0f} s",
                (span.started if inside else span.ended, place),
                xytext=(-5 if inside else 5, 0),
                textcoords="offset points",
                ha="right" if inside else "left",
                va="center",
                fontsize=8.5,
                color=MUTED,
            )
        for cut in cuts:
            axes.axvline(cut, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        axes.set_yticks(range(len(rows)), [span.stage for span in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlim(0, end * 1.02)
        axes.set_xlabel("seconds since the start")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        rooms = list(dict.fromkeys(room(span.stage) for span in found))
        handles = [plt.Rectangle((0, 0), 1, 1, color=ROOM_COLOURS[name]) for name in rooms]
        axes.legend(handles, rooms, loc="lower left", bbox_to_anchor=(0, 1), ncols=5, handlelength=1, handleheight=1)
        return _svg(figure, title)


def room(stage: str) -> str:
    """The group of stages that one belongs to, for its colour."""
    return next((name for name, stages in ROOMS.items() if stage in stages or stage == name or stage.partition("_")[0] in stages), "corpus")


def smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window of a tenth of the points; ends use what there is of it."""
    half = len(values) // 20
    return np.array([values[max(0, place - half) : place + half + 1].mean() for place in range(len(values))])


def _filled(axes: Axes, found: Mapping[str, Sequence[float]], colour: str, label: str, density: bool = True) -> None:
    counts, edges = np.array(found.get("counts", ()), float), np.array(found.get("edges", ()), float)
    if not len(counts) or not counts.sum():
        return
    heights = counts / counts.sum() / np.diff(edges) if density else counts
    axes.stairs(heights, edges, fill=True, color=colour, alpha=0.32)
    axes.stairs(heights, edges, color=colour, linewidth=1.6, label=label)


@contextmanager
def _drawn(height: float, columns: int = 1, widths: Sequence[float] | None = None) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of the report's width with its axes from left to right, closed at the end."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1,
            columns,
            squeeze=False,
            figsize=(WIDTH, max(1.6, height)),
            layout="constrained",
            gridspec_kw={"width_ratios": widths} if widths else None,
        )
        try:
            yield figure, list(axes[0])
        finally:
            plt.close(figure)


def _svg(figure: Figure, title: str) -> str:
    """The figure as an SVG element that scales with the page and takes the page's font."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)  # its rules would reach the whole page
    text = text.replace("'DejaVu Sans'", "var(--sans), sans-serif").replace("font-family: DejaVu Sans", "font-family: var(--sans)")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
