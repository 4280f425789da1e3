"""The rendered book in headless Chromium, with every host but this one out of reach.

The book under test is the one that ``make smoke-book`` rendered, or the folder that CDIM_BOOK_HTML names. Without
Chromium or without a book these tests are skipped, unless CI=true. A page is opened once and looked at as on a desktop
and on a phone, in light and in dark.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
import time
from pathlib import Path
from urllib.parse import urljoin

import pytest

ROOT = Path(__file__).resolve().parents[1]
HTML = Path(os.environ.get("CDIM_BOOK_HTML", ROOT / "_build" / "smoke" / "_build" / "html"))
IN_CI = os.environ.get("CI", "").lower() in ("true", "1")


def missing(what: str) -> None:
    """Skip, or fail where the test must run."""
    if IN_CI:
        pytest.fail(f"{what} (CI=true, so this is no reason to skip)")
    pytest.skip(what)


@pytest.fixture(scope="session")
def site():
    """The address of a server, on this machine, that hands out the rendered book."""
    if not (HTML / "index.html").is_file():
        missing(f"no rendered book in {HTML}: run `make smoke-book`")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(HTML)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window; every address but 127.0.0.1 fails, so a page that needs the network shows an error."""
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (chromium and driver):
        missing("Chromium and its driver are not installed (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--window-size=1400,1000", "--disable-background-networking", "--no-first-run",
                     "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=Service(driver))
    window.set_page_load_timeout(60)
    window.set_script_timeout(300)  # the page of the whole library is long
    yield window
    window.quit()


WAIT_FOR_FORMULAS = """
const done = arguments[arguments.length - 1];
const until = Date.now() + 30000;
(function look() {
    if (window.MathJax && MathJax.startup && MathJax.startup.promise) MathJax.startup.promise.then(() => done(true));
    else if (Date.now() < until) setTimeout(look, 50);
    else done(false);
})();
"""
FORMULAS = """
return {
    expected: document.querySelectorAll('article .math').length,
    rendered: document.querySelectorAll('article mjx-container').length,
    empty: document.querySelectorAll('article .math:not(:has(mjx-container))').length,
    errors: [...document.querySelectorAll('mjx-merror')].map(e => e.textContent + ' ' + (e.title || '')),
};
"""
# Lazy images count once they are asked for.
IMAGES = """
const done = arguments[arguments.length - 1];
const images = [...document.querySelectorAll('img')];
const until = Date.now() + 20000;
images.forEach(i => { i.loading = 'eager'; });
(function look() {
    if (images.every(i => i.complete) || Date.now() > until) done(images.map(i => ({
        src: i.getAttribute('src').slice(0, 120), alt: i.getAttribute('alt'), loaded: i.complete && i.naturalWidth > 0,
    })));
    else setTimeout(look, 50);
})();
"""


# What reaches beyond the right edge, if the page can be scrolled sideways.
TOO_WIDE = """
const width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth <= width + 1) return [];
const wide = [...document.querySelectorAll('article *')].filter(e => e.getBoundingClientRect().right > width + 1);
return ['page: ' + document.documentElement.scrollWidth + ' > ' + width,
        ...wide.slice(-4).map(e => e.tagName + '.' + e.className + ' ' + e.textContent.trim().slice(0, 60))];
"""
# Serious faults of accessibility, as axe-core finds them: "rule: where". Contrast takes it milliseconds an element: of
# those that look the same (letters, and all that shines through behind them) it sees the first.
FAULTS = """
const done = arguments[arguments.length - 1], rules = arguments[0];
const options = {resultTypes: ['violations'], selectors: false}, contrast = {type: 'rule', values: ['color-contrast']};
const behind = new Map([[null, '']]), seen = new Set();
function background(e) {
    if (!behind.has(e)) {
        const s = getComputedStyle(e), plain = s.backgroundColor === 'rgba(0, 0, 0, 0)' && s.backgroundImage === 'none';
        behind.set(e, background(e.parentElement) + (plain ? '' : s.backgroundColor + s.backgroundImage)
            + (s.opacity === '1' ? '' : s.opacity));
    }
    return behind.get(e);
}
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
document.querySelectorAll('[data-look]').forEach(e => e.removeAttribute('data-look'));
document.querySelectorAll('input, textarea').forEach(e => { e.dataset.look = ''; });
while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !e.checkVisibility()) continue;
    const s = getComputedStyle(e), look = [s.color, s.fontSize, s.fontWeight, background(e)].join('|');
    if (!seen.has(look)) e.dataset.look = '';
    seen.add(look);
}
(async () => {
    const found = [], ours = rules[0] === 'color-contrast';
    if (!rules.length) found.push(await axe.run(document, {...options, rules: {'color-contrast': {enabled: false}}}));
    else if (!ours) found.push(await axe.run(document, {...options, runOnly: {type: 'rule', values: rules}}));
    if (!rules.length || ours) found.push(await axe.run({include: [['[data-look]']]}, {...options, runOnly: contrast}));
    return found.flatMap(part => part.violations).filter(v => ['serious', 'critical'].includes(v.impact)).flatMap(
        v => v.nodes.slice(0, 5).map(n => v.id + ': ' + n.html.slice(0, 160)));
})().then(done, error => done(['axe: ' + error]));
"""
# Figures are drawn for white paper: in the dark each must keep it.
NO_PAPER = """
return [...document.querySelectorAll('article .cell_output img')].filter(
    i => getComputedStyle(i).backgroundColor !== 'rgb(255, 255, 255)').map(i => i.getAttribute('src'));
"""
CALM = """
const style = document.createElement('style');
style.textContent = '* { transition: none !important; animation: none !important; }';
document.head.append(style);
"""
#: a way to look at a page -> (width, height, phone, theme, rules of axe that may have another answer there; [] is all)
WAYS = {
    "desktop, light": (1400, 1000, False, "light", []),
    "desktop, dark": (1400, 1000, False, "dark", ["color-contrast"]),
    "phone, dark": (360, 780, True, "dark", ["scrollable-region-focusable"]),
    "phone, light": (360, 780, True, "light", ["scrollable-region-focusable"]),
}


def pages() -> list[str]:
    """The rendered pages of the book, as addresses below the site."""
    return sorted(str(p.relative_to(HTML)) for p in (HTML / "book").rglob("*.html")) if HTML.is_dir() else []


def errors_of(browser) -> list[str]:
    """What the console has said since the last call that is an error."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@functools.cache
def axe() -> str:
    """The program that looks for faults of accessibility."""
    base = pytest.importorskip("axe_core_python.base", reason="pip install axe-core-python")
    return base.AXE_FILE_PATH.read_text(encoding="utf8")


def show(browser, width: int, height: int, phone: bool, theme: str) -> None:
    """The open page as on a screen of that size, in that theme."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)


@pytest.fixture(scope="session")
def look(browser, site):
    """page -> what is wrong with it, by aspect."""

    from selenium.common.exceptions import TimeoutException

    def look_at(page: str) -> dict[str, list[str]]:
        browser.get_log("browser")
        browser.get(urljoin(f"{site}/", page))
        found = {"formulas": [], "images": []}
        if browser.execute_script(FORMULAS)["expected"]:
            if not browser.execute_async_script(WAIT_FOR_FORMULAS):
                found["formulas"].append("MathJax did not start")
            formulas = browser.execute_script(FORMULAS)
            found["formulas"] += formulas["errors"]
            if formulas["empty"] or formulas["rendered"] < formulas["expected"]:
                found["formulas"].append(f"not all are rendered: {formulas}")
        for image in browser.execute_async_script(IMAGES):
            alt = (image["alt"] or "").strip()
            if not image["loaded"]:
                found["images"].append(f"did not load: {image['src']}")
            if not alt or alt.startswith("../_images"):
                found["images"].append(f"no alternative text: {image['src']}")
        browser.execute_script(CALM + axe())
        for way, (*screen, rules) in WAYS.items():
            show(browser, *screen)
            found[f"width, {way}"] = browser.execute_script(TOO_WIDE)
            found[f"paper, {way}"] = browser.execute_script(NO_PAPER) if "dark" in way else []
            try:
                found[f"axe, {way}"] = browser.execute_async_script(FAULTS, rules)
            except TimeoutException:
                found[f"axe, {way}"] = ["axe-core did not finish"]
        show(browser, *WAYS["desktop, light"][:4])
        found["console"] = errors_of(browser)
        return found

    return look_at


def test_there_are_pages(site):
    assert "book/intro.html" in pages()


@pytest.mark.parametrize("page", pages())
def test_page(page, look):
    """No console error, every formula rendered, every image loaded and described; nothing scrolls sideways, and in the
    dark figures keep their white paper; axe-core finds nothing serious: names, roles, contrast, what scrolls is reached
    by keyboard."""
    assert {aspect: faults for aspect, faults in look(page).items() if faults} == {}


FAULTY = """<!doctype html><html lang="en"><head><title>Faults</title></head><body><main><h1>Every fault</h1>
<article><p style="color:#bbb; background:#fff">pale</p><img src="gone.png"><button></button><div class="cell_output">
<img alt="x" src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="></div><div style="width: 2000px">wide</div>
</article></main><script>undefined_name()</script></body></html>"""


def test_the_looking_finds_faults(look, tmp_path):
    """On a page that has every fault; so the checks above can fail."""
    (tmp_path / "faulty.html").write_text(FAULTY, encoding="utf8")
    found = look((tmp_path / "faulty.html").as_uri())
    assert len(found["images"]) == 2 and len(found["console"]) >= 2  # the script, and the image that is gone
    assert found["width, phone, light"] and found["width, desktop, dark"] and found["paper, phone, dark"]
    rules = {fault.split(":")[0] for fault in found["axe, desktop, light"]}
    assert {"color-contrast", "image-alt", "button-name"} <= rules


def test_the_book_has_figures_and_formulas():
    """The checks above say nothing about a book without figures or formulas; this one has both."""
    texts = [(HTML / page).read_text(encoding="utf8") for page in pages()]
    assert any('class="math' in text for text in texts) and any("_images/" in text for text in texts)


def test_front_page_leads_to_the_introduction(browser, site):
    browser.get(f"{site}/index.html")
    deadline = time.time() + 15
    while not browser.current_url.split("#")[0].endswith("book/intro.html") and time.time() < deadline:
        time.sleep(0.1)
    assert browser.current_url.split("#")[0].endswith("book/intro.html")


def found(browser, site, word: str) -> int:
    """How many pages the search finds for a word."""
    browser.get(f"{site}/search.html?q={word}")
    deadline = time.time() + 30
    while time.time() < deadline:
        # Sphinx writes a paragraph with this class when it has finished.
        if browser.execute_script("return !!document.querySelector('#search-results .search-summary')"):
            summary = browser.execute_script(
                "return document.querySelector('#search-results .search-summary').textContent"
            )
            if "Searching" not in summary and summary.strip():
                return browser.execute_script("return document.querySelectorAll('#search-results ul.search li').length")
        time.sleep(0.1)
    raise AssertionError("the search did not finish")


def test_search_finds_a_word_and_only_words_of_the_book(browser, site):
    browser.get_log("browser")
    assert found(browser, site, "sketch") > 0
    assert found(browser, site, "xylophonist") == 0
    assert not errors_of(browser)


def test_book_opens_without_a_server(browser):
    """Opened as a file, as the last line of `make book` says, it shows its formulas without errors too."""
    if not (HTML / "book" / "intro.html").is_file():
        missing(f"no rendered book in {HTML}: run `make smoke-book`")
    with_formulas = [p for p in pages() if 'class="math' in (HTML / p).read_text(encoding="utf8")]
    assert with_formulas, "no page has a formula"
    browser.get_log("browser")
    browser.get((HTML / with_formulas[0]).as_uri())
    assert browser.execute_async_script(WAIT_FOR_FORMULAS)
    assert browser.execute_script(FORMULAS)["rendered"] > 0
    assert not errors_of(browser)


def test_printed_pages(browser, site, tmp_path):
    """Two pages as a PDF: solutions open, no sidebar, an outline, links that lead to the other page or nowhere."""
    pypdf = pytest.importorskip("pypdf")
    import print_book

    texts = {page: (HTML / page).read_text(encoding="utf8") for page in pages()}
    solved = min((page for page in pages() if "# BEGIN SOLUTION" in texts[page]), key=lambda page: len(texts[page]))
    linked = next(page for page in pages() if page != solved and Path(page).name in texts[solved].split("<article")[1])
    chosen = [("Part", page.removesuffix(".html")) for page in (solved, linked)]
    sheets = print_book.print_book(HTML, tmp_path / "book.pdf", chosen)
    printed = pypdf.PdfReader(tmp_path / "book.pdf")
    assert len(printed.pages) == sheets >= 2
    assert [float(side) for side in printed.pages[0].mediabox[2:]] == pytest.approx([595, 842], abs=1.5)  # A4
    text = "".join(sheet.extract_text() for sheet in printed.pages)
    assert "BEGIN SOLUTION" in text and "Ctrl" not in text and "Toggle" not in text
    part, pair = printed.outline
    assert part.title == "Part" and len(pair) == 2 and printed.get_destination_page_number(pair[1]) > 0
    links = [link.get_object() for sheet in printed.pages for link in sheet.get("/Annots") or ()]
    assert not [link for link in links if "127.0.0.1" in str(link.get("/A", {}).get("/URI", ""))]
    assert any(link.get("/A", {}).get("/S") == "/GoTo" for link in links)
