# Everything is built in one profile, so that RocksDB is compiled once (about 15 minutes on two cores).
CARGO_DENY := 0.20.2

.PHONY: demo test torture check setup

# A three-node cluster of real processes loses its busiest node half-way, and no record.
demo: setup
	cargo run --release -p ropewalk-demo

# Real nodes under fire: killed, stopped, cut off, slowed down, filled up, damaged. MINUTES, SEED and
# NODES say for how long, which faults, and how many nodes.
MINUTES ?= 2
NODES ?= 3
torture: setup
	cargo run --release -p ropewalk-torture -- --minutes $(MINUTES) --nodes $(NODES) $(if $(SEED),--seed $(SEED))

test: setup
	cargo test --release --workspace

# What CI asks of the code beside its tests.
check: setup
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	cargo deny --version 2>/dev/null | grep -qF $(CARGO_DENY) || cargo install --debug --locked cargo-deny@$(CARGO_DENY)
	cargo deny check bans licenses sources

setup:
	@scripts/setup
