# make help tells what there is.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run build evil whatsapp test check crash longtalk hostile fuzz bench image live toolchain engine

ROOT ?= $(CURDIR)/.lazaret
BIN := $(CURDIR)/target/release
TRIPLE = $(shell rustc -vV | sed -n 's/^host: //p')
RUNNER = target/$(TRIPLE)/runner/agent-runner
STATIC := RUSTFLAGS="-C target-feature=+crt-static"

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: engine build image ## Set everything up and chat (or: echo "a question" | make run)
	@LAZARET_ROOT="$(ROOT)" "$(BIN)/lazaret" up --chat

build: toolchain ## Build the host and the static runner
	$(call compile,the host,$(BIN)/lazaret,host ipc-schema groups,,--release --package lazaret)
	$(call compile,the agent-runner,$(RUNNER),agent-runner ipc-schema,$(STATIC),--profile runner --package agent-runner --target $(TRIPLE))
	@install -m 755 $(RUNNER) "$(BIN)/agent-runner"

# The hostile agent that takes the runner's place in tests: static like the runner, and never installed.
evil: toolchain
	@$(STATIC) cargo build --quiet --profile runner --package evil-agent --target $(TRIPLE)
	@install -m 755 target/$(TRIPLE)/runner/evil-agent "$(BIN)/evil-agent"

# A host that accepts the tests' server, because it does not check WhatsApp's certificate: another workspace. It is built
# into the same folder and not optimized, as the tests are, so that only what depends on the check is built again.
WHATSAPP := --manifest-path tests/whatsapp/Cargo.toml --package lazaret-for-test-server
TEST_HOST := $(CURDIR)/target/debug/lazaret-for-test-server
whatsapp: toolchain
	$(call compile,the host for the tests of WhatsApp,$(TEST_HOST),host ipc-schema groups tests/whatsapp,,$(WHATSAPP) --target-dir target)

# $(call compile,WHAT,BINARY,FOLDERS,ENVIRONMENT,ARGUMENTS) is silent when no source is newer than the binary. Else it
# says what it builds, and on a terminal cargo shows its own progress; a log does not get a line for each crate.
define compile
@quiet=--quiet; \
	if [ ! -e "$(2)" ] || [ -n "$$(find $(3) \( -name '*.rs' -o -name '*.toml' -o -name 'CLAUDE.md' \) -newer "$(2)" -print -quit)" ]; then \
		if [ -e "$(2)" ]; then often=""; else often=" (first time: a few minutes)"; fi; \
		echo "lazaret: building $(1)$$often..." >&2; \
		if [ -t 2 ]; then quiet=""; fi; \
	fi; \
	$(4) cargo build $$quiet $(5)
endef

image: engine ## Build the default image of the boxes
	@container/image.sh

test: engine build evil whatsapp image ## Run every test: units, journeys, real containers
	@LAZARET_BIN="$(BIN)/lazaret" LAZARET_WHATSAPP_BIN="$(TEST_HOST)" \
		LAZARET_RUNNER_BIN="$(BIN)/agent-runner" cargo test --quiet --workspace
	@cargo test --quiet --manifest-path tests/whatsapp/Cargo.toml --package library-against-server --target-dir target

check: test fuzz ## What CI runs: the tests, a minute of fuzzing, formatting and lints
	@cargo fmt --all --check
	@cargo clippy --quiet --workspace --all-targets -- -D warnings
	@cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
	@cargo fmt --manifest-path tests/whatsapp/Cargo.toml --all --check
	@cargo clippy --quiet --manifest-path tests/whatsapp/Cargo.toml --package library-against-server --all-targets --target-dir target -- -D warnings
	@cargo clippy --quiet --package lazaret --no-default-features -- -D warnings

