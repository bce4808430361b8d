# `make` lists the targets. All of them work on a Debian machine that has Go,
# git and make: what else they need they install (see .ci/need).

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

# How long each fuzz target runs (executions, or a time like 10s), and where
# `make install` puts bulkhead.
FUZZTIME ?= 50000x
BINDIR   ?= $(or $(shell go env GOBIN),$(firstword $(subst :, ,$(shell go env GOPATH)))/bin)

# The linter is pinned, and built once for each version: that takes minutes.
LINT_VERSION := v2.15.0
LINT         := bin/tools/golangci-lint-$(LINT_VERSION)

# Git refuses to read a checkout of another user (a CI that mounts one, say),
# and then go refuses to build. Such a build goes without its revision.
ifneq ($(shell git rev-parse --verify -q HEAD >/dev/null 2>&1 && echo ok),ok)
export GOFLAGS := $(shell go env GOFLAGS) -buildvcs=false
endif

# Without cgo the binary needs no libc: it runs in any image, and starts faster.
BUILDFLAGS := -trimpath -ldflags "-s -w -X main.version=$(shell git describe --tags --always --dirty 2>/dev/null || echo dev)"

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What users get is a quick program that carries the whole one inside, for the
# commands that need Kubernetes' libraries: without those it starts in a fifth of
# the time. An overlay puts the whole one where cmd/bulkhead/quick.go embeds it, so
# no build leaves anything beside the sources. `go build ./cmd/bulkhead` is the
# whole one.
BIN := bin/bulkhead

.PHONY: build
build: ## build bin/bulkhead
	@mkdir -p $(dir $(BIN))
	CGO_ENABLED=0 go build $(BUILDFLAGS) -o $(BIN).whole ./cmd/bulkhead
	@GOOS= GOARCH= go run ./cmd/bulkhead/packed/pack <$(BIN).whole >$(BIN).zst
	@echo '{"Replace": {"cmd/bulkhead/whole.zst": "$(BIN).zst"}}' >$(BIN).json
	CGO_ENABLED=0 go build $(BUILDFLAGS) -tags quick -overlay $(BIN).json -o $(BIN) ./cmd/bulkhead

.PHONY: install
install: build ## install bulkhead into BINDIR (default: where go installs), and its other names
	@install -D -m 755 $(BIN) "$(BINDIR)/bulkhead"
	@ln -sf bulkhead "$(BINDIR)/kubectl-bulkhead" && ln -sf bulkhead "$(BINDIR)/mwscript-k8s"
	@echo "installed $(abspath $(BINDIR))/bulkhead, and by its other names kubectl-bulkhead and mwscript-k8s"

# The lab's real node needs root and a container runtime; without them its tests
# are skipped, and only then is that no failure. Docker's own packages bring a
# containerd that will do, and conflict with Debian's.
ROOT     := $(filter 0,$(shell id -u))
LAB_NEED := $(if $(ROOT),containernetworking-plugins iptables conntrack iproute2 busybox-static $(if $(shell command -v containerd),,containerd runc))
STRICT   := $(if $(CI)$(ROOT),1,0)

.PHONY: test
test: lab-build ## run all tests with the race detector; a skipped test is a failure
	@.ci/need gcc libc6-dev parallel strace $(LAB_NEED)
	@CGO_ENABLED=1 go test -race -count=1 -timeout=20m -v ./... 2>&1 | awk -v strict=$(STRICT) -f .ci/test-report.awk

.PHONY: lab-build
lab-build: ## build Kubernetes for the lab, once per machine (10 minutes or more)
	@go run ./lab/cmd build >/dev/null

.PHONY: lab-up
lab-up: lab-build ## start a Kubernetes on this machine to look around in
	@[[ -z "$(LAB_NEED)" ]] || .ci/need $(LAB_NEED)
	@go run ./lab/cmd up $(LAB)

.PHONY: lab-down
lab-down: ## end it, and everything of it
	@go run ./lab/cmd down

.PHONY: lab-status
lab-status: ## say what of it runs
	@go run ./lab/cmd status

.PHONY: test-mediawiki
test-mediawiki: build ## run real maintenance scripts over 30 wikis, one of them broken
	@BULKHEAD=$(CURDIR)/bin/bulkhead test/mediawiki/run.sh

.PHONY: lint
lint: $(LINT) ## run the linters; .golangci.yml says which and why
	@$(LINT) run
	@# The quick program has one file more. What it embeds is of no interest here.
	@mkdir -p bin && echo '{"Replace": {"cmd/bulkhead/whole.zst": "LICENSE"}}' >bin/lint.json
	@GOFLAGS="$(GOFLAGS) -overlay=bin/lint.json" $(LINT) run --build-tags quick ./cmd/bulkhead

$(LINT):
	@echo "building golangci-lint $(LINT_VERSION), once: this takes some minutes" >&2
	@mkdir -p $(@D)
	GOBIN="$(CURDIR)/$(@D)" go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	@mv $(@D)/golangci-lint $@

# What the generators and formatters would change, without keeping it a secret:
# they do change it, and the next commit can have it.
.PHONY: generate-check
generate-check: ## check that generated files, go.mod and formatting are current
	@go mod tidy -diff; (cd lab/kubernetes && go mod tidy -diff); cd tools && go mod tidy -diff
	@unformatted=$$(gofmt -l .); [[ -z $$unformatted ]] || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	@state() { git status --porcelain; git diff; }; before=$$(state); go generate ./...; \
		[[ $$before == "$$(state)" ]] || { echo "go generate changed files: commit them"; git status --short; exit 1; }

.PHONY: fuzz
fuzz: ## run every fuzz target FUZZTIME (default 50000x; 1m is a minute)
	@grep -rEo --include='*_test.go' '^func Fuzz\w+' . | sort | while IFS=: read -r file target; do \
		target=$${target#func }; echo "$$target ($$(dirname "$$file"), $(FUZZTIME))"; \
		go test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) "$$(dirname "$$file")"; \
	done

.PHONY: bench
bench: build ## measure speed and memory beside xargs and GNU parallel (17 minutes; BENCH="-only true")
	@.ci/need parallel
	@CGO_ENABLED=0 go run ./bench $(BENCH)

.PHONY: bench-guard
bench-guard: lab-build ## measure the guard: a million generated objects, 100,000 real ones, a look, a forecast (15 minutes)
	@go test -run '^$$' -bench . -benchtime 1x -timeout 40m ./guard/... ./store/history

.PHONY: bench-kubernetes
bench-kubernetes: lab-build ## measure on the lab, beside Helm releases and Jobs (10 minutes; BENCH="-scale 0.1")
	@.ci/need $(LAB_NEED)
	@go test -run '^$$' -bench . -benchtime 1x -timeout 40m ./bench/kubernetes $(BENCH)
	@go test -run '^$$' -bench . -benchtime 1x -timeout 20m ./test/install

.PHONY: ci
ci: ## run what CI runs
	@.ci/run

.PHONY: clean
clean: ## remove what was built, the pinned tools too
	rm -rf bin
