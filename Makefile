# Two commands: `make train` and `make test`. Both set up .venv first where it is missing.
PYTHON ?= python3
RUN := .venv/bin/python
# What `make test-newest` gives to pytest; `make test-newest TESTS=` runs all.
TESTS ?= -m "not slow"

# Where `make train` trains; what is there already it resumes. `make deploy` takes that run to devices.
RUN_FOLDER ?= runs/digits

.PHONY: setup train deploy test test-slow test-all test-newest test-nir lint docs docs-serve evidence bench bench-peers scaling faults tpu

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bsojax needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

train: setup
	$(RUN) -m experiments.train digits --output $(RUN_FOLDER) --resume

deploy: setup
	test -f $(RUN_FOLDER)/summary.json || $(RUN) -m experiments.train digits --output $(RUN_FOLDER) --resume
	$(RUN) -m experiments.deploy $(RUN_FOLDER) --c $(RUN_FOLDER)/c --net $(RUN_FOLDER)/net.bsojax \
	  --stablehlo $(RUN_FOLDER)/model.stablehlo --check

test: setup
	$(RUN) -m pytest -m "not slow"

test-slow: setup
	$(RUN) -m pytest -m slow

test-all: setup
	$(RUN) -m pytest

# The newest Python here, and what the package index gives it: `rm -r .venv-newest` lets it look again.
test-newest: .venv-newest/.ready
	.venv-newest/bin/python -c 'import sys, jax; print("Python", sys.version.split()[0], "and jax", jax.__version__)'
	.venv-newest/bin/python -m pytest $(TESTS)

.venv-newest/.ready: pyproject.toml
	python=$$(.ci/newest-python) && $$python -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[experiments,test]'
	touch $@

# Simulators that read NIR, with PyTorch for the CPU; they share no environment with JAX. NIR_TORCH names another build.
NIR_TORCH ?= --extra-index-url https://download.pytorch.org/whl/cpu torch

test-nir: setup .venv-nir/.ready
	$(RUN) -m pytest tests/test_nir.py

.venv-nir/.ready:
	$(PYTHON) -m venv --clear .venv-nir
	.venv-nir/bin/python -m pip install --quiet --disable-pip-version-check $(NIR_TORCH)
	.venv-nir/bin/python -m pip install --quiet --disable-pip-version-check nir==1.0.8 loguru numpy packaging scipy tqdm
	.venv-nir/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		nirtorch==2.6 spikingjelly==2.0.0 norse==1.1.0 snntorch==1.0.0
	touch $@

# The sdist and the wheel in dist/, tried on the oldest Python with the lowest versions and on the newest.
OLDEST_PYTHON ?= python3.11

.PHONY: package
package:
	newest=$$(.ci/newest-python) && $(PYTHON) .ci/package.py dist --lowest $(OLDEST_PYTHON) --newest $$newest

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# The site, into site/, with every notebook run: minutes. `make docs DOCS_EXECUTE=false` runs none and takes seconds.
export DOCS_EXECUTE ?= true
DOCS := NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs

docs: .venv/.ready-docs
	$(DOCS) build --strict

# Pages as they are written; notebooks are shown and not run.
docs-serve: .venv/.ready-docs
	DOCS_EXECUTE=false $(DOCS) serve

.venv/.ready-docs: .venv/.ready
	$(RUN) -m pip install --quiet --disable-pip-version-check -c requirements.lock --no-build-isolation --editable '.[docs]'
	touch $@

evidence: setup
	$(RUN) -m experiments.regret --output docs/results/regret.json --picture docs/pictures/regret.png
	$(RUN) -m experiments.evidence
	$(RUN) -m experiments.evidence.render

bench-peers: setup
	$(RUN) -m benchmarks.peers
	$(RUN) -m benchmarks.peers --memory --rounds 1
	$(RUN) -m benchmarks.render

bench: setup
	$(RUN) -m benchmarks

scaling: setup
	$(RUN) -m benchmarks.scaling
	$(RUN) -m benchmarks.votes
	$(RUN) -m benchmarks.render

faults: setup
	$(RUN) -m benchmarks.faults
	$(RUN) -m benchmarks.render

tpu: setup .venv-tpu/.ready
	.venv-tpu/bin/python -m benchmarks.tpu
	$(RUN) -m benchmarks.render

# What .venv has, and libtpu: a JAX that finds it looks for a TPU at every start.
.venv-tpu/.ready: .venv/.ready
	$(RUN) -m venv --clear .venv-tpu
	$(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > .venv-tpu/path
	mv .venv-tpu/path "$$(.venv-tpu/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv.pth"
	.venv-tpu/bin/python -m pip install --quiet --disable-pip-version-check 'jax[tpu]'
	touch $@
