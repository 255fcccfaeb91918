# Each target sets up what it needs; a second call reuses it.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.semivox-ready
# One process a core; the tests of a file share one.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

.PHONY: demo test coverage check reference docs clean

demo: $(READY)
	$(BIN)/semivox demo --out demo

test: $(READY)
	$(PYTEST)

# The same tests; fails below the share of lines that pyproject.toml states.
coverage: $(READY)
	$(PYTEST) --cov --cov-report=term

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The index of methods and their pages, after a change of a docstring, an option, the table or a citation.
reference: $(READY)
	$(BIN)/python docs/make_reference.py

# The documentation as a site, in site/.
docs: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	$(BIN)/zensical build --clean --strict

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo site build dist
