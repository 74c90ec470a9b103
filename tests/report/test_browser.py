"""The page in a real browser: it loads without an error, its tables sort, its points answer to pointer and keyboard."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from report.records import journal
from robustdistill import report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium, chromium-browser or google-chrome on this machine; apt-get install chromium"
)

# Errors are listened for before the page's own script runs; what is found is written into the document at the end.
LISTEN = """<script>
window.problems = [];
window.addEventListener("error", (event) => problems.push(String(event.message)));
window.addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", (event) => problems.push("refused: " + event.violatedDirective));
for (const name of ["error", "warn"]) console[name] = (...words) => problems.push(words.join(" "));
</script>"""
LOOK = """<script>
window.addEventListener("load", () => {
  const found = { problems };
  const table = document.querySelector("table.classes");
  const column = (index) => [...table.tBodies[0].rows].map((row) => Number(row.cells[index].dataset.value));
  const click = (index) => { table.tHead.rows[0].cells[index].querySelector("button").click(); return column(index); };
  found.ascending = click(1);
  found.sorted = table.tHead.rows[0].cells[1].getAttribute("aria-sort");
  found.descending = click(1);
  found.recalls = click(3);
  const box = document.querySelector("[data-plane]"), tip = box.querySelector(".tip");
  const points = [...box.querySelectorAll(".pt")];
  found.hidden = tip.hidden;
  points[0].dispatchEvent(new PointerEvent("pointerenter"));
  found.hover = tip.hidden ? null : tip.textContent;
  found.label = points[0].getAttribute("aria-label");
  points[0].dispatchEvent(new PointerEvent("pointerleave"));
  found.left = tip.hidden;
  const stop = points.find((point) => point.tabIndex === 0);
  found.stops = points.filter((point) => point.tabIndex === 0).length;
  stop.focus();
  found.focus = tip.hidden ? null : tip.textContent;
  stop.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true, cancelable: true }));
  found.next = document.activeElement.getAttribute("aria-label");
  found.first = stop.getAttribute("aria-label");
  found.titles = box.querySelectorAll("title").length;
  const control = box.nextElementSibling.querySelector("[data-switch]");
  control.click();
  found.off = box.querySelectorAll(".pt.off").length;
  found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const inside = tip.getBoundingClientRect(), outer = document.documentElement.clientWidth;
  found.inside = inside.left >= 0 && inside.right <= outer;
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    journal(root / "runs", temperatures=(3.0,), epochs=3, repeats=2)
    index = report.write(root / "runs", root / "out")
    text = index.read_text(encoding="utf-8")
    assert text.count("<style>") == 1
    copy = index.with_name("watched.html")
    watched = text.replace("<style>", LISTEN + "<style>").replace("</body>", LOOK + "</body>")
    # The page's policy runs no script that it does not name: these two are named for the test.
    copy.write_text(watched.replace("script-src ", f"script-src {named(LISTEN)} {named(LOOK)} "), encoding="utf-8")
    return copy


def named(script: str) -> str:
    content = script.removeprefix("<script>").removesuffix("</script>")
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def dumped(page: Path, profile: Path, width: int = 800) -> str:
    command = [
        *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", f"--user-data-dir={profile}", f"--window-size={width},900"),
        *("--virtual-time-budget=3000", "--dump-dom", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def dump(page: Path, profile: Path, width: int) -> dict[str, Any]:
    text = dumped(page, profile, width)
    written = re.search(r'<pre id="found">(.*?)</pre>', text, re.DOTALL)
    assert written, text[-2000:]
    found: dict[str, Any] = json.loads(html.unescape(written[1]))
    return found


@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_works(page: Path, tmp_path: Path, width: int) -> None:
    found = dump(page, tmp_path, width)
    assert found["problems"] == []
    assert found["ascending"] == sorted(found["ascending"])
    assert found["descending"] == sorted(found["ascending"], reverse=True)
    assert found["sorted"] == "ascending"
    assert len(set(found["ascending"])) > 5
    assert found["recalls"] == sorted(found["recalls"])
    assert found["hidden"]
    assert found["hover"] == found["label"].replace("; ", "")
    assert "run" in found["hover"]
    assert found["left"]
    assert found["stops"] == 1
    assert found["focus"] == found["first"].replace("; ", "")
    assert found["next"] != found["first"]
    assert found["titles"] == 0
    assert found["off"] == 3
    assert found["overflow"] <= 0
    assert found["inside"]


def test_no_other_script_runs(page: Path, tmp_path: Path) -> None:
    """Were a name to get past the escaping, its script would still not run; the page's own does."""
    smuggled = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"
    text = page.with_name("index.html").read_text(encoding="utf-8")
    for name, policy, ran in (("kept", True, False), ("taken-away", False, True)):
        copy = page.with_name(f"{name}.html")
        changed = text.replace("</main>", smuggled + "</main>")
        copy.write_text(changed if policy else re.sub("<meta http-equiv[^>]*>", "", changed), encoding="utf-8")
        found = dumped(copy, tmp_path / name)
        assert ("<title>ran</title>" in found) == ran
        assert '<button type="button"' in found  # the sorting script made these
