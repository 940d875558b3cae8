# Everything works from a fresh clone: each target sets up .venv when it has to.
PYTHON ?= python3
TORCH ?= torch==2.13.0
TRANSFORMERS ?= transformers==5.23.0
BIN := .venv/bin
READY := .venv/.ready
WORKERS ?= 2
CHECK_WORKERS ?= 3
# Tests run side by side, so each keeps to one core; groups of them share what is dear to start. Compiled modules are
# kept, whatever the environment says: every worker, and every process that a test starts, would compile them again.
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --dist loadgroup

.PHONY: up test check types fast-tests bench format clean

PORT ?= 8000

up: $(READY)  ## set up, and serve the built-in model by two replicas behind a gateway, until Ctrl-C
	@echo 'Once it says where it serves, ask it something:'
	@echo '  curl http://127.0.0.1:$(PORT)/v1/chat/completions -H "content-type: application/json" \'
	@echo "    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Who are you?\"}]}'"
	@$(BIN)/headrace up builtin --replicas 2 --port $(PORT)

test: $(READY)  ## every test
	$(PYTEST) -n $(WORKERS)

check: $(READY)  ## format, lint, types, import rules, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(MAKE) --no-print-directory -j2 types fast-tests

types:
	$(BIN)/lint-imports
	$(BIN)/mypy

# They wait for processes and clocks now and then: one worker more than cores fills that.
fast-tests:
	HYPOTHESIS_PROFILE=quick $(PYTEST) -n $(CHECK_WORKERS) -m "not slow"

bench: $(READY)  ## headrace beside transformers on this machine
	$(BIN)/headrace bench offline --shape S --workload W1 --dtype bfloat16 --engines headrace,transformers_generate_batch

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# torch comes first and pinned: with it in place, nothing else pulls another build of it.
$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install -q --disable-pip-version-check $(TRANSFORMERS) -e ".[dev]"
	touch $(READY)

clean:
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
