"""The pages in a real browser: drawn, without an error in its console, and no wider than a phone."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pocketprune.reporting.compare_page import compare_page
from pocketprune.reporting.run_page import run_page
from tests.reporting.samples import record

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

PHONE = 390  # CSS pixels
MEASURE = """<iframe id="page" width="{width}" height="800" srcdoc="{page}"></iframe><script>
window.addEventListener("load", () => {{
  const seen = document.getElementById("page").contentDocument;
  document.title = seen.documentElement.scrollWidth + " wide, " + seen.querySelectorAll("svg *").length + " drawn";
}});</script>"""


def _dom(folder: Path, page: str) -> tuple[str, str]:
    """What a browser makes of a page, and what its console says."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={folder}/me")
    done = subprocess.run(
        [CHROMIUM, *options, "--virtual-time-budget=3000", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.parametrize("page", [run_page(record()), compare_page([record("a"), record("b")])], ids=["run", "compare"])
def test_a_browser_draws_it_on_a_phone_without_complaint(page: str, tmp_path: Path) -> None:
    dom, complaints = _dom(tmp_path, page)
    assert "resnet on digits" in dom
    assert not complaints
    dom, complaints = _dom(tmp_path, MEASURE.format(width=PHONE, page=html.escape(page)))
    wide, drawn = map(int, re.search(r"<title>(\d+) wide, (\d+) drawn", dom).groups())
    assert wide <= PHONE
    assert drawn > 30
    assert not complaints
