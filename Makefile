# `make demo` shows what this is for; `make test` runs all tests. Both install what is missing,
# and say what. There is no other set-up.

# Where `make install` puts the plugins: where runtimes look for them.
PREFIX ?= /opt/cni
BIN_DIR ?= $(PREFIX)/bin
# And the operator's tool, with its man pages and completions.
SBIN_DIR ?= /usr/local/sbin
MAN_DIR ?= /usr/local/share/man/man8
BASH_COMPLETION_DIR ?= /usr/local/share/bash-completion/completions
# And the units that have `netctl watch` run, `systemctl enable --now netctl-watch`, and the agent of
# an overlay in etcd, `systemctl enable --now netctl-overlay@NETWORK`.
SYSTEMD_DIR ?= /usr/local/lib/systemd/system
# firewalld reads packaged zones and policies from here alone; after the first installation it has
# to be told: firewall-cmd --reload.
FIREWALLD_DIR ?= /usr/lib/firewalld

export PATH := $(PATH):$(HOME)/.cargo/bin
TARGET := $(or $(CARGO_TARGET_DIR),target)
PLUGINS := bridge container host macvlan none overlay

.PHONY: demo test test-kernel test-firewalld2 bench lint build install

demo:
	tests/install-packages demo
	$(MAKE) build
	NETCORE_BIN_DIR=$(TARGET)/release tests/demo

test:
	.ci/run tests

# The tests on Debian's own kernel, emulated, and on a newer one if apt knows one, or says that it does
# not. KERNELS=linux-image-6.12-amd64 for that one alone, SUITE= for other tests.
KERNELS ?= linux-image-amd64 $$(tests/kernel/newer linux-image-amd64)
SUITE ?= -p netcore-tests --lib --test bridge --test check_and_del --test gc_status --test macvlan --test overlay --test overlay_encrypted --test parallel --test spoofing --test vlan
test-kernel:
	tests/install-packages kernel
	$(MAKE) build
	for kernel in $(KERNELS); do \
		NETCORE_BIN_DIR=$(TARGET)/release tests/kernel/suite -k $$kernel $(SUITE) || exit 1; \
	done

# The tests that need firewalld 2, in a Debian trixie that is fetched once.
test-firewalld2:
	tests/install-packages firewalld2
	$(MAKE) build
	NETCORE_BIN_DIR=$(TARGET)/release tests/as-root tests/firewalld2/suite $(TARGET)/firewalld2/trixie

# BENCH=--quick for a short one, BENCH=--json for numbers to keep.
bench:
	tests/install-packages bench
	$(MAKE) build
	cargo build -q -p netcore-tests --bin bench
	NETCORE_BIN_DIR=$(TARGET)/release tests/as-root tests/bench $(BENCH)

lint:
	.ci/run lint

build:
	cargo build --release $(PLUGINS:%=--bin %) --bin netctl

# A runtime may be starting a plugin at this moment: each is there, old or new, at any time.
install: build
	install -d $(DESTDIR)$(BIN_DIR)
	for plugin in $(PLUGINS); do \
		install -m 755 $(TARGET)/release/$$plugin $(DESTDIR)$(BIN_DIR)/.$$plugin.new && \
		mv -f $(DESTDIR)$(BIN_DIR)/.$$plugin.new $(DESTDIR)$(BIN_DIR)/$$plugin || exit 1; \
	done
	ln -sfn none $(DESTDIR)$(BIN_DIR)/loopback
	install -d $(DESTDIR)$(SBIN_DIR) $(DESTDIR)$(MAN_DIR) $(DESTDIR)$(BASH_COMPLETION_DIR)
	install -m 755 $(TARGET)/release/netctl $(DESTDIR)$(SBIN_DIR)/netctl
	$(TARGET)/release/netctl man $(DESTDIR)$(MAN_DIR)
	$(TARGET)/release/netctl completions bash >$(DESTDIR)$(BASH_COMPLETION_DIR)/netctl
	install -d $(DESTDIR)$(SYSTEMD_DIR)
	for unit in netctl-watch netctl-overlay@; do \
		sed 's|@SBIN_DIR@|$(SBIN_DIR)|' "netctl/$$unit.service" >"$(DESTDIR)$(SYSTEMD_DIR)/$$unit.service" || exit 1; \
	done
	install -d $(DESTDIR)$(FIREWALLD_DIR)/zones $(DESTDIR)$(FIREWALLD_DIR)/policies
	install -m 644 netcore/firewalld/zones/netcore.xml $(DESTDIR)$(FIREWALLD_DIR)/zones/netcore.xml
	install -m 644 netcore/firewalld/policies/netcore-in.xml $(DESTDIR)$(FIREWALLD_DIR)/policies/netcore-in.xml
