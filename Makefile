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

.PHONY: audit
audit: install ## Look for known faults in what is locked; fails where the advisory service cannot be reached.
	$(PYTHON) scripts/audit.py

.PHONY: clean
clean: ## Remove caches and build leftovers; .venv and var/ stay.
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist ./*.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: coverage
coverage: install ## Run the tests of client and site and list the lines that none of them runs; at least 90 % are.
	$(PYTHON) -m coverage run --source=client/semantic_bit_client,newdreamflow -m pytest tests/client tests/site $(ARGS)
	$(PYTHON) -m coverage report --skip-covered --show-missing --fail-under=90 --omit='*/migrations/*'

.PHONY: test-gpu
test-gpu: install ## Run the tests that need a CUDA device.
	$(PYTHON) -m pytest -m gpu tests/gpu $(ARGS)

CLIENTS := .venv-clients
.PHONY: test-clients
test-clients: install ## Drive the server with litellm and LangChain, which get a venv of their own: 570 MB of packages.
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-clients.lock.txt
	$(PYTHON) -m pytest tests/clients/test_clients_of_their_own_venv.py $(ARGS)

.PHONY: chaos
chaos: install ## Kill, hang, flood and fill whatever the server runs on, for long, and print a table of what it bore.
	CHAOS=long $(PYTHON) -m pytest tests/chaos $(ARGS)

.PHONY: chaos-engines
chaos-engines: install ## Kill, freeze and drain four engines on other hosts, and cut their links, 200 times each.
	CHAOS=long $(PYTHON) -m pytest tests/chaos/test_engines.py $(ARGS)

RAY_VENV := var/ray-venv
.PHONY: chaos-ray
chaos-ray: install ## Kill, redeploy and scale engines under Ray Serve, in an environment of its own (var/ray-venv).
	$(PYTHON) -m venv $(RAY_VENV)
	$(RAY_VENV)/bin/python -m pip install --quiet --no-deps -r requirements-ray.lock.txt
	@# The server's packages are those of .venv: a second torch would take gigabytes.
	$(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > $$($(RAY_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/semantic_bit.pth
	RAY_PYTHON=$(RAY_VENV)/bin/python $(PYTHON) -m pytest tests/ray $(ARGS)

.PHONY: mutate
mutate: install ## Plant one-line bugs in a copy of the code, one at a time; each must make a named test fail.
	$(PYTHON) scripts/mutate.py $(ARGS)

.PHONY: sampler-table
sampler-table: install ## Compare every sampler with diffusers and write docs/samplers.md (ten minutes).
	$(PYTHON) -W ignore -m tests.engine.sampler_table

.PHONY: sampler-coefficients
sampler-coefficients: install ## Record the samplers' coefficients anew, after diffusers has changed them and we agree.
	$(PYTHON) -W ignore -m tests.engine.sampler_table --coefficients

BENCHMARKS := model_calls sampler_tables mixed_update cold_start memory http_overhead border_cost submit_latency other_apis engines site_overhead three_prompts against_diffusers contention full_size two_models model_switches
.PHONY: benchmarks
benchmarks: install ## Measure speed, start and memory into benchmarks/results; one alone: make benchmarks ONLY=cold_start.
	@mkdir -p benchmarks/results
	@for name in $(or $(ONLY),$(BENCHMARKS)); do \
	  echo "==> $$name"; $(PYTHON) -m benchmarks.$$name > benchmarks/results/$$name.txt || exit 1; \
	  cat benchmarks/results/$$name.txt; \
	done
	$(PYTHON) scripts/performance.py --write

.PHONY: changelog
changelog: install ## Print what is not released yet.
	@.venv/bin/towncrier build --draft --version unreleased

DREAMLET_RUN := var/dreamlet
PRESET := cpu
PART := all
TRAIN_DREAMLET = $(PYTHON) -m training.dreamlet.train $(PART) --preset $(PRESET) --out $(DREAMLET_RUN)
.PHONY: train-dreamlet
train-dreamlet: install ## Train the built-in model, or go on; PRESET=cpu|gpu, PART=unet, STEPS=80000, FROM=models/dreamlet.
	OMP_WAIT_POLICY=passive $(TRAIN_DREAMLET) $(if $(STEPS),--steps $(STEPS)) $(if $(FROM),--start-from $(FROM))

.PHONY: decay-dreamlet
decay-dreamlet: ## Ask the training that runs (PART=unet) to let its learning rate fall to zero and write its result.
	$(TRAIN_DREAMLET) --ask decay

PIPELINE := models/dreamlet
JUDGE := $(DREAMLET_RUN)/judge/result/judge.safetensors
.PHONY: evaluate-dreamlet
evaluate-dreamlet: install ## Judge 600 pictures of PIPELINE=models/dreamlet, draw its sheets, print the tables.
	$(PYTHON) -m training.dreamlet.evaluate --pipeline $(PIPELINE) --judge $(JUDGE) --out $(DREAMLET_RUN)/evaluation

.PHONY: screenshots
screenshots: install ## Draw with the built-in model in Chromium and photograph page and site into docs/images.
	OMP_NUM_THREADS=1 $(PYTHON) scripts/page_screenshots.py
	$(PYTHON) scripts/site_screenshots.py
