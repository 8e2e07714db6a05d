# One profile for all builds, so that RocksDB is compiled once (about 15 minutes on two cores).
CARGO_DENY := 0.20.2

# Parameters of make sim: docs/simulation.md. DISK is memory, rocksdb or mixed.
SEEDS ?= 1..201
SECONDS ?= 60
DISK ?= mixed
BENCHES := --bench batch --bench partitioner --bench apply
SIM := cargo run --release -p ropewalk-simulation --

# Directory of the binaries, and a wrapper that reports progress while cargo is silent.
BUILT = $(or $(CARGO_TARGET_DIR),target)/release
PROGRESS = scripts/with-progress

.PHONY: demo streams observe test torture day-two check doc msrv outside fuzz bench chart image lifecycle e2e-kubernetes sim sim-ci bugs setup

# Demo: three real nodes lose the busiest of them half-way, and no record.
demo: setup
	$(PROGRESS) cargo build --release --workspace --bin ropewalk --bin ropewalk-demo
	$(abspath $(BUILT))/ropewalk-demo --binary $(abspath $(BUILT))/ropewalk

# Measurements of consumer groups on three real nodes: rebalance, growth, replay, lag.
streams: setup
	cargo run --release -p ropewalk-streams

# Chaos test on real nodes: kills, pauses, partitions, slow and full disks, damage. MINUTES is the duration, SEED
# selects the faults, NODES is the number of nodes.
MINUTES ?= 2
NODES ?= 3
torture: setup
	cargo run --release -p ropewalk-torture --bin ropewalk-torture -- --minutes $(MINUTES) --nodes $(NODES) $(if $(SEED),--seed $(SEED))

# Routine operations under load: restarts, growth, a full disk, removed and lost nodes. Prints the longest pause of
# clients in each.
day-two: setup
	cargo run --release -p ropewalk-torture --bin ropewalk-day-two

# Tests of the alert rules, then a real Prometheus on three nodes under load: every query of the dashboards and rules
# must return a result. Debian's Prometheus package is unpacked, not installed.
observe: setup
	cargo run --release -p ropewalk-observe -- --prometheus "$$(deploy/observe/prometheus.sh $(or $(CARGO_TARGET_DIR),target)/prometheus)"

test: setup
	$(PROGRESS) cargo test --release --workspace --no-run
	cargo bench --workspace $(BENCHES) --no-run
	cargo test --release --workspace

# Simulation of one cluster per seed in virtual time: make sim SEEDS=1..2001 SECONDS=180
sim: setup
	$(SIM) run --seeds $(SEEDS) --seconds $(SECONDS) --disk $(DISK)

# Simulation in CI: 200 seeds, 50 of them on RocksDB, and 10 twice, 5 on each disk. Builds the whole workspace, as the
# tests do, so that nothing is compiled again.
sim-ci: setup
	cargo build --release --workspace --bin ropewalk-sim
	$(BUILT)/ropewalk-sim run --seeds 1..201 --seconds 60 --disk mixed
	$(BUILT)/ropewalk-sim twice --seeds 1001..1006 --seconds 60 --disk memory
	$(BUILT)/ropewalk-sim twice --seeds 1006..1011 --seconds 60 --disk rocksdb

# Fuzzes every decoder, and the state machines, for SECONDS each: scripts/fuzz.
fuzz: setup
	scripts/fuzz $(SECONDS)

# Measures batches, the partitioner and apply, without a node: docs/performance.md measures nodes.
bench: setup
	cargo bench --workspace $(BENCHES)

# Plants known bugs, one at a time. The simulation must find each within 200 seeds.
bugs: setup
	$(SIM) bugs --seeds 1..201 --seconds 60 --bound 120

# Static checks in CI.
check: setup
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	# Alone, so that a transport which other crates turn on in proto is not there.
	cargo clippy --release -p ropewalk-machines --all-targets -- -D warnings
	cargo deny --version 2>/dev/null | grep -qF $(CARGO_DENY) || cargo install --debug --locked cargo-deny@$(CARGO_DENY)
	cargo deny check bans licenses sources
	$(MAKE) doc outside msrv

# Documentation of all crates. A link that leads nowhere is an error.
doc: setup
	RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

# The oldest compiler that Cargo.toml declares, where rustup has it. Elsewhere, clippy's incompatible_msrv checks our
# use of the standard library, and a tidy test the versions that dependencies declare.
MSRV = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
msrv:
	@if rustup toolchain list 2>/dev/null | grep -q '^$(MSRV)[.-]'; then \
	  cargo +$(MSRV) check --release --workspace; \
	else \
	  echo "Rust $(MSRV) is not installed: only clippy and the tidy test check it"; \
	fi

# A user's program outside of the workspace, with the versions of this Cargo.lock. Cargo reads flags from the folder
# it runs in, so it runs in the root folder, where it finds none.
outside:
	cp Cargo.lock examples/outside/Cargo.lock
	cd / && CARGO_TARGET_DIR=$(abspath $(or $(CARGO_TARGET_DIR),target))/outside \
	  cargo check --manifest-path $(CURDIR)/examples/outside/Cargo.toml

# Image of the chart, ropewalk:VERSION, with the commit in the binary.
VERSION = $(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
image:
	docker build --build-arg COMMIT=$(shell git describe --always --dirty --abbrev=12 --exclude '*') -t ropewalk:$(VERSION) .

# Checks of the Helm chart with the real helm: docs/install.md. GOLDEN=write accepts the changed rendering.
chart:
	@GOLDEN=$(GOLDEN) deploy/check

# The rendered chart without Kubernetes: pods as processes in namespaces, restarted, scaled out and in under load.
# Needs root, curl and iproute2.
lifecycle: setup
	cargo build --release --workspace --bin ropewalk
	deploy/lifecycle $(abspath $(BUILT))/ropewalk

# The chart on a real Kubernetes of five machines, which are namespaces of this host: install, test, rolling update,
# drain, scale out and in, and the loss of a machine, under load. Needs root, Debian, 6 GB of memory and 10 GB of
# disk. The first run builds Kubernetes. docs/install.md lists the real and the simulated parts.
e2e-kubernetes: setup
	cargo build --release --workspace --bin ropewalk
	deploy/e2e/run $(abspath $(BUILT))/ropewalk

setup:
	@scripts/setup
