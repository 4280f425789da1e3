"""The explorer in headless Chromium, from a page written here: keyboard, phone, dark mode, no error, nothing fetched.

As in test_browser.py every host is out of reach; without Chromium these tests are skipped, unless CI=true.
"""

from __future__ import annotations

import pytest
import torch
from test_browser import CALM, FAULTS, axe, browser, errors_of  # noqa: F401 (the fixture)

from cdimlib import explorer
from cdimlib.data import load
from cdimlib.data.augment import normalise
from cdimlib.data.toyshop import ToyShop
from cdimlib.explorer import Entry, Explorer
from cdimlib.models.classical import DenseHOG
from cdimlib.models.colour import ColourTexture
from cdimlib.models.qaconv import QAConv

PHONE, DESK = (390, 844), (1200, 900)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    """The address of a small explorer with two tabs."""
    torch.manual_seed(0)
    bench = load("toytown-plaza", train=2, test=5, distractors=0, pixels=(64, 32))
    net = QAConv((64, 32), backbone="resnet18", tap="res3", channels=8).eval()
    people = [Entry("colour", "colours", ColourTexture(), how="Six stripes."), Entry("pairs", "QAConv", net, normalise)]
    shoes = [Entry("fine", "fine HOG", DenseHOG(metric="cosine")), Entry("rough", "rough HOG", DenseHOG(cells=4))]
    scenes = [explorer.town_scene("People", bench, people, shown=4, start=("colour", "pairs"), sharp=1),
              explorer.shop_scene("Shoes", ToyShop(train=2, test=9, pixels=48), "shoes", shoes, shown=3,
                                  start=("fine", "rough"))]  # fmt: skip
    return Explorer(*scenes).save(tmp_path_factory.mktemp("explorer") / "page.html").as_uri()


@pytest.fixture
def show(browser, page):  # noqa: F811
    """show(size, dark=False) -> the browser with the page open; afterwards the console must be without errors."""

    def look(size=DESK, dark=False):
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        metrics = dict(width=size[0], height=size[1], deviceScaleFactor=1, mobile=size == PHONE)
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get_log("browser")
        browser.get(page)
        return browser

    yield look
    assert not errors_of(browser)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


STATE = """
const all = q => [...document.querySelectorAll(q)];
return {
    lists: all('.cdim-x ol').map(l => [...l.querySelectorAll('li:not([hidden]) button')].map(b => b.ariaLabel)),
    verdict: document.querySelector('.verdict').textContent, rates: all('.rate b').map(b => b.textContent),
    levels: all('.knob output').map(o => o.textContent), caption: document.querySelector('.caption').textContent,
    lines: all('svg line.line').length, cells: all('svg rect').length, focus: document.activeElement.ariaLabel,
};
"""


def press(window, *keys) -> dict:
    """Press keys, one after the other -> what the page then shows."""
    from selenium.webdriver import ActionChains

    for key in keys:
        ActionChains(window).send_keys(key).perform()
    return window.execute_script(STATE)


def test_it_loads_fast_and_fetches_nothing(show):
    times = []
    for _ in range(3):
        window = show()
        assert window.execute_script("return document.querySelector('.verdict').textContent.length") > 20
        times.append(window.execute_script("return performance.getEntriesByType('navigation')[0].loadEventStart"))
    assert min(times) < 2000, f"loading took {times} ms"
    fetched = "return performance.getEntriesByType('resource').map(r => r.name).filter(n => !n.startsWith('data:'))"
    assert window.execute_script(fetched) == []


def test_the_keyboard_is_enough(show):
    """From the first tab stop on, with the keys that each element always has; every stop shows its focus."""
    from selenium.webdriver.common.keys import Keys

    window = show()
    before = window.execute_script(STATE)
    assert all(6 < len(names) <= 8 and names[0].startswith("Rank 1, ") for names in before["lists"])
    other = press(window, Keys.TAB, Keys.TAB, Keys.TAB, Keys.ARROW_RIGHT)  # two tabs, then the people to look for
    assert other["lists"] != before["lists"] and other["focus"] != before["focus"]
    hidden = press(window, Keys.TAB, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)  # the first knob
    assert hidden["levels"] == ["somebody in front", "a little off"] and hidden["lists"] != other["lists"]
    assert hidden["rates"] != before["rates"] or hidden["verdict"] != other["verdict"]
    press(window, Keys.TAB, Keys.TAB)  # past the second knob, to the first matcher
    same = press(window, Keys.ARROW_DOWN)
    assert same["lists"][0] == same["lists"][1] == hidden["lists"][1] and " finds this person " in same["verdict"]
    reached = press(window, Keys.TAB, Keys.TAB)  # the list: its second answer, with its reasons
    assert reached["focus"] == reached["lists"][0][1] and reached["caption"].startswith("A, rank 2: ")
    assert reached["lines"] + len(reached["caption"]) > 40
    further = press(window, Keys.ARROW_RIGHT)
    assert further["focus"] == further["lists"][0][2] and further["caption"].startswith("A, rank 3: ")
    outline = "const s = getComputedStyle(document.activeElement); return s.outlineStyle + s.outlineWidth"
    assert window.execute_script(outline) == "solid3px"


