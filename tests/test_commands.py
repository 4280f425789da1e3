"""The commands behind `make`: what they do, and the one clear message when they cannot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import build_book
import check_notebooks
import execute_notebooks
import nbformat
import pytest
import rehost
import release
import run_notebook
from first_cell import TEMPLATE, first_cell, repository
from first_cell import release as first_cell_release

NEW = "https://example.org/someone/fork.of-it"


def make(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run make; only for targets that need no environment."""
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=root, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def experiment(tmp_path) -> Path:
    """A parameterised notebook that prints and keeps what it was given."""
    cells = [
        nbformat.v4.new_markdown_cell("# Run"),
        nbformat.v4.new_code_cell("epochs = 2\nrate: float = 0.1\nrow = 'ours'\nfast = False\nsizes = [1, 2]",
                                  metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import os\nprint(epochs * 10, rate, row, fast, sizes, os.environ['CDIM_PROFILE'])"),
    ]  # fmt: skip
    path = tmp_path / "run.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


# ---------------------------------------------------------------------------------------------------- make full


def test_parameters_and_their_defaults(experiment):
    known = run_notebook.known_parameters(experiment)
    assert known == {"epochs": 2, "rate": 0.1, "row": "ours", "fast": False, "sizes": [1, 2]}


def test_values_are_of_the_defaults_kind(experiment):
    given = {"epochs": "3", "rate": "1e-3", "row": "0", "fast": "true", "sizes": "[4]"}
    read = run_notebook.read_parameters(experiment, given)
    assert read == {"epochs": 3, "rate": 0.001, "row": "0", "fast": True, "sizes": [4]}


@pytest.mark.parametrize(("name", "text"), [("epochs", "many"), ("fast", "1"), ("rate", "None"), ("epochs", "true")])
def test_a_value_of_the_wrong_kind_is_refused(experiment, name, text):
    with pytest.raises(ValueError, match=rf"'{name}' must be .*{text}"):
        run_notebook.read_parameters(experiment, {name: text})


def test_an_unknown_parameter_stops_before_anything_runs(experiment, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_notebook.main([str(experiment), "-p", "epoch", "3", "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert "'epoch'" in message and "epochs, rate, row, fast, sizes" in message
    assert not out.exists()


def test_a_notebook_without_parameters_is_refused(experiment, capsys):
    notebook = nbformat.read(experiment, as_version=4)
    notebook.cells[1].metadata = {}
    nbformat.write(notebook, experiment)
    assert run_notebook.main([str(experiment), "-p", "epochs", "3"]) == 2
    assert "exactly one code cell tagged 'parameters', it has 0" in capsys.readouterr().err


def test_a_missing_notebook_is_named(tmp_path, capsys):
    assert run_notebook.main([str(tmp_path / "none.ipynb")]) == 2
    assert "there is no notebook" in capsys.readouterr().err


def test_a_full_run_leaves_the_source_alone(experiment, tmp_path, monkeypatch):
    monkeypatch.delenv("CDIM_PROFILE")
    before = experiment.read_bytes()
    assert run_notebook.main([str(experiment), "-p", "epochs", "3", "--out", str(tmp_path / "out")]) == 0
    assert experiment.read_bytes() == before
    (copy,) = (tmp_path / "out").glob("run-*.ipynb")
    printed = "".join(o.get("text", "") for c in nbformat.read(copy, as_version=4).cells for o in c.get("outputs", []))
    assert printed.strip() == "30 0.1 ours False [1, 2] full"


def test_make_full_and_make_rehost_ask_for_what_they_need(root):
    for target, words in (("full", "NB="), ("rehost", "URL="), ("release", "VERSION=")):
        answer = make(root, target)
        assert answer.returncode != 0 and words in answer.stderr


# ---------------------------------------------------------------------------------------------------- make rehost


@pytest.fixture
def copy(root, tmp_path) -> Path:
    """The files in which the repository's address stands, and two notebooks."""
    for name in ("pyproject.toml", "_config.yml", "CITATION.cff", "README.md", "cdimlib/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    (tmp_path / "book" / "deep").mkdir(parents=True)
    url = repository(root)
    for place, source in ((tmp_path / "book", first_cell(url)), (tmp_path / "book" / "deep", "import cdimlib")):
        cells = [nbformat.v4.new_markdown_cell(f"[Code]({url}/issues), é"), nbformat.v4.new_code_cell(source)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), place / "page.ipynb")
    (tmp_path / "book" / "page.md").write_text(f"Code: {url}.\nNot ours: {url}-other\n", encoding="utf8")
    return tmp_path


def test_rehost_changes_every_place(copy, root):
    old = repository(root)
    changed = rehost.rehost(NEW + ".git/", copy)
    assert len(changed) == 7 and repository(copy) == NEW
    for path in changed:
        text = path.read_text(encoding="utf8")
        assert NEW in text and old not in text.replace(f"{old}-other", ""), path
    assert f"url: {NEW}\n" in (copy / "_config.yml").read_text()
    assert (copy / "book" / "page.md").read_text() == f"Code: {NEW}.\nNot ours: {old}-other\n"
    for path in (copy / "book").rglob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        assert notebook.cells[1].source == first_cell(NEW) and notebook.cells[0].source == f"[Code]({NEW}/issues), é"


def test_rehost_there_and_back_changes_nothing(copy, root):
    rehost.rehost(repository(root), copy)  # mends the notebook whose first cell is another one
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    assert rehost.rehost(repository(root), copy) == []
    rehost.rehost(NEW, copy)
    rehost.rehost(repository(root), copy)
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


def test_rehost_mends_a_place_that_fell_out_of_step(copy, root):
    config = copy / "_config.yml"
    config.write_text(config.read_text().replace(repository(root), "https://github.com/other/place"))
    assert config in rehost.rehost(repository(root), copy)
    assert f"url: {repository(root)}\n" in config.read_text()


@pytest.mark.parametrize(
    "url", ["", "github.com/a/b", "http://github.com/a/b", "https://github.com/a", "https://x/a b/c"]
)
def test_rehost_refuses_what_is_no_address(url, copy):
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match="owner/name"):
        rehost.rehost(url, copy)
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


def test_the_first_cell_runs(monkeypatch):
    """The template is code: without its pip line it compiles, and it has the address in one place."""
    assert TEMPLATE.count("{url}") == 1
    plain = first_cell(NEW).replace("    %pip", "    #")
    compile(plain, "first cell", "exec")
    assert f'"git+{NEW}"' in first_cell(NEW)


def test_a_release_sets_version_and_tag_everywhere_and_a_move_keeps_them(copy, root):
    assert "git tag v99.1.0" in release.steps("99.1.0")
    changed = {path.relative_to(copy).as_posix() for path in release.set_release("99.1.0", copy)}
    library, pages = copy / "cdimlib/__init__.py", {"book/page.ipynb", "book/deep/page.ipynb"}
    assert changed == {"pyproject.toml", "CITATION.cff", "cdimlib/__init__.py", *pages}
    assert first_cell_release(copy) == "v99.1.0" and '__version__ = "99.1.0"' in library.read_text()
    assert "version: 99.1.0\ndate-released: " in (copy / "CITATION.cff").read_text()
    rehost.rehost(NEW, copy)
    cells = nbformat.read(copy / "book" / "page.ipynb", as_version=4).cells
    assert f'"git+{NEW}@v99.1.0"' in cells[1].source and NEW in (copy / "CITATION.cff").read_text()
    release.set_release("99.1.1", copy)
    assert (copy / "CITATION.cff").read_text().count("date-released") == 1


@pytest.mark.parametrize(("version", "words"), [("1.2", "like 0.2.0"), ("v1.2.3", "like 0.2.0"), ("0.0.1", "older")])
def test_a_release_refuses_what_is_no_newer_version(version, words, copy):
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=words):
        release.set_release(version, copy)
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


# ---------------------------------------------------------------------------------------------------- make book


@pytest.fixture
def sources(tmp_path) -> Path:
    for name in (
        "cdimlib/a.py",
        "data/papers/t.csv",
        "data/results/r.json",
        "pyproject.toml",
        "constraints.txt",
        "_config.yml",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["cdimlib/a.py", "cdimlib/new.py", "data/results/r.json", "data/papers/t.csv", "constraints.txt"]
)
def test_a_change_of_library_data_or_environment_empties_the_cache(sources, name):
    build = sources / "_build"
    assert not build_book.drop_stale(sources, build_book.cache_key(sources, "demo"))
    (build / ".jupyter_cache").mkdir()
    assert build_book.drop_stale(sources, build_book.cache_key(sources, "demo"))
    assert (build / ".jupyter_cache").exists(), "nothing changed: the cache must stay"
    (sources / name).write_text("2")
    assert not build_book.drop_stale(sources, build_book.cache_key(sources, "demo"))
    assert not (build / ".jupyter_cache").exists()


def test_profile_and_data_are_part_of_the_key(sources, monkeypatch):
    monkeypatch.delenv("CDIM_DATA", raising=False)
    plain = build_book.cache_key(sources, "demo")
    assert build_book.cache_key(sources, "smoke") != plain
    (sources / "cdimlib" / "__pycache__").mkdir()
    (sources / "cdimlib" / "__pycache__" / "a.pyc").write_text("x")
    assert build_book.cache_key(sources, "demo") == plain
    monkeypatch.setenv("CDIM_DATA", "/somewhere")
    assert build_book.cache_key(sources, "demo") != plain


MINI_CONFIG = """\
only_build_toc_files: true
exclude_patterns: [_build]
execute: {execute_notebooks: cache, timeout: 60, allow_errors: false}
"""


@pytest.mark.parametrize(
    ("source", "prose", "succeeds"),
    [("print(6 * 7)", "Fine.", True), ("1 / 0", "A cell fails.", False), ("1", "A [broken link](gone.md).", False)],
    ids=["sound", "failing cell", "warning"],
)
def test_a_book_is_built_or_the_build_fails(sources, source, prose, succeeds, capfd):
    """A failing cell or a warning must not end in exit status 0."""
    (sources / "_config.yml").write_text(MINI_CONFIG)
    (sources / "_toc.yml").write_text("format: jb-book\nroot: intro\n")
    cells = [nbformat.v4.new_markdown_cell(f"# Title\n\n{prose}"), nbformat.v4.new_code_cell(source)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), sources / "intro.ipynb")
    status = build_book.build(sources, sources, "smoke")
    said = capfd.readouterr()
    assert (status == 0) == succeeds, said.out[-2000:]
    if succeeds:
        assert "42" in (sources / "_build" / "html" / "intro.html").read_text() and "index.html" in said.out
    else:
        assert "NOT built" in said.err and (
            "ZeroDivisionError" in said.out + said.err or "gone.md" in said.out + said.err
        )
        # the same fault must fail again, and not be hidden by what the first build left behind
        assert build_book.build(sources, sources, "smoke") != 0


def test_notebooks_are_executed_side_by_side_into_the_cache(sources, monkeypatch, capsys):
    """Each with its share of the cores, none twice, and what failed is left to Jupyter Book."""
    (sources / "_config.yml").write_text(MINI_CONFIG.replace("timeout", "exclude_patterns: ['later/*'], timeout"))
    (sources / "_toc.yml").write_text("root: a\nchapters: [{file: b}, {file: c, sections: [{file: later/d}]}]")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    write = "import os, pathlib; pathlib.Path('{0}.txt').write_text(os.environ['OMP_NUM_THREADS'])"
    (sources / "later").mkdir()
    for name in ("a", "b", "c", "later/d"):
        cell = nbformat.v4.new_code_cell("1 / 0" if name == "c" else write.format(name))
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), sources / f"{name}.ipynb")
    monkeypatch.setattr(execute_notebooks, "cores", lambda: 4)
    before = dict(os.environ)
    assert execute_notebooks.execute(sources, sources, dict(os.environ), jobs=2) == [sources / "c.ipynb"]
    assert {p.name: p.read_text() for p in sources.rglob("?.txt")} == {"a.txt": "2", "b.txt": "2"}
    assert "c.ipynb: FAILED" in capsys.readouterr().out and dict(os.environ) == before
    (sources / "a.txt").unlink()
    execute_notebooks.execute(sources, sources, dict(os.environ), jobs=2)
    said = capsys.readouterr().out
    assert "a.ipynb: unchanged" in said and "c.ipynb: FAILED" in said and not (sources / "a.txt").exists()


