# Everything starts from a bare clone: each target makes the virtual environments it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CUDA := $(VENV)-cuda
DLPACK := $(VENV)-dlpack
DEMO_ARGS ?=
BENCH ?= joint

.PHONY: demo test test-gpu lint bench clean

$(VENV)/bin/pip $(CUDA)/bin/pip $(DLPACK)/bin/pip:
	$(PYTHON) -m venv $(@:/bin/pip=)

$(VENV)/.%: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --editable ".[$*]"
	touch $@

$(CUDA)/.%: pyproject.toml | $(CUDA)/bin/pip
	$(CUDA)/bin/pip install --quiet --editable ".[$*]"
	touch $@

$(DLPACK)/.%: pyproject.toml | $(DLPACK)/bin/pip
	$(DLPACK)/bin/pip install --quiet --editable ".[$*]"
	touch $@

demo: $(VENV)/.examples
	$(BIN)/python examples/02_train_digit_strings.py $(DEMO_ARGS)

# Every tier that needs no GPU, each with what it needs and no more; TIERS names the tiers that are not for that run.
test: $(VENV)/.dev $(CUDA)/.test-cuda $(DLPACK)/.test-dlpack
	TIERS="dlpack cudasim ptx" $(BIN)/python -m pytest
	TIERS="dlpack ptx cuda" NUMBA_ENABLE_CUDASIM=1 $(CUDA)/bin/python -m pytest tests/cudasim
	TIERS="dlpack cudasim cuda" $(CUDA)/bin/python -m pytest tests/ptx
	TIERS="cudasim ptx cuda" $(DLPACK)/bin/python -m pytest tests/dlpack tests/test_examples_autograd.py

# On a machine with a GPU. An image with its own CuPy and numba-cuda runs the last line without installing anything.
test-gpu: $(CUDA)/.cuda13 $(CUDA)/.test
	$(CUDA)/bin/python -m pytest tests/cuda

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(BENCH)

clean:
	rm -rf $(VENV) $(CUDA) $(DLPACK) build dist *.egg-info out
