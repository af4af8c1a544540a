# `make demo` and `make test` are all a newcomer needs; each installs what it needs first.

VENV   := .venv
TESTS  := tests
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.setup-done
PYTEST := $(BIN)/python -m pytest
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check ci kafka-test crash crash-full log-proofs bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(STAMP) ## virtual environment in .venv with the locked dependencies; instant the second time

$(STAMP): requirements.lock requirements-build.lock pyproject.toml scripts/setup
	@scripts/setup "$(PYTHON)" "$(VENV)"
	@touch $@

demo: setup ## a small site, end to end: generate, ingest, query, recount from the raw log
	$(BIN)/tidal demo

test: setup ## the fast tests (unit, property, integration, end to end on the embedded log)
	$(PYTEST)

check: setup ## ruff (lint, format), mypy --strict, import layering, tracked files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy scripts/ci.py
	$(PYTEST) -q tests/test_layering.py tests/test_hygiene.py tests/test_docs.py

ci: ## all of it in a clean clone, as .ci/run does: within 30 minutes
	@$(PYTHON) scripts/ci.py

kafka-test: setup ## integration and crash tests on a real Apache Kafka (needs Java 17 and Maven)
	$(PYTEST) -m kafka tests

crash: setup ## the slow tests: crash and rebalance proofs on the embedded log; TESTS=tests/e2e chooses
	$(PYTEST) -m 'slow and not kafka' $(TESTS)

crash-full: setup ## the long crash and rebalance proofs, and a minute without the log, on the embedded log and on a real Apache Kafka
	TIDAL_CRASH_FULL=1 $(PYTEST) -s -m slow --brokers=embedded,kafka tests/crash tests/integration/test_log_away.py

log-proofs: setup ## the embedded log under a hundred kills, and power cuts at every change; TIDAL_SEED repeats a run
	TIDAL_LOG_FULL=1 $(PYTEST) -s -m slow tests/integration/test_embedded_kills.py \
		tests/property/embedded/test_embedded_power_cut.py tests/property/embedded/test_embedded_power_cut_transactions.py

bench: setup ## the short form of every benchmark
	$(BIN)/python -m benchmarks --short

clean: ## remove the virtual environment and every cache
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
