# Two commands do the work: `make book` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
PY := $(VENV)/bin/python
# The environment is made again only when what it is made from has changed.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)
# Of an assignment the solution is executed; the page itself holds gaps to fill.
NOTEBOOKS := $(sort $(filter-out book/assignments/%,$(wildcard book/*.ipynb book/*/*.ipynb)) \
                    $(wildcard book/assignments/solutions/*.ipynb book/assignments/project/*.ipynb))
CELL_TIMEOUT ?= 300
# A process for every core, one thread each.
SIDE_BY_SIDE ?= -n auto
PORT ?= 8000
P ?=
# Where a shell forbids Python to keep what it compiled, every one of some two hundred processes would compile all anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install book test test-library test-notebooks test-book smoke-book serve lint bench full grid index costs colab print release rehost clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## the virtual environment (made when another command needs it)

$(STAMP): pyproject.toml constraints.txt
	@tools/make_venv.sh "$(PYTHON)" "$(VENV)"
	@rm -f $(VENV)/.installed-* && touch $@

book: $(STAMP) ## execute the chapters and render the book
	@$(PY) tools/build_book.py --profile demo

test: ## everything below: library, notebooks, book
	@$(MAKE) --no-print-directory test-library
	@$(MAKE) --no-print-directory test-notebooks
	@$(MAKE) --no-print-directory test-book

test-library: export CDIM_PROFILE = smoke
test-library: $(STAMP) ## the library, the commands, the project's files
	OMP_NUM_THREADS=1 $(PY) -m pytest $(SIDE_BY_SIDE) --dist loadfile tests --ignore=tests/test_book.py --ignore=tests/test_browser.py \
		--durations=10

test-notebooks: export CDIM_PROFILE = smoke
test-notebooks: $(STAMP) ## every notebook, executed by nbval in the smoke profile; smoke-book renders what they put out
	$(if $(NOTEBOOKS),,$(error there is no notebook below book/))
	$(PY) tools/check_notebooks.py --timeout $(CELL_TIMEOUT) --book _build/smoke $(NOTEBOOKS)

test-book: smoke-book ## the book's structure, and the rendered pages in a browser
	OMP_NUM_THREADS=1 $(PY) -m pytest $(SIDE_BY_SIDE) tests/test_book.py tests/test_browser.py --durations=5

smoke-book: $(STAMP) ## a quick book in the smoke profile, in _build/smoke
	@$(PY) tools/build_book.py --profile smoke --out _build/smoke

serve: ## open the book at http://localhost:8000 (PORT=... for another)
	@test -f _build/html/index.html || { echo "There is no book yet: run 'make book' first" >&2; exit 1; }
	@echo "The book is at http://localhost:$(PORT) (Ctrl-C stops)"
	@$(PYTHON) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

lint: $(STAMP) ## ruff (also on notebooks) and codespell
	$(PY) -m ruff check .
	$(VENV)/bin/codespell

bench: $(STAMP) ## the benchmarks of the library
	$(PY) -m pytest tests/benchmarks -s

# Without NB there is nothing to install for.
full: $(if $(NB),$(STAMP)) ## a full run: NB=book/experiments/x.ipynb P="-p name value"; the output goes to runs/
	@test -n "$(NB)" || { echo 'Which notebook? make full NB=book/experiments/x.ipynb P="-p name value"' >&2; exit 2; }
	@$(PY) tools/run_notebook.py "$(NB)" $(P)

grid: $(STAMP) ## the experiments that have no result yet: JOBS=2 at a time, ONLY='masks-*' of them, for a MACHINE=cpu, gpu or any
	@$(PY) -c "import snakemake" 2>/dev/null || $(PY) -m pip install -q -c constraints.txt -e '.[workflow]'
	@$(PY) -m snakemake --snakefile workflow/Snakefile --profile workflow/profiles/local --cores $(or $(JOBS),2) $(DRY) \
	  --config only="$(ONLY)" machine="$(or $(MACHINE),cpu)"

costs: $(STAMP) ## data/results/PAGES.json and what the pages say about memory, after `make book`
	@$(PY) tools/page_costs.py

index: $(STAMP) ## data/results/INDEX.json and the README's table, after results were added
	@$(PY) tools/refresh.py

colab: $(STAMP) ## every notebook in a look-alike of Colab (NB=... for some of them)
	@$(PY) tools/colab_check.py $(NB)

print: $(STAMP) ## the rendered book as one PDF, _build/book.pdf (needs Chromium)
	@test -f _build/html/index.html || { echo "There is no book yet: run 'make book' first" >&2; exit 1; }
	@$(PY) tools/print_book.py

release: ## set version and tag everywhere, also in the first cell of every notebook: VERSION=0.2.0
	@test -n "$(VERSION)" || { echo "Which version? make release VERSION=0.2.0" >&2; exit 2; }
	@$(PYTHON) tools/release.py "$(VERSION)"

rehost: ## another repository address everywhere: URL=https://github.com/owner/name
	@test -n "$(URL)" || { echo "Which address? make rehost URL=https://github.com/owner/name" >&2; exit 2; }
	@$(PYTHON) tools/rehost.py "$(URL)"

clean: ## remove what was built (not the virtual environment)
	rm -rf _build .pytest_cache .ruff_cache
