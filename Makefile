# make run: set up and run the main job. make test: set up and run the tests. make check: CI's whole gate.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Ray in an environment of its own: the clusters of the tests, and the bridges to them, run in it.
RAY_VENV := .venvs/ray
RAY_STAMP := $(RAY_VENV)/.installed
CODE := src tests bench docs examples
# One suite a folder, each under four minutes.
SUITES := arch unit properties planted scenarios contract replay sim shim serving e2e ray
PARALLEL := -n 2 --dist loadfile
COVERED := $(BIN)/python -m coverage run -m pytest

.PHONY: setup
setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Steersman needs Python 3.11 or later; hint: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "setting up $(VENV) (first time: about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[examples,onnx,otel]' --group dev
	@touch $@

$(RAY_STAMP): pyproject.toml
	@echo "setting up $(RAY_VENV) (first time: about a minute)"
	@$(PYTHON) -m venv $(RAY_VENV)
	@$(RAY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(RAY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[examples,onnx,ray]' --group ray-tests
	@touch $@

# --- the main job ---

# Its home is in this folder, so that it meddles with no other; STEERSMAN_HOME=… make run uses another.
STEERSMAN_HOME ?= $(CURDIR)/.steersman
STEER := STEERSMAN_HOME="$(STEERSMAN_HOME)" PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/steer

.PHONY: run stop
run: $(STAMP)
	@STEERSMAN_HOME="$(STEERSMAN_HOME)" PATH="$(CURDIR)/$(BIN):$$PATH" \
	  $(BIN)/python examples/main_job.py $(if $(JSON),--json)

# The same on a real Ray cluster of three nodes on this machine, of which one is killed; it leaves nothing.
.PHONY: run-ray
run-ray: $(STAMP) $(RAY_STAMP)
	@STEERSMAN_HOME="$(CURDIR)/.steersman-ray" PATH="$(CURDIR)/$(BIN):$$PATH" \
	  $(BIN)/python examples/on_ray.py $(if $(JSON),--json)

# Ends what `make run` left and the control plane; the journal, logs and artifacts stay in the home.
stop: $(STAMP)
	@if $(STEER) status >/dev/null 2>&1; then $(STEER) down --all && $(STEER) server --stop; \
	  else echo "no control plane runs for $(STEERSMAN_HOME)"; fi

# --- the tests ---

.PHONY: test $(SUITES:%=test-%)
test: $(STAMP)
	@$(BIN)/python -m coverage erase
	@failed=; for suite in $(SUITES); do \
	  echo "== tests/$$suite"; \
	  $(MAKE) --no-print-directory test-$$suite || failed="$$failed $$suite"; \
	done; \
	$(BIN)/python tests/coverage_gate.py || failed="$$failed coverage"; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi; \
	echo "every suite passed"

test-arch: $(STAMP)
	@$(BIN)/python -m pytest tests/arch $(PARALLEL)

# Not measured, which would double their time: a branch that only chance runs is not a tested one.
test-properties test-planted: test-%: $(STAMP)
	@$(BIN)/python -m pytest tests/$* $(PARALLEL)

# One after another: each looks that no control group of the machine was left behind.
test-shim: $(STAMP)
	@$(COVERED) tests/shim

# On real clusters; `make test-ray-all` also runs what takes longer.
test-ray: $(STAMP) $(RAY_STAMP)
	@STEERSMAN_TEST_RAY="$(CURDIR)/$(RAY_VENV)/bin" $(COVERED) tests/ray -m "not slow" $(PARALLEL)

.PHONY: test-ray-all
test-ray-all: $(STAMP) $(RAY_STAMP)
	@STEERSMAN_TEST_RAY="$(CURDIR)/$(RAY_VENV)/bin" $(BIN)/python -m pytest tests/ray

# The manifest of examples/kuberay against an operator's own schema of RayClusters: CRD=ray.io_rayclusters.yaml.
.PHONY: check-kuberay
check-kuberay: $(STAMP)
	@test -f "$(CRD)" || { echo "error: CRD names no file; hint: make check-kuberay CRD=ray.io_rayclusters.yaml, from KubeRay's release"; exit 2; }
	@STEERSMAN_KUBERAY_CRD="$(abspath $(CRD))" $(BIN)/python -m pytest tests/unit/examples

$(filter-out test-arch test-shim test-ray test-properties test-planted,$(SUITES:%=test-%)): test-%: $(STAMP)
	@$(COVERED) tests/$* $(PARALLEL)

# --- the gate ---

.PHONY: check lint types contracts dependencies format
check: lint types contracts dependencies test

lint: $(STAMP)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)

types: $(STAMP)
	@$(BIN)/mypy

contracts: $(STAMP)
	@COLUMNS=120 $(BIN)/lint-imports --no-logo

dependencies: $(STAMP)
	@$(BIN)/deptry src

format: $(STAMP)
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

# --- proofs that take longer, each with its floors in bench/floors.toml or in its own text ---

.PHONY: bench bench-serve bench-endure bench-decide bench-ray chaos chaos-ray power-cut mutation small-world
bench: $(STAMP) $(RAY_STAMP)
	@$(BIN)/python -m bench.run $(ARGS)

# Against Ray Serve, LitServe, BentoML and MLServer, each in an environment of its own; needs gcc. 20 minutes.
bench-serve: $(STAMP)
	@$(BIN)/python -m bench.serve.run $(ARGS)

# A thousand rollouts and scale-downs under load, overload, apply to ready; needs gcc.
bench-endure: $(STAMP)
	@$(BIN)/python -m bench.serve.endure $(ARGS)

# The deciders on public traces beside today's policies and the bounds; STEERSMAN_TRACES names their folder.
bench-decide: $(STAMP)
	@$(BIN)/python -m bench.decide.run $(ARGS)

# What Steersman costs on top of Ray, beside Ray's own Jobs API and Ray Serve; needs gcc.
bench-ray: $(STAMP) $(RAY_STAMP)
	@$(BIN)/python -m bench.run --only ray.overhead $(ARGS)

chaos: $(STAMP)
	@$(BIN)/python -m bench.chaos $(ARGS)

# Sixty faults on a real Ray cluster under load, with Ray's own time limits: 40 minutes; ARGS=--quick: 20.
chaos-ray: $(STAMP) $(RAY_STAMP)
	@$(BIN)/python -m bench.ray.chaos $(ARGS)

power-cut: $(STAMP)
	@$(BIN)/python -m bench.power_cut $(or $(ARGS),--cuts 10000 --seed 1)

mutation: $(STAMP)
	@$(BIN)/python -m bench.mutation $(ARGS)

# Every story of a small world up to a depth: deciders and fold, then the whole engine; 5 to 10 minutes on two cores.
small-world: $(STAMP)
	@$(BIN)/python -m tests.properties.small_scope
	@$(BIN)/python -m tests.sim.small_world $(ARGS)

# --- the rest ---

.PHONY: docs clean
docs: $(STAMP)
	@$(BIN)/python docs/generate.py

clean:
	@rm -rf $(VENV) .venvs .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache bench/results build dist mutants
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
