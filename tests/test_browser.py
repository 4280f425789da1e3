"""The rendered book in headless Chromium, with every host but this one out of reach.

The book under test is the one that ``make smoke-book`` rendered, or the folder that CDIM_BOOK_HTML names. Without
Chromium or without a book these tests are skipped, unless CI=true.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
import time
from pathlib import Path

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
    window.set_script_timeout(60)
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


def pages() -> list[str]:
    """The rendered pages of the book, as addresses below the site."""
    return sorted(str(p.relative_to(HTML)) for p in (HTML / "book").rglob("*.html")) if HTML.is_dir() else []


def errors_of(browser) -> list[str]:
    """What the console has said since the last call that is an error."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_there_are_pages(site):
    assert "book/intro.html" in pages()


@pytest.mark.parametrize("page", pages())
def test_page_in_the_browser(browser, site, page):
    """No console error, every formula rendered, every image loaded and described."""
    browser.get_log("browser")
    browser.get(f"{site}/{page}")
    has_formulas = browser.execute_script(FORMULAS)["expected"] > 0
    if has_formulas:
        assert browser.execute_async_script(WAIT_FOR_FORMULAS), f"{page}: MathJax did not start"
        formulas = browser.execute_script(FORMULAS)
        assert not formulas["errors"], f"{page}: formulas with an error: {formulas['errors']}"
        assert formulas["rendered"] >= formulas["expected"] and not formulas["empty"], f"{page}: {formulas}"
    images = browser.execute_async_script(IMAGES)
    assert not [i["src"] for i in images if not i["loaded"]], f"{page}: images that did not load"
    undescribed = [i["src"] for i in images if not (i["alt"] or "").strip() or i["alt"].startswith("../_images")]
    assert not undescribed, f"{page}: images without alternative text"
    assert not errors_of(browser), f"{page}: errors in the console"


def test_the_book_has_figures_and_formulas(browser, site):
    """The checks above say nothing about a book without figures or formulas; this one has both."""
    figures = formulas = 0
    for page in pages():
        browser.get(f"{site}/{page}")
        figures += browser.execute_script("return document.querySelectorAll('article .cell_output img').length")
        formulas += browser.execute_script(FORMULAS)["expected"]
    assert figures > 0 and formulas > 0


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
