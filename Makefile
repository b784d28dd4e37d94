# Each target does its own set-up, and is instant about it the second time.
#
#   make demo     both stages on the bundled model and task, then a report
#   make table    every method side by side, three seeds (make table ARGS=...)
#   make test     the tests, but for those of make test-long
#   make test-long  those that take minutes each
#   make soak     a run of several processes under random faults, for an hour
#                 (make soak ARGS=--minutes=15; as root it also fills a disk)
#   make sandbox  bubblewrap, which model-written programs are run in
#   make browser  Chromium, which the tests open the viewer in
#   make lint     ruff, as checker and as formatter
#   make base     the bundled base model anew (see configs/pretrain.py)
#   make lock     requirements*.txt from requirements*.in
#   make clean    what the others made, but not runs/

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
# Tests compare with them; nothing else needs them.
TORCH_VERSION := 2.13.0+cpu
PEFT := peft==0.21.2 accelerate==1.15.0
WORKDIR ?= runs/demo
ARGS ?=

# Named after what they install, so that a changed list is installed anew.
sum = $(shell cat $(1) | cksum | cut -d' ' -f1)
READY := $(VENV)/ready-$(call sum,requirements.txt)
DEV_READY := $(VENV)/dev-ready-$(call sum,requirements.txt requirements-dev.txt)

export UV_COMPILE_BYTECODE := 1
export VIRTUAL_ENV := $(abspath $(VENV))

.PHONY: demo table test test-long soak sandbox browser lint base lock clean setup \
	dev-setup

demo: setup
	$(BIN)/python -m score_jax.main --config=configs/score.py \
	  --workdir=$(WORKDIR) $(ARGS)

table: setup
	$(BIN)/python -m score_jax.table --workdir=runs/table $(ARGS)

test: dev-setup sandbox browser
	$(BIN)/python -m pytest -n 2 --dist loadfile \
	  --no-loadscope-reorder $(ARGS)

test-long: dev-setup sandbox browser
	$(BIN)/python -m pytest -m long $(ARGS)

soak: dev-setup
	$(BIN)/python -m tests.soak $(ARGS)

# Systems' packages, so they need root. Without bubblewrap the tests that run
# programs are skipped, and training on code refuses to start; without Chromium
# the tests that open the viewer are skipped.
sandbox:
	@command -v bwrap > /dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && \
	  apt-get update -qq && apt-get install -y -qq bubblewrap; } || \
	  echo 'no bubblewrap: install it with the package manager of the system'

browser:
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && \
	  apt-get update -qq && apt-get install -y -qq chromium > /dev/null; } || \
	  echo 'no Chromium: install it with the package manager of the system'

lint: dev-setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

base: setup
	$(BIN)/python -m score_jax.main --config=configs/pretrain.py \
	  --workdir=runs/base $(ARGS)

setup: $(READY)

dev-setup: $(DEV_READY)

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  uv==$(UV_VERSION)

# --no-deps: the lists are complete (see the head of requirements.txt).
$(READY): | $(BIN)/uv
	$(BIN)/uv pip install --quiet --no-deps -r requirements.txt
	@touch $@

$(DEV_READY): $(READY)
	$(BIN)/uv pip install --quiet --no-deps -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --retries 0 --extra-index-url https://download.pytorch.org/whl/cpu \
	  torch==$(TORCH_VERSION) && \
	  $(BIN)/uv pip install --quiet --no-deps $(PEFT) || \
	  echo 'no torch: the tests that compare with transformers are skipped'
	@touch $@

lock: | $(BIN)/uv
	cp requirements.head requirements.txt
	$(BIN)/uv pip compile --quiet --override overrides.txt \
	  --no-emit-index-url --no-emit-find-links --no-header \
	  --annotation-style line requirements.in >> requirements.txt
	$(BIN)/uv pip compile --quiet --no-emit-index-url --no-emit-find-links \
	  --no-header --annotation-style line requirements-dev.in \
	  > requirements-dev.txt

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
