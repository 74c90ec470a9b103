# Each target sets up .venv by itself when that is needed. `make` alone lists them.

PYTHON_IN_VENV := .venv/bin/python
WORKERS ?= 2
# One thread a process: the tests and the demo run in as many processes as there are cores to use.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-oldest lint format bench soak lock docs clean

help: ## list the targets
	@echo "usage: make TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "PYTHON=/path/to/python3 chooses the interpreter that .venv is made with (3.11 or newer)."

venv: ## set up .venv with the pinned versions (the other targets do this themselves)
	@sh scripts/bootstrap.sh

demo: venv ## plain against robust distillation on embedded data, with a page of results (minutes, no download)
	@.venv/bin/robustdistill demo

test: venv ## run the tests
	@$(PYTHON_IN_VENV) -m pytest -n $(WORKERS)

test-oldest: venv ## run the tests on the oldest versions that are supported, in build/oldest (torch stays)
	@$(PYTHON_IN_VENV) scripts/oldest.py -n $(WORKERS)

lint: venv ## check format, style and types
	@$(PYTHON_IN_VENV) -m ruff format --check .
	@$(PYTHON_IN_VENV) -m ruff check .
	@$(PYTHON_IN_VENV) -m mypy

format: venv ## rewrite the sources to the project's format
	@$(PYTHON_IN_VENV) -m ruff format .
	@$(PYTHON_IN_VENV) -m ruff check --fix .

bench: venv ## print the table of speeds: ratios with their spread, against what was aimed at (ROUNDS=7 WORKERS=2)
	@set -e; for script in benchmarks/bench_*.py; do $(PYTHON_IN_VENV) "$$script"; done

lock: ## write the locks, bill of materials and list of licences anew, after a change of constraints.txt
	@$(or $(PYTHON),python3) scripts/lock.py
	@sh scripts/bootstrap.sh
	@$(PYTHON_IN_VENV) scripts/sbom.py

soak: venv ## break things on purpose, for long: kills, full disks, a day's runs, large data (KILLS=220 RUNS=960 SEED=0)
	@failed=0; for script in benchmarks/soak_*.py; do $(PYTHON_IN_VENV) "$$script" || failed=1; done; exit $$failed

docs: venv ## build the documentation's pages into build/site
	@NO_MKDOCS_2_WARNING=1 $(PYTHON_IN_VENV) -m mkdocs build --quiet
	@echo "the documentation is in build/site/index.html"

clean: ## remove .venv, builds and caches (not runs or results)
	@rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests -type d -name __pycache__ -prune -exec rm -rf {} +
