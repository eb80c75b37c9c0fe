# Python 3.11 or newer: the first of these that is.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test lint docs clean

quickstart: $(VENV)/.installed
	$(BIN)/tutored quickstart --out quickstart

test: $(VENV)/.tested lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.documented
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.installed: pyproject.toml
	$(call install,.[quickstart])
	touch $@

$(VENV)/.tested: pyproject.toml
	$(call install,.[test])
	touch $(VENV)/.installed $@

$(VENV)/.documented: pyproject.toml
	$(call install,.[docs])
	touch $(VENV)/.installed $@

# uv where there is one, pip elsewhere.
define install
	@test -n "$(PYTHON)" || { echo "tutored needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	if command -v uv >/dev/null; then \
		uv venv --allow-existing --python "$(PYTHON)" $(VENV) && uv pip install --python $(BIN)/python -e "$(1)"; \
	else \
		"$(PYTHON)" -m venv $(VENV) && $(BIN)/python -m pip install --quiet -e "$(1)"; \
	fi
endef

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache site