def test_reasons_of_both_kinds(show):
    window = show()
    from selenium.webdriver.common.by import By

    first = [side.find_element(By.CSS_SELECTOR, "li button") for side in window.find_elements(By.CSS_SELECTOR, "ol")]
    first[0].click()
    stripes = window.execute_script(STATE)
    first[1].click()
    matches = window.execute_script(STATE)
    assert stripes["cells"] == 2 * 6 and stripes["lines"] == 0 and "Six stripes." in stripes["caption"]
    assert matches["cells"] == 0 and 0 < matches["lines"] <= explorer.LINES and "local matches" in matches["caption"]


def test_the_verdict_says_what_the_lists_show(show):
    """At every setting of the first knob; and a jump to where a matcher wins leads to where it wins."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    window = show()
    knob = window.find_element(By.CSS_SELECTOR, "input[type=range]")
    knob.send_keys(Keys.HOME)
    for _ in range(4):
        shown = window.execute_script(STATE)
        for names in shown["lists"]:
            right = next(name for name in names if ", right: " in name)
            assert f"rank {right.split(',')[0].removeprefix('Rank ')}" in shown["verdict"]
        knob.send_keys(Keys.ARROW_RIGHT)
    for side, button in enumerate(window.find_elements(By.CSS_SELECTOR, ".jump")):
        if button.is_enabled():
            button.click()
            verdict = window.execute_script(STATE)["verdict"]
            assert verdict.startswith(("Colours", "QAConv")[side]) and " only at rank " in verdict


def test_the_other_tab_says_what_cannot_be_shown(show):
    from selenium.webdriver.common.by import By

    window = show()
    window.find_elements(By.CSS_SELECTOR, ".tabs button")[1].click()
    shown = window.execute_script(STATE)
    assert "the photo of this shoe" in shown["verdict"] and shown["levels"] == ["steady", "little"]
    window.find_elements(By.CSS_SELECTOR, ".sideB li button")[0].click()
    assert "cannot be taken apart" in window.execute_script(STATE)["caption"]


@pytest.mark.parametrize("size", [PHONE, (320, 640), DESK], ids=["phone", "small phone", "desktop"])
def test_nothing_sticks_out(show, size):
    window = show(size)
    wide, inner = window.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= inner
    outside = """return [...document.querySelectorAll('.cdim-x *')].filter(e => e.getClientRects().length
        && !e.closest('.unseen') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.className)"""
    assert window.execute_script(outside) == []


CONTRAST = """
const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const colour = text => text.match(/[\\d.]+/g).map(Number);
function behind(node) {
    for (; node; node = node.parentElement) {
        const c = colour(getComputedStyle(node).backgroundColor);
        if (c.length < 4 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
}
return ['.verdict', '.tally', '.rate', 'legend', 'output', '.caption', 'small', '.yes', '.right .place', '.place',
        '.right .mark', '.letter', 'select', '.jump:enabled', '.tabs button'].map(query => {
    const node = document.querySelector('.cdim-x ' + query);
    if (!node) return [query, 21];
    const [a, b] = [colour(getComputedStyle(node).color).slice(0, 3), behind(node)].map(light).sort((x, y) => y - x);
    return [query, (a + 0.05) / (b + 0.05)];
});
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_letters_stand_out(show, dark):
    """Contrast of at least 4.5 to 1, by day and by night, and the book's own switch has the last word."""
    window = show(dark=dark)
    for theme in ("", "dark", "light"):
        window.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
        pale = [(query, round(ratio, 1)) for query, ratio in window.execute_script(CONTRAST) if ratio < 4.5]
        assert not pale, f"theme {theme!r}: {pale}"
        background = window.execute_script("return getComputedStyle(document.querySelector('.cdim-x')).backgroundColor")
        assert background == ("rgb(20, 24, 30)" if theme == "dark" or (dark and not theme) else "rgb(255, 255, 255)")


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desktop"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(show, size, dark):
    window = show(size, dark)
    window.execute_script(CALM + axe())
    assert window.execute_async_script(FAULTS, []) == []


def test_lists_are_lists_and_the_sentence_is_announced(show):
    window = show()
    assert window.execute_script("return document.querySelector('.verdict').getAttribute('aria-live')") == "polite"
    assert window.execute_script("return document.querySelectorAll('.cdim-x ol > li > button').length") == 16