def test_the_longest_page_is_executed_first(sources):
    (sources / "_config.yml").write_text(MINI_CONFIG)
    (sources / "_toc.yml").write_text("root: a\nchapters: [{file: b}, {file: c}, {file: d}]")
    for name, size in zip("abcd", (10, 20, 30, 40)):
        (sources / f"{name}.ipynb").write_text(" " * size)
    order = lambda: "".join(path.stem for path in execute_notebooks.notebooks(sources, {}))  # noqa: E731
    assert order() == "dcba"
    costs = {f"{name}.ipynb": {"seconds": seconds} for name, seconds in zip(("a", "b", "d"), (300, 20, 100))}
    (sources / execute_notebooks.COSTS).parent.mkdir(parents=True, exist_ok=True)
    (sources / execute_notebooks.COSTS).write_text(json.dumps({"pages": costs}))
    assert order() == "cadb"


# ---------------------------------------------------------------------------------------------------- make, .ci/run


def test_help_lists_every_target(root):
    answer = make(root, "help")
    assert answer.returncode == 0
    for target in ("book", "test", "serve", "lint", "bench", "full", "release", "rehost"):
        assert f"make {target} " in answer.stdout


def test_serve_without_a_book_says_what_to_do(root, tmp_path):
    shutil.copy(root / "Makefile", tmp_path / "Makefile")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, tmp_path / name)
    answer = make(tmp_path, "serve")
    assert answer.returncode != 0 and "make book" in answer.stderr


