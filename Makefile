# Ashlar's commands. `make help` lists them. Compiled files are kept outside of the checkout.
CARGO_TARGET_DIR ?= $(HOME)/.cache/ashlar-target
export CARGO_TARGET_DIR
BIN := $(CARGO_TARGET_DIR)/debug
# A seed's memory is the next one's: not given back to the kernel in between, which would clear it again.
KEEP_MEMORY := MIMALLOC_PURGE_DELAY=-1

.PHONY: help build demo rebuild-demo test lint unit integration bench sim crash-points sim-mutants databases torture
.PHONY: fuzz fuzz-mutants sanity

help: ## lists these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1@\2/' | column -t -s @

build: ## builds all programs
	@deploy/install.sh build
	cargo build --workspace --bins

demo: ## a MariaDB on a replicated volume; a chunkserver dies, then everything does (root; DEMO_SECONDS=60)
	@deploy/install.sh demo
	cargo build --workspace --bins
	$(BIN)/ashlar-demo --seconds $(or $(DEMO_SECONDS),60)

rebuild-demo: ## a node under twelve volumes is lost, then another; important ones are whole first (REBUILD_MIB=128, SEED=1)
	@deploy/install.sh build
	cargo build --workspace --bins
	$(BIN)/ashlar-rebuild-demo $(if $(REBUILD_MIB),--volume-mib $(REBUILD_MIB)) $(if $(SEED),--seed $(SEED))

test: ## lint, unit and property tests, simulation, real daemons, real mounts (root)
	@deploy/install.sh test
	$(MAKE) --no-print-directory lint unit
	$(MAKE) --no-print-directory fuzz SECONDS=20 SEED=1
	$(MAKE) --no-print-directory integration

lint: ## formatting and clippy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

unit: ## unit and property tests, tidy, golden fixtures
	cargo test --workspace --exclude ashlar-tests

integration: ## real daemons on loopback, real files, real mounts (root)
	cargo build --workspace --bins
	cargo test -p ashlar-tests --tests -- --test-threads=1

sanity: ## the community's conformance suite for CSI drivers, alone (root, Go)
	@deploy/install.sh test
	cargo build --workspace --bins
	cargo test -p ashlar-tests --test it_sanity -- --test-threads=1

sim: ## simulated clusters: SEEDS=1000 FIRST=1, or SEED=n to replay one
	cargo build -p ashlar-sim
	$(KEEP_MEMORY) $(BIN)/ashlar-sim $(if $(SEED),--seed $(SEED) --trace,--seeds $(or $(SEEDS),1000) --first $(or $(FIRST),1))

crash-points: ## power cuts at every boundary of the disk engine's work (QUICK=1: a minute; MUTANTS=1: deliberate bugs)
	cargo build -p ashlar-crash-points $(if $(MUTANTS),--features mutants)
	$(BIN)/ashlar-crash-points $(if $(QUICK)$(MUTANTS),--quick) $(if $(MUTANTS),--mutants)

sim-mutants: ## deliberate bugs, and after how many seeds the simulator finds each (QUICK=1: those found fast)
	cargo build -p ashlar-sim --features mutants --bin ashlar-sim-mutants
	$(KEEP_MEMORY) $(BIN)/ashlar-sim-mutants $(if $(QUICK),--quick)

databases: ## PostgreSQL and fio through rounds of kills; PostgreSQL and MariaDB restored (root; ROUNDS=10 RESTORES=2)
	@deploy/install.sh test
	cargo build --workspace --bins
	$(BIN)/ashlar-databases --rounds $(or $(ROUNDS),10) --restores $(or $(RESTORES),2)

fuzz: ## foreign bytes and events, two targets at a time: MINUTES=10 or SECONDS=n each, TARGET=name, SEED=n to begin anew
	@deploy/install.sh build
	cargo run -q -p ashlar-fuzz -- run --seconds $(or $(SECONDS),$(shell echo $$(($(or $(MINUTES),10) * 60)))) \
	  $(if $(SEED),--seed $(SEED)) $(if $(TARGET),--target $(TARGET))

torture: ## real daemons killed, stopped and cut off from each other, their history checked (root; MINUTES=10 SEED=n)
	@deploy/install.sh test
	cargo build --workspace --bins
	$(BIN)/ashlar-torture --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

fuzz-mutants: ## deliberate bugs, and after how many inputs the fuzz targets find each (SECONDS=300 for each)
	@deploy/install.sh build
	cargo run -q -p ashlar-fuzz -- slips --seconds $(or $(SECONDS),300)

bench: ## beside local files and others, as ratios and as a page (QUICK=1, PART=speed,databases,growth,... or CELLS=text, PEERS=ceph, RESULTS=1)
	@deploy/install.sh bench $(PEERS)
	cargo build --workspace --bins
	cargo build -p ashlar-plan --example lost_node
	$(BIN)/ashlar-bench $(if $(QUICK),--quick) $(if $(PART),--only $(PART)) $(if $(PEERS),--peers $(PEERS)) \
	  $(if $(CELLS),--cells "$(CELLS)") $(if $(RESULTS),--results benches/RESULTS.md)
