"""The printed book: its order. What a printed page looks like is tested in test_browser.py."""

from __future__ import annotations

import pytest
from book_checks import toc_entries

pytest.importorskip("pypdf")
import print_book


def test_the_printed_book_has_every_page_in_its_part(root):
    chapters = print_book.chapters(root)
    assert [name for _, name in chapters] == toc_entries(root)
    assert chapters[0] == ("", "book/intro") and all(part for part, _ in chapters[1:])


def test_a_page_that_is_not_in_the_book_cannot_be_printed(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["print_book.py", "book/none"])
    with pytest.raises(SystemExit):
        print_book.main()
    assert "book/none" in capsys.readouterr().err
