# SPDX-License-Identifier: MIT
"""The systemd unit: systemd accepts it, and the daemon does its work under the system calls that it allows."""
import grp
import os
import subprocess
import sys
import urllib.request

import pytest

from harness import PROXYD, ROOT, SANITIZED, host_port, proxyctl
from peers import error_of
from webserver import certificate

UNIT = ROOT / "etc" / "proxyd.service"

# Executes a command that may only make the system calls named before the "--"; others fail as the unit says.
CONFINED = """
import errno, os, sys, seccomp
end = sys.argv.index("--")
allowed = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
for name in sys.argv[1:end]:
    if seccomp.resolve_syscall(seccomp.Arch(), name) >= 0:
        allowed.add_rule(seccomp.ALLOW, name)
allowed.load()
os.execv(sys.argv[end + 1], sys.argv[end + 1:])
"""


def analyze(*arguments):
    result = subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def settings(name):
    return [line.split("=", 1)[1].split() for line in UNIT.read_text().splitlines() if line.startswith(f"{name}=")]


def calls_of(name):
    """The system calls of a group such as @system-service, or the one of that name."""
    if not name.startswith("@"):
        return {name}
    lines = [line.strip() for line in analyze("syscall-filter", name).splitlines() if line.startswith("    ")]
    return set().union(*(calls_of(line) for line in lines if not line.startswith("#")))


def test_unit_is_accepted(tmp_path):
    unit = tmp_path / "proxyd.service"
    unit.write_text(UNIT.read_text().replace("/usr/sbin", str(PROXYD.parent)))
    assert analyze("verify", "--man=no", unit) == ""
    exposure = analyze("security", "--offline=true", "--threshold=20", unit)
    assert "Overall exposure level" in exposure


@pytest.mark.skipif(SANITIZED, reason="sanitizers make calls of their own")
def test_daemon_works_within_the_system_calls_of_the_unit(net):
    allowed = set()
    for words in settings("SystemCallFilter"):
        groups = set().union(*(calls_of(word.lstrip("~")) for word in words))
        allowed = allowed - groups if words[0].startswith("~") else allowed | groups
    assert "openat" in allowed and "reboot" not in allowed
    users = net.scratch / "users"
    users.touch(mode=0o600)
    proxyctl("passwd", users, "pi-1", "--stdin", input="secret", check=True)
    address = net.endpoint().removeprefix("tcp://")
    group = grp.getgrgid(os.getegid()).gr_name
    upstream = net.rep()
    calls = net.chain("rep-req", to=upstream, frontend={"auth": "plain"})
    orders = net.chain("buffered-rep-req", net.ipc("orders"), upstream)
    events = net.chain("rep-pub", frontend={"rate": 5})
    path, context = certificate(net, "server", "IP:127.0.0.1")
    web = net.chain("rep-req", name="web", dialect="jsonrpc", backend={"tls_ca_file": str(path)},
                    to=net.web(endpoint=f"tcp://127.0.0.1:{host_port(net.endpoint())[1]}", tls=context))
    proxyd = net.proxyd(calls, orders, events, web,
                        daemon={"users": str(users), "control_group": group, "http": address},
                        prefix=(sys.executable, "-c", CONFINED, *allowed, "--"))
    caller = net.caller(calls, plain_username=b"pi-1", plain_password=b"secret")
    assert caller.call(b"hello") == [b"hello"]
    assert net.caller(orders).call(b"order")[0].startswith(b"accepted synced ")
    proxyd.wait_for(orders, delivered=1)
    assert not error_of(net.caller(events).call(b"event"))
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        assert b"proxyd_delivered_total" in answer.read()
    assert net.caller(web).call(b'{"method":"m","id":1}') == [b'{"jsonrpc": "2.0", "id": 1, "result": null}']
    proxyd.stop()
    assert " warning " not in proxyd.log and " error " not in proxyd.log
