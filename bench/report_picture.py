"""A picture of a report, as a browser shows it: a synthesized week, the report on it, a screenshot.

    python -m bench.report_picture --out docs/images/report.png [--dark]

Needs Chromium (Debian: `apt-get install chromium`) and the `dev` extra. The requests are nobody's; the page says so.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from gateway.arguments import new_file
from gateway.cli import main as refrain

WIDTH, HEIGHT = 960, 1410
WEEK = ("--requests", "100000", "--days", "7", "--seed", "1")


def main() -> None:
    from PIL import Image
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=new_file, required=True, metavar="PNG")
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        trace, html = Path(folder) / "week.rft.gz", Path(folder) / "week.html"
        if refrain(["trace", "synth", str(trace), *WEEK]) or refrain(
            ["report", "--trace", str(trace), "--html", str(html)]
        ):
            raise SystemExit("no report was made")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark" if arguments.dark else "light"
        )
        page.goto(html.as_uri())
        shot = Image.open(io.BytesIO(page.screenshot()))
        # As the page, it has few colours: 64 of them make a file a third as large.
        shot.convert("RGB").quantize(64).save(arguments.out, optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