def test_the_environment_is_made_once(root, tmp_path):
    """Nothing to do when the stamp is there; a change of the pins asks for a new one."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, tmp_path / name)
    first = make(tmp_path, "-n", "install").stdout
    stamp = next(word for word in first.split() if word.startswith(".venv/.installed-") and "*" not in word)
    (tmp_path / ".venv").mkdir()
    (tmp_path / stamp).touch()
    assert "make_venv" in first and "make_venv" not in make(tmp_path, "-n", "install").stdout
    with open(tmp_path / "constraints.txt", "a") as pins:
        pins.write("extra==1\n")
    assert "make_venv" in make(tmp_path, "-n", "install").stdout


def test_an_old_python_is_refused(root, tmp_path):
    old = tmp_path / "python"
    lie = "import sys; sys.version_info = (3, 9); exec(sys.stdin.read())"
    old.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{lie}"\n')
    old.chmod(0o755)
    script = [str(root / "tools" / "make_venv.sh"), str(old), str(tmp_path / "venv")]
    answer = subprocess.run(script, capture_output=True, text=True, timeout=60, cwd=root)
    assert answer.returncode != 0 and "needs Python 3.11" in answer.stderr and not (tmp_path / "venv").exists()


def test_shell_scripts_parse(root):
    for script in (root / ".ci" / "run", root / "tools" / "make_venv.sh"):
        assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
        assert script.stat().st_mode & 0o111, f"{script} must be executable"


def test_notebooks_survive_a_rewrite_unchanged(root):
    """Rehosting to the address that stands leaves every committed notebook as it is."""
    for path in sorted((root / "book").rglob("*.ipynb")):
        if {"runs", ".ipynb_checkpoints"} & set(path.relative_to(root).parts):
            continue
        text = path.read_text(encoding="utf8")
        again = rehost.rehosted_notebook(text, repository(root), repository(root), first_cell_release(root))
        assert json.loads(again) == json.loads(text), path


def test_notebooks_are_checked_side_by_side_and_a_failure_is_shown(tmp_path, capsys):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    good = "import os; assert os.environ['OMP_NUM_THREADS'] == '3'; open('mine', 'w')"
    for name, source in {"good": good, "bad": "1 / 0"}.items():
        cells = [nbformat.v4.new_code_cell(source)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / f"{name}.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_notebooks, "cores", lambda: 6)
        assert check_notebooks.main([str(tmp_path / "good.ipynb"), "--jobs", "2"]) == 0
        assert check_notebooks.main([str(tmp_path / "good.ipynb"), str(tmp_path / "bad.ipynb"), "--jobs", "2"]) == 1
    said = capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.ipynb", "good.ipynb"], "nothing beside them"
    assert "good.ipynb: 1 passed" in said and "ZeroDivisionError" in said
    assert f"1 of 2 notebooks run\nFAILED {tmp_path / 'bad.ipynb'}" in said
    with pytest.raises(SystemExit):
        check_notebooks.main([str(tmp_path / "gone.ipynb")])
    assert "there is no" in capsys.readouterr().err


def test_what_a_check_put_out_is_rendered_without_another_execution(sources, monkeypatch, capsys):
    """Pictures, values and streams of a sound notebook go into the book's cache; nothing of a failing one does."""
    (sources / "_config.yml").write_text(MINI_CONFIG)
    (sources / "pyproject.toml").write_text("")
    (sources / "_toc.yml").write_text("format: jb-book\nroot: sound\nchapters: [{file: broken}]\n")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    count = f"import pathlib; p = pathlib.Path({str(sources / 'ran')!r}); "
    count += "p.write_text((p.read_text() if p.exists() else '') + 'x')"
    drawing = "import matplotlib.pyplot as plt; print('said'); plt.plot([1, 2]); plt.show(); 6 * 7"
    for name, cells in {"sound": [count, drawing, "40 + 3;\n# quiet"], "broken": ["print('half')", "1 / 0"]}.items():
        cells = [nbformat.v4.new_markdown_cell("# Title"), *map(nbformat.v4.new_code_cell, cells)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), sources / f"{name}.ipynb")
    for module in (check_notebooks, build_book):
        monkeypatch.setattr(module, "ROOT", sources)
    monkeypatch.setenv("CDIM_PROFILE", "smoke")
    monkeypatch.setenv("MPLBACKEND", "agg")
    paths = [str(sources / f"{name}.ipynb") for name in ("sound", "broken")]
    assert check_notebooks.main([*paths, "--book", str(sources)]) == 1
    checked = capsys.readouterr().out
    assert "sound.ipynb: 3 passed" in checked, checked
    assert build_book.build(sources, sources, "smoke") != 0  # the broken one is executed again, and fails
    said = capsys.readouterr().out
    assert "sound.ipynb: unchanged" in said and "broken.ipynb: FAILED" in said
    page = (sources / "_build" / "html" / "sound.html").read_text()
    assert "said" in page and ">42<" in page.replace("\n", "") and page.count('src="_images/') == 1
    assert ">43<" not in page.replace("\n", ""), "a semicolon silences a cell"
    assert (sources / "ran").read_text() == "x"
