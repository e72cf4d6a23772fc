"""What became of the documents of each source, as a picture."""

from pathlib import Path

import matplotlib
import pyarrow as pa
from matplotlib.figure import Figure

KEPT = "kept"


def draw(tally: pa.Table, file: Path) -> None:
    """One bar a source, its documents by reason, the kept ones first.

    Args:
        tally: Columns `source`, `reason` and `documents`; "" is the reason of those that stay.
        file: Where the SVG goes.
    """
    counts: dict[str, dict[str, int]] = {}
    for row in tally.to_pylist():
        own = counts.setdefault(row["source"], {})
        reason = row["reason"] or KEPT
        own[reason] = own.get(reason, 0) + row["documents"]
    reasons = sorted({reason for own in counts.values() for reason in own}, key=lambda reason: (reason != KEPT, reason))
    colours = matplotlib.colormaps["tab20"]
    figure = Figure(figsize=(9, 1.2 + 0.45 * len(counts) + 0.22 * len(reasons)), layout="constrained")
    axes = figure.subplots()
    names = list(reversed(counts))
    left = [0.0] * len(names)
    for index, reason in enumerate(reasons):
        shares = [100 * counts[name].get(reason, 0) / sum(counts[name].values()) for name in names]
        axes.barh(names, shares, left=left, label=reason, color=colours(index % 20))
        left = [before + share for before, share in zip(left, shares, strict=True)]
    axes.set_xlabel("% of the documents read")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.25), ncols=3, fontsize="small", frameon=False)
    with matplotlib.rc_context({"svg.hashsalt": "raysberta", "svg.fonttype": "none"}):
        figure.savefig(file, metadata={"Date": None})
