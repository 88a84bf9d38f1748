# Every target installs what it needs and says so. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build demo run release test loadtest fmt-check check fmt lint fuzz bench bench-check bench-baseline clean

CONFIG ?= conf/config.yaml
ARGS ?=
PYTHON := .venv/bin/python
# One profile for the demo, the tests and the lints: nothing is compiled twice.
BINARY := target/debug/dheera_ai
SIMULATOR := target/debug/bedrock-sim
# Of its own: what is built to be measured is not what `make release` builds.
BENCH_DIR := target/bench

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what building and testing need (Debian packages, Python packages in .venv)
	@scripts/setup

build: setup ## Build the proxy and the simulator for trying and testing (target/debug)
	cargo build --workspace --locked

demo: build ## Start simulator and proxy, make a newcomer's calls, show answers, tokens, costs and metrics
	@$(PYTHON) scripts/demo.py --proxy $(BINARY) --simulator $(SIMULATOR)

run: build ## Serve in the foreground: make run CONFIG=conf/config.yaml
	$(BINARY) --config $(CONFIG) $(ARGS)

release: setup ## Build the optimised binary, target/release/dheera_ai
	cargo build --release --locked

test: build ## Run every test: unit, property, whole proxy against the simulator, real SDKs
	@scripts/test

loadtest: setup ## Measure what the proxy costs, beside nginx, Envoy and LiteLLM: make loadtest ARGS=--quick
	@python3 loadtest/bench/install.py
	cargo build --release --locked -p dheera_ai -p bedrock-sim -p bare-pingora -p stream-load
	@.venv-loadtest/bin/python loadtest/bench/run.py $(ARGS)

check: setup fmt-check lint ## What CI runs besides the tests: format, lints, rules of the code base

fmt: ## Format the code
	cargo fmt --all

fmt-check:
	cargo fmt --all --check

lint: ## Lints, with every warning an error
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo check --quiet --locked --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz

fuzz: setup ## Fuzz the decoder and the readers of usage and JSON: make fuzz ARGS="-runs=10000000"
	@scripts/fuzz $(ARGS)

bench: setup ## Time the pieces of a request: make bench ARGS=usage for some of them
	cargo bench --locked --workspace --target-dir $(BENCH_DIR) --bench timing -- $(ARGS)

bench-check: ## Count the instructions of a request under valgrind; fails when they are 5 % more than the stored ones
	@scripts/setup valgrind
	@$(PYTHON) tests/instructions/run.py check $(ARGS)

bench-baseline: ## Store the instructions as they are now, in benches/instructions.json
	@scripts/setup valgrind
	@$(PYTHON) tests/instructions/run.py baseline $(ARGS)

clean: ## Remove what was built
	cargo clean
	rm -rf .venv .venv-* tests/clients/node/node_modules
