# All commands work on a machine that has only git, make and a python3 that pyproject.toml accepts.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
CORES  ?= all
URI    ?= sqlite:///results/mlflow.db

export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
# If it is set, every job compiles all imported modules again, which takes seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env demo what-demo-does test test-slurm lint docs report report-zip ui bench faults mutants lock reference clean
.DELETE_ON_ERROR:

help:
	@echo "make demo       run the whole workflow on simulated raw data, and write results/index.html"
	@echo "make test       run every check that CI runs"
	@echo "make test-slurm run the tests that need a real Slurm (as root on Debian)"
	@echo "make docs       build the documentation as a site, build/site/index.html"
	@echo "make report     write results/index.html, one page with all results of the last run"
	@echo "make report-zip write results/report.zip, Snakemake's report of the last run"
	@echo "make ui         show the recorded runs (MLflow) in a browser"
	@echo "make bench      measure the figures that docs/measured quotes"
	@echo "make faults     test kills, damaged files, full disks and hostile inputs; count the survived faults"
	@echo "make mutants    break one line of code at a time, and count how often a test fails"
	@echo "make lint       style, types and workflow checks only"
	@echo "make env        build .venv from envs/requirements.lock"
	@echo "make lock       resolve envs/requirements.lock and envs/bootstrap.lock again"

# Check before any download that pyproject.toml accepts this Python.
define CHECK
import re, sys
bounds = re.search(r'requires-python = "(>=(\d+)\.(\d+),<(\d+)\.(\d+))"', open("pyproject.toml").read()).groups()
low, high = tuple(map(int, bounds[1:3])), tuple(map(int, bounds[3:5]))
if not low <= sys.version_info[:2] < high:
    sys.exit("$(PYTHON) is Python %d.%d, expected " % sys.version_info[:2] + bounds[0])
endef
export CHECK

env: $(READY)

# Built again when a lock changes; packages that exist are taken from uv's cache.
$(READY): envs/requirements.lock envs/bootstrap.lock pyproject.toml
	@$(PYTHON) -c "$$CHECK"
	@echo "Installing the locked packages into $(VENV): 7 GB on disk, of which 3.4 GB are only used with a GPU"
	@echo "(docs/install.md shows how to install without them). Packages in uv's cache are not downloaded again."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement envs/bootstrap.lock
	$(BIN)/uv pip sync --python $(BIN)/python --require-hashes envs/requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: | what-demo-does $(READY)
	snakemake --cores $(CORES)
	cathodeflow report results
	@echo "Open results/index.html. The other files are in results; make ui shows the runs in MLflow."

# Before the environment is built.
what-demo-does:
	@echo "The demo runs the whole workflow on simulated raw data: 101 jobs, about 6 minutes on two cores without a GPU."
	@echo "  sem     micrographs of cathodes      -> a trained network, its accuracy and its reliability"
	@echo "  bragg   detector frames of a charge  -> tracks of Bragg spots, lattice parameters and strain of particles"
	@echo "  fibsem  slices of an electrode       -> phase of every voxel, properties of the electrode"
	@echo "  bcdi    rocking scan of a particle   -> its shape and strain in 3D, phased with and without a network"
	@echo "All results are written to results; jobs that are done already are not run again."

test: lint
	pytest

test-slurm: $(READY)
	.ci/slurm
	pytest -n 0 tests/integration/test_slurm_job.py tests/long/test_slurm.py

lint: $(READY)
	ruff check
	ruff format --check
	snakefmt --check Snakefile workflow
	mypy
	snakemake --lint

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 mkdocs build

report: $(READY)
	cathodeflow report results

report-zip: $(READY)
	snakemake --cores 1 --report results/report.zip

ui: $(READY)
	@cathodeflow ui --uri $(URI)

bench: $(READY)
	python benchmarks/run.py

faults: $(READY)
	python tests/faults/table.py

mutants: $(READY)
	python tests/faults/mutants.py

reference: $(READY)
	cathodeflow reference > config/README.md

lock: $(READY)
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --extra dev --extra sem-weights --extra cluster --extra remote --extra docs --extra fibsem-architectures --extra ocr pyproject.toml --output-file envs/requirements.lock
	awk '/^[a-z]/ {keep = /^uv==/} keep' envs/requirements.lock > envs/bootstrap.lock

clean:
	rm -rf results .snakemake
