# SPDX-License-Identifier: MIT
"""Peers that mean harm, or behave as if they did: floods of connections, silence, messages without an end, ids that
are not theirs, and a daemon that runs out of descriptors (G7). Whoever behaves is served
meanwhile."""
import os
import resource
import time

import pytest

from harness import FACTOR, SANITIZED, eventually, holds
from peers import outcomes, plain
from zmtp import COMMAND, MORE, command, dial, frame, greeting, ready, wire_publisher

MIB = 1 << 20
HANDSHAKE_S = 5


class Crowd:
    """Connections to an endpoint that stay open until close(), silent or, after handshake(), idle."""

    def __init__(self, endpoint, count, source=None):
        self.sockets = [dial(endpoint, source=source).tcp for _ in range(count)]

    def open_count(self):
        """How many the other side has not ended."""
        return sum(is_open(peer) for peer in self.sockets)

    def handshake(self, socket_type=b"DEALER"):
        """Their part of it, all at once; whoever was refused is left alone."""
        for peer in self.sockets:
            try:
                peer.sendall(greeting() + ready(socket_type))
            except OSError:
                pass
        return self

    def close(self):
        for peer in self.sockets:
            peer.close()


def is_open(peer):
    """Reads what has come; false when the other side has ended the connection."""
    peer.setblocking(False)
    try:
        while peer.recv(65536):
            pass
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False


@pytest.fixture
def crowd(net):
    return lambda *args, **options: net._add(Crowd(*args, **options))


def write_until_cut(connection, block, most):
    """Sends `block` again and again until the other side has ended the connection; fails when it took `most`
    bytes and more."""
    connection.tcp.settimeout(20 * FACTOR)
    for _ in range(0, most, len(block)):
        try:
            connection.write(block)
        except ConnectionError:
            return
    raise AssertionError(f"took {most} bytes and more")


# ---- floods of connections -------------------------------------------------------------------------------------

