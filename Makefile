# What a person types. A fresh Debian machine with root, Go, make and a C compiler needs nothing else.
#
#   make quickstart   builds, then trains a long-tailed set on two nodes
#   make test         every test
#   make lint         what CI holds
#   make build-cuda   bin/lift for NVIDIA GPUs, on any machine
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
.PHONY: help deps deps-dev build quickstart test lint bench bench-peers bench-methods compare fmt clean \
	lint-go lint-c lint-proto lint-nocgo proto \
	deps-cuda deps-pip ptx trampoline emu emu-asan build-cuda lint-cuda lint-ptx test-cuda test-cuda-asan \
	gpu-proof gpu-proof-rehearsal

GO ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)

# Debian packages: what the engine links, and what only tests and lint use.
DEBIAN_BUILD := libdnnl-dev libjpeg62-turbo-dev
DEBIAN_DEV := clang-format protobuf-compiler prometheus

C_FILES = $(shell git ls-files --cached --others --exclude-standard -- '*.c' '*.h' '*.cc' '*.cpp' '*.hpp' '*.cu' '*.cuh')
GO_FILES = $(shell git ls-files --cached --others --exclude-standard -- '*.go')

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

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

clean: ## what was built (runs and fetched wheels stay)
	rm -rf bin .cuda/trampoline-* .cuda/emu* .cuda/nvrtc

# CUDA. Nothing above needs any of this, and none of it needs a GPU or a toolkit but gpu-proof: the headers, the compiler and
# the assembler are wheels, pinned by sha256; libcuda is a trampoline that opens the driver on first use; the tests run
# on an emulated driver.
CUDA := $(CURDIR)/.cuda
CUDA_SRC := model/tensor/cuda
PIP ?= python3 -m pip

# The headers' and the compiler's wheels; a changed list is fetched again.
$(CUDA)/%.ok: $(CUDA_SRC)/ptx/compile/%.txt
	@$(PIP) --version >/dev/null 2>&1 || $(MAKE) --no-print-directory deps-pip
	@rm -rf $(CUDA)/$*
	PIP_ROOT_USER_ACTION=ignore $(PIP) install -q --no-input --disable-pip-version-check --no-deps --require-hashes --only-binary :all: --target $(CUDA)/$* -r $<
	@touch $@

deps-pip:
	$(call install_missing,python3-pip)

deps-cuda: deps $(CUDA)/headers.ok ## what build-cuda and test-cuda need besides
	$(call install_missing,g++)

