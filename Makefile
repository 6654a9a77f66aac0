# Shortcuts for people; `make help` lists them. Nothing here does what run.sh and test.sh do not.
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python

.PHONY: help
help: ## List every target, a sentence each.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

.PHONY: install
install: ## Make .venv hold everything that the server and its tests need.
	@scripts/bootstrap.sh --dev

.PHONY: run
run: ## Start the server on HOST and PORT (default 127.0.0.1:8000).
	@./run.sh

.PHONY: check
check: ## Run every check: format, lint, types, import contracts, shell scripts, tests.
	@./test.sh

.PHONY: test
test: install ## Run the tests alone; name some with ARGS="-k seed".
	$(PYTHON) -m pytest $(ARGS)

.PHONY: format
format: install ## Bring every Python file into the one format, and sort imports.
	$(PYTHON) -m ruff check --select I --fix .
	$(PYTHON) -m ruff format .

.PHONY: lint
lint: install ## Look for mistakes with ruff, and for imports that run the wrong way.
	$(PYTHON) -m ruff check .
	.venv/bin/lint-imports

.PHONY: types
types: install ## Check the types with mypy.
	$(PYTHON) -m mypy

.PHONY: lock
lock: install ## Pin what pyproject.toml newly asks for; UPGRADE=1 takes the newest of everything. Needs Python 3.11.
	$(PYTHON) scripts/lock.py $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## Remove caches and build leftovers; .venv and var/ stay.
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist ./*.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
