"""Open the built documentation in a browser, at the widths of a phone and of a screen.

    python .ci/pages.py SITE SCREENSHOTS            # a page of each kind
    python .ci/pages.py SITE SCREENSHOTS --all      # every page

Each page must load without an error, a failed request, a missing image or mathematics that is not
set; it must not be wider than the window, nor its code or formulas cut on a screen. The search must
find its words, a figure must open by a click, and the playground must move and end at the particles
that the package computes. Needs playwright and Debian's chromium.
"""

import json
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

SOME = ("", "playground/", "training/", "chapters/04_pitfall/", "api/samplers/", "api/cli/")
WIDTHS = (390, 1280)
WORDS = ("sample", "guidance", "interpolation")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
FAULTS = """() => {
  const all = (what) => [...document.querySelectorAll(what)];
  const told = (kind, nodes) => nodes.map((n) => `${kind}: ${n.textContent.slice(0, 60)}`);
  const raw = (n) => n.nodeType === 3 && /\\$\\$|\\]\\[scoresde/.test(n.textContent);
  return [
    ...all("img").filter((i) => i.complete && !i.naturalWidth).map((i) => "no image " + i.src),
    ...told("not set", all(".arithmatex").filter((m) => !m.querySelector(".katex"))),
    ...told("wrong", all(".katex-error")),
    ...told("raw", all("article p, article td, article li").filter((p) =>
      [...p.childNodes].some(raw))),
    ...told("torn", all("article ul").filter((u) => u.children.length > 1 &&
      /^(Returns|Yields):/.test(u.previousElementSibling?.textContent ?? ""))),
    ...told("cut", all("article pre > code").filter((c) =>
      innerWidth > 1200 && c.scrollWidth > c.clientWidth + 1)),
    ...told("wide", all("div.arithmatex").filter((m) =>
      innerWidth > 1200 && m.scrollWidth > m.clientWidth + 1)),
    ...(document.documentElement.scrollWidth > innerWidth ? ["wider than the window"] : []),
  ];
}"""


class Quiet(SimpleHTTPRequestHandler):
    """Serve files without a line for each."""

    def log_message(self, *words: object) -> None:
        """Say nothing."""


def opened(browser: Browser, address: str, width: int) -> tuple[Page, list[str]]:
    """Open a page and collect what goes wrong in it."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    faults: list[str] = []
    page.on("console", lambda m: m.type == "error" and faults.append(m.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
    page.on(
        "response", lambda r: faults.append(f"{r.status}: {r.url}") if r.status >= 400 else None
    )
    page.goto(address, wait_until="networkidle")
    return page, faults


def looked_at(page: Page, faults: list[str]) -> list[str]:
    """Return all faults of a page, after scrolling through it once for what loads late."""
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_load_state("networkidle")
    page.evaluate("scrollTo(0, 0)")
    return [*faults, *page.evaluate(FAULTS)]


def searched(page: Page) -> Iterator[str]:
    """Yield the words that the search does not find."""
    for word in WORDS:
        page.locator(".md-search__input").click()
        page.keyboard.press("Control+A")
        page.keyboard.type(word)
        try:
            text = page.locator(f".md-search-result__item mark:text-matches('{word}', 'i')")
            text.first.wait_for(timeout=60_000)  # the index is read at the first word
        except TimeoutError:
            yield f"the search does not find {word!r}"


def zoomed(page: Page) -> Iterator[str]:
    """Yield what is wrong with the pictures, of which the first is opened and closed."""
    page.locator("article img.zoomable").first.click()
    try:
        page.locator("dialog[open] img").wait_for(timeout=10_000)
    except TimeoutError:
        yield "a click does not open the picture"
    page.keyboard.press("Escape")
    try:
        page.locator("dialog").wait_for(state="detached", timeout=10_000)  # by an event of its own
    except TimeoutError:
        yield "the opened picture does not close"


def played(page: Page) -> Iterator[str]:
    """Yield what is wrong with the playground."""
    place = "document.querySelector('.playground').playground.place"
    before = page.evaluate(place)
    page.wait_for_timeout(800)
    if page.evaluate(place) == before:
        yield "the particles do not move"
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from test_playground import FOUND, NAMES, PROCESSES, in_python

    known = [in_python(name, sampler, 12) for name in PROCESSES for sampler in NAMES]
    cases = json.loads(json.dumps([case for case, _, _ in known]))
    for (case, _, end), found in zip(
        known, page.evaluate(f"(cases) => ({FOUND})(Diffusion, cases)", cases), strict=True
    ):
        worst = float((torch.tensor(found["ends"], dtype=end.dtype) - end).abs().max())
        if not worst < 1e-8:
            yield f"{case['sde']}, {case['sampler']}: {worst:.1e} from the package"


def main(site: Path, shots: Path, every: bool) -> int:
    """Open the pages; return 1 where there was a fault."""
    shots.mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_port}/"
    built = (p.parent.relative_to(site).as_posix() + "/" for p in site.rglob("index.html"))
    names = sorted(name.removeprefix("./") for name in built) if every else SOME
    count = 0
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        for name in names:
            for width in WIDTHS:
                page, faults = opened(browser, root + name, width)
                faults = looked_at(page, faults)
                page.screenshot(
                    path=shots / f"{name.strip('/').replace('/', '-') or 'home'}-{width}.png"
                )
                if width == max(WIDTHS) and name == "":
                    faults += searched(page)
                if "chapters/0" in name:
                    faults += zoomed(page)
                if width == max(WIDTHS) and name == "playground/":
                    faults += played(page)
                for fault in faults:
                    print(f"/{name} at {width}: {fault}")
                count += len(faults)
                page.close()
        browser.close()
    print(f"{len(names)} pages at {len(WIDTHS)} widths, {count} faults; pictures in {shots}")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), "--all" in sys.argv))
