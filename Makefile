# SPDX-License-Identifier: MIT
# `make` builds into build/, `make run` shows proxyd at work, `make test` tests it. Quiet unless V=1.
VERSION  := 0.1.0
PREFIX   ?= /usr/local
UNITDIR  ?= $(PREFIX)/lib/systemd/system
PKG_CONFIG ?= pkg-config
B        ?= build
CFLAGS   ?= -O2 -g
Q        := $(if $(V),,@)
PACKAGES := libzmq libsodium sqlite3 jansson libconfig
LOADED   := libmicrohttpd libwebsockets# opened when asked for, see proxies/library.h: only their headers are needed here
HAVE     := $(shell $(PKG_CONFIG) --exists $(PACKAGES) $(LOADED) 2>/dev/null && echo yes)

CPPFLAGS += -D_GNU_SOURCE -DPROXYD_VERSION='"$(VERSION)"' -I.
FLAGS    := -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -pthread -fPIE \
            -fstack-protector-strong -fstack-clash-protection -ffunction-sections -fdata-sections -MMD -MP $(shell $(PKG_CONFIG) --cflags $(PACKAGES) $(LOADED) 2>/dev/null)
HARDEN   ?= -D_FORTIFY_SOURCE=2
LDFLAGS  += -pie -pthread -Wl,-z,relro,-z,now -Wl,--as-needed,--gc-sections
LDLIBS   += $(shell $(PKG_CONFIG) --libs $(PACKAGES) 2>/dev/null)
SANITIZE := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined

