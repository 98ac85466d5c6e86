"""An explanation as a picture, in plain SVG: what recall saw along the time of the recording asked about.

On top how loud the recording is; under it the best candidates, a lane each, laid over it where they fit best: how loud
the earlier one was, what the bits say for and against the same sound, and what the judge holds against it. The moment
that speaks most against it is marked.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from html import escape
from typing import Final

import numpy as np

from gateway.client.explained import Candidate, Explanation, Line
from gateway.client.values import Array

LANES: Final = 3
WIDTH: Final = 960
LEFT: Final = 132
RIGHT: Final = 28
WRAPPED: Final = 96
"""Characters in a line of the title."""

LOUD, SPEECH, FOR, AGAINST, DOUBTS, REFUSES, INK, PALE = (
    "#b4bcc6", "#1d4ed8", "#0f8a6c", "#e08a1e", "#e9b4b6", "#c0262d", "#1f2933", "#66717e",
)  # fmt: skip
MOST_EVIDENCE: Final = 9.7
"""Nats that the 14 trusted bits of a frame can give: 14 ln 2."""
SHOWN_AGAINST: Final = 6.0
"""Log-odds above and below the limit that are shown."""
_STEPS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def picture(told: Explanation, name: str) -> str:
    """The SVG document. `name`: of the recording asked about."""
    time = _Time(told)
    parts: list[str] = []
    y = 34.0
    for line in textwrap.wrap(_capital(told.describe()), WRAPPED):
        parts.append(_text(24, y, line, size=17, bold=True))
        y += 23
    parts.append(_text(24, y, summary(told), colour=PALE))
    y += 30
    top = y
    pieces, height = _asked(told, name, time, y)
    parts += pieces
    y += height
    for number, candidate in enumerate(told.candidates[:LANES], 1):
        pieces, height = _lane(candidate, number, told.frame_s, time, y)
        parts += pieces
        y += height
    if len(told.candidates) > LANES:
        more = len(told.candidates) - LANES
        parts.append(_text(24, y + 14, f"{more} more, farther away", colour=PALE))
        y += 26
    grid = list(_axis(time, top, y))
    parts += _legend(y + 44)
    height = y + 64
    size = f'width="{WIDTH}" height="{height:.0f}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {WIDTH} {height:.0f}"'
        f' font-family="Helvetica, Arial, sans-serif">\n<title>{_plain(told.describe())}</title>\n'
        f'<rect {size} fill="#ffffff"/>\n'
    )
    return head + "\n".join([*grid, *parts]) + "\n</svg>\n"


def summary(told: Explanation) -> str:
    """What was looked at, in a line."""
    known = f"{told.recordings:,} recording{'' if told.recordings == 1 else 's'} in memory"
    served = "fuzzy answers are served" if told.serving == "SERVED" else told.why_not_served()
    return f"{told.length_s:.2f} s; {known}; {served}"


class _Time:
    """Seconds of the recording asked about, to where they lie in the picture."""

    def __init__(self, told: Explanation) -> None:
        ends = [0.0, told.length_s, told.frame_s * len(told.level)]
        for candidate in told.candidates[:LANES]:
            if len(candidate.timeline.level):
                places = _places(candidate, told.frame_s)
                ends += [float(places[0]), float(places[-1]) + told.frame_s]
        self.first, self.last = min(ends), max(max(ends), min(ends) + 0.1)
        self._scale = (WIDTH - LEFT - RIGHT) / (self.last - self.first)

    def x(self, seconds: float) -> float:
        return LEFT + (seconds - self.first) * self._scale

    def wide(self, seconds: float) -> float:
        return seconds * self._scale


def _places(candidate: Candidate, frame_s: float) -> Line:
    """Where each frame of a candidate begins, in seconds of the recording asked about."""
    times = candidate.timeline.start_s + frame_s * np.arange(len(candidate.timeline.level))
    return np.asarray(candidate.offset_s + candidate.pace * times, np.float32)


def _asked(told: Explanation, name: str, time: _Time, y: float) -> tuple[list[str], float]:
    """The recording asked about, and the height of that."""
    base = y + 52
    parts = [_text(24, y, textwrap.shorten(name, 100, placeholder=" …"), size=14, bold=True)]
    places = told.frame_s * np.arange(len(told.level))
    if len(places):
        parts.append(_bars(places, told.frame_s, 14 * told.level, base, time, LOUD))
        parts.append(_curve(time, places + told.frame_s / 2, base - 14 * told.speech, SPEECH))
    return [*parts, _labels(base - 20, "how loud"), _rule(base)], 82


def _lane(candidate: Candidate, number: int, frame_s: float, time: _Time, y: float) -> tuple[list[str], float]:
    """One candidate, and the height of that."""
    words = f"“{candidate.transcript}”" if candidate.remembered else "words no longer stored"
    colour = FOR if candidate.accepted and not candidate.quarantined else REFUSES
    parts = [
        f'<g class="lane" data-entry="{_plain(candidate.entry_id)}">',
        _text(24, y, f"{number}", size=14, bold=True, colour=PALE),
        _text(42, y, textwrap.shorten(words, 50, placeholder=" …"), size=14, bold=True),
        _text(WIDTH - RIGHT, y, _capital(candidate.describe()), size=13, anchor="end", colour=colour),
        _text(42, y + 17, figures(candidate), colour=PALE),
    ]
    if not len(candidate.timeline.level):
        return [*parts, "</g>"], 46
    parts += _strips(candidate, frame_s, time, y + 58, y + 100, y + 160)
    if not candidate.accepted:
        place = float(np.clip(candidate.worst_here_s + candidate.pace * frame_s / 2, time.first, time.last))
        parts += [
            f'<path d="M{time.x(place):.1f} {y + 28:.1f}V{y + 163:.1f}" stroke="{INK}" stroke-dasharray="4 3"/>',
            _text(time.x(place), y + 174, f"{candidate.worst_here_s:.2f} s", size=11, anchor="middle"),
        ]
    return [*parts, "</g>"], 200


def _strips(candidate: Candidate, frame_s: float, time: _Time, loud: float, zero: float, under: float) -> list[str]:
    """How loud both are, on `loud`; what the bits say, around `zero`; what the judge does, on `under`."""
    line, step = candidate.timeline, candidate.pace * frame_s
    places = _places(candidate, frame_s)
    middles = places + step / 2
    evidence = 30 * np.clip(line.evidence / MOST_EVIDENCE, -1, 1)
    against = 13 * (np.clip(line.against / SHOWN_AGAINST, -1, 1) + 1)
    limit = under - 13
    return [
        _bars(places, step, 9 * np.maximum(line.level, 0), loud, time, LOUD),
        _curve(time, middles, loud - 9 * np.maximum(line.speech, 0), SPEECH),
        _rule(loud),
        _labels(loud - 10, "then, and now"),
        _bars(places, step, np.maximum(evidence, 0), zero, time, FOR),
        _bars(places, step, np.minimum(evidence, 0), zero, time, AGAINST),
        _curve(time, middles, zero - 30 * line.known / MOST_EVIDENCE, PALE, thin=True),
        _rule(zero),
        _labels(zero - 12, "for the same"),
        _labels(zero + 22, "against"),
        _bars(places, step, np.where(line.against < 0, against, 0), under, time, DOUBTS),
        _bars(places, step, np.where(line.against < 0, 0, against), under, time, REFUSES),
        f'<path d="M{LEFT} {limit:.1f}H{WIDTH - RIGHT}" stroke="{REFUSES}" stroke-dasharray="2 3"/>',
        _labels(limit + 4, "judge"),
    ]


def figures(candidate: Candidate) -> str:
    """The numbers of a candidate, in a line."""
    parts = [f"{candidate.distance:.1%} of the bits differ"]
    if candidate.score is not None:
        pace = f", {candidate.pace:.3f} times as long" if abs(candidate.pace - 1) > 1e-6 else ""
        parts = [f"score {candidate.score:+.1f}", f"similarity {candidate.similarity:.2f}", *parts]
        parts.append(f"offset {candidate.offset_s:+.3f} s{pace}")
    return "; ".join(parts)


def _axis(time: _Time, top: float, bottom: float) -> Iterator[str]:
    span = time.last - time.first
    step = next((step for step in _STEPS if span / step <= 12), _STEPS[-1])
    for number in range(int(np.ceil(time.first / step - 1e-6)), int(np.floor(time.last / step + 1e-6)) + 1):
        x = time.x(number * step)
        yield f'<path d="M{x:.1f} {top + 8:.1f}V{bottom:.1f}" stroke="#eceff3"/>'
        yield _text(x, bottom + 16, f"{number * step:g} s", anchor="middle", colour=PALE)


def _legend(y: float) -> list[str]:
    parts, x = [], 24.0
    for colour, said in (
        (LOUD, "how loud"),
        (SPEECH, "speech behind the noise"),
        (FOR, "the same sound"),
        (AGAINST, "another sound"),
        (PALE, "what could be known"),
        (REFUSES, "the judge: above the dots a moment refuses alone"),
    ):
        thick = 2 if colour in (SPEECH, PALE) else 11
        parts.append(f'<rect x="{x:.1f}" y="{y - 3 - thick / 2:.1f}" width="11" height="{thick}" fill="{colour}"/>')
        parts.append(_text(x + 16, y + 1, said))
        x += 34 + 6.1 * len(said)
    return parts


def _bars(places: Array, wide: float, heights: Array, base: float, time: _Time, colour: str) -> str:
    """Upward bars on `base`, downward where negative, one each frame, drawn as one outline where they touch."""
    path, before = "", 0.0
    ends = np.append(places, places[-1:] + wide)
    for place, height in zip(ends, np.append(heights, 0.0), strict=True):
        if abs(height) >= 0.05:
            start = f"H{time.x(float(place)):.1f}" if before else f"M{time.x(float(place)):.1f} {base:.1f}"
            path += f"{start}V{base - height:.1f}"
        elif before:
            path += f"H{time.x(float(place)):.1f}V{base:.1f}z"
        before = height if abs(height) >= 0.05 else 0.0
    return f'<path d="{path}" fill="{colour}"/>' if path else ""


def _curve(time: _Time, places: Array, ys: Array, colour: str, *, thin: bool = False) -> str:
    points = " ".join(f"{time.x(float(place)):.1f},{y:.1f}" for place, y in zip(places, ys, strict=True))
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{0.7 if thin else 1.4}"/>'


def _rule(y: float) -> str:
    return f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#cfd6dd"/>'


def _labels(y: float, said: str) -> str:
    return _text(LEFT - 10, y, said, anchor="end", colour=PALE, size=11)


def _text(
    x: float, y: float, said: str, *, size: int = 12, bold: bool = False, anchor: str = "start", colour: str = INK
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}"{weight}{where}>{_plain(said)}</text>'


def _plain(said: str) -> str:
    """Escaped, and without what no XML may hold."""
    return escape(re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", said))


def _capital(said: str) -> str:
    return said[:1].upper() + said[1:]
