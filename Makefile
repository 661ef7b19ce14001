# Everything runs in .venv, which is made anew when the pinned packages change.
PYTHON ?= python3.11
# Where torch comes from, if not from pip's usual index: e.g. TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar on
RAY_TESTS := tests/cluster tests/nodes/test_nodes_on_ray.py tests/entry/test_attach.py tests/entry/test_autoscaler.py tests/modules_on_ray tests/modules/test_hosts_on_ray.py tests/fusion/test_keeper_on_ray.py tests/store/test_store_on_ray.py tests/hosts/test_faults.py tests/hosts/test_dying_heads.py tests/hosts/test_ray_up.py
SOAK_MINUTES ?= 60
# A terminal gets pip's progress bars; a log gets a line a step.
QUIET := $(shell test -t 1 || echo --quiet)

.PHONY: setup demo test soak lint clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "[1/4] a virtual environment in .venv"
	@$(PYTHON) -m venv .venv
	@echo "[2/4] torch $(shell sed -n 's/^torch==//p' constraints.txt)"
	@$(PIP) $(QUIET) --constraint constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@echo "[3/4] Ray and the rest, as pinned in constraints.txt (a minute or two)"
	@$(PIP) $(QUIET) --constraint constraints.txt --editable '.[dev]'
	@echo "[4/4] the encoders' weights"
	@$(BIN)/noodle models fetch
	@touch $@

demo: setup
	@$(BIN)/python examples/demo.py

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(shell nproc) --dist loadfile --cov --cov-report=term --durations=15
	@# Ray reads its settings once a process, so each group of tests with a cluster gets a process.
	set -e; for group in $(RAY_TESTS); do $(BIN)/python -m pytest $$group -m 'ray and not slow' --durations=5; done

soak: setup
	$(BIN)/python -m pytest tests/cluster -m slow
	@# An hour of faults between hosts, at whose end nothing has grown; it takes root.
	@if [ "$$(id -u)" = 0 ]; then $(BIN)/noodle bench chaos --minutes $(SOAK_MINUTES); else echo "not root: no chaos"; fi

lint: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
