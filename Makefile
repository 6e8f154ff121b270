# Every target makes .venv when it is missing or older than what it is made from.
PYTHON ?= python3
BIN := .venv/bin
# The package index that torch itself comes from. Empty: pip's own, whose build for Linux is the CUDA one, of several
# gigabytes. Without a GPU name torch's CPU index: the selector at pytorch.org gives its address. --no-deps below: that
# index holds other versions of what torch needs than constraints.txt pins.
TORCH_INDEX_URL ?=

.PHONY: demo test check clean

demo: .venv/.made
	$(BIN)/imagemill run jobs/examples/demo.yaml

# These time what they start and kill, so they have the cores to themselves; the others share them.
ALONE := $(addprefix tests/integration/test_,commands.py flower.py kills.py run_command.py)

test: .venv/.made
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ALONE:%=--ignore=%)
	$(BIN)/python -m pytest $(ALONE)

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
