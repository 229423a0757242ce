# Everything that a fresh machine with Python 3.11 or later needs: `make demo`, `make test`.
# `make test-rest` runs what `make test` leaves out.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test test-rest parity lint format clean

demo: $(VENV)/.nar
	$(BIN)/python -m experiments run grammar

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not rest"

test-rest: $(VENV)/.test
	$(BIN)/python -m pytest -m rest

# Needs torch and transformers beside: it says so.
parity: $(VENV)/.test
	$(BIN)/python -m tests.pretrained.parity $(if $(MODELS),--models $(MODELS)) $(if $(LINES),--lines $(LINES))

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One stamp for nar itself and one a set of extras; constraints.txt holds the versions that were
# tried together.
$(VENV)/.nar: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.%: $(VENV)/.nar
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) runs
