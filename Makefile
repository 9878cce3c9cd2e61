# What a person types. A fresh Debian machine with root, Go, make and a C compiler needs nothing else.
#
#   make quickstart   builds, then trains a long-tailed set on two nodes
#   make test         every test
#   make lint         what CI holds
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
.PHONY: help deps deps-dev build quickstart test lint bench bench-peers bench-methods compare fmt clean \
	lint-go lint-c lint-proto lint-nocgo proto

GO ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)

# Debian packages: what the engine links, and what only tests and lint use.
DEBIAN_BUILD := libdnnl-dev libjpeg62-turbo-dev
DEBIAN_DEV := clang-format protobuf-compiler prometheus

C_FILES = $(shell git ls-files --cached --others --exclude-standard -- '*.c' '*.h' '*.cc' '*.cpp' '*.hpp' '*.cu' '*.cuh')
GO_FILES = $(shell git ls-files --cached --others --exclude-standard -- '*.go')

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# install_missing asks dpkg first, so that a machine that has everything needs neither root nor a network.
define install_missing
	@missing=""; \
	for p in $(1); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "installing missing Debian packages:$$missing"; \
		if [ "$$(id -u)" != 0 ]; then \
			echo "not root: run  sudo apt-get install$$missing  and try again" >&2; exit 1; \
		fi; \
		apt-get update -q; \
		DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends$$missing; \
	fi
endef

deps: ## install the Debian packages and Go modules that the build needs
	$(call install_missing,$(DEBIAN_BUILD))
	@$(GO) mod download

deps-dev: deps ## and those of test and lint
	$(call install_missing,$(DEBIAN_DEV))

build: deps ## bin/lift
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/lift ./cmd/lift

quickstart: build ## pack the long-tailed set, train LIFT on two nodes, show the table
	bin/lift shard pack configs/quickstart.yaml
	bin/lift train configs/quickstart.yaml --nodes 2

# The race detector is on for the packages in which goroutines meet. The numeric packages are left out: a device is
# one goroutine, and the detector cannot look into C.
RACE := ^lift/(stream|configs|sharding|allreduce|coordinator|launch|node)(/|$$)

test: deps-dev ## every test, with the race detector where goroutines meet
	$(GO) test -timeout 15m $$($(GO) list ./... | grep -vE '$(RACE)')
	$(GO) test -race -timeout 15m $$($(GO) list ./... | grep -E '$(RACE)')

lint: deps-dev lint-go lint-c lint-proto lint-nocgo ## what CI holds

lint-go:
	@echo "gofmt"; out=$$(gofmt -l $(GO_FILES)); if [ -n "$$out" ]; then echo "not gofmt'ed (make fmt):" $$out; exit 1; fi
	$(GO) vet ./...
	@for f in $$(grep -l '^//go:build ignore' $(GO_FILES)); do echo "$(GO) vet $$f"; $(GO) vet $$f; done
	$(GO) tool staticcheck ./...
	$(GO) test -count=1 -run '^TestImportTable$$' ./cmd/lift

lint-c:
	@echo "clang-format"; if [ -n "$(C_FILES)" ]; then clang-format --dry-run -Werror $(C_FILES); fi

# The generated code is committed, so that a build needs no protoc; this holds it to the .proto file. The line with
# protoc's own version is left out of the comparison: it differs between Debian releases.
lint-proto:
	@echo "generated protobuf"; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	sh coordinator/generate.sh "$$tmp"; \
	for f in "$$tmp"/*.pb.go; do \
		committed=coordinator/liftpb/$$(basename "$$f"); \
		diff -u <(grep -vE '^// .*protoc' "$$committed") <(grep -vE '^// .*protoc' "$$f") >&2 || \
			{ echo "$$committed is not what its .proto makes: run make proto" >&2; exit 1; }; \
	done

proto: deps-dev ## generate coordinator/liftpb again
	sh coordinator/generate.sh

# The coordinator runs on machines without the engine's libraries.
lint-nocgo:
	CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/lift
	CGO_ENABLED=0 $(GO) vet ./cmd/... ./configs/... ./coordinator/... ./launch/... ./metrics/... ./stream/...

bench: deps ## our figures of docs/benchmarks.md, one after the other
	$(GO) test -run '^$$' -bench . -timeout 60m $$($(GO) list ./... | grep -v /cmd/)
	$(GO) test -run '^$$' -bench Start -benchtime 3x -timeout 60m ./cmd/lift
	$(GO) test -run '^$$' -bench Train -benchtime 1x -timeout 60m ./cmd/lift

# PYTHON has PyTorch, LIFT_REFERENCE is a checkout of the reference implementation; without either its rows are left out.
PYTHON ?= python3
ROUNDS ?= 3
bench-peers: deps ## ours and PyTorch's in turn: PYTHON=… LIFT_REFERENCE=… ROUNDS=3
	$(GO) run docs/peers/compare.go -python '$(PYTHON)' -reference '$(LIFT_REFERENCE)' -rounds $(ROUNDS)

bench-methods: deps ## a step of every method, ours and PyTorch's in turn
	$(GO) run docs/peers/compare.go -methods -python '$(PYTHON)' -reference '$(LIFT_REFERENCE)' -rounds $(ROUNDS)

compare: build ## four methods, three seeds each, into docs/quickstart.md
	$(GO) run docs/compare.go

fmt: deps-dev ## gofmt and clang-format
	gofmt -w $(GO_FILES)
	@if [ -n "$(C_FILES)" ]; then clang-format -i $(C_FILES); fi

clean: ## what was built (runs stay)
	rm -rf bin
