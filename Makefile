# Set-up and the everyday commands. The environment in .venv is made by itself and renewed when the list of
# requirements has changed. Another Python: `make PYTHON=python3.12 run` (an .venv that is there keeps its own).

PYTHON ?= python3
DATA_DIR ?= .data
UV ?= uv
BIN = .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
COMPILE = $(UV) pip compile --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --quiet

export DATA_DIR

.PHONY: run test messages replay drill tour bench lint audit clean lock

# `exec`: a signal to make reaches the supervisor itself. The shop on one's own machine is a practice shop.
run: .venv/run.stamp
	@DEBUG="$${DEBUG:-true}" exec $(BIN)/python manage.py up

# Each process of them has a PostgreSQL and a Temporal of its own.
test: .venv/dev.stamp
	@$(BIN)/python -m pytest --quiet --numprocesses auto --maxprocesses 4 --dist worksteal

# The gate before a release: the present code replays what orders of all kinds have recorded.
replay: .venv/dev.stamp
	@$(BIN)/python -m pytest --quiet tests/orders/test_replay.py

# Collects what is to be translated, and compiles what is.
messages: .venv/dev.stamp
	@$(BIN)/python -m tests.messages

# A bad day on the real processes, told step by step: dead letters and their retry, a saga that is terminated.
drill: .venv/dev.stamp
	@$(BIN)/python -m tests.drill

# The pictures and the page of docs/tour.md, from a practice shop on a busy day. Needs Chromium, as the tests do.
tour: .venv/dev.stamp
	@$(BIN)/python -m tests.tour

# ONLY=name runs one, SIZE=0.01 a tiny one.
bench: .venv/dev.stamp
	@$(BIN)/python -m tests.benchmarks $(ONLY)

lint: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	DEBUG=true $(BIN)/mypy
	$(BIN)/lint-imports

# Known vulnerabilities in the locked requirements; without a way to their database it says so and is content.
audit: .venv/dev.stamp
	@$(BIN)/python .ci/audit

# Drops the data folder and the database that belongs to it. Stops nothing: it refuses while the shop runs.
clean:
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m shop.up.clean

lock:
	$(COMPILE) pyproject.toml --extra local --output-file requirements/run.txt
	$(COMPILE) pyproject.toml --extra local --extra test --constraint requirements/run.txt \
		--output-file requirements/dev.txt
	$(COMPILE) pyproject.toml --constraint requirements/run.txt --output-file requirements/image.txt

.venv/bin/python:
	@echo "Making a Python environment in .venv."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Vorkasse needs Python 3.11 or newer.")'
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/run.stamp: requirements/run.txt | .venv/bin/python
	@echo "Installing what the shop needs; the first time this takes a minute or two."
	@$(INSTALL) --requirement $<
	@touch $@

# A superset of run.txt.
.venv/dev.stamp: requirements/dev.txt | .venv/bin/python
	@echo "Installing what the shop and its tests need; the first time this takes a minute or two."
	@$(INSTALL) --requirement $<
	@touch .venv/run.stamp $@
