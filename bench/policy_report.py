"""The policies' ratios as a Markdown table, and as a picture: a panel for each source, a line for each policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure as Picture

SHOWN: Final = {
    "worth": ("#c23b22", "-"),
    "tinylfu": ("#3b6fb6", "--"),
    "theine": ("#3b6fb6", "-"),
    "s3-fifo": ("#4a8f4a", "-"),
    "sieve": ("#4a8f4a", "--"),
    "lfu": ("#8a6fb0", "-"),
    "lru": ("#999999", "-"),
    "belady": ("#222222", ":"),
    "pfoo-l": ("#222222", ":"),
}


def ratio_of(rows: list[dict[str, Any]]) -> str:
    """What to look at in one source: compute saved where costs differ, else requests."""
    return "compute" if any(row["compute"][0] != row["requests"][0] for row in rows) else "requests"


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each policy, a column for each share; with half of the 95 % interval where there is one."""
    lines: list[str] = []
    for source in dict.fromkeys(row["source"] for row in rows):
        mine = [row for row in rows if row["source"] == source]
        shares = sorted({row["share"] for row in mine})
        for ratio in dict.fromkeys(("requests", ratio_of(mine))):
            lines += [f"**{source}**: {'compute saved' if ratio == 'compute' else 'hits'}", ""]
            lines.append("| policy | " + " | ".join(f"{share:.1%}" for share in shares) + " |")
            lines.append("|---" * (len(shares) + 1) + "|")
            for policy in SHOWN:
                cells = {row["share"]: row[ratio] for row in mine if row["policy"] == policy}
                if cells:
                    lines.append(f"| {policy} | " + " | ".join(_cell(*cells[share]) for share in shares) + " |")
            lines.append("")
    return "\n".join(lines)


def _cell(mean: float, half: float) -> str:
    return f"{mean:.4f}" + (f" ± {half:.4f}" if half >= 0.00005 else "")


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    sources = list(dict.fromkeys(row["source"] for row in rows))
    across = min(3, len(sources))
    down = -(-len(sources) // across)
    picture = Picture(figsize=(4.2 * across, 3.4 * down), layout="constrained")
    panels = picture.subplots(down, across, squeeze=False).ravel()
    for panel, source in zip(panels, sources, strict=False):
        mine = [row for row in rows if row["source"] == source]
        ratio = ratio_of(mine)
        for policy, (colour, dashes) in SHOWN.items():
            points = sorted((row["share"], row[ratio][0]) for row in mine if row["policy"] == policy)
            if points:
                width = 2.0 if policy == "worth" else 1.1
                panel.plot(*zip(*points, strict=True), dashes, color=colour, lw=width, marker=".", label=policy)
        panel.set_xscale("log")
        shares = sorted({row["share"] for row in mine})
        panel.set_xticks(shares, [f"{100 * share:g}" for share in shares])
        panel.set_xticks([], minor=True)
        panel.set_title(source, fontsize=10)
        panel.set_xlabel("capacity, % of all keys or bytes", fontsize=8)
        panel.set_ylabel("compute saved" if ratio == "compute" else "hits", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.2)
    for panel in panels[len(sources) :]:
        panel.set_axis_off()
    handles = {label: line for panel in panels for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    picture.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=9, fontsize=8, frameon=False)
    picture.savefig(path, dpi=110)
