# make help tells what there is.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run build evil test check crash hostile fuzz bench image live toolchain engine

ROOT ?= $(CURDIR)/.lazaret
BIN := $(CURDIR)/target/release
TRIPLE = $(shell rustc -vV | sed -n 's/^host: //p')

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: engine build image ## Set everything up and chat (or: echo "a question" | make run)
	@LAZARET_ROOT="$(ROOT)" "$(BIN)/lazaret" up --chat

build: toolchain ## Build the host and the static runner
	@cargo build --quiet --release --package lazaret
	@RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --profile runner --package agent-runner --target $(TRIPLE)
	@install -m 755 target/$(TRIPLE)/runner/agent-runner "$(BIN)/agent-runner"

# What takes the runner's place where boxes are attacked: static like it, and nothing that anybody installs.
evil: toolchain
	@RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --profile runner --package evil-agent --target $(TRIPLE)
	@install -m 755 target/$(TRIPLE)/runner/evil-agent "$(BIN)/evil-agent"

image: engine ## Build the default image of the boxes
	@container/image.sh

test: engine build evil image ## Run every test: units, journeys, real containers
	@LAZARET_BIN="$(BIN)/lazaret" LAZARET_RUNNER_BIN="$(BIN)/agent-runner" cargo test --quiet --workspace

check: test fuzz ## What CI runs: the tests, a minute of fuzzing, formatting and lints
	@cargo fmt --all --check
	@cargo clippy --quiet --workspace --all-targets -- -D warnings
	@cargo fmt --manifest-path tests/fuzz/Cargo.toml --check

# A test build of its own: host and runner with failpoints, the journeys' programs beside them.
CRASH := $(CURDIR)/target/crash
crash: toolchain ## Kill it everywhere, then judge (KILLS=500 CHANNEL=keyed|telegram POLICY=edit, or SHOW=sweep|panics|storm|moments|rolling|starts|rivals)
	@cargo build --quiet --target-dir $(CRASH) --package lazaret --features failpoints
	@cargo build --quiet --target-dir $(CRASH) --package journeys --bins
	@RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" cargo build --quiet --target-dir $(CRASH) --target $(TRIPLE) --package agent-runner --features failpoints
	@export LAZARET_BIN=$(CRASH)/debug/lazaret LAZARET_RUNNER_BIN=$(CRASH)/$(TRIPLE)/debug/agent-runner; \
		for show in $(or $(SHOW),$(if $(KILLS)$(MESSAGES),storm,sweep storm)); do $(CRASH)/debug/crash $$show $(foreach name,KILLS MESSAGES CHANNEL POLICY SEED N ONLY ACTION SWEEP AT_ONCE,$(if $($(name)),$(name)="$($(name))")); done

bench: engine build image ## Measure what the goals say, one line of JSON each (N=30 IMAGE=lazaret-agent VERBOSE=1)
	@cargo build --quiet --release --package journeys --bin bench
	@LAZARET_BIN="$(BIN)/lazaret" LAZARET_RUNNER_BIN="$(BIN)/agent-runner" \
		"$(BIN)/bench" $(foreach name,N IMAGE,$(if $($(name)),$(name)="$($(name))")) $(if $(VERBOSE),--verbose)

hostile: engine build evil ## An agent that is turned against its owner (SHOW=cases|race|flood, ONLY=a15, RUNTIME=runsc|runsc-uncounted, SECONDS=60)
	@cargo build --quiet --release --package journeys --bin hostile
	@LAZARET_BIN="$(BIN)/lazaret" LAZARET_RUNNER_BIN="$(BIN)/agent-runner" LAZARET_EVIL_BIN="$(BIN)/evil-agent" \
		"$(BIN)/hostile" $(or $(SHOW),cases) $(foreach name,ONLY RUNTIME SECONDS,$(if $($(name)),$(name)="$($(name))"))

SECONDS ?= 60
fuzz: toolchain ## Foreign bytes at every parser (SECONDS=60 for all together, TARGET=name for one)
	@SECONDS_ALL="$(SECONDS)" TARGET="$(TARGET)" tests/fuzz/run.sh

live: engine build image ## One real turn with a real key (ANTHROPIC_API_KEY or OPENAI_BASE_URL); never in CI
	@if [ -z "$${ANTHROPIC_API_KEY:-}$${OPENAI_BASE_URL:-}" ]; then echo "set ANTHROPIC_API_KEY or OPENAI_BASE_URL" >&2; exit 1; fi
	@echo "Run the command uname -m and tell me only what it printed." | LAZARET_ROOT="$(ROOT)" "$(BIN)/lazaret" up --chat

toolchain:
	@command -v cargo >/dev/null || { echo "lazaret needs Rust 1.94 or later; install it with:  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "lazaret needs a C compiler for SQLite; install it with:  apt-get install build-essential" >&2; exit 1; }

engine:
	@container/engine.sh
