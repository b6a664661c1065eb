# walferry: the tasks of a developer. Everything runs on a fresh Debian-like
# machine with Rust; PostgreSQL is found or fetched (scripts/postgres.sh).

.DEFAULT_GOAL := help
.PHONY: help demo test storms bench lint

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## move a database that is being written to, and compare both ends
	@scripts/postgres.sh >/dev/null
	@WALFERRY_TEST_PG_BINDIRS="$$(sed "s/^[0-9]*=//" $${CARGO_TARGET_DIR:-target}/postgres/versions | paste -sd:)" \
		cargo run --release --quiet --locked -- demo

test: ## all tests, against real throwaway clusters; WALFERRY_TEST_ALL=1 for every case of each
	@scripts/postgres.sh --newer
	@scripts/test.sh

storms: ## the tests of random cases, with many more of them, and all tests with every case: an hour; CASES=2 for two of each
	@scripts/postgres.sh >/dev/null
	@scripts/storms.sh

bench: ## decoder, copy, sweeps and catch-up beside the others; ARGS="--quick", "--rtt 20ms"
	@scripts/postgres.sh >/dev/null
	cargo bench --locked --bench decoder
	cargo bench --locked --bench copy -- $(ARGS)
	cargo bench --locked --bench sweeps -- $(filter --quick,$(ARGS))
	cargo bench --locked --bench catchup -- $(ARGS)

lint: ## formatting, clippy, documentation
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps
