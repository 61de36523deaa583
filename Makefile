# make quickstart, test, coverage, test-slow, test-gguf, test-ray, lint, docs, bench: each creates .venv first where it is not there.
# PYTHON names the interpreter to create it from: 3.11, 3.12 or 3.13.

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(firstword $(foreach each,python3 python3.11 python3.12 python3.13,\
	$(shell $(each) -c '$(SUPPORTED)' 2>/dev/null && echo $(each))))
BIN := .venv/bin
# What the tests need of llama.cpp, compiled in half the time.
LLAMA_FLAGS := -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DLLAVA_BUILD=OFF -DLLAMA_CURL=OFF \
	$(foreach each,TESTS EXAMPLES TOOLS SERVER,-DLLAMA_BUILD_$(each)=OFF)

.PHONY: quickstart test coverage test-slow test-gguf test-ray lint docs bench clean

quickstart: .venv/ready
	$(BIN)/langue quickstart --force

# A process a core, each with one thread: on models this small, more only wait for each other. A file's tests stay
# together, and with them what they share.
test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

# The lines that these tests reach, by file. Apart from `make test`, since counting them takes half as much time again.
coverage: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -m 'not slow and not timed' \
		--cov=langue --cov-report=term:skip-covered

test-slow: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow --numprocesses auto --dist loadfile --no-loadscope-reorder

# llama.cpp runs the files that langue writes. Its Python package comes as source, with the published vocabularies that
# tokenizers are held against, and is compiled here: minutes, and a C++ compiler is needed.
test-gguf: .venv/llama
	LLAMA_CPP=$$(echo .venv/llama/*/vendor/llama.cpp) OMP_NUM_THREADS=1 $(BIN)/pytest tests/parity/test_llama_cpp.py

# Ray is large, so it is not among what `make test` needs.
test-ray: .venv/ready
	$(BIN)/pip install --quiet --constraint constraints-dev.txt --editable '.[ray]'
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "slow or not slow" tests/serve/test_ray.py

.venv/llama: .venv/ready
	rm -rf $@.part && mkdir $@.part
	$(BIN)/pip download --constraint constraints-dev.txt --no-deps --no-binary :all: --dest $@.part llama-cpp-python
	tar xzf $@.part/*.tar.gz -C $@.part && rm $@.part/*.tar.gz
	CMAKE_ARGS="$(LLAMA_FLAGS)" $(BIN)/pip install --constraint constraints-dev.txt $@.part/*/
	mv $@.part $@

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready
	$(BIN)/python docs/generate.py

bench: .venv/ready
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/ready: pyproject.toml constraints-dev.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --constraint constraints-dev.txt --editable '.[quickstart,dev]'
	@touch $@
