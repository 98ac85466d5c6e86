"""Pictures of the status page, as a browser shows it: a gateway of its own, minutes of requests, screenshots.

    python -m bench.page_picture --out docs/images/status-page.png [--seconds 300] [--all]

Needs Chromium (Debian: `apt-get install chromium`) and the `dev` extra. The phrases are the demo's, the models those
that ship; what the page shows is what the gateway measured. `--all` adds the page in the dark and on a phone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.demo import PHRASES, ZIPF, at_rate, distortions
from bench.processes import Gateway, start_gateway
from gateway.arguments import new_file, real
from gateway.client import RefrainCallError, RefrainClient

SETTINGS = "[tenants.default]\nrequire_proof = false\n[status]\nshow_text = true\n"
PAUSE_S = 0.01
"""Between two requests of the load, so that the browser has its share of a small machine."""
VIEWS: dict[str, dict[str, Any]] = {
    "": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light"},
    "-dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
    "-phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "device_scale_factor": 2},
}


def load(gateway: Gateway, done: threading.Event) -> None:
    """Speaks phrases by a power law in two voices and moods, hears them back as they are and distorted, streams some,
    and errs now and then; in waves, as days are. Until it is done."""
    with RefrainClient(gateway.target) as client:
        _load(client, done)


def _load(client: RefrainClient, done: threading.Event) -> None:
    rng, noise = random.Random(7), np.random.default_rng(7)
    voices = client.list_voices()[:2]
    weights = [(rank + 1) ** -ZIPF for rank in range(len(PHRASES))]
    ways = list(distortions(noise).values())
    begun = time.monotonic()
    while not done.is_set():
        (text,) = rng.choices(PHRASES, weights)
        voice = rng.choice(voices)
        draw = rng.random()
        if draw < 0.02:
            text += f" Number {rng.randrange(10_000)}."
        speech = client.synthesize(text, voice.name, rng.choice(voice.emotions[:2]))
        if draw < 0.1:
            samples = at_rate(speech, 16_000)
            client.recognize(samples, rate=16_000)
            if draw < 0.05:
                client.recognize(rng.choice(ways)(samples), rate=16_000, fuzzy=True)
        elif draw < 0.12:
            list(client.stream_synthesize([text], voice.name))
        elif draw < 0.123:
            with contextlib.suppress(RefrainCallError):
                client.synthesize(text, "nobody")
        time.sleep(PAUSE_S * (1.5 + np.sin((time.monotonic() - begun) / 30)))


def picture(gateway: Gateway, out: Path, views: dict[str, dict[str, Any]]) -> None:
    """Writes a PNG for each view, of the whole page."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, view in views.items():
            page = browser.new_page(**view)
            page.goto(f"http://127.0.0.1:{gateway.http_port}/")
            page.wait_for_selector("#sources tr")
            page.wait_for_timeout(2500)
            shot = Image.open(io.BytesIO(page.screenshot(full_page=True)))
            # The page has few colours; 64 of them make a file a fifth as large.
            shot.convert("RGB").quantize(64).save(out.with_stem(out.stem + name), optimize=True)
            page.close()
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=new_file, required=True, metavar="PNG")
    parser.add_argument(
        "--seconds", type=real(above=True), default=300.0, help="of requests before the picture; default 300"
    )
    parser.add_argument("--all", action="store_true", help="dark and phone too, beside PNG")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "refrain.toml"
        config.write_text(SETTINGS)
        gateway = start_gateway(Path(folder) / "data", "--config", str(config))
        try:
            done = threading.Event()
            loading = threading.Thread(target=load, args=(gateway, done))
            loading.start()
            time.sleep(arguments.seconds)
            picture(gateway, arguments.out, VIEWS if arguments.all else {"": VIEWS[""]})
            done.set()
            loading.join()
        finally:
            gateway.stop()


if __name__ == "__main__":
    main()
