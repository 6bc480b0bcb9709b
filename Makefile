# make run    set up everything and run the embedded default
# make test   set up everything and pass the tests
# make help   the other targets

# The distribution's Python where it will do: Debian's is built with profile-guided optimisation and
# takes a quarter less time than one that a plain ./configure has built.
PYTHON ?= $(shell /usr/bin/python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo /usr/bin/python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := postfix swaks libnet-ssleay-perl nsd opendkim opendkim-tools dovecot-core dovecot-lmtpd strace openssl curl procps e2fsprogs mount gsasl msmtp s-nail libsasl2-modules haproxy fail2ban nodejs node-ws chromium faketime

.PHONY: help run test check format docs peers bench fuzz soak clean crash

help:
	@sed -n 's/^# //p' Makefile
	@echo 'make check  formatting, lint and types only'
	@echo 'make peers  install the programs that the end-to-end tests talk to (Debian, as root)'
	@echo 'make docs   generate the reference pages'
	@echo 'make crash  a long look at what any loss of power leaves of the spool'
	@echo 'make fuzz   look for inputs that break a promise; FUZZ_SECONDS=300 for each target'
	@echo 'make soak   send for SOAK_SECONDS=3600 through kills, reloads and dead hosts'
	@echo 'make bench  measure beside Postfix (Debian, as root); SCENARIO=all for everything'

run: $(READY)
	$(BIN)/protege-mta run

test: $(READY) check
	$(BIN)/python -m tests

check: $(READY)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)
	$(BIN)/python -m protege_mta.config.reference > docs/reference/configuration.md
	$(BIN)/python -m protege_mta.http.reference > docs/reference/http.md

## Guided by coverage where atheris has a wheel for this Python, else by chance alone.
fuzz: $(READY)
	-$(BIN)/python -m pip install -qq --disable-pip-version-check --only-binary atheris \
		--config-settings editable_mode=compat --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz

soak: $(READY)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[bench]' \
		--config-settings editable_mode=compat
	$(BIN)/python -m tests.soak

## SCENARIO=all for every one; python -m bench --help says more.
SCENARIO ?= relay
bench: $(READY)
	@for one in smtp-sink opendkim nsd; do \
		PATH="$$PATH:/usr/sbin" command -v $$one >/dev/null || exec $(MAKE) peers; done
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[bench]' \
		--config-settings editable_mode=compat
	$(BIN)/python -m bench $(SCENARIO)

crash: $(READY)
	CRASH_SEEDS=$${CRASH_SEEDS:-100} $(BIN)/trial tests.crash.test_spool_crash

peers:
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-venv $(PEERS)

$(READY): pyproject.toml setup.cfg | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install -qq --disable-pip-version-check \
		--config-settings editable_mode=compat --editable '.[test,dev]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'protege-mta needs Python 3.11 or later; set PYTHON=... to point at one' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo 'installing python3-venv, which makes virtual environments'; \
		  if [ "$$(id -u)" = 0 ]; then apt-get update -q && apt-get install -q -y python3-venv; \
		  else sudo apt-get update -q && sudo apt-get install -q -y python3-venv; fi; } || \
		{ echo 'cannot go on without it: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info _trial_temp* .mypy_cache .ruff_cache .hypothesis