# The trampoline's folder has its sources' digest in its name, for Go's build cache does not look into libraries.
TRAMPOLINE = $(CUDA)/trampoline-$(shell cat $(CUDA_SRC)/trampoline/* | sha256sum | head -c 12)
CUDA_ENV = CGO_ENABLED=1 CGO_CPPFLAGS=-I$(CUDA)/headers/nvidia/cuda_runtime/include CGO_LDFLAGS=-L$(TRAMPOLINE)

trampoline: deps-cuda ## libcuda.a, which stands for the driver when linking
	@test -e $(TRAMPOLINE)/libcuda.a || \
		{ rm -rf $(CUDA)/trampoline-*; $(CUDA_ENV) sh $(CUDA_SRC)/trampoline/build.sh $(TRAMPOLINE); }

build-cuda: trampoline ## bin/lift with the CUDA engine: runs the CPU's verbs where there is no driver
	$(CUDA_ENV) $(GO) build -tags cuda -trimpath -ldflags '$(LDFLAGS)' -o bin/lift ./cmd/lift

# The emulated driver and cuBLAS, with every kernel in it; what has not changed is not compiled again.
EMU_ENV = LIFT_CUDA_DRIVER=$(CUDA)/emu/liftemu.so LIFT_CUBLAS=$(CUDA)/emu/liftemu.so

emu: deps-cuda ## the emulated driver
	bash $(CUDA_SRC)/emu/build.sh $(CUDA)/emu

emu-asan: deps-cuda
	bash $(CUDA_SRC)/emu/build.sh $(CUDA)/emu asan

# Results are never taken from Go's cache, which does not see the kernels; a pattern that matches no test is an error.
CUDA_TEST = $(CUDA_ENV) $(GO) test -tags cuda -count=1 -timeout 15m
SOME = 2>&1 | awk '{ print } /no tests to run/ { none = 1 } END { exit none }'

# Two at a time: the emulator, for all its GPUs, is one core's work.
test-cuda: deps-dev trampoline emu ## the device, gradients, conformance and a short run of two nodes on emulated GPUs
	@$(MAKE) --no-print-directory -j 2 -O $(addprefix test-cuda-,runs device node no-driver)

.PHONY: $(addprefix test-cuda-,runs device node no-driver)
test-cuda-runs:
	$(EMU_ENV) $(CUDA_TEST) -run '^TestEmulated' ./cmd/lift $(SOME)

test-cuda-device:
	$(EMU_ENV) $(CUDA_TEST) ./$(CUDA_SRC)/... $(SOME)
	$(EMU_ENV) LIFT_TEST_DEVICE=cuda $(CUDA_TEST) -run '^TestGradientsOnGPU' ./model/autograd $(SOME)

test-cuda-node:
	$(EMU_ENV) LIFT_TEST_DEVICE=cuda $(CUDA_TEST) -run '^TestConformance' ./node $(SOME)
	$(EMU_ENV) $(CUDA_TEST) -run '^TestGPU' ./node $(SOME)

test-cuda-no-driver: # every verb of a build with GPUs
	LIFT_CUDA_DRIVER=/nowhere/libcuda.so.1 $(CUDA_TEST) -skip '^TestEmulated' ./cmd/lift

test-cuda-asan: deps-dev trampoline emu-asan ## the device's tests, every access of a kernel checked
	LIFT_CUDA_DRIVER=$(CUDA)/emu/liftemu.asan.so LIFT_CUBLAS=$(CUDA)/emu/liftemu.asan.so ASAN_OPTIONS=detect_leaks=0:halt_on_error=0 \
		$(CUDA_TEST) -exec "env LD_PRELOAD=$$($(CC) -print-file-name=libasan.so)" ./$(CUDA_SRC)

# The packages that have files of the CUDA build.
CUDA_PKGS = $(sort $(dir $(shell grep -lE '^//go:build .*\bcuda\b' $(GO_FILES))))

lint-cuda: deps-dev trampoline ## vet, staticcheck, and which build contains what
	$(CUDA_ENV) $(GO) vet -tags cuda $(CUDA_PKGS:%=./%)
	$(CUDA_ENV) $(GO) tool staticcheck -tags cuda $(CUDA_PKGS:%=./%)
	@echo "gorgonia.org/cu is in the CUDA build alone"; \
	! $(GO) list -deps ./cmd/lift | grep -q '^gorgonia.org/cu' || \
		{ echo "the build without -tags cuda imports gorgonia.org/cu, which ends the process where there is no GPU" >&2; exit 1; }; \
	$(CUDA_ENV) $(GO) list -tags cuda -deps ./cmd/lift | grep -q '^gorgonia.org/cu$$' || \
		{ echo "the build with -tags cuda does not import gorgonia.org/cu" >&2; exit 1; }

# compile_ptx compiles every file of kernels into a folder.
define compile_ptx
	$(CC) -O1 -Wall -Wextra -o $(CUDA)/nvrtc $(CUDA_SRC)/ptx/compile/nvrtc.c -ldl; \
	ls $(CUDA_SRC)/kernels/*.cu | xargs -P $$(nproc) -n 1 \
		$(CUDA)/nvrtc $(CUDA)/compiler/nvidia/cuda_nvrtc/lib/libnvrtc.so.* $(1)
endef
PTX_REPORT = $(GO) run $(CUDA_SRC)/ptx/compile/report.go -ptxas $(CUDA)/compiler/nvidia/cuda_nvcc/bin/ptxas \
	-ptx $(CUDA_SRC)/ptx -kernels $(CUDA_SRC)/kernels -doc docs/cuda.md

ptx: deps $(CUDA)/compiler.ok ## compile the kernels again, and write their tables in docs/cuda.md
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(call compile_ptx,"$$tmp"); \
	rm -f $(CUDA_SRC)/ptx/*.ptx; cp "$$tmp"/*.ptx $(CUDA_SRC)/ptx
	$(PTX_REPORT)
	$(GO) test -count=1 -run '^TestPaper$$' ./node -update

lint-ptx: $(CUDA)/compiler.ok ## the committed PTX is what the kernels make, and nothing spills
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; mkdir "$$tmp/committed" "$$tmp/made"; \
	cp $(CUDA_SRC)/ptx/*.ptx "$$tmp/committed"; \
	$(call compile_ptx,"$$tmp/made"); \
	diff -qr "$$tmp/committed" "$$tmp/made" >&2 || { echo "$(CUDA_SRC)/ptx is not what the kernels make: run make ptx" >&2; exit 1; }
	$(PTX_REPORT) -check

gpu-proof: trampoline ## on a machine with GPUs: prove and time everything, into one report
	$(CUDA_ENV) $(GO) run -tags cuda ./docs/gpuproof -python '$(PYTHON)' -reference '$(LIFT_REFERENCE)'

gpu-proof-rehearsal: trampoline emu ## the same in small on the emulated driver
	$(EMU_ENV) $(CUDA_ENV) $(GO) run -tags cuda ./docs/gpuproof -rehearsal
