# Every target makes .venv when it is missing or older than what it is made from.
PYTHON ?= python3
BIN := .venv/bin
# The package index that torch itself comes from. Empty: pip's own, whose build for Linux is the CUDA one, of several
# gigabytes. Without a GPU name torch's CPU index: the selector at pytorch.org gives its address. --no-deps below: that
# index holds other versions of what torch needs than constraints.txt pins.
TORCH_INDEX_URL ?=

.PHONY: demo test families gpu soak containers browser check clean

demo: .venv/.made
	$(BIN)/imagemill run jobs/examples/demo.yaml

# How many test files run at a time: twice the cores of a small machine, for half of the tests mostly wait for the
# processes that they start and kill. No test needs a quiet machine. The files begin in the order of
# tests/first_files.py, the long ones first.
TEST_PROCESSES ?= 4

# Hundreds of tests start `imagemill` or a worker: each of these would compile all that it imports of this folder again.
test: export PYTHONDONTWRITEBYTECODE =
test: .venv/.made browser
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --durations 15

# A few minutes: a tiny pipeline of every family, one by one and together, docs/families.md; then the tests of those
# families that `make test` leaves out.
families: .venv/.made
	$(BIN)/python -W ignore -m tools.families
	$(BIN)/python -m pytest -m families tests/tiny tests/tools/test_families.py

# Needs an NVIDIA GPU, torch's CUDA build and g++; a few minutes.
gpu: .venv/.made
	$(BIN)/python -m pytest -m gpu tests/gpu

# Two hours on two cores: each check taken out in turn (about half an hour), every fault once and some again,
# 10,000 odd inputs, 200 faults over 20,000 images in a bucket (a quarter of an hour), and 1,000 faults over 100,000
# images in folders (an hour); docs/faults.md.
soak: .venv/.made
	$(BIN)/python -m tests.faults.mutations
	$(BIN)/python -m pytest -m '' tests/faults/test_faults.py tests/integration/test_pipelines.py \
		tests/integration/test_sentinels.py tests/worker/renderers/test_compiled_pipelines.py
	FUZZ_CASES=10000 $(BIN)/python -m pytest --capture=no tests/faults/test_fuzz.py tests/faults/test_fuzz_models.py tests/faults/test_fuzz_outputs.py
	$(BIN)/python -m tests.faults.soak --bucket --faults 200 --images 20000
	$(BIN)/python -m tests.faults.soak --faults 1000 --images 100000 --shapes

# Needs an engine with Compose; a quarter of an hour. BASE_IMAGE, REDIS_IMAGE, TORCH_INDEX_URL and others:
# tests/faults/containers.py.
containers:
	$(PYTHON) -m tests.faults.containers

# The pages are tested in the system's own Chromium. Who is root on a Debian gets it; others are told what to install,
# and the tests of the pages fail until it is there.
browser:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		if command -v $$name >/dev/null; then exit 0; fi; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; then exit 0; fi; \
	echo "The tests of the pages need Chromium: apt-get install chromium; on macOS brew install --cask chromium" >&2

check: .venv/.made
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

.venv/.made: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	if [ -n "$(TORCH_INDEX_URL)" ]; then $(BIN)/python -m pip install --quiet --no-deps \
		--index-url "$(TORCH_INDEX_URL)" --constraint constraints.txt torch; fi
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[worker,flower,dev]'
	touch $@

clean:
	rm -rf .venv out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
