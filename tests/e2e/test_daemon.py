# SPDX-License-Identifier: MIT
"""The daemon as a process: command line, exit statuses, signals, the service manager, how it starts and stops."""
import ctypes
import os
import pathlib
import signal
import subprocess
import time

import pytest

from harness import FACTOR, PROXYD, eventually, holds
from peers import error_of, swallow


def run(*arguments):
    return subprocess.run([PROXYD, *map(str, arguments)], capture_output=True, text=True, timeout=10 * FACTOR)


# ---- command line ----------------------------------------------------------------------------------------------

def test_version_help_and_keys_go_to_stdout():
    assert run("-V").stdout.split() == ["proxyd", "0.1.0"]
    assert run("--help").stdout.startswith("usage: proxyd")
    keys = run("--print-keys")
    assert keys.returncode == 0
    assert "drain_timeout" in keys.stdout and "when_full" in keys.stdout


@pytest.mark.parametrize("arguments", [["-x"], ["--config"], ["-t", "surplus"]])
def test_bad_usage_exits_2(arguments):
    result = run(*arguments)
    assert result.returncode == 2
    assert "usage: proxyd" in result.stderr and result.stdout == ""


def test_missing_configuration_exits_2_and_names_the_file():
    result = run("-c", "/nonexistent/proxyd.conf")
    assert result.returncode == 2
    assert "/nonexistent/proxyd.conf" in result.stderr


