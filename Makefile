# Two commands do everything: `make demo` and `make test`. Both install what they need, or say in one line what is missing.
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
export CARGO_TERM_COLOR ?= auto

.PHONY: demo test lint dist bench build tools fmt

tools:
	@./tests/tools.sh

build: tools
	$(CARGO) build --workspace

demo: build
	$(TARGET)/debug/demo

# The demo runs first: the tests judge its recorded responses with their own.
test: build
	rm -rf $(TARGET)/records
	$(TARGET)/debug/demo
	$(CARGO) test --workspace

lint:
	@./tests/tools.sh lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) deny check bans licenses sources
	$(TARGET)/venv-lint/bin/cfn-lint infra/source.yaml infra/dr.yaml
	LOG_LEVEL=ERROR $(TARGET)/venv-lint/bin/checkov --config-file infra/checkov.yaml
	shellcheck infra/deploy tests/*.sh

dist: tools
	@./tests/tools.sh dist
	./tests/dist.sh

# Figures of the program that `make dist` made, beside the same job in Python; nothing here is part of the tests.
bench: build
	$(TARGET)/debug/bench

fmt:
	$(CARGO) fmt --all
