# On a fresh machine: `make quickstart` installs, runs the main job and writes a report; `make test` installs and passes the tests.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Processes that the tests are spread over, each on one thread. Those that start Ray come afterwards, one cluster at a time.
JOBS ?= 2
SPREAD := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile
READY := $(VENV)/.ready

.PHONY: install quickstart test test-fast test-slow lint gpu bench clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

install: $(READY)

quickstart: install
	$(BIN)/bocb-tune run experiments/quickstart.yaml
	$(BIN)/bocb-tune analyze runs/quickstart

test: install
	$(SPREAD) -m "not slow and not gpu and not ray"
	$(BIN)/python -m pytest -m "ray and not slow and not gpu"

test-fast: install
	$(SPREAD) -m "not slow and not gpu and not ray" --ignore tests/backbones --ignore tests/spec/test_grids.py

test-slow: install
	$(BIN)/python -m pytest -m "slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p bocb_tune

gpu: install
	$(BIN)/python benchmarks/gpu.py

bench: install
	$(BIN)/python benchmarks/trial_turnaround.py
	$(BIN)/python benchmarks/step_overhead.py
	$(BIN)/python benchmarks/controller_scale.py
	$(BIN)/python benchmarks/analysis_scale.py
	$(BIN)/python benchmarks/data_pipeline.py

clean:
	rm -rf $(VENV) build
