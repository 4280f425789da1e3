"""The whole book as one PDF, with an outline and links that lead inside it: ``python tools/print_book.py``.

Chromium (through selenium) prints every rendered page as the print rules of _static/book.css say, in the order of the
table of contents, and pypdf joins the sheets. Nothing is fetched from the network.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.server
import io
import shutil
import sys
import threading
from pathlib import Path
from urllib.parse import urldefrag

import yaml
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, Fit, NameObject

ROOT = Path(__file__).resolve().parents[1]
PAPER = {"printBackground": True, "preferCSSPageSize": True, "generateTaggedPDF": True,
         "paperWidth": 8.27, "paperHeight": 11.69}  # fmt: skip
READY = """
const done = arguments[arguments.length - 1], images = [...document.images];
images.forEach(i => { i.loading = 'eager'; });
document.documentElement.dataset.theme = 'light';
Promise.allSettled([window.MathJax && MathJax.startup && MathJax.startup.promise, ...images.map(i => i.decode())])
    .then(() => done(document.title));
"""


def chapters(root: Path) -> list[tuple[str, str]]:
    """(part, page) of the table of contents, in its order; the part of the first page is ""."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf8"))

    def files(entries: list[dict]) -> list[str]:
        return [name for e in entries for name in ([e["file"]] if "file" in e else []) + files(e.get("sections", []))]

    return [("", toc["root"])] + [(part["caption"], name) for part in toc["parts"] for name in files(part["chapters"])]


def chromium():
    """A browser without a window that reaches this machine only."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (program and driver):
        raise SystemExit("printing needs Chromium and its driver (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"):  # fmt: skip
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=Service(driver))


def lead_inside(writer: PdfWriter, address: str, starts: dict[str, int]) -> None:
    """Links to pages of the book lead to their sheet, or nowhere if it was not printed; other links are left alone."""
    for sheet in writer.pages:
        for link in (entry.get_object() for entry in sheet.get("/Annots") or ()):
            target = urldefrag(str(link.get("/A", {}).get("/URI", ""))).url
            if not target.startswith(address):
                continue
            name = target.removeprefix(f"{address}/").removesuffix(".html")
            del link["/A"]
            if name in starts:
                place = ArrayObject([writer.pages[starts[name]].indirect_reference, NameObject("/Fit")])
                action = {NameObject("/S"): NameObject("/GoTo"), NameObject("/D"): place}
                link[NameObject("/A")] = DictionaryObject(action)


def print_book(html: Path, out: Path, pages: list[tuple[str, str]]) -> int:
    """Print ``pages`` (part, page) of the rendered book to ``out``; returns the number of sheets."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(html)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address, writer, parts, starts, browser = f"http://127.0.0.1:{server.server_port}", PdfWriter(), {}, {}, chromium()
    try:
        for part, name in pages:
            if not (html / f"{name}.html").is_file():
                raise SystemExit(f"{html / name}.html does not exist: build the book first (make book)")
            browser.get(f"{address}/{name}.html")
            title = browser.execute_async_script(READY).split(" — ")[0]
            printed = PdfReader(io.BytesIO(base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", PAPER)["data"])))
            starts[name] = len(writer.pages)
            writer.append(printed, import_outline=False)
            if part and part not in parts:
                parts[part] = writer.add_outline_item(title=part, page_number=starts[name], fit=Fit.fit())
            writer.add_outline_item(title=title, page_number=starts[name], parent=parts.get(part), fit=Fit.fit())
            print(f"{name}: {len(printed.pages)} sheets", flush=True)
    finally:
        browser.quit()
        server.shutdown()
    lead_inside(writer, address, starts)
    writer.compress_identical_objects()
    out.parent.mkdir(parents=True, exist_ok=True)
    writer.write(out)
    return len(writer.pages)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html", help="the rendered book")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "book.pdf")
    parser.add_argument("pages", nargs="*", help="pages to print, for instance book/people/time (default: all)")
    options = parser.parse_args()
    chosen = [entry for entry in chapters(ROOT) if not options.pages or entry[1] in options.pages]
    if unknown := set(options.pages) - {name for _, name in chosen}:
        parser.error(f"not in the table of contents: {', '.join(sorted(unknown))}")
    sheets = print_book(options.html, options.out, chosen)
    print(f"{options.out}: {sheets} sheets, {options.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
