# Everything a fresh machine with Python 3.11 needs: `make demo` and `make test` set up what they use.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test faults lint protos setup clean

demo: setup
	$(BIN)/refrain demo --out demo-out

test: setup lint
	$(BIN)/python -m pytest

# The tests of tests/faults once more, which `test` has run, then their figures, and half an hour of mixed traffic.
faults: setup
	$(BIN)/python -m pytest tests/faults
	mkdir -p faults-out
	$(BIN)/python -m bench.faults --json faults-out/faults.json
	$(BIN)/python -m bench.soak --minutes 30 --json faults-out/soak.json --plot faults-out/soak.png

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/protos.py --check
	$(BIN)/python scripts/example_config.py --check

# Writes the generated modules beside the .proto files; `lint` fails when they have drifted.
protos: setup
	$(BIN)/python scripts/protos.py

setup: $(VENV)/.installed

# Debian keeps venv in a package of its own; every other need is a wheel.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "Python's venv module is missing: installing Debian's python3-venv"; \
	  apt-get update -qq && apt-get install -y -qq python3-venv; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo-out faults-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
