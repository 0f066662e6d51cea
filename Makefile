# For everybody: `make demo`, `make review` and `make test`. Each installs and builds all that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := musicflamingo_cli tiny_flamingo tests benchmarks docs
# The venv's tools first (ninja, shellcheck), so that nothing has to be installed system-wide.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo review test quick lint check package docs pictures format llama clean

# The server out of a wheel: a first try takes seconds and builds nothing.
demo: $(VENV)/installed
	$(BIN)/musicflamingo demo --engine embedded

# The demo, then its page: listen, correct and approve in the browser.
review: demo
	$(BIN)/musicflamingo review musicflamingo-demo --open

# The whole, quick tests first, so that most faults show within minutes. Then with the real binary: a test marked `real`
# that cannot find it fails here instead of being skipped. The report is tested in a browser where there is one; .ci/run
# installs one and requires it.
test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -m "not slow and not real"
	$(MAKE) llama
	MUSICFLAMINGO_REQUIRE_REAL=1 $(BIN)/python -m pytest -n 2 --dist loadscope --durations 15 -m "slow or real"

# For use while editing: no llama.cpp, no browser, no large dataset.
quick: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -q -m "not slow and not real"

lint: $(VENV)/installed
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/shellcheck scripts/*.sh
	$(BIN)/hadolint --config containers/.hadolint.yaml containers/*.Containerfile
	$(BIN)/mypy

check: lint
	$(BIN)/python -m pytest -n 2 --dist loadscope

# The sdist and the wheel, checked, and the wheel tried in an empty environment.
package: $(VENV)/installed
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m pytest -q tests/test_package.py

format: $(VENV)/installed
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# docs/cli.md from the program's own help; a test fails when it is outdated.
docs: $(VENV)/installed
	$(BIN)/python docs/command_reference.py > docs/cli.md

# docs/pictures from real runs of the tiny model; needs Chromium. A test fails when they are outdated.
pictures: llama
	$(BIN)/python -m docs.pictures

llama: $(VENV)/installed
	PYTHON=$(BIN)/python bash scripts/build_llama_cpp.sh >/dev/null

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	CMAKE_ARGS=-DLLAMA_BUILD=OFF $(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--editable '.[dev,embedded,export,finetune,native,ray,review,serve,stores,transformers]'
	touch $@

clean:
	rm -rf $(VENV) musicflamingo-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
