"""A report as Markdown, and for the terminal. Plots are left out: the tables beside them hold their figures."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table as RichTable

from bench.report_parts import Plot, Points, Section, Table, Tile


def as_markdown(title: str, about: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> str:
    told = [f"# {title}", about, _markdown_table(Table(("", ""), [[one.name, one.value] for one in tiles]))]
    for section in sections:
        told.append(f"## {section.title}")
        for part in section.parts:
            if isinstance(part, str):
                told.append(part)
            elif isinstance(part, Points):
                told.append("\n".join(f"- {line}" for line in part.lines))
            elif isinstance(part, Table):
                told += [f"**{part.title}**"] if part.title else []
                told.append(_markdown_table(part))
    return "\n\n".join(told) + "\n"


def _markdown_table(table: Table) -> str:
    lines = [list(table.columns), ["---" if at < table.text_columns else "---:" for at in range(len(table.columns))]]
    lines += [[cell.replace("|", "\\|") for cell in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_terminal(title: str, about: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> Iterator[RenderableType]:
    yield f"\n[b]{escape(title)}[/b]\n{escape(about)}\n"
    figures = RichTable.grid(padding=(0, 2))
    figures.add_column(justify="right", style="bold")
    for one in tiles:
        figures.add_row(escape(one.value), escape(one.name))
    yield figures
    for section in sections:
        yield f"\n[b]{escape(section.title)}[/b]"
        for part in section.parts:
            if isinstance(part, str):
                yield escape(part)
            elif isinstance(part, Points):
                yield from (Padding(escape(f"- {line}"), (0, 0, 0, 1)) for line in part.lines)
            elif not isinstance(part, Plot):
                yield _terminal_table(part)


def _terminal_table(table: Table) -> RichTable:
    """On a narrow terminal text wraps, and numbers stay on their line."""
    shown = RichTable(
        title=escape(table.title), title_justify="left", title_style="", box=None, show_header=any(table.columns),
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    for at, column in enumerate(table.columns):
        if at < table.text_columns:
            shown.add_column(escape(column))
        else:
            shown.add_column(escape(_stacked(column, [row[at] for row in table.rows])), justify="right", no_wrap=True)
    for row in table.rows:
        shown.add_row(*map(escape, row))
    return shown


def _stacked(heading: str, cells: Sequence[str]) -> str:
    """The heading in lines not longer than it takes: rich would rather cut short what does not fit."""
    return "\n".join(textwrap.wrap(heading, max(1, len(heading) // 2, *map(len, (*cells, *heading.split())))))
