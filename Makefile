# `make` alone lists the targets.

.DEFAULT_GOAL := help
.PHONY: help up test compose-test cache-chaos queue-chaos queue-model oracle scale failover build fmt lint tools bench

# What install-tools put beside the project comes before what the machine has.
export PATH := $(CURDIR)/.tools/bin:$(PATH)

DEV_ARGS ?=
BENCH_ARGS ?=
# Everything that is tested is built once: each other choice of features or targets builds most of it again.
FEATURES = --features mufakat/otel

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1	\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

up: tools ## Start broker, Redis and three nodes; Ctrl-C stops all (DEV_ARGS="--port-base 1000")
	cargo build --release --locked
	exec ./target/release/mufakat dev $(DEV_ARGS)

test: ## Run all tests, with real servers and a real browser
	@.ci/install-tools browser promtool
	cargo test --workspace --locked $(FEATURES)
	@$(MAKE) --no-print-directory compose-test

compose-test: tools ## Run the Compose files, where a Docker Engine answers
	cargo test --workspace --locked $(FEATURES) --no-run
	compose/test
	compose/test-ha

cache-chaos: tools ## Stop, kill and restart nodes and broker under readers and writers for 5 minutes
	MUFAKAT_CHAOS_SECONDS=300 cargo test --locked $(FEATURES) --test integration -- cache_chaos --nocapture

queue-chaos: tools ## Kill nodes, Redis and broker under producers and consumers for 5 minutes
	MUFAKAT_CHAOS_SECONDS=300 cargo test --locked $(FEATURES) --test integration -- queue_chaos --nocapture

queue-model: tools ## Compare the scripts with a model of the queue for 100,000 random steps
	MUFAKAT_MODEL_STEPS=100000 cargo test --locked $(FEATURES) --test integration -- queue_scripts --nocapture

build: ## Build the node and the load generator, optimised
	cargo build --release --locked

fmt: ## Format the code
	cargo fmt --all

lint: ## Check format and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings

tools: ## Install nats-server and redis-server where they are missing
	@.ci/install-tools

bench: tools ## Measure the standard set on a cluster of its own, write docs/benchmarks.md (4 minutes)
	cargo build --release --locked
	./target/release/loadgen bench $(BENCH_ARGS)

failover: tools ## Kill and stop the leader 20 times each under load, and print how long nobody is served
	FAILOVER_ROUNDS=20 cargo test --release --locked --test integration -- --nocapture --test-threads 1 failover

oracle: ## Compare the lock table with a naive model over a million random steps
	MUFAKAT_TABLE_CASES=25000 cargo test --release --locked --lib -- the_table_behaves_like_the_model

scale: ## Print what 100,000 locks, 10,000 waiters and a chain of 10,000 owners cost
	MUFAKAT_SCALE=1 cargo test --release --locked --test scale -- --nocapture --test-threads 1
