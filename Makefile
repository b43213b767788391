# Everything starts from a bare clone: each target makes the virtual environments it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CUDA := $(VENV)-cuda
DLPACK := $(VENV)-dlpack
DOCS := $(VENV)-docs
# Tests run side by side, a worker a processor; WORKERS=0 runs them one after the other, where a debugger can follow.
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN)
PYTEST := python -m pytest -n $(WORKERS) --dist worksteal
DEMO_ARGS ?=
BENCH ?= joint
WHEEL := build/wheel
WHEEL_TESTS ?= tests

.PHONY: demo test test-quick test-kernels test-gpu test-oldest test-wheel docs lint coverage bench clean

# Python compiles a module when it is first imported, and few modules of the larger packages ever are. Where nothing may
# keep them, each of the hundreds of processes that tests start would compile all of numba and NumPy anew, in twice its
# time.
unexport PYTHONDONTWRITEBYTECODE

define environment
$(1)/bin/pip:
	$(PYTHON) -m venv $(1)

$(1)/.%: pyproject.toml | $(1)/bin/pip
	$(1)/bin/pip install --quiet --no-compile --editable ".[$$*]"
	touch $$@
endef
$(foreach folder,$(VENV) $(CUDA) $(DLPACK) $(DOCS),$(eval $(call environment,$(folder))))

demo: $(VENV)/.examples
	$(BIN)/python examples/02_train_digit_strings.py $(DEMO_ARGS)

# Every tier that needs no GPU, each with what it needs and no more; TIERS names the tiers that are not for that run.
ENVIRONMENTS := $(VENV)/.dev $(CUDA)/.test-cuda $(DLPACK)/.test-dlpack
test:
	$(MAKE) --jobs=3 $(ENVIRONMENTS)
	TIERS="dlpack cudasim ptx ptxrun mpi" $(BIN)/$(PYTEST)
	TIERS="dlpack ptx ptxrun cuda mpi" NUMBA_ENABLE_CUDASIM=1 $(CUDA)/bin/$(PYTEST) tests/cudasim
	TIERS="dlpack cudasim cuda mpi" $(CUDA)/bin/$(PYTEST) tests/ptx
	TIERS="dlpack cudasim cuda mpi" $(CUDA)/bin/$(PYTEST) tests/ptxrun
	TIERS="cudasim ptx ptxrun cuda" OMP_NUM_THREADS=1 \
		$(DLPACK)/bin/$(PYTEST) tests/dlpack tests/test_examples_autograd.py tests/mpi

# Before a commit to the CPU half: its tier without programs that run for long, hypothesis with few examples.
test-quick: $(VENV)/.dev
	TIERS="dlpack cudasim ptx ptxrun mpi cuda" HYPOTHESIS_PROFILE=quick $(BIN)/$(PYTEST) -m "not slow"

# Before a commit to a kernel: its cases as compiled. CASE is a part of their names in tests/*_cases.py: `emit`, not
# `emit_cuda`.
CASE ?=
test-kernels: $(CUDA)/.test-cuda
	TIERS="dlpack cudasim cuda mpi" $(CUDA)/bin/$(PYTEST) tests/ptxrun/test_kernels.py -k "$(CASE)"

# On a machine with a GPU. An image with its own CuPy and numba-cuda runs the last line without installing anything.
test-gpu: $(CUDA)/.cuda13 $(CUDA)/.test
	$(CUDA)/bin/python -m pytest tests/cuda

# The oldest versions that pyproject.toml allows; `make test` takes the newest.
test-oldest: $(VENV)-oldest/.dev
	TIERS="dlpack cudasim ptx ptxrun mpi cuda" $(VENV)-oldest/bin/$(PYTEST)

$(VENV)-oldest/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/pip install --quiet --no-compile --editable ".[dev]" \
		"numpy==2.0.0" "numba==0.61.0" "scipy==1.13.0" "ml-dtypes==0.5.0"
	touch $@

# Lines of both packages that the tests reach. Lines of compiled sweeps count when Numba compiles them, so the run has
# no cache. Lines of CUDA kernels count when the simulator runs them.
COVERAGE := build/coverage
coverage: $(VENV)/.dev $(CUDA)/.test-cuda
	rm -rf $(COVERAGE)
	mkdir -p $(COVERAGE)
	TIERS="dlpack cudasim ptx ptxrun mpi cuda" NUMBA_JIT_COVERAGE=1 NUMBA_CACHE_DIR=$(COVERAGE)/cache \
		$(BIN)/python -m coverage run --data-file=$(COVERAGE)/.coverage -m pytest
	TIERS="dlpack ptx ptxrun cuda mpi" NUMBA_ENABLE_CUDASIM=1 \
		$(CUDA)/bin/python -m coverage run --data-file=$(COVERAGE)/.coverage -m pytest tests/cudasim
	$(BIN)/python -m coverage combine --data-file=$(COVERAGE)/.coverage $(COVERAGE)
	$(BIN)/python -m coverage report --data-file=$(COVERAGE)/.coverage --fail-under=95

# What users install. The sdist holds all that the tests need, the wheel is built from the sdist, and the tests run
# beside no source.
test-wheel: $(VENV)/.dev
	rm -rf $(WHEEL)
	$(BIN)/python -m build --outdir $(WHEEL)/dist
	$(PYTHON) -m venv $(WHEEL)/env
	$(WHEEL)/env/bin/pip install --quiet --no-compile "$$(ls $(WHEEL)/dist/*.whl)[examples,test]" "nltk>=3.9"
	tar -xzf $(WHEEL)/dist/*.tar.gz -C $(WHEEL)
	rm -r $(WHEEL)/transducer_lattice-*/lattice $(WHEEL)/transducer_lattice-*/samplers
	cd $(WHEEL)/transducer_lattice-* && TIERS="dlpack cudasim ptx ptxrun mpi cuda" ../env/bin/$(PYTEST) $(WHEEL_TESTS)

docs: $(DOCS)/.docs
	$(DOCS)/bin/sphinx-build -E -W --keep-going -q -b html docs docs/_build/html

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(BENCH)

clean:
	rm -rf $(VENV) $(CUDA) $(DLPACK) $(DOCS) $(VENV)-oldest docs/_build build dist *.egg-info out
