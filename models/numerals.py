"""Numbers and what stands beside them, written out as US English says it: times, dates, money, units, ordinals.

`write_out` replaces every digit of a text by words; it changes nothing else. Each rule is one pass of one regular
expression without nested repeats, so that the work grows with the length of the text only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from num2words import num2words

Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]

MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june", "july", "august"),
    *("september", "october", "november", "december"),
)
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_CURRENCY: Final = {
    "$": ("dollar", "cent"),
    "€": ("euro", "cent"),
    "£": ("pound", "penny"),
    "¥": ("yen", ""),
    "₹": ("rupee", "paisa"),
    "usd": ("dollar", "cent"),
    "eur": ("euro", "cent"),
    "gbp": ("pound", "penny"),
}
_SCALES: Final = {"k": "thousand", "m": "million", "mn": "million", "bn": "billion", "b": "billion", "t": "trillion"}
UNITS: Final = {
    "km/h": "kilometer# per hour", "kmh": "kilometer# per hour", "kph": "kilometer# per hour",
    "m/s": "meter# per second",
    "mph": "mile# per hour", "km": "kilometer#", "cm": "centimeter#", "mm": "millimeter#", "m": "meter#", "mi": "mile#",
    "ft": "foot#", "yd": "yard#", "kg": "kilogram#", "mg": "milligram#", "g": "gram#", "lb": "pound#", "lbs": "pound#",
    "oz": "ounce#", "l": "liter#", "L": "liter#", "ml": "milliliter#", "mL": "milliliter#", "GB": "gigabyte#",
    "MB": "megabyte#", "kB": "kilobyte#", "KB": "kilobyte#", "TB": "terabyte#", "Gbps": "gigabit# per second",
    "Mbps": "megabit# per second", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz",
    "kWh": "kilowatt hour#", "kW": "kilowatt#", "W": "watt#", "V": "volt#", "mAh": "milliamp hour#", "h": "hour#",
    "hr": "hour#", "hrs": "hour#", "min": "minute#", "mins": "minute#", "s": "second#", "sec": "second#",
    "secs": "second#", "ms": "millisecond#", "dB": "decibel#", "kcal": "kilocalorie#", "px": "pixel#",
    "fps": "frame# per second",
}  # fmt: skip
"""What a unit after a number is called; # becomes the plural. Case counts: 5 m is meters, 5 M is not."""
_DENOMINATORS: Final = {2: "half", 4: "quarter"}
_NUMBER = r"(?<![\d,.])\d[\d,]{0,30}(?:\.\d{1,20})?"
"""Bounded, and from a number's first digit only, so that no text makes the search quadratic."""


@lru_cache(maxsize=4096)
def cardinal(n: int) -> str:
    """`one hundred five`: no hyphens, commas or ands. Beyond fifteen digits, digit by digit."""
    if abs(n) >= 10**15:
        return ("minus " if n < 0 else "") + digits(str(abs(n)))
    return _plain(num2words(n))


@lru_cache(maxsize=4096)
def ordinal(n: int) -> str:
    """`twenty first`; `number ...` beyond fifteen digits."""
    return _plain(num2words(n, to="ordinal")) if n < 10**15 else f"number {digits(str(n))}"