# A test build of its own: host and runner with failpoints, the journeys' programs beside them.
CRASH := $(CURDIR)/target/crash
crash: toolchain ## Kill host, boxes and engine everywhere and check what people saw (KILLS=500 CHANNEL=terminal|telegram|whatsapp POLICY=edit ODD=0.2, or SHOW=sweep|panics|soak|tasks|invariants|rolling|starts|rivals)
	@cargo build --quiet --target-dir $(CRASH) --package lazaret --features failpoints
	@$(if $(filter whatsapp,$(CHANNEL)),cargo build --quiet --target-dir $(CRASH) $(WHATSAPP) --features failpoints)
	@cargo build --quiet --target-dir $(CRASH) --package journeys --bins
	@RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" cargo build --quiet --target-dir $(CRASH) --target $(TRIPLE) --package agent-runner --features failpoints
	@export LAZARET_BIN=$(CRASH)/debug/lazaret LAZARET_WHATSAPP_BIN=$(CRASH)/debug/lazaret-for-test-server LAZARET_RUNNER_BIN=$(CRASH)/$(TRIPLE)/debug/agent-runner; \
		for show in $(or $(SHOW),$(if $(KILLS)$(MESSAGES),soak,sweep soak)); do $(CRASH)/debug/crash $$show $(foreach name,KILLS MESSAGES CHANNEL POLICY ODD SEED N ONLY ACTION SWEEP AT_ONCE,$(if $($(name)),$(name)="$($(name))")); done

longtalk: build ## Hold a talk of 300 turns over compactions, restarts and changes of model (TURNS=300 WINDOW=60000 SEED=1)
	@cargo build --quiet --release --package journeys --bin longtalk --bin engine-stand-in
	@LAZARET_BIN="$(BIN)/lazaret" LAZARET_RUNNER_BIN="$(BIN)/agent-runner" \
		"$(BIN)/longtalk" $(foreach name,TURNS WINDOW SEED,$(if $($(name)),$(name)="$($(name))"))

bench: $(if $(filter recall,$(SHOW)),,$(if $(filter idle,$(SHOW)),build,engine build image)) ## Measure the speed goals, one line of JSON each (SHOW=start|history|recall|runner|idle, N=30 IMAGE=lazaret-agent VERBOSE=1)
	@cargo build --quiet --release --package journeys --bin bench --bin engine-stand-in
	@$(if $(filter idle,$(SHOW)),cargo build --quiet --release $(WHATSAPP) --target-dir target)
	@LAZARET_BIN="$(BIN)/lazaret" LAZARET_WHATSAPP_BIN="$(BIN)/lazaret-for-test-server" \
		LAZARET_RUNNER_BIN="$(BIN)/agent-runner" \
		"$(BIN)/bench" $(or $(SHOW),start) $(foreach name,N IMAGE,$(if $($(name)),$(name)="$($(name))")) $(if $(VERBOSE),--verbose)

hostile: engine build evil ## Run the table of attacks by a hostile agent (SHOW=cases|race|flood, ONLY=a15, RUNTIME=runsc|runsc-uncounted, SECONDS=60)
	@cargo build --quiet --release --package journeys --bin hostile
	@LAZARET_BIN="$(BIN)/lazaret" LAZARET_RUNNER_BIN="$(BIN)/agent-runner" LAZARET_EVIL_BIN="$(BIN)/evil-agent" \
		"$(BIN)/hostile" $(or $(SHOW),cases) $(foreach name,ONLY RUNTIME SECONDS,$(if $($(name)),$(name)="$($(name))"))

SECONDS ?= 60
fuzz: toolchain ## Fuzz every parser of foreign bytes (SECONDS=60 for all together, TARGET=name for one)
	@SECONDS_ALL="$(SECONDS)" TARGET="$(TARGET)" tests/fuzz/run.sh

live: engine build image ## One real turn with a real key (ANTHROPIC_API_KEY or OPENAI_BASE_URL); never in CI
	@if [ -z "$${ANTHROPIC_API_KEY:-}$${OPENAI_BASE_URL:-}" ]; then echo "set ANTHROPIC_API_KEY or OPENAI_BASE_URL" >&2; exit 1; fi
	@echo "Run the command uname -m and tell me only what it printed." | LAZARET_ROOT="$(ROOT)" "$(BIN)/lazaret" up --chat

toolchain:
	@command -v cargo >/dev/null || { echo "lazaret needs Rust 1.94 or later; install it with:  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "lazaret needs a C compiler for SQLite; install it with:  apt-get install build-essential" >&2; exit 1; }

engine:
	@container/engine.sh
