# All from a fresh machine: uv is brought into .uv/ where it is missing, and uv brings Python's packages into .venv/.
# `make` alone prints help. On Windows, or without make: uv sync, then uv run miniclip run.

SHELL := /bin/sh
# By name, not by path: make knows no file with a space in its name.
UV := $(shell command -v uv >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)
BRING := $(filter .uv/bin/uv,$(UV))
RUN := $(UV) run --quiet --no-sync
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help run test test-long test-oldest test-python lab figures site bench clean

help:
	@echo "make run      run the notebooks of the series, offline; results in build/"
	@echo "make test     run the tests, the notebooks among them"
	@echo "make lab      open the notebooks in JupyterLab"
	@echo "make figures  draw every figure again, into figures/"
	@echo "make site     make a web site of notebooks, figures and reference, in build/site/"
	@echo "make bench    measure speed"
	@echo "make clean    remove what the commands above wrote (not the environments)"
	@echo
	@echo "More: ARGS='04 --profile smoke' make run, ARGS='-k losses' make test"
	@echo "make test-long                  the tests with many more cases: hours; tests/README.md says what they are"
	@echo "make test-oldest                a part of the tests with the oldest libraries that pyproject.toml allows"
	@echo "PYTHON=3.13 make test-python    the same part with that Python, by number or path, and the newest libraries"

run: $(READY)
	@$(RUN) miniclip run $(ARGS)

test: $(READY)
	@$(RUN) pytest tests --ignore=tests/benchmarks --ignore=tests/long $(ARGS)

test-long: $(READY)
	@$(RUN) pytest tests/long -s $(ARGS)

# The part that depends on the versions of Python and of the libraries. What runs notebooks, browses, reads documents or plants faults is left out: it would double the time.
PART := tests $(addprefix --ignore=tests/,benchmarks browser long test_checks_wheel.py test_site.py test_project.py test_environments.py) \
	$(addprefix --ignore-glob=tests/test_,'notebook*' 'docs*' 'fuzz*' 'planted*' 'coursework_[bgr]*')

# Not by `uv sync`, which would write these versions into uv.lock.
test-oldest: .venv-oldest/.ready
	@UV_PROJECT_ENVIRONMENT=.venv-oldest $(RUN) pytest $(PART) $(ARGS)

.venv-oldest/.ready: pyproject.toml | $(BRING)
	@echo "Setting up .venv-oldest/ (some minutes and about 6 GB) ..."
	@$(UV) venv --quiet --clear .venv-oldest
	@$(UV) pip install --quiet --python .venv-oldest --resolution lowest-direct --group dev --editable .
	@touch $@

test-python: | $(BRING)
	@UV_PROJECT_ENVIRONMENT=.venv-python $(UV) sync --quiet $(if $(PYTHON),--python "$(PYTHON)")
	@UV_PROJECT_ENVIRONMENT=.venv-python $(RUN) pytest $(PART) $(ARGS)

# nbgrader adds a menu, a button and a side panel to JupyterLab, which a learner would only trip over. Here alone it stays out.
NO_NBGRADER := {'nbgrader.server_extensions.formgrader': False, 'nbgrader.server_extensions.validate_assignment': False, \
	'nbgrader.server_extensions.assignment_list': False, 'nbgrader.server_extensions.course_list': False}
lab: $(READY)
	@mkdir -p build/lab/labconfig
	@echo '{"disabledExtensions": {"@jupyter/nbgrader": true}}' > build/lab/labconfig/page_config.json
	@JUPYTER_CONFIG_PATH="$(CURDIR)/build/lab$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" $(RUN) jupyter lab --notebook-dir=notebooks --ServerApp.jpserver_extensions="$(NO_NBGRADER)" $(ARGS)

figures: $(READY)
	@$(RUN) miniclip figures $(ARGS)

# Made anew each time, from what is committed: no notebook runs and nothing is fetched. A warning is an error.
site: $(READY)
	@rm -rf build/site build/site-work
	@mkdir -p build/site-work/pages
	@$(RUN) sphinx-build -q -W --keep-going -b html -c docs -d build/site-work/read build/site-work/pages build/site $(ARGS)
	@echo "The site is in build/site/: open build/site/index.html in a browser."

bench: $(READY)
	@$(RUN) pytest tests/benchmarks $(ARGS)

clean:
	@rm -rf build dist .pytest_cache .ruff_cache .benchmarks .hypothesis .ipynb_checkpoints notebooks/.ipynb_checkpoints
	@find data docs miniclip_helpers tests -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Clean. To remove the environment, too: rm -rf .venv .venv-* .uv"

# Set up once, and again when pyproject.toml has changed. --no-sync above keeps every later command off the network.
$(READY): pyproject.toml | $(BRING)
	@echo "Setting up .venv/ (once; some minutes and about 6 GB on a fresh machine) ..."
	@$(UV) sync --quiet
	@touch $@

# A venv works where the system's pip is locked (PEP 668). Debian without python3-venv has none: pip alone then.
.uv/bin/uv:
	@echo "Bringing uv into .uv/ ..."
	@{ python3 -m venv .uv && .uv/bin/python -m pip install --quiet uv; } >/dev/null 2>&1 \
	|| { rm -rf .uv && python3 -m pip install --quiet --target .uv uv; } >/dev/null 2>&1 \
	|| { rm -rf .uv && python3 -m pip install --quiet --break-system-packages --target .uv uv; } >/dev/null 2>&1 \
	|| { rm -rf .uv; echo "uv could not be installed. Is there a network, and python3 with its venv module" \
	     "(Debian: apt-get install python3-venv)? Or install uv yourself, then run make again."; exit 1; } >&2
