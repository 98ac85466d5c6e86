"""A report as one HTML file: no script, no outside address, plots as SVG, light or dark as the reader's system is."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from bench.report_parts import Part, Plot, Points, Section, Table, Tile

FEW: Final = 6
"""Columns: a table that has no more need not be as wide as the page."""
STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfb; --ink: #22272b; --soft: #667078; --rule: #dfe3e4; --wash: #f4f5f2;
  --c1: #1b7f5c; --c2: #7a5ab5; --c3: #3f7fc4; --c4: #d0702f; --c5: #8d959b; }
@media (prefers-color-scheme: dark) { :root { --paper: #15191c; --ink: #dde2e4; --soft: #98a2a9; --rule: #333b40;
  --wash: #1d2327; --c1: #45b98c; --c2: #ab8fe0; --c3: #6fa8e6; --c4: #e8935a; --c5: #8b959c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 880px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 26px; font-weight: 600; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; font-weight: 600; margin: 48px 0 10px; padding-top: 14px; border-top: 1px solid var(--rule); }
h3 { font-size: 14px; font-weight: 600; margin: 22px 0 6px; }
p { margin: 8px 0; max-width: 46em; }
.about { color: var(--soft); margin: 0 0 26px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(185px, 1fr)); gap: 10px; }
.tile { background: var(--wash); border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; font-size: 23px; font-weight: 600; font-variant-numeric: tabular-nums;
  letter-spacing: -0.01em; }
.tile span { color: var(--soft); font-size: 13px; line-height: 1.35; display: block; }
ul { padding-left: 1.2em; } li { margin: 6px 0; max-width: 46em; }
.wide { overflow-x: auto; margin: 6px 0 14px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 0 4px 16px; white-space: nowrap; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
th { color: var(--soft); font-weight: 500; font-size: 12.5px; }
table.few { width: auto; min-width: 62%; }
td.t, th.t { text-align: left; }
td.t:not(:first-child) { white-space: normal; min-width: 16em; overflow-wrap: anywhere; }
th:first-child, td:first-child { padding-left: 0; }
tbody tr:last-child td { border-bottom: 0; }
figure { margin: 14px 0 20px; }
figcaption { font-size: 14px; font-weight: 600; margin-bottom: 4px; }
svg { width: 100%; height: auto; display: block; font-size: 11.5px; }
svg text { fill: var(--soft); } svg .label { fill: var(--ink); } svg .small { font-size: 11.5px; }
.grid { stroke: var(--rule); stroke-width: 0.7; } .axis { stroke: var(--soft); } .mark { stroke: var(--ink);
  stroke-dasharray: 2 3; }
.line { fill: none; stroke-width: 1.9; stroke-linejoin: round; } .key { stroke-width: 4; }
  .dashed { stroke-dasharray: 6 4; }
.line.c1 { stroke: var(--c1); } .line.c2 { stroke: var(--c2); } .line.c3 { stroke: var(--c3); }
  .line.c4 { stroke: var(--c4); }
.line.c5 { stroke: var(--c5); } .bar.c1, .dot.c1 { fill: var(--c1); } .bar.c2, .dot.c2 { fill: var(--c2); }
.bar.c3, .dot.c3 { fill: var(--c3); } .bar.c4, .dot.c4 { fill: var(--c4); } .bar.c5, .dot.c5 { fill: var(--c5); }
.pale { opacity: 0.28; }
@media print { :root { color-scheme: light; } h2 { break-after: avoid; } figure, table { break-inside: avoid; }
  main { padding: 0; } }
"""


def as_html(title: str, about: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> str:
    """A whole page. All text is escaped; SVG is taken as it is, from `report_svg` alone."""
    told = "".join(
        f'<div class="tile"><b>{escape(one.value)}</b><span>{escape(one.name)}</span></div>' for one in tiles
    )
    body = "".join(
        f"<section><h2>{escape(section.title)}</h2>{''.join(map(_part, section.parts))}</section>"
        for section in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f'<body><main><h1>{escape(title)}</h1><p class="about">{escape(about)}</p><div class="tiles">{told}</div>\n'
        f"{body}</main></body></html>\n"
    )


def _part(part: Part) -> str:
    if isinstance(part, str):
        return f"<p>{escape(part)}</p>\n"
    if isinstance(part, Points):
        return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in part.lines) + "</ul>\n"
    if isinstance(part, Plot):
        return f"<figure><figcaption>{escape(part.title)}</figcaption>{part.svg}</figure>\n"
    return _table(part)


def _table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        kinds = (' class="t"' if at < table.text_columns else "" for at in range(len(cells)))
        inner = (f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    title = f"<h3>{escape(table.title)}</h3>" if table.title else ""
    head = f"<thead>{row(table.columns, 'th')}</thead>" if any(table.columns) else ""
    body = "".join(row(cells, "td") for cells in table.rows)
    few = ' class="few"' if len(table.columns) <= FEW else ""
    return f'{title}<div class="wide"><table{few}>{head}<tbody>{body}</tbody></table></div>\n'