def _plain(words: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[-,]|\band\b", " ", words)).strip()


def digits(text: str) -> str:
    """`zero zero seven`."""
    return " ".join(cardinal(int(c)) for c in text if c in "0123456789")


def year(n: int) -> str:
    """`nineteen oh five`, `two thousand six`, `twenty twenty six`."""
    if 2000 <= n < 2010 or not 1000 <= n < 10_000 or n % 1000 == 0:
        return cardinal(n)
    high, low = divmod(n, 100)
    rest = "hundred" if low == 0 else f"oh {cardinal(low)}" if low < 10 else cardinal(low)
    return f"{cardinal(high)} {rest}"


def number(text: str) -> str:
    """Digits with thousands' commas and a decimal point: `one thousand two point five`; 007 digit by digit."""
    whole, _, part = text.replace(",", "").partition(".")
    if len(whole) > 15 or (len(whole) > 1 and whole[0] == "0" and not part):
        return digits(whole) + (f" point {digits(part)}" if part else "")
    said = cardinal(int(whole or "0"))
    return f"{said} point {digits(part)}" if part else said


def _is_one(text: str) -> bool:
    return text.replace(",", "").rstrip("0").rstrip(".") == "1" or text == "1"


def _plural(word: str, one: bool) -> str:
    irregular = {"foot#": "feet", "penny": "pence"}
    if word in irregular and not one:
        return irregular[word]
    if "#" in word:
        return word.replace("#", "" if one else "s")
    return word if one or word in ("yen", "paisa", "") else word + "s"


def _time(m: re.Match[str]) -> str:
    hour, minute, half = int(m["h"]), int(m["m"] or 0), (m["half"] or "").lower().replace(".", "")
    if hour > 24 or minute > 59:
        return f"{number(m['h'])} {number(m['m'] or '0')} {' '.join(half)}"
    said = [cardinal(hour)]
    if minute:
        said.append(f"oh {cardinal(minute)}" if minute < 10 else cardinal(minute))
    elif not half:
        said.append("o'clock" if 0 < hour <= 12 else "hundred hours")
    return " ".join([*said, *half])


def _date(month: int, day: int, then: str | None) -> str | None:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return f"{MONTHS[month - 1]} {ordinal(day)}" + (f" {year(int(then))}" if then else "")


def _month(name: str) -> int:
    return next(n for n, month in enumerate(MONTHS, 1) if month.startswith(name.lower()[:3]))


def _numeric_date(m: re.Match[str]) -> str:
    a, b, then = int(m["a"]), int(m["b"]), m["y"]
    then = f"20{then}" if len(then) == 2 else then
    return _date(a, b, then) or _date(b, a, then) or " ".join(map(number, (m["a"], m["b"], m["y"])))


def _money(m: re.Match[str]) -> str:
    name, small = _CURRENCY[(m["sign"] or m["code"] or m["after"]).lower()]
    amount, scale = m["n"] or m["n2"], (m["scale"] or m["scale2"] or "").lower()
    if scale:
        return f"{number(amount)} {_SCALES.get(scale, scale)} {_plural(name, False)}"
    whole, _, part = amount.replace(",", "").partition(".")
    if part and (len(part) != 2 or not small):
        return f"{number(amount)} {_plural(name, False)}"
    said = [f"{cardinal(int(whole))} {_plural(name, whole == '1')}"] if int(whole) or not int(part or "0") else []
    if int(part or "0"):
        said.append(f"{cardinal(int(part))} {_plural(small, int(part) == 1)}")
    return " and ".join(said)


def _fraction(m: re.Match[str]) -> str:
    top, bottom = int(m["top"]), int(m["bottom"])
    if (top, bottom) == (24, 7) or not 1 < bottom <= 100 or top >= bottom:
        return f"{cardinal(top)} {'' if bottom == 7 and top == 24 else 'over '}{cardinal(bottom)}"
    name = _DENOMINATORS.get(bottom) or ordinal(bottom)
    if top > 1:
        name = "halves" if bottom == 2 else name + "s"
    if m["whole"]:
        return f"{number(m['whole'])} and {'a' if top == 1 else cardinal(top)} {name}"
    return f"{'a' if (top, bottom) == (1, 2) else cardinal(top)} {name}"


def _decade(m: re.Match[str]) -> str:
    said = year(int(m["y"])) if len(m["y"]) == 4 else cardinal(int(m["y"]))
    return said[:-1] + "ies" if said.endswith("y") else said + "s"


def _temperature(m: re.Match[str]) -> str:
    scale = {"C": " celsius", "F": " fahrenheit"}.get(m["scale"] or "", "")
    return f"{number(m['n'])} degree{'' if m['n'] == '1' else 's'}{scale}"


def _unit(m: re.Match[str]) -> str:
    return f"{number(m['n'])} {_plural(UNITS[m['unit']], _is_one(m['n']))}"


def _phone(m: re.Match[str]) -> str:
    """Digit by digit with a short pause between the groups; left as it is where it is too short for a telephone."""
    groups = re.findall(r"\d+", m["n"])
    if len("".join(groups)) < 7:
        return m[0]
    return ("plus " if m["plus"] else "") + ", ".join(map(digits, groups))


def _bare(m: re.Match[str]) -> str:
    text = m[0]
    if len(text) == 4 and text.isdigit() and 1100 <= int(text) < 2100:
        return year(int(text))
    return number(text)


def _rule(pattern: str, write: Callable[[re.Match[str]], str], flags: int = re.IGNORECASE) -> Rule:
    return re.compile(pattern, flags), write


_UNIT_NAMES = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
_SCALE = r"(?:thousand|million|billion|trillion|bn|mn|[kmbt])\b"
RULES: Final[tuple[Rule, ...]] = (
    _rule(r"(?<![\d.:])(?P<h>\d{1,2}):(?P<m>\d\d)(?::\d\d)?(?: ?(?P<half>[ap]\.?m\b\.?))?(?![\d:])", _time),
    _rule(r"(?<![\d.:,])(?P<h>\d{1,2})(?P<m>) ?(?P<half>[ap]\.?m\b\.?)", _time),
    _rule(r"\b(?P<y>\d{4})-(?P<a>\d\d)-(?P<b>\d\d)\b", _numeric_date),
    _rule(r"\b(?P<a>\d{1,2})([/.])(?P<b>\d{1,2})\2(?P<y>\d{4}|\d\d)\b(?!\.\d)", _numeric_date),
    _rule(
        rf"\b(?P<mon>{_MONTH}) (?P<d>\d{{1,2}})(?:st|nd|rd|th)?\b(?:,? (?P<y>[12]\d{{3}})\b)?",
        lambda m: _date(_month(m["mon"]), int(m["d"]), m["y"]) or f"{m['mon']} {number(m['d'])} {m['y'] or ''}",
    ),
    _rule(
        rf"\b(?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? (?P<mon>{_MONTH})\b(?:,? (?P<y>[12]\d{{3}})\b)?",
        lambda m: _date(_month(m["mon"]), int(m["d"]), m["y"]) or f"{number(m['d'])} {m['mon']} {m['y'] or ''}",
    ),
    _rule(
        rf"(?:(?P<sign>[$€£¥₹]) ?|\b(?P<code>usd|eur|gbp) )(?P<n>{_NUMBER})(?: ?(?P<scale>{_SCALE}))?"
        rf"|(?P<n2>{_NUMBER})(?: ?(?P<scale2>{_SCALE}))? ?(?P<after>[$€£¥₹]|(?:usd|eur|gbp)\b)",
        _money,
    ),
    _rule(r"(?<=\W)[-−](?=\d)|^[-−](?=\d)", lambda _: "minus "),
    _rule(r"(?<![\d.-])(?P<plus>)(?P<n>\d{1,4}([-.])\d{2,4}(?:\3\d{2,4}){1,4})(?!\d|[.-]\d)", _phone),
    _rule(r"(?P<plus>\+?)(?P<n>\d{0,3} ?\(\d{3}\) ?\d{3}[- ]\d{4})(?!\d)", _phone),
    _rule(r"(?P<plus>\+)(?P<n>\d{1,4}(?: \d{2,4}){2,5})(?!\d)", _phone),
    _rule(r"(?<![\d-])(?P<n>\d{3}-\d{4})(?!\d|-\d)", lambda m: digits(m["n"])),
    _rule(r"\+(?P<n>\d{6,15})\b", lambda m: "plus " + digits(m["n"])),
    _rule(r"(?<![\d/.,])(?:(?P<whole>\d{1,3}) )?(?P<top>\d{1,3})[/⁄](?P<bottom>\d{1,3})(?![\d/])", _fraction),
    _rule(r"(?<!\d)'?(?P<y>\d{2}|\d{3}0)s\b", _decade),
    _rule(r"\b(?P<n>\d{1,3}(?:,?\d{3}){0,5})(?:st|nd|rd|th)\b", lambda m: ordinal(int(m["n"].replace(",", "")))),
    _rule(rf"(?P<n>{_NUMBER}) ?°(?: ?(?P<scale>[CF])\b)?", _temperature, 0),
    _rule(rf"(?P<n>{_NUMBER}) ?%", lambda m: number(m["n"]) + " percent"),
    _rule(rf"(?P<n>{_NUMBER}) ?(?P<unit>{_UNIT_NAMES})(?![\w'/])", _unit, 0),
    _rule(r"(?<=\d) ?[-–] ?(?=\d)", lambda _: " to "),
    _rule(r"(?<=\d) ?[x×] ?(?=\d)", lambda _: " by "),
    _rule(r"(?<=\d)x\b", lambda _: " times"),
    _rule(r"(?<=\d):(?=\d)", lambda _: " to "),
    _rule(r"(?<![\d.])\d{1,20}(?:\.\d{1,20}){2,20}", lambda m: " point ".join(map(number, m[0].split(".")))),
    _rule(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|\d+|\.\d+", lambda m: f" {_bare(m)} "),
)


def write_out(text: str) -> str:
    """The text with every number in words; other characters stay, and clauses keep their punctuation."""
    for pattern, write in RULES:
        if not any(c in "0123456789" for c in text):
            break
        text = pattern.sub(lambda m, write=write: f" {write(m)} ", text)  # type: ignore[misc]
    return text
