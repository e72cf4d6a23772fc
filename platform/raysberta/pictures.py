"""Pictures as inline SVG that any room may ask for: no fonts, scripts or files from elsewhere. Numbers and names in, markup out."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from itertools import pairwise
from operator import itemgetter
from typing import Any

import matplotlib

matplotlib.use("Agg")


import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raysberta.layout import layout

INK, MUTED, LINE, PAPER = "#1f2933", "#66727f", "#dfe4ea", "#ffffff"
ACCENT, BETTER, WORSE, SECOND = "#2f5fd0", "#1f8a5b", "#c2413a", "#e08a1e"
SERIES = (
    *("#2f5fd0", "#e08a1e", "#1f8a5b", "#8a5bd0", "#c2413a", "#2aa3b8"),
    *("#b8860b", "#d05a9b", "#5a6b7b", "#7fa832", "#94a7bd", "#a3554a"),
)
KEPT = "#a9bff0"
GROUPS = {
    "corpus and pairs": ("corpus", "natural"),
    "models": ("model",),
    "written pairs and examples": ("written", "examples"),
    "phases": ("compose", "vocabulary", "mlm", "align", "distil", "contrastive", "merge", "prune", "centre"),
    "searches": ("search",),
    "tasks and scores": ("tasks", "benchmark", "score"),
    "release": ("release",),
}
"""What kinds of node a timeline gives one colour."""
GROUP_COLOURS = dict(zip(GROUPS, ("#1f8a5b", "#7b8794", "#e08a1e", "#2f5fd0", "#2aa3b8", "#8a5bd0", "#1f2933"), strict=True))
ENGINES = {
    "Ray Data": ("#dbeafe", ("corpus", "natural", "written", "examples")),
    "Ray Train": ("#dcfce7", ("mlm", "contrastive", "align", "distil")),
    "Ray Tune": ("#fef3c7", ("search",)),
    "one Ray task": ("#f1f5f9", ("model", "compose", "vocabulary", "merge", "prune", "centre", "tasks", "benchmark", "score", "release")),
}
"""What makes which kinds of node, each with its colour in a graph."""
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.titlecolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.labelcolor", "xtick.color", "xtick.labelcolor", "ytick.color"), MUTED),
    "axes.edgecolor": LINE,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "grid.color": "#edf0f4",
    "grid.linewidth": 1,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": PAPER,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": "raysberta",
}
WIDTH = 9.2
NODE_HEIGHT, NODE_GAP = 42, 44
MOST_NAMED = 16
"""Trials with their score written beside them; of more only the best is."""

Bins = tuple[Sequence[float], Sequence[float]]
"""Edges and the counts between them."""


def changes(rows: Sequence[tuple[str, float, float, bool]], base: str, final: str, title: str) -> str:
    """Two scores of each task as two dots with a line between; green where it clearly rose, red where it clearly fell, else grey.

    Args:
        rows: Task, score of the base and of the final model, x 100, and whether the change is clear.
        base: Name of the base model.
        final: Name of the final model.
        title: For those who cannot see it.
    """
    shown = list(rows)[::-1]
    with _drawn(len(shown) * 0.42 + 0.9) as (figure, [axes]):
        for place, (_, before, after, clear) in enumerate(shown):
            colour = (BETTER if after > before else WORSE) if clear else MUTED
            axes.plot([before, after], [place, place], color=colour, linewidth=4, alpha=0.35, solid_capstyle="round")
            axes.scatter([before], [place], s=46, color=PAPER, edgecolor=MUTED, linewidth=1.6, zorder=3, label=None if place else base)
            axes.scatter([after], [place], s=58, color=colour, zorder=4, label=None if place else final)
            axes.annotate(
                f"{after - before:+.2f}",
                (max(before, after), place),
                xytext=(10, 0),
                textcoords="offset points",
                va="center",
                color=colour,
                fontsize=9,
                weight="bold",
            )
        axes.set_yticks(range(len(shown)), [task for task, *_ in shown])
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.set_xlabel("main score x 100")
        axes.margins(x=0.09)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, handletextpad=0.2, columnspacing=1)
        return _svg(figure, title)


def means(values: Mapping[str, float], title: str) -> str:
    """The mean over some tasks (x 100) of each model, in the order given; `title` is for those who cannot see it."""
    with _drawn(2.7) as (figure, [axes]):
        places = range(len(values))
        axes.plot(places, list(values.values()), color=ACCENT, linewidth=2, marker="o", markersize=6)
        for place, value in enumerate(values.values()):
            axes.annotate(f"{value:.2f}", (place, value), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=9, weight="bold")
        axes.set_xticks(places, list(values))
        axes.tick_params(axis="x", labelcolor=INK)
        axes.margins(x=0.06, y=0.3)
        axes.set_ylabel("mean x 100")
        return _svg(figure, title)


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
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"per cent of {unit}; their number on the right")
        _named_bars(axes, names)
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
        axes.set_xlabel(unit)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        _named_bars(axes, names)
        return _svg(figure, title)


def histograms(positives: Bins, negatives: Bins, ranks: Bins, title: str) -> str:
    """Cosines of positives and negatives to the query over one another, and the ranks that negatives were taken from."""
    with _drawn(2.9, columns=2) as (figure, [left, right]):
        for bins, colour, label in ((positives, BETTER, "positives"), (negatives, WORSE, "negatives")):
            _filled(left, bins, colour, label)
        left.set_title("cosine to the query")
        if left.get_legend_handles_labels()[0]:
            left.legend(loc="upper left")
        _filled(right, ranks, ACCENT, "negatives", density=False)
        right.set_title("rank of the negatives taken")
        right.set_ylabel("negatives")
        left.set_ylabel("density")
        return _svg(figure, title)


def curve(steps: Sequence[int], losses: Sequence[float], rates: Sequence[float], title: str) -> str:
    """Loss by step, raw and smoothed, and the learning rate beside it."""
    values, peak = np.array(losses, float), max(rates, default=0.0)
    with _drawn(2.9, columns=2, widths=(2, 1)) as (figure, [left, right]):
        left.plot(steps, values, color=ACCENT, alpha=0.3, linewidth=1.2, marker="o" if len(steps) < 40 else None, markersize=3)
        left.plot(steps, smooth(values), color=ACCENT, linewidth=2.2)
        left.set_title("loss")
        left.set_xlabel("step")
        left.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        power = int(np.floor(np.log10(peak))) if peak > 0 else 0
        right.plot(steps, np.array(rates, float) / 10.0**power, color=SECOND, linewidth=2)
        right.set_title(f"learning rate, 1e{power}")
        right.set_xlabel("step")
        right.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        return _svg(figure, title)


def trials(
    values: Sequence[Mapping[str, float]],
    scores: Sequence[float],
    means: Mapping[str, Sequence[float | None]],
    ended: Sequence[bool],
    best: Mapping[str, float],
    title: str,
) -> str:
    """Score of each trial over what was tried, one panel a field; the best one circled, those that ended early hollow.

    Args:
        values: What each trial tried, by field.
        scores: What of each was maximised, a fraction.
        means: By name, further figures of each, small beside it; drawn where there are two of them that are not null.
        ended: Whether it was ended early.
        best: What was chosen, by field.
        title: For those who cannot see it.
    """
    fields = list(best)
    sides = {name: each for name, each in means.items() if None not in each}
    with _drawn(2.9, columns=len(fields)) as (figure, panels):
        for axes, field in zip(panels, fields, strict=True):
            found = sorted(zip([each[field] for each in values], scores, ended, values, strict=True), key=itemgetter(0))
            if len(fields) == 1:
                whole = [(value, 100 * score) for value, score, early, _ in found if not early]
                axes.plot(*zip(*whole, strict=True), color=ACCENT, linewidth=2)
            for value, score, early, every in found:
                _trial(axes, value, 100 * score, early, chosen=every == best, named=len(found) <= MOST_NAMED)
            for (name, side), marker in zip(sides.items() if len(sides) > 1 else (), "^v", strict=False):
                points = [each[field] for each in values], [100 * mean for mean in side if mean is not None]
                axes.scatter(*points, s=22, marker=marker, color=MUTED, alpha=0.8, zorder=2, label=name if axes is panels[0] else None)
            ticks = sorted({value for value, *_ in found})
            if len(ticks) <= MOST_NAMED // len(fields):
                axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
            axes.set_xlabel(field)
            axes.margins(x=0.08, y=0.35)
        panels[0].set_ylabel("dev score x 100")
        if len(sides) > 1:
            panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, handletextpad=0.2, columnspacing=1)
        return _svg(figure, title)


def _trial(axes: Axes, value: float, score: float, early: bool, chosen: bool, named: bool) -> None:
    axes.scatter([value], [score], s=36, facecolor=PAPER if early else ACCENT, edgecolor=ACCENT, linewidth=1.6, zorder=3)
    if chosen:
        axes.scatter([value], [score], s=150, facecolor="none", edgecolor=SECOND, linewidth=2.2, zorder=4)
    if chosen or named:
        weight = "bold" if chosen else "normal"
        axes.annotate(f"{score:.2f}", (value, score), xytext=(0, 11), textcoords="offset points", ha="center", fontsize=9, weight=weight)


def timeline(bars: Sequence[tuple[str, str, float, float]], cuts: Sequence[float], title: str) -> str:
    """A bar a node, in the order given, coloured by what kind of node it is.

    Args:
        bars: Name, kind, start and length, both in seconds.
        cuts: Where time is left out.
        title: For those who cannot see it.
    """
    rows = list(bars)[::-1]
    end = max(started + seconds for _, _, started, seconds in rows)
    with _drawn(len(rows) * 0.31 + 1.0) as (figure, [axes]):
        for place, (_, kind, started, seconds) in enumerate(rows):
            axes.barh(place, max(seconds, end / 400), left=started, height=0.64, color=GROUP_COLOURS[group(kind)])
            inside = started + seconds > 0.86 * end
            axes.annotate(
                f"{seconds:,.0f} s",
                (started if inside else started + seconds, place),
                xytext=(-5 if inside else 5, 0),
                textcoords="offset points",
                ha="right" if inside else "left",
                va="center",
                fontsize=8.5,
                color=MUTED,
            )
        for cut in cuts:
            axes.axvline(cut, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlim(0, max(end, 1e-3) * 1.02)
        axes.set_xlabel("seconds since the start")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        groups = list(dict.fromkeys(group(kind) for _, kind, _, _ in bars))
        handles = [plt.Rectangle((0, 0), 1, 1, color=GROUP_COLOURS[name]) for name in groups]
        axes.legend(handles, groups, loc="lower left", bbox_to_anchor=(0, 1), ncols=7, handlelength=1, handleheight=1, columnspacing=1.2)
        return _svg(figure, title)


def group(kind: str) -> str:
    """The group of a kind of node, for its colour.

    Raises:
        KeyError: there is no such kind.
    """
    return {each: name for name, kinds in GROUPS.items() for each in kinds}[kind]


def _named_bars(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, handlelength=1, handleheight=1, columnspacing=1.4)


def smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window of a tenth of the points; ends use what there is of it."""
    half = len(values) // 20
    return np.array([values[max(0, place - half) : place + half + 1].mean() for place in range(len(values))])


