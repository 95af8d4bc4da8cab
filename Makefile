# minilab: two commands matter, `make book` and `make test`. `make help` lists the rest.
# Each target creates .venv from constraints.txt when it is missing or out of date.

PYTHON      ?= python3
# Empty: pip's own configuration decides. On Linux, PyPI's torch brings several GB of CUDA packages;
# without an NVIDIA GPU take PyTorch's CPU builds:
#   make book TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
PORT        ?= 8000
# The slowest single cell may take this many seconds in `make test` and `make notebooks`.
CELL_TIMEOUT ?= 300
# Whose records `make drift` makes again.
PRESET      ?= cpu
# Processes that share the tests, whole files each; every one computes with one thread.
WORKERS     ?= 2

VENV      := .venv
BIN       := $(VENV)/bin
STAMP     := $(VENV)/.installed
HTML      := _build/html
NOTEBOOKS  = $(wildcard chapters/*.ipynb labs/*.ipynb)
# Its two models run side by side and are timed: nothing else may run.
ALONE     := chapters/01-speculative-decoding.ipynb
# What makes a run of the notebooks comparable: no progress bars, no window, no spinning OpenMP workers.
QUIET     := MINILAB_PROGRESS=0 MPLBACKEND=Agg OMP_WAIT_POLICY=passive PATH="$(CURDIR)/$(BIN):$$PATH"

NBVAL     := --nbval --nbval-current-env --nbval-cell-timeout $(CELL_TIMEOUT) \
             --nbval-sanitize-with tests/nbval_sanitize.cfg

.DEFAULT_GOAL := help
.PHONY: help setup book serve epub pdf test lab bench drift release notebooks colab lighthouse clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## create or update .venv (the other targets do it when needed)

# The stamp is written last, so that an interrupted install is taken up again by the next call.
$(STAMP): pyproject.toml constraints.txt
	@bash .ci/create-venv "$(PYTHON)" $(VENV)
	$(BIN)/python -m pip install -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e ".[book,labs,test,cluster]"
	@touch $@

book: $(STAMP)  ## build the book from the stored outputs; any warning is an error
	$(QUIET) $(BIN)/jupyter-book build . -W --keep-going -n --all
	@echo "The book is at $(CURDIR)/$(HTML)/index.html (or: make serve)"

serve: book  ## build the book and serve it at http://localhost:8000
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory $(HTML)

# An earlier build's files would be packed too.
epub: $(STAMP)  ## build the book as an EPUB in _build/epub: no script, mathematics as MathML
	rm -rf _build/epub
	$(QUIET) $(BIN)/jupyter-book build . --builder custom --custom-builder epub -W --keep-going -n --all
	@echo "The book is at $(CURDIR)/_build/epub/minilab.epub"

pdf: book  ## print the book with Chromium into _build/pdf; without Chromium it names the package to install
	PYTHONPATH=tests/book $(BIN)/python book/minilab_pdf.py $(HTML) _build/pdf/minilab.pdf

# The book comes first: the browser checks in tests/book open its pages.
test: $(STAMP)  ## unit tests, every notebook again (nbval, strict), -W book build, browser checks
	@bash .ci/system-packages
	@$(MAKE) --no-print-directory book
	@$(QUIET) $(BIN)/python -c "import matplotlib.font_manager"
	$(QUIET) $(BIN)/python -m pytest $(ALONE) $(NBVAL)
	$(QUIET) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests \
	  $(filter-out $(ALONE),$(NOTEBOOKS)) $(NBVAL)

lab: $(STAMP)  ## open JupyterLab on the chapters and the labs
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter lab

bench: $(STAMP)  ## compare with the named peers (benchmarks/), one script after the other
	@for script in $(wildcard benchmarks/*.py); do echo "== $$script"; $(QUIET) $(BIN)/python "$$script" || exit 1; done

# Nothing that an earlier run kept is used, so that trainings are checked too. It ends with 3 if a record has drifted.
drift: $(STAMP)  ## make the records of PRESET (cpu) again and compare them with the kept ones
	rm -rf build/drift
	$(QUIET) MINILAB_CACHE="$(CURDIR)/build/drift/cache" $(BIN)/minilab run --all --preset $(PRESET) \
	  --records build/drift/records --compare

release: $(STAMP)  ## generate the student notebooks and the autograders in build/labs
	$(QUIET) $(BIN)/minilab assign labs/*.ipynb -o build/labs

notebooks: $(STAMP)  ## run every notebook again and store its outputs in place
	@$(QUIET) $(BIN)/python -c "import matplotlib.font_manager"
	$(QUIET) $(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.kernel_name=python3 \
	  --ExecutePreprocessor.timeout=$(CELL_TIMEOUT) --ExecutePreprocessor.record_timing=False $(NOTEBOOKS)

# It needs no .venv: the environment is Colab's. PYTHON=/path/to/python3.13 where `python3` is another version.
colab:  ## run every notebook in Colab's versions of the packages, as its first cell installs minilab there
	@PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" CELL_TIMEOUT=$(CELL_TIMEOUT) bash .ci/colab $(NOTEBOOKS)

# Not in `make test`: it needs Node.js and takes half a minute a page. It ends with an error if a score is below 95.
lighthouse: book  ## Lighthouse's scores of each page, as a phone and a desktop see it, in build/lighthouse.csv
	$(BIN)/python .ci/lighthouse $(PAGES)

clean:  ## remove the built book and the generated files (.venv stays)
	rm -rf _build build dist .pytest_cache .ruff_cache
