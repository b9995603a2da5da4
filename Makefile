# make demo    davit end to end on this machine, in two minutes: nothing but Debian and Go needed
# make test    all tests, with the race detector
# make check   formatting, vet, linters, imports, builds for every system
# make bench   side by side with its peers; prints a table
# make fuzz    each fuzz target for FUZZTIME
# make build   bin/davit: static, the same bytes from the same commit and its tags anywhere
# make tools   Debian packages and the tools that tests compare with: what make test would skip, it then runs

# Where .ci/tools puts what it builds, unless DAVIT_TOOLS names another folder.
export PATH := $(or $(DAVIT_TOOLS),$(HOME)/.cache/davit-tools/bin):$(PATH):/usr/sbin:/sbin
export FUZZTIME ?= 10s

SHELL = /bin/bash -o pipefail

.PHONY: build demo test check bench fuzz tools help

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -buildid=" -o bin/davit ./cmd/davit

demo:
	@demo/run

# NOSKIP=1, as in CI: a test that skips itself fails. -count=1: the tests use programs that the cache of go test knows nothing of.
# TESTFLAGS: more for go test.
test:
	@command -v gcc >/dev/null || { echo "make test: the race detector needs a C compiler: apt-get install gcc libc6-dev" >&2; exit 1; }
	@.ci/missing
	CGO_ENABLED=1 go test -race -count=1 -timeout 20m $(TESTFLAGS) -json ./... | go run .ci/gotest.go $(if $(NOSKIP),-noskip)

check:
	@.ci/check

bench:
	@bash bench/run

fuzz:
	@.ci/fuzz

tools:
	@.ci/packages
	@.ci/tools

help:
	@sed -n 's/^# make/make/p' Makefile