def _filled(axes: Axes, bins: Bins, colour: str, label: str, density: bool = True) -> None:
    edges, counts = np.array(bins[0], float), np.array(bins[1], float)
    if not counts.sum():
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
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def graph(nodes: Sequence[tuple[str, str, Sequence[str]]]) -> str:
    """A recipe's graph: one column a depth, an arrow for what is made from what, but where a longer path says it already.

    Args:
        nodes: Name, kind, and the names of the nodes that it is made from; each of these is a node too.

    Raises:
        KeyError: a node is made from one that is not there, or there is no such kind.
    """
    colours = {kind: colour for colour, kinds in ENGINES.values() for kind in kinds}
    found = layout({name: made_from for name, _, made_from in nodes})
    width = max(96, 20 + max((8 * len(name) for name, _, _ in nodes), default=0))
    left = [20 + column * (width + NODE_GAP) for column in range(found.columns)]
    middle = {place: 60 + height * (NODE_HEIGHT + 20) for place, height in found.middle.items()}
    right, bottom = max(560, 20 + found.columns * (width + NODE_GAP)), 70 + found.height * (NODE_HEIGHT + 20)
    lines = [  # at three quarters of its size it can still be read: where there is less room it scrolls
        f'<svg role="img" aria-label="Graph of the recipe" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {bottom:.0f}" '
        f'style="min-width: {0.75 * right:.0f}px" font-family="Helvetica, Arial, sans-serif" font-size="13">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#64748b"/></marker></defs>',
        f'<rect width="{right}" height="{bottom:.0f}" fill="white"/>',
    ]
    for number, (text, (colour, _)) in enumerate(ENGINES.items()):
        lines.append(f'<rect x="{20 + number * 130}" y="14" width="16" height="16" rx="3" fill="{colour}" stroke="#94a3b8"/>')
        lines.append(f'<text x="{42 + number * 130}" y="27" fill="#334155">{text}</text>')
    for source, name in found.arrows:
        way = [(left[column], middle[source, column]) for column in range(found.depth[source], found.depth[name])]
        lines.append(_arrow([*way, (left[found.depth[name]], middle[name, found.depth[name]])], width))
    for name, kind, _ in nodes:
        x, y = left[found.depth[name]], middle[name, found.depth[name]] - NODE_HEIGHT / 2
        at = f'x="{x + width / 2:.0f}" text-anchor="middle"'
        lines.append(f'<rect x="{x}" y="{y:.0f}" width="{width}" height="{NODE_HEIGHT}" rx="7" fill="{colours[kind]}" stroke="#64748b"/>')
        lines.append(f'<text {at} y="{y + 18:.0f}" fill="#0f172a">{escape(name)}</text>')
        lines.append(f'<text {at} y="{y + 33:.0f}" fill="#64748b" font-size="11">{kind}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _arrow(way: Sequence[tuple[float, float]], width: float) -> str:
    """From a node's right side to the left side of the last, straight across the columns between."""
    path = f"M{way[0][0] + width:.0f} {way[0][1]:.0f}"
    for (x1, y1), (x2, y2) in pairwise(way):
        bend = (x1 + width + x2) / 2
        across = f" L{x1 + width:.0f} {y1:.0f}" if (x1, y1) != way[0] else ""
        path += f"{across} C{bend:.0f} {y1:.0f} {bend:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"
    return f'<path d="{path}" fill="none" stroke="#94a3b8" stroke-width="1.3" marker-end="url(#tip)"/>'
