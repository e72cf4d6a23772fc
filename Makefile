# Two commands: `make run` and `make test`. Everything they install or write stays in .venv and runs. With a GPU: `make setup-cuda` first.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
RECIPE ?= recipes/laptop.yaml
# further arguments, e.g. SET='--set phases.tuned.steps=10', and a folder of text of one's own: DATA=/folder
SET ?=
DATA ?=
PLAIN ?=
# what .venv is made of: `make setup-cuda` leaves a mark there
PINS := requirements/$(if $(wildcard $(VENV)/cuda),cuda,cpu).txt
OWN := $(if $(DATA),--set sources.own.kind=files --set sources.own.path=$(DATA))

.PHONY: run test up down lint clean setup-cuda gpu bench-corpus bench-mining bench-training bench-plain quality systems rehearsal
.DELETE_ON_ERROR:

run: $(VENV)/ready
	@$(VENV)/bin/python jobs/local.py run --recipe $(RECIPE) $(OWN) $(SET)

test: $(VENV)/ready $(VENV)/s3/ready
	@$(VENV)/bin/python -m pytest -n 2 $(TESTS)

up: $(VENV)/ready
	@$(VENV)/bin/python jobs/local.py up

down: $(VENV)/ready
	@$(VENV)/bin/python jobs/local.py down

lint: $(VENV)/ready
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

# FlagEmbedding has an environment of its own, where the program looks for it
bench-training: $(VENV)/ready $(VENV)/peers-flagembedding/ready
	@PYTHONPATH=platform $(VENV)/bin/python benchmarks/training.py

# after `make run`: what a user would do by hand from the same pairs; PLAIN='--choose', '--minutes', '--seed 43'
bench-plain: $(VENV)/ready
	@PYTHONPATH=platform $(VENV)/bin/python benchmarks/plain_alternative.py --recipe $(RECIPE) $(PLAIN)

# the recipe, its ablations and their seeds as one plan, from where it was left; hours. QUALITY='--seeds 1 --only "without distil"'
QUALITY ?=
quality: $(VENV)/ready
	@PYTHONPATH=platform $(VENV)/bin/python benchmarks/quality.py --recipe $(RECIPE) $(QUALITY)

# embedding systems made of parts, in small, against what they are compared with; from where it was left, hours. SYSTEMS='--only gritlm'
SYSTEMS ?=
systems: $(VENV)/ready
	@PYTHONPATH=platform $(VENV)/bin/python benchmarks/systems.py $(SYSTEMS)

# the published recipe's graph at a share of its row count, on two Ray nodes of this machine, with kills; goes on from what is there.
# SIZE=0.02 takes minutes, SIZE=1 hours; REHEARSAL='--only data --only killed', '--only s3'
SIZE ?= 0.02
REHEARSAL ?=
rehearsal: $(VENV)/ready $(VENV)/s3/ready
	@PYTHONPATH=platform $(VENV)/bin/python benchmarks/rehearsal.py --size $(SIZE) $(REHEARSAL)

# DATA names a folder of real text; without one the figures are measured on the laptop recipe's dictionary
bench-mining: $(VENV)/ready
	@PYTHONPATH=platform RAYSBERTA_BENCH_DATA=$(DATA) $(VENV)/bin/python benchmarks/mining.py

# DATA=/folder with the Parquet files that benchmarks/corpus.py names; its peers have an environment of their own
bench-corpus: $(VENV)/ready $(VENV)/peers-corpus/ready
	@PYTHONPATH=platform RAYSBERTA_BENCH_DATA=$(DATA) $(VENV)/bin/python benchmarks/corpus.py --peers $(VENV)/peers-corpus/bin/python

# all tests and figures that need a GPU, within ten minutes, as JSON lines; without one there is nothing to install first
gpu:
	@nvidia-smi -L > /dev/null 2>&1 || { echo "error: no NVIDIA GPU here (nvidia-smi finds none): make gpu needs one" >&2; exit 2; }
	@test -f $(VENV)/ready || { echo "error: $(VENV) is not there; right would be \`make setup-cuda\` first" >&2; exit 2; }
	@PYTHONPATH=platform $(VENV)/bin/python benchmarks/gpu.py

# requirements/cuda.txt in .venv; its torch is built for CUDA 13, which drivers know from 580 on
setup-cuda:
	@version=$$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2> /dev/null | head -1); \
	case $$version in [0-9]*) ;; *) echo "error: no NVIDIA GPU here (nvidia-smi finds none): make setup-cuda is for machines with one" >&2; exit 2 ;; esac; \
	test $${version%%.*} -ge 580 || { echo "error: the NVIDIA driver is $$version; right would be 580 or later, for CUDA 13" >&2; exit 2; }; \
	test ! -f $(VENV)/ready -o -f $(VENV)/cuda || { echo "error: $(VENV) has the packages for the CPU; right would be to remove it first" >&2; exit 2; }
	@mkdir -p $(VENV) && touch $(VENV)/cuda
	@$(MAKE) --no-print-directory $(VENV)/ready

$(VENV)/peers-corpus/ready: requirements/bench.txt $(VENV)/ready
	@$(PYTHON) -m venv $(VENV)/peers-corpus
	@$(VENV)/peers-corpus/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements/bench.txt
	@touch $@

$(VENV)/peers-flagembedding/ready: requirements/bench-flagembedding.txt $(VENV)/ready
	@$(PYTHON) -m venv $(VENV)/peers-flagembedding
	@$(VENV)/peers-flagembedding/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements/bench-flagembedding.txt
	@touch $@

# an S3 server for the tests, in an environment of its own, where they look for it
$(VENV)/s3/ready: requirements/s3.txt $(VENV)/ready
	@$(PYTHON) -m venv $(VENV)/s3
	@$(VENV)/s3/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements/s3.txt
	@touch $@

# pinned and without a resolver: what is installed is what was tested (see docs/decisions.md); a line every 15 seconds says that it is alive
$(VENV)/ready: $(PINS) requirements/build.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "error: $(PYTHON) is not Python 3.11; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "installing $$(grep -c == $(PINS)) pinned packages into $(VENV): some $(if $(findstring cuda,$(PINS)),15,5) GB, a few minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@( while sleep 15; do echo "  $$SECONDS s, $$(du -sh $(VENV) | cut -f1) so far"; done ) & beat=$$!; trap "kill $$beat" EXIT; set -e; \
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements/build.txt; \
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -r $(PINS)
	@touch $@

clean:
	rm -rf $(VENV) runs
