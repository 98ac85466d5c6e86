"""The report as a page: well-formed, whole in itself, without scripts; and as Markdown."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from bench import trace_frames, trace_synth
from bench.report_html import as_html
from bench.report_parts import Plot, Points, Section, Table, Tile
from bench.report_svg import round_ticks
from bench.report_text import as_markdown, as_terminal
from gateway.cli import main

VOID = {"meta", "br", "hr"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """HTML and Markdown of a synthesized trace."""
    folder = tmp_path_factory.mktemp("report")
    trace, html, markdown = folder / "t.rft.gz", folder / "t.html", folder / "t.md"
    assert main(["trace", "synth", str(trace), "--requests", "4000", "--days", "3", "--new-model-day", "1.5"]) == 0
    assert len(trace_frames.load(trace, ["digest"])) == 4000
    assert main(["report", "--trace", str(trace), "--html", str(html), "--markdown", str(markdown)]) == 0
    return html.read_text("utf-8"), markdown.read_text("utf-8")


class Nesting(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_well_formed_and_whole_in_itself(page: tuple[str, str]) -> None:
    html, _ = page
    parser = Nesting()
    parser.feed(html)
    parser.close()
    assert not parser.open
    assert not {"script", "link", "iframe", "object", "embed", "img"} & set(parser.tags)
    names = {name for name, _ in parser.attributes}
    assert not {"src", "href", "action"} & names
    assert not [name for name in names if name.startswith("on")]
    assert "://" not in html
    assert "@import" not in html
    assert "url(" not in html


def test_plots_are_svg_that_says_what_it_shows(page: tuple[str, str]) -> None:
    plots = re.findall(r"<svg.*?</svg>", page[0], re.DOTALL)
    assert len(plots) >= 6
    for plot in plots:
        found = ElementTree.fromstring(plot)
        assert found.findtext("title")
        assert found.get("role") == "img"
        assert "nan" not in plot
        assert "inf" not in re.sub(r">[^<]*<", "><", plot)


def test_markdown_holds_the_same_sections_and_even_tables(page: tuple[str, str]) -> None:
    html, markdown = page
    assert re.findall(r"<h2>(.*?)</h2>", html) == re.findall(r"^## (.*)$", markdown, re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\|\n)+", markdown, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_what_a_name_holds_can_not_become_markup() -> None:
    evil = '<script>alert("x")</script>|'
    section = Section(
        evil, [evil, Points([evil]), Table((evil, evil), [[evil, evil]], evil), Plot("<svg></svg>", evil)]
    )
    html = as_html(evil, evil, [Tile(evil, evil)], [section])
    assert "<script" not in html
    assert "\\|" in as_markdown(evil, evil, [], [section])


def test_the_terminal_gets_it_where_no_file_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "t.parquet"
    shape = trace_synth.Shape(requests=300, days=1)
    trace_frames.write([trace_synth.synth(shape, seed=2)], trace)
    assert main(["report", "--trace", str(trace)]) == 0
    told = capsys.readouterr().out
    assert "What to do next" in told
    assert "(device)" in told


def test_in_80_columns_no_number_is_cut_short() -> None:
    numbers = Table(
        ("task", *("a rather long heading" for _ in range(6))), [["synthesize exact hit (device)", *(6 * ["12.3 %"])]]
    )
    text = io.StringIO()
    out = Console(width=80, file=text)
    for part in as_terminal("title", "about", [], [Section("one", [numbers])]):
        out.print(part)
    told = text.getvalue()
    assert told.count("12.3 %") == 6
    assert "…" not in told


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--tide", "2"], "--tide 2: allowed is 0 to 1"),
        (["--requests", "0"], "--requests 0: it must be above 0"),
        (["--policy", "none"], "--policy none: known are"),
        (["--phrases", "none.txt"], "--phrases none.txt"),
    ],
)
def test_what_can_not_be_synthesized_is_said(
    words: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", "synth", str(tmp_path / "t.rft.gz"), *words]) != 0
    assert why in capsys.readouterr().err


def test_phrases_are_asked_for_as_often_as_they_were_counted(tmp_path: Path) -> None:
    file = tmp_path / "phrases.csv"
    file.write_text("text,count\nyes,900\nno,100\n")
    phrases = trace_synth.read_phrases(file)
    assert phrases == [("yes", 900), ("no", 100)]
    shape = trace_synth.Shape(requests=2000, days=1, voices=1, same=1.0, noisy=0.0, bypass=0.0, new_model_day=0)
    rows = trace_synth.synth(shape, 1, phrases)
    assert len(set(rows["bytes_in"].tolist())) == 2
    lines = tmp_path / "phrases.txt"
    lines.write_text("yes\n\nno\n")
    assert trace_synth.read_phrases(lines) == [("yes", 0), ("no", 0)]


@pytest.mark.parametrize(
    ("low", "high", "ticks"), [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 0, [0]), (3, 17, [5, 10, 15])]
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert round_ticks(low, high)[: len(ticks)] == ticks
