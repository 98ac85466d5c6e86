"""The status page in a real browser: Debian's Chromium, driven by Playwright. Skipped where there is none."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.refrain.v1 import speech_pb2_grpc
from tests.gateway.conftest import threaded
from tests.gateway.rig import Rig, Status, say
from tests.gateway.test_status import FUZZY, TOKENS, anna_like

playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested with Playwright, of the dev extra")
expect: Any = playwright.expect

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""
CONTRAST = """
() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colour) => {
    paint.fillStyle = colour;
    paint.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const seen = [...document.querySelectorAll("h1, h2, h3, p, th, td, code, span.n, a, button, li, label")];
  const contrast = (node) => {
    const ink = light(getComputedStyle(node).color);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  };
  const plain = seen.filter((node) => node.checkVisibility() && node.textContent.trim() && node.id !== "said");
  return [paper, Math.min(...plain.map(contrast))];
}
"""
"""How light the paper is (WCAG relative luminance), and the least contrast of a text on it."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium; on Debian: apt-get install chromium")
    # As root there is no sandbox to be had.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=options)
        yield browser
        browser.close()


Opened = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, served: Rig) -> Iterator[Opened]:
    """Opens the page in a context of the given options, and in the end says whether it kept to its own. That a browser
    logs a refused request is no trouble: the page tells it."""
    at = f"http://localhost:{served.running.http_port}/"
    pages, trouble = [], []

    def open_page(**options: Any) -> Any:
        context = browser.new_context(**options)
        context.add_init_script(VIOLATIONS)
        page = context.new_page()
        page.on("console", lambda line: trouble.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: trouble.append(request.url) if not request.url.startswith(at) else None)
        page.goto(at)
        expect(page.locator("#about")).to_contain_text("serving for")
        pages.append(page)
        return page

    yield open_page
    broken = [violation for page in pages for violation in page.evaluate("violations")]
    for page in pages:
        page.context.close()
    trouble = [line for line in trouble if "status of 400" not in line]
    assert (trouble, broken) == ([], [])


@pytest.fixture
def speech(channel: grpc.Channel) -> Any:
    return speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]


def entry_of(speech: Any, text: str, times: int = 3) -> str:
    """The name of an answer that has been given so often."""
    for _ in range(times):
        answer = speech.Synthesize(say(text))
    return str(answer.cache_info.entry_id)


def row_of(page: Any, entry_id: str) -> Any:
    return page.locator(f'#entries li[data-id="{entry_id}"]')


def tab_to(page: Any, label: str) -> None:
    """Goes on by Tab alone to what is so called."""
    for _ in range(200):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent")
        if name.strip() == label:
            return
    pytest.fail(f"no way by keyboard to {label!r}")


def short(entry_id: str) -> str:
    return f"{entry_id[:9]}…{entry_id[-4:]}"


def test_it_shows_what_comes_in(opened: Opened, speech: Any) -> None:
    page = opened()

    def counted() -> int:
        found = re.match(r"([\d,]+) requests", page.locator("#sum").text_content())
        return int(found[1].replace(",", "")) if found else 0

    before = counted()
    entry_id = entry_of(speech, "Shown as it comes.", 5)
    expect(page.locator("#sum")).to_contain_text(f"{before + 5:,} requests = ")
    expect(page.locator("#rate")).not_to_have_text("0")
    expect(page.locator("#hit-rate")).to_contain_text("%")
    expect(page.locator("#p99")).to_contain_text("s")
    assert page.locator("#spark-rate .line").get_attribute("d").startswith("M")
    row = row_of(page, entry_id)
    expect(row).to_contain_text(short(entry_id))
    expect(row).to_contain_text("synthesize, anna")
    expect(row.locator(".n").first).to_have_text("4")
    names = page.locator("#sources th").all_text_contents()
    assert "synthesize" in names
    for place in ("tiers", "audits", "engines"):
        assert page.locator(f"#{place} tr").count() >= 2
    expect(page.locator("#redis")).to_contain_text("answers")
    expect(page.locator("#trouble")).to_be_hidden()


