# Everything is built in one profile, so that RocksDB is compiled once (about 15 minutes on two cores).
CARGO_DENY := 0.20.2

# What `make sim` runs: see docs/simulation.md. DISK is memory, rocksdb or mixed.
SEEDS ?= 1..201
SECONDS ?= 60
DISK ?= mixed
SIM := cargo run --release -p ropewalk-simulation --

# The built programs, and a wrapper that reports progress while cargo is silent.
BUILT = $(or $(CARGO_TARGET_DIR),target)/release
PROGRESS = scripts/with-progress

.PHONY: demo streams observe test torture day-two check chart image lifecycle e2e-kubernetes sim sim-ci bugs setup

# A three-node cluster of real processes loses its busiest node half-way, and no record.
demo: setup
	$(PROGRESS) cargo build --release --workspace --bin ropewalk --bin ropewalk-demo
	$(abspath $(BUILT))/ropewalk-demo --binary $(abspath $(BUILT))/ropewalk

# Figures of consumer groups on three real nodes: settling, growth, replay, lag.
streams: setup
	cargo run --release -p ropewalk-streams

# Real nodes under fire: killed, stopped, cut off, slowed down, filled up, damaged. MINUTES, SEED and
# NODES say for how long, which faults, and how many nodes.
MINUTES ?= 2
NODES ?= 3
torture: setup
	cargo run --release -p ropewalk-torture --bin ropewalk-torture -- --minutes $(MINUTES) --nodes $(NODES) $(if $(SEED),--seed $(SEED))

# What operators do to a cluster, under load: restarts, growth, a full disk, nodes that leave and that
# are lost; and how long each kept clients waiting.
day-two: setup
	cargo run --release -p ropewalk-torture --bin ropewalk-day-two

# The alert rules' own tests, and then a real Prometheus on three nodes with load: every query of the
# dashboards and rules must return something. Debian's package of it is unpacked, not installed.
observe: setup
	cargo run --release -p ropewalk-observe -- --prometheus "$$(deploy/observe/prometheus.sh $(or $(CARGO_TARGET_DIR),target)/prometheus)"

test: setup
	$(PROGRESS) cargo test --release --workspace --no-run
	cargo test --release --workspace

# Whole clusters in virtual time, a seed each: make sim SEEDS=1..2001 SECONDS=180
sim: setup
	$(SIM) run --seeds $(SEEDS) --seconds $(SECONDS) --disk $(DISK)

# A piece of CI: 200 seeds, 50 of them on RocksDB, and 10 twice, 5 on each disk. Built with
# the whole workspace, as the tests were, so that nothing is compiled again.
sim-ci: setup
	cargo build --release --workspace --bin ropewalk-sim
	$(BUILT)/ropewalk-sim run --seeds 1..201 --seconds 60 --disk mixed
	$(BUILT)/ropewalk-sim twice --seeds 1001..1006 --seconds 60 --disk memory
	$(BUILT)/ropewalk-sim twice --seeds 1006..1011 --seconds 60 --disk rocksdb

# Plants known mistakes, one at a time; each must be found within 200 seeds.
bugs: setup
	$(SIM) bugs --seeds 1..201 --seconds 60 --bound 120

# What CI asks of the code beside its tests.
check: setup
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	cargo deny --version 2>/dev/null | grep -qF $(CARGO_DENY) || cargo install --debug --locked cargo-deny@$(CARGO_DENY)
	cargo deny check bans licenses sources

# The image the chart runs, ropewalk:VERSION, with the commit in the binary.
VERSION = $(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
image:
	docker build --build-arg COMMIT=$(shell git describe --always --dirty --abbrev=12 --exclude '*') -t ropewalk:$(VERSION) .

# The Helm chart, by the real helm: docs/install.md. GOLDEN=write takes what changed in it for right.
chart:
	@GOLDEN=$(GOLDEN) deploy/check

# What the chart renders, run without Kubernetes: pods as processes in namespaces, restarted, scaled out and in
# under load. Needs root, curl and iproute2.
lifecycle: setup
	cargo build --release --workspace --bin ropewalk
	deploy/lifecycle $(abspath $(BUILT))/ropewalk

# The chart on a real Kubernetes of five machines, which are namespaces of this one: installed, tested, rolled,
# drained, scaled out and in, and a machine lost, under load. Needs root, Debian, 6 GB of memory and 10 of disk;
# the first time it builds Kubernetes. docs/install.md says what is real in it.
e2e-kubernetes: setup
	cargo build --release --workspace --bin ropewalk
	deploy/e2e/run $(abspath $(BUILT))/ropewalk

setup:
	@scripts/setup
