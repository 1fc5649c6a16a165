# Verbs only. What they do is in Cargo.toml, deny.toml, scripts/ and images/;
# each is one step of `make test` and can be run on its own.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

# Seconds for each fuzz target.
FUZZ_SECONDS ?= 60

.PHONY: help
help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## watch clients reach outside servers, mode by mode: make demo DEMO='http-proxy --keep'
	cargo run --locked --package egress-lab --bin demo -- $(DEMO)

.PHONY: test
test: deps fmt-check clippy deny docs images reproducible tests ## everything: install what is missing, check, build the images, run all tests

.PHONY: deps
deps: ## install what the tests need and this machine lacks
	scripts/install-deps

.PHONY: lint
lint: fmt-check clippy deny laws ## formatting, clippy, cargo-deny and the laws

.PHONY: fmt
fmt: ## format the sources
	cargo fmt --all

.PHONY: fmt-check
fmt-check: ## check the formatting
	cargo fmt --all --check

.PHONY: clippy
clippy: ## clippy, warnings denied
	cargo clippy --locked --workspace --all-targets -- --deny warnings

.PHONY: deny
deny: ## licences, sources, banned crates and advisories
	scripts/deny

.PHONY: laws
laws: ## dependency laws, pure modules, manifests
	cargo test --locked --package egress-house-rules --no-fail-fast

.PHONY: docs
docs: ## build the documentation, warnings denied
	RUSTDOCFLAGS='--deny warnings' cargo doc --locked --workspace --no-deps --document-private-items

.PHONY: build
build: ## build every library and program
	cargo build --locked --workspace

.PHONY: tests
tests: ## unit, golden, property and end-to-end tests
	cargo test --locked --workspace --no-fail-fast

.PHONY: images
images: ## build the images, each with its bill of materials, and check both
	images/build

.PHONY: reproducible
reproducible: ## build the images once more, elsewhere, and compare every byte
	images/reproduce

.PHONY: bench
bench: ## measure side by side with peers: make bench BENCH='proxies --only forward --peers squid'
	cargo bench --locked --package egress-benches --bench side_by_side -- $(BENCH)

.PHONY: fuzz
fuzz: ## fuzz every target for FUZZ_SECONDS (needs a nightly compiler and cargo-fuzz)
	for target in $$(cargo +nightly fuzz list); do \
	    cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS); \
	done

.PHONY: clean
clean: ## remove everything that was built
	cargo clean
	rm -rf images/out
