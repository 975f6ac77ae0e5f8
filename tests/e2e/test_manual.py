# SPDX-License-Identifier: MIT
"""The manual pages are well formed, and name everything that there is: each key, command, option, reason, event,
state, cause, signal and exit status, as the program or the source has them."""
import functools
import re
import sqlite3
import subprocess

import pytest

from harness import BUILD, PROXYCTL, PROXYD, ROOT

PAGES = ["proxyd.8", "proxyd.conf.5", "proxyctl.8", "proxyd-users.5"]


@functools.cache
def page(name):
    """A page as a reader sees it, on one endless line."""
    text = subprocess.run(["mandoc", "-T", "ascii", BUILD / "man" / name], capture_output=True, text=True, check=True)
    return " ".join(re.sub(".\b", "", text.stdout).split())


def entries(name):
    """What stands alone at the head of an entry."""
    source = (BUILD / "man" / name).read_text()
    return {line.split()[2].replace("\\-", "-").rstrip(",") for line in source.splitlines() if line.startswith(".It ")
            and len(line.split()) > 2}


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def from_source(pattern, *files):
    """All that the groups of a pattern match in these files."""
    found = {word for each in files for path in ROOT.glob(each)
             for match in re.finditer(pattern, path.read_text()) for word in match.groups() if word}
    assert found, f"{pattern} is in none of {files}"
    return found


def missing(words, name):
    return {word for word in words if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", page(name))}


@pytest.mark.parametrize("name", PAGES)
def test_page_is_well_formed(name):
    lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", BUILD / "man" / name], capture_output=True, text=True)
    assert lint.stdout + lint.stderr == ""


@pytest.mark.parametrize("source, complaint", [
    ("@list keys.nothing\n@end\n", 'line 1: there is no table "keys.nothing"'),
    ("@list reasons\n@about timeout\nx\n@about late\n@end\n", 'line 5: the table has no "late"'),
    ("@list reasons\nx\n@end\n", 'line 2: neither @about nor @end "x"'),
    ("@list reasons\n@about timeout\n", 'line 2: there is no @end of "reasons"'),
])
def test_page_that_does_not_fit_the_tables_ends_the_build(source, complaint):
    done = subprocess.run([BUILD / "manual"], input=source, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"manual: {complaint}\n")


def test_every_key_has_an_entry():
    keys = set(re.findall(r"^  ([a-z_]+) +[a-z ]+, ", output(PROXYD, "--print-keys"), re.MULTILINE))
    assert len(keys) > 50
    assert keys - entries("proxyd.conf.5") <= {"daemon", "chains"}
    assert not missing({"daemon", "chains"}, "proxyd.conf.5")


def test_every_command_has_an_entry_and_every_option_is_named():
    commands = set(re.findall(r"^  ([a-z]+) ", output(PROXYCTL, "-h"), re.MULTILINE))
    assert len(commands) > 10
    assert commands <= entries("proxyctl.8")
    for program, name in ((PROXYCTL, "proxyctl.8"), (PROXYD, "proxyd.8")):
        options = set(re.findall(r"--[a-z-]+", output(program, "-h")))
        assert {option for option in options if option not in page(name)} == set()


def test_every_reason_stands_with_its_code():
    reasons = re.findall(r'\{"([a-z-]+)", (\d{3}), -', (ROOT / "proxies/ledger.c").read_text())
    assert len(reasons) == 11
    assert {reason for reason in reasons if ", ".join(reason) not in page("proxyd.8")} == set()


@pytest.mark.parametrize("what, pattern, files, name", [
    ("kinds", r'\{"([a-z-]+)", &front_', ["proxies/kinds.c"], "proxyd.8"),
    ("drops", r'\[DROP_[A-Z]+\] = "([a-z]+)"', ["proxies/ledger.c"], "proxyd.8"),
    ("events", r'EVENT_(?:ERROR|WARNING|INFO|DEBUG),\s+"([a-z-]+)"|failed\([a-z&]+, "([a-z-]+)"'
     r'|tell_chain\(daemon, "([a-z-]+)"|\[STORE_EVENT_[A-Z_]+\] = "([a-z-]+)"',
     ["proxyd/*.c", "proxies/*.c", "buffer/store.c"], "proxyd.8"),
    ("causes", r'(?:return|fail\(link,|did_not_connect\(link,|link_discard\(link,) "([a-z-]+)"',
     ["proxies/link.c", "proxies/front_sub.c"], "proxyd.8"),
    ("signals", r"sigaddset\(set, (SIG[A-Z]+)\)", ["proxyd/daemon.c"], "proxyd.8"),
    ("environment", r'getenv\("([A-Z_]+)"\)', ["proxyd/notify.c", "proxyd/log.c"], "proxyd.8"),
    ("dialects", r'\.name = "([a-z]+)"', ["proxies/dialect_*.c"], "proxyd.conf.5"),
])
def test_page_names_all(what, pattern, files, name):
    assert missing(from_source(pattern, *files), name) == set()


def test_every_event_of_the_page_is_one():
    source = (BUILD / "man" / "proxyd.8").read_text()
    listed = source[source.index("The words, by level:"):source.index(".Sh NOTES")]
    words = {word.replace("\\-", "-") for word in re.findall(r"^\.Li ([a-z\\-]+)", listed, re.MULTILINE)}
    assert len(words) > 40
    assert words - from_source(r'"([a-z-]+)"', "proxyd/*.c", "proxies/*.c", "buffer/store.c") == set()


def test_exit_statuses_are_explained():
    for name in ("proxyd.8", "proxyctl.8"):
        assert re.search(r"EXIT STATUS 0 Done\. 1 .* 2 Bad usage", page(name))


def test_status_has_no_member_that_the_manual_lacks(net):
    server = net.rep()
    proxyd = net.proxyd(net.chain("rep-req", to=server))
    status = proxyd.status()
    chain = status["chains"]["rep-req"]
    members = {*status, *chain, *chain["upstreams"][0]} - {"chains"}
    assert missing(members, "proxyctl.8") == set()


def test_store_can_be_looked_into_as_the_manual_says(net):
    orders = net.chain("buffered-rep-req", name="orders")
    proxyd = net.proxyd(orders)
    for body in (b"two loaves", b"of bread"):
        assert net.caller(orders).call(body)[0].startswith(b"accepted synced ")
    proxyd.stop()
    files = {path.name for path in (proxyd.scratch / "state").iterdir()}
    assert files <= {"store.db", "store.db-wal", "store.lock", "store.mark", "store.reserve"}
    assert missing(files, "proxyd.8") == set()
    query = re.search(r'sqlite3 store\.db "(.*?)"', page("proxyd.8"))[1]
    store = sqlite3.connect(proxyd.scratch / "state" / "store.db")
    assert store.execute(query).fetchall() == [("orders", 2, len("two loaves" "of bread"))]
    store.close()


def test_batches_on_the_control_socket_are_as_long_as_the_manual_says(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    most = int(re.search(r"A batch has at most (\d+) requests", page("proxyctl.8"))[1])
    request = {"jsonrpc": "2.0", "id": 1, "method": "status"}
    assert len(proxyd.control_raw([request] * most)) == most
    assert "error" in proxyd.control_raw([request] * (most + 1))
