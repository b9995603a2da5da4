# make demo    davit end to end on this machine, in two minutes: nothing but Debian and Go needed
# make test    all tests, with the race detector; installs what they use, or does without and says what it skipped
# make check   formatting, vet, linters, imports, builds for every system
# make bench   side by side with its peers; prints a table
# make fuzz    each fuzz target for FUZZTIME
# make build   bin/davit: static, the same bytes from the same commit and its tags anywhere
# make tools   only installs: Debian packages, and the tools that tests compare with

# Where .ci/tools puts what it builds, unless DAVIT_TOOLS names another folder; where go.dev says that Go is unpacked.
export PATH := $(or $(DAVIT_TOOLS),$(HOME)/.cache/davit-tools/bin):$(PATH):/usr/sbin:/sbin:/usr/local/go/bin
export FUZZTIME ?= 10s

SHELL = /bin/bash -o pipefail

.PHONY: build demo test check bench fuzz tools help

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -buildid=" -o bin/davit ./cmd/davit

demo:
	@demo/run

# TESTFLAGS: more for go test.
test:
	@.ci/test $(TESTFLAGS)

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
