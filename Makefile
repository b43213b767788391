# Everything starts from a bare clone: each target makes the virtual environment it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
BENCH ?= joint

.PHONY: demo test lint bench clean

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.%: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --editable ".[$*]"
	touch $@

demo: $(VENV)/.examples
	$(BIN)/python examples/02_train_digit_strings.py $(DEMO_ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(BENCH)

clean:
	rm -rf $(VENV) build dist *.egg-info out