def test_check_says_ok_and_starts_nothing(net):
    taken = net.rep()
    proxyd = net.prepare(net.chain("rep-req", at=taken, name="a"), net.chain("rep-pub", name="b"))
    result = run("-t", "-c", proxyd.config_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{proxyd.config_path}: OK (2 chains)\n"


def test_check_prints_every_problem(net):
    proxyd = net.prepare(net.chain("rep-req", name="a", backend={"window": -1}),
                         net.chain("no-such-kind", name="b"))
    for arguments in (["-t", "-c", proxyd.config_path], ["-c", proxyd.config_path]):
        result = run(*arguments)
        assert result.returncode == 2
        lines = result.stderr.splitlines()
        assert any('chain "a"' in line and "window" in line for line in lines)
        assert any('chain "b"' in line and "no-such-kind" in line for line in lines)
        assert all(line.startswith(f"{proxyd.config_path}:") for line in lines)


# ---- start -----------------------------------------------------------------------------------------------------

def test_an_address_in_use_names_chain_and_endpoint(net):
    """All of them are named in one start, exit 1."""
    servers = [net.rep(), net.rep()]
    proxyd = net.prepare(*(net.chain("rep-req", at=server, name=f"chain{n}") for n, server in enumerate(servers)))
    proxyd.start(ready=False).expect_exit(1)
    for n, server in enumerate(servers):
        (event,) = proxyd.events("start-failed", chain=f"chain{n}")
        assert server.endpoint in event["reason"] and "in use" in event["reason"]
    assert not proxyd.events("ready")


def test_soft_limit_of_descriptors_is_raised(net):
    proxyd = net.prepare(net.chain("rep-pub"), prefix=["prlimit", "--nofile=256:8192", "--core=1000:1000"])
    proxyd.start()
    limits = pathlib.Path(f"/proc/{proxyd.pid}/limits").read_text()
    (files,) = (line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files"))
    (core,) = (line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size"))
    assert files == ["8192", "8192"]
    assert core == ["0", "0"]


def test_open_endpoints_are_warned_of_once(net):
    wide = net.chain("rep-req", at="tcp://*:0", name="wide")
    proxyd = net.proxyd(wide, net.chain("rep-req", name="narrow"))
    proxyd.logged("ready")  # after it
    (event,) = proxyd.events("open-endpoint")
    assert event == {"chain": "wide", "endpoint": "tcp://*:0", "auth": "none"}


# ---- stop ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_in_order(net, number):
    proxyd = net.proxyd(net.chain("rep-req"))
    proxyd.signal(number)
    assert proxyd.wait() == 0
    assert "STOPPING=1" in proxyd.notifications()
    assert proxyd.events("stopping", cause=number.name)
    assert not os.path.exists(proxyd.control_endpoint.removeprefix("ipc://"))


def test_requests_in_flight_finish_while_it_stops(net):
    def slow(server, request):
        server.later(0.4, lambda: server.reply(request, b"done"))
    upstream = net.rep(slow)
    calls = net.chain("rep-req", to=upstream)
    proxyd = net.proxyd(calls, daemon={"drain_timeout": "20s"})
    caller = net.caller(calls)
    caller.send(b"x")
    eventually(lambda: upstream.log)
    took = proxyd.stop()
    assert caller.receive() == [b"done"]
    assert took < 10 * FACTOR


def test_a_second_signal_stops_at_once(net):
    upstream = net.rep(swallow)
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "60s"})
    proxyd = net.proxyd(calls, daemon={"drain_timeout": "60s"})
    caller = net.caller(calls)
    caller.send(b"x")
    eventually(lambda: upstream.log)
    proxyd.signal(signal.SIGTERM)
    proxyd.wait_for(calls, state="draining")
    holds(lambda: proxyd.is_running, 0.2)
    proxyd.signal(signal.SIGTERM)
    assert proxyd.wait(5) == 0
    assert error_of(caller.receive()) == (504, "lost")


def test_what_a_chain_still_holds_reaches_the_chain_it_feeds(net):
    """The stop follows the inproc joins: the fed chain serves until the feeding one has ended."""
    def slow(server, request):
        server.later(0.02, lambda: server.reply(request, b"ok"))
    upstream = net.rep(slow)
    publisher = net.publisher()
    # The fed chain comes first in the file, so that nothing but the joins can make the order right.
    calls = net.chain("rep-req", at="inproc://calls", to=upstream, name="calls")
    samples = net.chain("sub-req", at=publisher, to="inproc://calls", name="samples")
    proxyd = net.proxyd(calls, samples, daemon={"drain_timeout": "20s"})
    publisher.wait_subscribed()
    for number in range(40):
        publisher.publish(b"%d" % number)
    proxyd.wait_for(samples, accepted=40)
    proxyd.stop()
    assert sorted(upstream.bodies, key=int) == [b"%d" % number for number in range(40)]


# ---- service manager -------------------------------------------------------------------------------------------

def test_ready_comes_once_endpoints_are_bound(net):
    calls = net.chain("rep-req", to=net.rep())
    proxyd = net.prepare(calls)
    proxyd.start()
    # A REQ that connects for the first time after READY finds the endpoint bound: no reconnect is needed.
    assert net.caller(calls, reconnect_ivl=-1).call(b"x") == [b"x"]
    assert proxyd.notifications().count("READY=1") == 1


def test_status_text_follows_the_chains(net):
    upstream = net.rep()
    proxyd = net.proxyd(net.chain("rep-req", to=upstream), net.chain("rep-pub"))
    eventually(lambda: "STATUS=chains: 2 up" in proxyd.notifications())
    upstream.stop()
    eventually(lambda: proxyd.notifications()[-1] == "STATUS=chains: 1 up, 1 down")


def test_watchdog_is_fed_only_when_it_is_asked_for(net):
    watched = net.proxyd(net.chain("rep-req"), env={"WATCHDOG_USEC": "200000"})
    eventually(lambda: watched.notifications().count("WATCHDOG=1") > 5)
    assert "WATCHDOG=1" not in net.proxyd(net.chain("rep-req")).notifications()


class Stuck:
    """One thread of a process, stopped alone, as if its loop were stuck."""
    SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
    WALL = 0x40000000

    def __init__(self, pid, name):
        def find():  # a thread that has just begun has no name of its own yet
            tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
            return next((int(task.name) for task in tasks if (task / "comm").read_text().strip() == name), None)
        self.tid = eventually(find)
        self.libc = ctypes.CDLL(None, use_errno=True)
        if self._ptrace(self.SEIZE) != 0:
            pytest.skip(f"ptrace is not allowed here: {os.strerror(ctypes.get_errno())}")
        assert self._ptrace(self.INTERRUPT) == 0
        os.waitpid(self.tid, self.WALL)

    def _ptrace(self, request):
        return self.libc.ptrace(ctypes.c_long(request), ctypes.c_long(self.tid), None, None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ptrace(self.DETACH)

    def reap(self):
        """Waits for its end: until then its process cannot be waited for."""
        os.waitpid(self.tid, self.WALL)


@pytest.mark.parametrize("thread", ["stuck", "auth-zap"])
def test_watchdog_is_not_fed_while_a_thread_is_stuck(net, thread):
    good = net.chain("rep-req", to=net.rep(), name="good")
    stuck = net.chain("rep-req", name="stuck", frontend={"allow": ["127.0.0.1"]})
    proxyd = net.proxyd(stuck, good, env={"WATCHDOG_USEC": "200000"})
    eventually(lambda: "WATCHDOG=1" in proxyd.notifications())
    fed, since = 0, 0.0

    def quiet_s():
        """For how long it has not been fed; 0.05 s is usual."""
        nonlocal fed, since
        before, fed = fed, proxyd.notifications().count("WATCHDOG=1")
        since = time.monotonic() if fed != before else since
        return time.monotonic() - since
    with Stuck(proxyd.pid, thread):
        eventually(lambda: quiet_s() > 0.6)
        assert net.caller(good).call(b"x") == [b"x"]  # the others go on
    eventually(lambda: quiet_s() < 0.1)


def test_a_stuck_chain_does_not_keep_it_from_ending(net):
    proxyd = net.proxyd(net.chain("rep-req", name="stuck"), daemon={"drain_timeout": "100ms"})
    with Stuck(proxyd.pid, "stuck") as stuck:
        proxyd.signal(signal.SIGTERM)
        proxyd.logged("stop-stuck", chain="stuck")
        stuck.reap()
    assert proxyd.wait() == 1


def test_a_signal_ends_it_even_when_its_last_steps_are_stuck(net):
    proxyd = net.proxyd(net.chain("rep-req", name="calls"))
    with Stuck(proxyd.pid, "ZMQbg/Reaper") as stuck:
        proxyd.signal(signal.SIGTERM)
        proxyd.logged("chain-state", chain="calls", state="stopped")
        holds(lambda: proxyd.is_running, 0.3)
        proxyd.signal(signal.SIGTERM)
        stuck.reap()
    assert proxyd.wait() == -signal.SIGTERM


def test_a_start_without_enough_descriptors_ends_whichever_it_lacks(net):
    """One socket more or less, and something else is the last that could be made."""
    path = net.prepare(*(net.chain("rep-req", name=f"c{number}") for number in range(10))).config_path
    for limit in range(40, 60):
        result = subprocess.run(["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(limit), PROXYD, "-c", path],
                                capture_output=True, text=True, timeout=10 * FACTOR)
        assert result.returncode == 1 and "start-failed" in result.stderr, f"{limit} descriptors: {result}"


def test_it_survives_a_closed_stderr(net):
    """A log nobody reads stops nobody (SIGPIPE)."""
    calls = net.chain("rep-req", to=net.rep())
    proxyd = net.prepare(calls)
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen([PROXYD, "-c", proxyd.config_path], stdin=subprocess.DEVNULL, stderr=writer)
    os.close(writer)
    try:
        assert net.caller(calls).call(b"x") == [b"x"]
        process.send_signal(signal.SIGHUP)
        assert net.caller(calls).call(b"y") == [b"y"]
    finally:
        process.terminate()
        assert process.wait(10 * FACTOR) == 0


def test_nothing_takes_the_place_of_a_closed_standard_stream(net):
    """A socket there would get log lines."""
    calls = net.chain("rep-req", to=net.rep())
    proxyd = net.proxyd(calls, prefix=["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-'])
    assert {os.readlink(f"/proc/{proxyd.pid}/fd/{fd}") for fd in range(3)} == {"/dev/null"}
    assert net.caller(calls).call(b"x") == [b"x"]