SOURCES  := $(wildcard buffer/*.c auth/*.c proxies/*.c proxyd/*.c)
OBJECTS  := $(SOURCES:%.c=$B/obj/%.o)
MAINS    := $(patsubst %,$B/obj/proxyd/%.o,main proxyctl manual)
PAGES    := $(patsubst etc/man/%.in,$B/man/%,$(wildcard etc/man/*.in))
HOUSE    := $(filter-out $(MAINS),$(OBJECTS))
UNITS    := $(patsubst tests/unit/%.c,$B/tests/%,$(wildcard tests/unit/test_*.c))
links     = $(patsubst %.c,$B/obj/%.o,$(shell sed -n 's|.*links: \(.*\) \*/|\1|p' $1))

all: $B/proxyd $B/proxyctl $(PAGES)
$B/proxyd:   $B/obj/proxyd/main.o $(HOUSE)
$B/proxyctl: $B/obj/proxyd/proxyctl.o $(HOUSE)
$B/proxyd $B/proxyctl:
	@echo "  LD    $@"
	$Q$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$B/obj/proxyd/http.o: proxyd/status.html # is part of it
$B/obj/%.o: %.c Makefile
	@$(if $(HAVE),:,tests/install-packages build --check)
	@mkdir -p $(@D); echo "  CC    $<"
	$Q$(CC) $(CPPFLAGS) $(HARDEN) $(FLAGS) $(CFLAGS) -c -o $@ $<

# The manual takes its tables from the code. This program runs where the build runs, also when that builds for another machine.
BUILD_CC ?= $(CC)
$B/manual: $(addprefix proxyd/,manual.c commands.c config_keys.c) proxies/ledger.c $(wildcard proxyd/*.def proxyd/*.h) Makefile
	@mkdir -p $(@D)
	$Q$(BUILD_CC) $(CPPFLAGS) -std=c11 -O1 -o $@ $(filter %.c,$^)
$B/man/%: etc/man/%.in $B/manual
	@mkdir -p $(@D); echo "  MAN   $@"
	$Q$B/manual <$< >$@.new && mv $@.new $@

# A unit test links only what its first lines name: `/* links: buffer/queue_memory.c … */`
.SECONDEXPANSION:
$B/tests/%: $B/obj/tests/unit/%.o $$(call links,tests/unit/$$*.c)
	@mkdir -p $(@D); echo "  LD    $@"
	$Q$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

run:
	@tests/install-packages build demo
	@$(MAKE) --no-print-directory all
	@exec etc/demo.sh $B

test:
	@tests/install-packages build test
	@$(MAKE) --no-print-directory all units
	@tests/run $B
check-san:
	@tests/install-packages build test
	@$(MAKE) --no-print-directory B=build/san CFLAGS='$(SANITIZE)' HARDEN= all units
	@tests/run build/san
units: $(UNITS)
# What takes an hour or two: every disk operation failing in turn, power cuts (10,000 of a store, 10,000 of a daemon),
# 1,000 kills, 1,000 damaged files, a million messages. Each part alone: see tests/durability.
check-long:
	@tests/install-packages build test
	@$(MAKE) --no-print-directory all units
	@for test in queue store store_damage store_full store_kill store_power store_faults; do \
	    PROXYD_TEST_LONG=1 $B/tests/test_$$test || exit 1; done
	@tests/durability $B

$B/bench/peer: $(patsubst %.c,$B/obj/%.o,$(wildcard tests/bench/*.c))
	@mkdir -p $(@D); echo "  LD    $@"
	$Q$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lmosquitto
bench bench-quick bench-scale bench-again bench-publish:
	@tests/install-packages build bench
	@$(MAKE) --no-print-directory all $B/bench/peer
	@tests/bench/run $B $(filter --%,$(@:bench-%=--%))

SHARE    := $(DESTDIR)$(PREFIX)/share
install: all
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(UNITDIR) $(DESTDIR)$(PREFIX)/lib/sysusers.d \
	    $(addprefix $(SHARE)/,doc/proxyd/examples man/man5 man/man8 bash-completion/completions)
	install -m 755 $B/proxyd $B/proxyctl $(DESTDIR)$(PREFIX)/sbin
	install -m 644 $(filter %.5,$(PAGES)) $(SHARE)/man/man5
	install -m 644 $(filter %.8,$(PAGES)) $(SHARE)/man/man8
	sed 's|/usr/sbin|$(PREFIX)/sbin|' etc/proxyd.service >$(DESTDIR)$(UNITDIR)/proxyd.service
	install -m 644 etc/proxyd.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/proxyd.conf
	install -m 644 etc/proxyctl.bash-completion $(SHARE)/bash-completion/completions/proxyctl
	install -m 644 README.md CHANGELOG.md LICENSE $(SHARE)/doc/proxyd
	install -m 644 $(wildcard etc/*.conf) etc/proxyd.sysctl etc/grafana.json etc/alerts.yml $(SHARE)/doc/proxyd/examples
uninstall:
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/sbin/,proxyd proxyctl) $(addprefix $(SHARE)/man/man?/,$(notdir $(PAGES)))
	rm -f $(DESTDIR)$(UNITDIR)/proxyd.service $(DESTDIR)$(PREFIX)/lib/sysusers.d/proxyd.conf
	rm -f $(SHARE)/bash-completion/completions/proxyctl
	rm -rf $(SHARE)/doc/proxyd

# A Debian package in build/, from a copy of the tree; ARCH=arm64 builds for another machine.
DEB := $(abspath $B/deb)
deb:
	@tests/install-packages build package
	rm -rf $(DEB) && mkdir -p $(DEB)/proxyd
	tar -c --exclude=./build --exclude=./.git . | tar -x -C $(DEB)/proxyd
	cd $(DEB)/proxyd && $(if $(ARCH),DEB_BUILD_OPTIONS=nocheck) dpkg-buildpackage -b -us -uc $(if $(ARCH),-a$(ARCH) -Pcross -Pnocheck)
	mv $(DEB)/*.deb $B/
check-deb: deb
	tests/check-deb $B
check-arm:
	@tests/install-packages package arm
	tests/check-arm $B arm64 && tests/check-arm $B armhf

format:
	clang-format -i $(SOURCES) $(wildcard */*.h tests/*/*.[ch])
clean:
	rm -rf build

.PHONY: all run test check-san check-long units bench bench-quick bench-scale bench-again bench-publish install uninstall deb check-deb check-arm format clean
.SECONDARY:
-include $(OBJECTS:.o=.d) $(wildcard $B/obj/tests/*/*.d)