@pytest.mark.parametrize("sources", [["127.0.0.1"], ["127.0.0.2", "127.0.0.3"]], ids=["one-address", "two"])
def test_2000_silent_connections_keep_nobody_out_and_disappear(net, crowd, sources):
    """More than one address may have (1024), and the good callers come from that address, too."""
    calls = net.chain("rep-req", to=net.router())
    proxyd = net.proxyd(calls)
    old = net.caller(calls)
    assert old.call(b"before") == [b"before"]
    quiet = proxyd.fd_count()
    began = time.monotonic()
    silent = [crowd(calls.endpoint, 2000 // len(sources), source) for source in sources]
    connecting = time.monotonic()
    assert net.caller(calls).call(b"new") == [b"new"]
    assert SANITIZED or time.monotonic() - connecting < 1
    assert old.call(b"still") == [b"still"]
    eventually(lambda: not any(each.open_count() for each in silent), HANDSHAKE_S + 2, "all are gone")
    assert time.monotonic() - began < (HANDSHAKE_S + 3) * FACTOR
    eventually(lambda: proxyd.fd_count() <= quiet + 1, 2, "their descriptors are given back")
    assert old.call(b"after") == [b"after"]


def test_the_cap_holds_and_control_is_beyond_it(net, crowd):
    """Of 300 that finish their handshakes 50 stay, and the operator still gets in."""
    calls = net.chain("rep-req", to=net.router())
    proxyd = net.proxyd(calls, daemon={"max_connections": 50})
    idle = crowd(calls.endpoint, 300).handshake()
    eventually(lambda: idle.open_count() == 50, 5)
    holds(lambda: idle.open_count() == 50, 0.2)
    proxyd.chain(calls)
    refusals = proxyd.logged("connection-refused", chain="rep-req", address="127.0.0.1", limit="max_connections")
    assert len(refusals) == 1, "one event, however many there were"
    idle.close()
    assert net.caller(calls).call(b"room again") == [b"room again"]


def test_the_cap_of_an_address_leaves_room_for_the_others(net, crowd):
    calls = net.chain("rep-req", to=net.router())
    proxyd = net.proxyd(calls, daemon={"max_connections": 100, "max_connections_per_address": 10})
    greedy = crowd(calls.endpoint, 40, "127.0.0.2").handshake()
    other = crowd(calls.endpoint, 10, "127.0.0.3").handshake()
    eventually(lambda: greedy.open_count() == 10, 5)
    assert other.open_count() == 10
    assert net.caller(calls).call(b"fine") == [b"fine"]
    proxyd.logged("connection-refused", address="127.0.0.2", limit="max_connections_per_address")


def test_the_cap_is_of_all_frontends_and_transports_together(net, crowd):
    calls = net.chain("rep-req", at=[net.endpoint(), net.ipc("front")], to=net.router())
    news = net.chain("rep-pub")
    net.proxyd(calls, news, daemon={"max_connections": 30})
    crowds = [crowd(place, 10).handshake() for place in (calls.at[0], calls.at[1], news.at[0])]
    crowds.append(crowd(news.published, 10).handshake(b"SUB"))
    eventually(lambda: sum(each.open_count() for each in crowds) == 30, 5)
    holds(lambda: sum(each.open_count() for each in crowds) == 30, 0.2)


# ---- descriptors -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_64_descriptors_and_a_flood(net, crowd, transport):
    """libzmq's tcp listener would spin, its ipc listener abort. The limit falls by itself, with a warning."""
    calls = net.chain("rep-req", at=net.ipc("front") if transport == "ipc" else None, to=net.router())
    proxyd = net.proxyd(calls, prefix=["prlimit", "--nofile=64:64"])
    limited = proxyd.logged("connections-limited", max_connections=4096, descriptors=64)
    assert len(limited) == 1
    good = net.caller(calls)
    assert good.call(b"before") == [b"before"]
    flood = crowd(calls.endpoint, 300).handshake()
    eventually(lambda: flood.open_count() < int(limited[0]["possible"]), 5)
    used = proxyd.cpu_s()
    holds(lambda: proxyd.is_running, 0.5)
    assert proxyd.cpu_s() - used < 0.1 * FACTOR
    assert good.call(b"meanwhile") == [b"meanwhile"]
    assert proxyd.chain(calls)["accepted"] == 2
    flood.close()
    eventually(lambda: proxyd.fd_count() < 50, 5)
    assert net.caller(calls).call(b"after") == [b"after"]


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_no_descriptor_at_all_is_survived(net, crowd, transport):
    """The limit is lowered under the running daemon's feet: nobody comes in, whoever is in is served."""
    calls = net.chain("rep-req", at=net.ipc("front") if transport == "ipc" else None, to=net.router())
    proxyd = net.proxyd(calls)
    good = net.caller(calls)
    assert good.call(b"before") == [b"before"]
    usual = resource.prlimit(proxyd.pid, resource.RLIMIT_NOFILE)
    highest = max(int(fd) for fd in os.listdir(f"/proc/{proxyd.pid}/fd"))
    resource.prlimit(proxyd.pid, resource.RLIMIT_NOFILE, (highest + 1, usual[1]))
    waiting = crowd(calls.endpoint, 64)  # holes below the highest may let a few in
    eventually(lambda: waiting.open_count() <= 16, 5)
    used = proxyd.cpu_s()
    holds(lambda: proxyd.is_running, 0.5)
    assert proxyd.cpu_s() - used < 0.1 * FACTOR
    assert good.call(b"meanwhile") == [b"meanwhile"]
    resource.prlimit(proxyd.pid, resource.RLIMIT_NOFILE, usual)
    waiting.close()
    assert net.caller(calls).call(b"after") == [b"after"]


# ---- messages without an end -----------------------------------------------------------------------------------

KERNEL = 16 * MIB  # what it may hold of a connection on both sides


@pytest.mark.parametrize("block", [
    frame(b"", MORE) * 2000,
    frame(bytes(60000), MORE),
    (frame(b"", MORE) + command(b"PING", bytes(2))) * 500,  # which no message is made of
    frame(b"\tSUBSCRIBEx", MORE | COMMAND) * 500,           # which libzmq keeps for any socket
], ids=["empty-frames", "filled-frames", "with-pings", "as-commands"])
@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_an_endless_request_is_cut_within_its_limits(net, transport, block):
    calls = net.chain("rep-req", at=net.ipc("front") if transport == "ipc" else None, to=net.router())
    proxyd = net.proxyd(calls)
    before = proxyd.rss_bytes()
    endless = dial(calls.endpoint).handshake(b"DEALER")
    endless.write(frame(b"", MORE))
    write_until_cut(endless, block, 4 * MIB + KERNEL)
    assert SANITIZED or proxyd.rss_bytes(peak=True) < before + 16 * MIB
    cut, = proxyd.logged("connection-cut", chain="rep-req", cause="too-large")
    assert int(cut["frames"]) <= 2 * 4 * 64 + 2 and int(cut["bytes"]) <= 4 * MIB + 60000
    assert net.caller(calls).call(b"fine") == [b"fine"]
    proxyd.wait_for(calls, accepted=1, delivered=1)


@pytest.mark.parametrize("name", [b"\5HELLO", b"\x08INITIATE"])
def test_who_was_not_let_in_yet_fills_no_memory(net, users, name):
    """A request may have megabytes, a handshake has no use for them."""
    calls = net.chain("rep-req", to=net.router(), frontend={"auth": "plain"})
    proxyd = net.proxyd(calls, daemon={"users": str(users.path)})
    for _ in range(3):
        stranger = dial(calls.endpoint)
        stranger.write(greeting(b"PLAIN"))
        stranger.read(64)
        write_until_cut(stranger, frame(name + bytes(4 * MIB - 100), COMMAND)[:3 * MIB], 4 * MIB)
    cut = proxyd.logged("connection-cut", cause="too-large")[0]
    assert int(cut["bytes"]) > 3 * MIB
    assert net.caller(calls, **plain("anna")).call(b"fine") == [b"fine"]


def test_a_subscriber_cannot_fill_a_publishers_memory(net):
    news = net.chain("rep-pub")
    proxyd = net.proxyd(news)
    before = proxyd.rss_bytes()
    endless = dial(news.published).handshake(b"SUB")
    write_until_cut(endless, frame(b"\1" + bytes(200), MORE) * 100, KERNEL)
    assert SANITIZED or proxyd.rss_bytes(peak=True) < before + 8 * MIB
    caller = net.caller(news)
    net.subscriber(news).wait_joined(lambda: caller.call(b"probe"))


ENDLESS = pytest.mark.parametrize("block", [frame(b"", MORE) * 2000, frame(bytes(60000), MORE)],
                                  ids=["empty-frames", "filled-frames"])


@ENDLESS
def test_who_comes_to_a_bound_backend_cannot_fill_its_memory(net, block):
    calls = net.chain("rep-req", to="@" + net.endpoint(), queue={"max_bytes": "4MiB"}, frontend={"max_message": "1MiB"})
    proxyd = net.proxyd(calls)
    before = proxyd.rss_bytes()
    endless = dial(calls.published).handshake(b"DEALER")
    write_until_cut(endless, block, 4 * MIB + KERNEL)
    assert SANITIZED or proxyd.rss_bytes(peak=True) < before + 32 * MIB
    proxyd.logged("connection-cut", chain="rep-req", cause="too-large")
    server = dial(calls.published).handshake(b"REP")
    caller = net.caller(calls)
    caller.send(b"x" * 1000)
    server.send(*server.read_message()[:-1], b"y")
    assert caller.receive() == [b"y"]


@ENDLESS
def test_who_may_use_the_control_socket_cannot_fill_its_memory(net, block):
    proxyd = net.proxyd(net.chain("rep-pub"))
    endless = dial(proxyd.control_endpoint).handshake(b"REQ")
    write_until_cut(endless, block, KERNEL)
    assert proxyd.control("status")["connections"]["cut"] == 1


@ENDLESS
def test_an_upstream_cannot_fill_our_memory(net, block):
    """It may answer with 64 MiB, whatever the bounds of the queue."""
    ended = []

    def serve(connection):
        connection.handshake(b"REP")
        request = connection.read_message()
        if ended:
            connection.send(*request)
            connection.read_message()
        try:
            write_until_cut(connection, block, 64 * MIB + KERNEL)
        finally:
            ended.append(connection)
    calls = net.chain("rep-req", to=net.listener(serve), queue={"max_bytes": "1MiB"},
                      backend={"timeout": "30s", "backoff": "10ms"})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    before = proxyd.rss_bytes()
    assert caller.call(b"x") == [b"error 504 lost"]
    assert SANITIZED or proxyd.rss_bytes(peak=True) < before + 96 * MIB
    proxyd.logged("connection-cut", chain="rep-req", cause="too-large")
    assert caller.call(b"again") == [b"again"]


@ENDLESS
def test_a_publisher_cannot_fill_a_subscribers_memory(net, block):
    """Nor keep anybody from the publications that it makes after that."""
    ended = []

    def publish(connection):
        if ended:
            connection.send(b"news")
            return
        try:
            write_until_cut(connection, block, 4 * MIB + KERNEL)
        finally:
            ended.append(connection)
    news = net.chain("sub-pub", at=net.listener(wire_publisher(publish)), frontend={"backoff": "200ms"})
    proxyd = net.proxyd(news)
    before = proxyd.rss_bytes()
    eventually(lambda: ended, 10)
    assert SANITIZED or proxyd.rss_bytes(peak=True) < before + 16 * MIB
    proxyd.logged("connection-cut", chain="sub-pub", cause="too-large")
    proxyd.wait_for(news, accepted=lambda count: count >= 1)


def test_bursts_of_whole_messages_are_never_cut(net):
    """Everything near a limit, from many at once, faster than it is taken."""
    calls = net.chain("rep-req", to=net.router(), frontend={"max_message": "64KiB"},
                      queue={"max_messages": 100000, "max_bytes": "1GiB"})
    proxyd = net.proxyd(calls)
    pipelines = [net.pipeline(calls) for _ in range(8)]
    for pipeline in pipelines:
        for _ in range(40):
            pipeline.send(bytes(65500))                 # all a message may have
            pipeline.send(*[bytes(1000)] * 63)          # and all its frames
            pipeline.send(bytes(250000))                # far too large, but to be told of it
            pipeline.send(*[b""] * 200)
    for pipeline in pipelines:
        assert outcomes(pipeline.wait(seconds=30)) == {"reply": 80, "too-large": 80}
    assert not proxyd.events("connection-cut")


# ---- ids that are libzmq's own ---------------------------------------------------------------------------------

def test_a_routing_id_of_libzmqs_own_kind_is_refused(net):
    """A ROUTER aborts when it has handed out the id that a peer has claimed; its own begin with a zero."""
    calls = net.chain("rep-req", to=net.router())
    proxyd = net.proxyd(calls)
    squatter = dial(calls.endpoint)
    squatter.write(greeting() + ready(b"DEALER", b"\0\0\0\0\1"))
    eventually(lambda: not is_open(squatter.tcp), 2)
    proxyd.logged("connection-cut", cause="reserved-id")
    named = dial(calls.endpoint).handshake(b"DEALER", b"a name of its own")
    named.send(b"", b"x")
    assert named.read_message() == [b"", b"x"]


# ---- what it costs ---------------------------------------------------------------------------------------------

def test_idle_connections_wake_nobody(net, crowd):
    calls = net.chain("rep-req", to=net.router())
    proxyd = net.proxyd(calls)
    assert net.caller(calls).call(b"x") == [b"x"]
    crowd(calls.endpoint, 100)
    used = proxyd.cpu_s()
    holds(lambda: proxyd.is_running, 1.0)
    assert proxyd.cpu_s() - used <= 0.02 * FACTOR