def test_an_entry_is_dropped_by_keyboard_alone_and_not_by_mistake(opened: Opened, speech: Any) -> None:
    page = opened()
    entry_id = entry_of(speech, "Dropped by keyboard.")
    expect(row_of(page, entry_id)).to_be_visible()
    tab_to(page, f"Drop {short(entry_id)}")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", "focus can be seen"
    page.keyboard.press("Enter")
    expect(page.locator("#sure")).to_be_visible()
    expect(page.get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#sure")).to_be_hidden()
    expect(page.get_by_role("button", name=f"Drop {short(entry_id)}")).to_be_focused()
    assert speech.Synthesize(say("Dropped by keyboard.")).cache_info.status == Status.HIT_EXACT
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#sure-ok")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text(f"Dropped {short(entry_id)}.")
    expect(row_of(page, entry_id)).to_have_count(0)
    assert speech.Synthesize(say("Dropped by keyboard.")).cache_info.status == Status.MISS


def test_an_entry_is_pinned_by_keyboard_alone(opened: Opened, speech: Any) -> None:
    page = opened()
    entry_id = entry_of(speech, "Pinned by keyboard.")
    for action, tells in (("Pin", "Pinned {}: it stays in memory."), ("Unpin", "Unpinned {}.")):
        expect(page.get_by_role("button", name=f"{action} {short(entry_id)}", exact=True)).to_be_visible()
        tab_to(page, f"{action} {short(entry_id)}")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_have_text(tells.format(short(entry_id)))


def test_an_entry_is_heard(opened: Opened, speech: Any) -> None:
    page = opened()
    entry_id = entry_of(speech, "Heard.")
    expect(row_of(page, entry_id)).to_be_visible()
    tab_to(page, f"Hear {short(entry_id)}")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text(f"Playing {short(entry_id)}, 1.00 s")


def test_an_answer_is_acted_on_by_its_entry_id(opened: Opened, speech: Any) -> None:
    page = opened()
    entry_id = entry_of(speech, "By its name.", 1)
    page.get_by_label("An answer by the entry_id").fill(entry_id)
    page.locator("#by-name").get_by_role("button", name="Report wrong").click()
    expect(page.get_by_role("status")).to_contain_text("drop it with Invalidate")
    page.locator("#by-name").get_by_role("button", name="Drop").click()
    page.get_by_role("button", name="Drop", exact=True).last.click()
    expect(page.get_by_role("status")).to_have_text(f"Dropped {short(entry_id)}.")


def test_a_fuzzy_answer_is_reported(opened: Opened, speech: Any) -> None:
    page = opened()
    values = list(speech.EmbedVoice(anna_like()).embedding.values)
    for _ in range(2):
        near = speech.Synthesize(say(voice={"embedding": {"values": values}}, cache_control=FUZZY))
    entry_id = near.cache_info.entry_id
    expect(page.locator(f'#fuzzy li[data-id="{entry_id}"]')).to_contain_text("synthesize, from device")
    tab_to(page, f"Report wrong {short(entry_id)}")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Reported: this pair is never matched again.")
    expect(page.locator(f'#pairs li[data-id="{entry_id}"]')).to_contain_text("wrong: voice and mood")
    with pytest.raises(grpc.RpcError, match="reported"):
        speech.Synthesize(say(voice={"embedding": {"values": values}}, cache_control=FUZZY))


def test_signing_in_shows_what_is_ones_own(browser: Any, tmp_path: Path) -> None:
    with threaded(tmp_path, **TOKENS) as rig, grpc.insecure_channel(f"127.0.0.1:{rig.running.port}") as channel:
        stub: Any = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(2):
            stub.Synthesize(say("Of acme."), metadata=(("authorization", "Bearer acme-token"),))
        page = browser.new_page()
        page.goto(f"http://localhost:{rig.running.http_port}/")
        expect(page.locator("#sum")).to_contain_text("2 requests")
        expect(page.locator("#entries-note")).to_contain_text("those who may administer a tenant")
        expect(page.locator("#entries li")).to_have_count(0)
        for token, tells in (("wrong-token", "This token is not known."), ("acme-token", "")):
            tab_to(page, "Sign in")
            page.keyboard.press("Enter")
            expect(page.locator("#token")).to_be_focused()
            page.keyboard.type(token)
            page.keyboard.press("Enter")
            expect(page.locator("#said")).to_have_text(tells)
        expect(page.locator("#tenant")).to_have_text("tenant acme")
        expect(page.locator("#entries li")).to_have_count(1)
        page.reload()
        expect(page.locator("#entries li")).to_have_count(1)
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("#entries li")).to_have_count(0)
        expect(page.locator("#tenant")).to_be_empty()
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_by_day_and_by_night(opened: Opened, speech: Any, scheme: str) -> None:
    entry_of(speech, "To be read.")
    page = opened(color_scheme=scheme)
    expect(page.locator("#sources tr").first).to_be_visible()
    paper, contrast = page.evaluate(CONTRAST)
    assert paper > 0.8 if scheme == "light" else paper < 0.05
    assert contrast >= 4.5, "WCAG 2.2, 1.4.3"


def test_it_fits_a_phone(opened: Opened, speech: Any) -> None:
    entry_of(speech, "On a phone.")
    page = opened(**PHONE)
    expect(page.locator("#entries li").first).to_be_visible()
    wide = """[...document.querySelectorAll("body *")].filter((node) => node.checkVisibility()
              && node.getBoundingClientRect().right > 391 && !node.closest(".spark")).map((node) => node.outerHTML)"""
    assert page.evaluate(wide) == []
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    assert page.locator("#entries button").first.bounding_box()["height"] >= 36


def test_nothing_moves_for_who_wants_it_still(opened: Opened, speech: Any) -> None:
    entry_of(speech, "Still.")
    for wish, moves in (("reduce", False), ("no-preference", True)):
        page = opened(reduced_motion=wish)
        piece = page.locator("#stack span").first
        assert (piece.evaluate("(node) => getComputedStyle(node).transitionDuration") != "0s") is moves


@contextmanager
def offline(page: Any) -> Iterator[None]:
    page.context.set_offline(True)
    yield
    page.context.set_offline(False)


def test_it_says_when_the_gateway_is_out_of_reach(browser: Any, served: Rig) -> None:
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{served.running.http_port}/")
    expect(page.locator("#about")).to_contain_text("serving for")
    with offline(page):
        expect(page.locator("#trouble")).to_contain_text("No answer from the gateway")
    expect(page.locator("#trouble")).to_be_hidden()
    page.close()


def test_every_part_has_a_name_and_a_place(opened: Opened) -> None:
    page = opened()
    for role in ("banner", "main", "contentinfo", "navigation"):
        assert page.get_by_role(role).count() == 1, role
    unnamed = """[...document.querySelectorAll("main section, svg[role=img], dialog")].filter((node) =>
                 !node.ariaLabel && !document.getElementById(node.getAttribute("aria-labelledby")))"""
    assert page.evaluate(f"{unnamed}.map((node) => node.outerHTML)") == []
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main", "the first step skips to the figures"
