# Every target makes the virtual environment it needs; nothing has to be set up first.
#   make demo   a simulated camera and the real daemon, a few brackets, pictures in demo/
#   make test   the tests
# PYTHON=… chooses the interpreter, VENV=… the folder of the environment.

VENV ?= .venv
PYTHON ?=
PYTEST_ARGS ?=
ARGS ?=
# Two to a core: most of the time a test waits for the daemon that it watches.
WORKERS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
RUN := $(VENV)/bin/python
KERNEL := $(wildcard asi_watch/hdr/kernel/*.[ch] asi_watch/images/*.c)

# An environment whose Python is gone (upgraded system, moved folder) is made anew, with all in it.
ifeq ($(shell $(RUN) -c '' 2>/dev/null && echo sound),)
$(shell rm -f $(VENV)/ready-* $(RUN))
endif

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench soak test-systemd test-powercut test-share clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/ready-run  ## a simulated camera, the real daemon, HDR pictures in demo/
	@$(RUN) -m asi_watch.simulator.demo --out demo

test: $(VENV)/ready-test  ## the tests
	@$(RUN) -m pytest -n $(WORKERS) --dist worksteal -m 'not soak' $(PYTEST_ARGS)

lint: $(VENV)/ready-dev  ## ruff, mypy and clang-format, as the commit hooks run them
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror $(KERNEL)
	$(VENV)/bin/mypy

format: $(VENV)/ready-dev  ## put the sources in the house's form
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(KERNEL)

bench: $(VENV)/ready-bench  ## accuracy and speed, against the peers
	@$(RUN) -m benchmarks

soak: $(VENV)/ready-test  ## the long forms of the fault tests
	@$(RUN) -m pytest -m soak --timeout=14400 $(PYTEST_ARGS)

test-systemd: $(VENV)/ready-test  ## the unit and install.sh under a real systemd (root, systemd-nspawn)
	@ASI_WATCH_BOOT_TEST=1 $(RUN) -m pytest -m systemd --timeout=1800 -v tests/systemd $(PYTEST_ARGS)

test-powercut: $(VENV)/ready-test  ## the daemon under power cuts (root; KVM, or nbdfuse): ARGS="--rounds 100"
	@$(RUN) -m tests.machine powercut $(ARGS)

test-share: $(VENV)/ready-test  ## the daemon on an NFS share that goes away, in a virtual machine (root)
	@$(RUN) -m tests.machine share $(ARGS)

clean:  ## the environment and everything built
	rm -rf $(VENV) build dist *.egg-info demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find asi_watch -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What is installed depends on these; the compiled kernel also on its sources.
INPUTS := pyproject.toml $(wildcard setup.py) $(shell find asi_watch -name '*.[ch]')

# pip is quiet unless something is wrong. A kernel that cannot be compiled is not an error
# (setup.py: optional): the package then takes its slower way.
install = $(RUN) -m pip install --quiet --disable-pip-version-check --editable '.$(1)'

$(VENV)/ready-run: $(INPUTS) | $(VENV)/bin/python
	@echo "installing asi-watch into $(VENV) ..."
	@$(call install,)
	@touch $@

$(VENV)/ready-%: $(INPUTS) | $(VENV)/bin/python
	@echo "installing asi-watch and what '$*' needs into $(VENV) ..."
	@$(call install,[$*])
	@touch $@

$(VENV)/bin/python:
	@set -eu; \
	chosen=; \
	for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        chosen=$$python; break; \
	    fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	    echo "asi-watch needs Python 3.11 or newer; tried: $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python)." >&2; \
	    echo "Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	fi; \
	if ! "$$chosen" -c 'import venv, ensurepip' 2>/dev/null; then \
	    echo "$$chosen cannot make virtual environments: its venv module is missing." >&2; \
	    echo "Debian, Ubuntu, Raspberry Pi OS: apt install python3-venv" >&2; \
	    exit 1; \
	fi; \
	rm -rf $(VENV); \
	"$$chosen" -m venv $(VENV)
