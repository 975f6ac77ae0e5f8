# SPDX-License-Identifier: MIT
"""G8: a chain whose upstream, name lookup, subscriber or caller is stuck slows no other chain; and a daemon with
nothing to do does nothing."""
import os
import socket
import time

import pytest
import zmq

from harness import FACTOR, OWN_ADDRESS, SANITIZED, eventually
from peers import swallow
from zmtp import dial, frame, greeting, ready, stay_silent

CALLS = 150


def worst_call_s(caller, count=CALLS):
    worst = 0
    for number in range(count):
        began = time.monotonic()
        assert caller.call(b"%d" % number) == [b"%d" % number]
        worst = max(worst, time.monotonic() - began)
    return worst


@pytest.fixture
def black_hole(net):
    """Words of a command that runs the daemon with a name server that takes every question and never answers."""
    if os.geteuid() != 0:
        pytest.skip("needs root for a private /etc/resolv.conf")
    resolv, hosts = net.scratch / "resolv.conf", net.scratch / "nsswitch.conf"
    resolv.write_text(f"nameserver {OWN_ADDRESS}\noptions timeout:5 attempts:5\n")
    hosts.write_text("hosts: dns\n")
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        server.bind((OWN_ADDRESS, 53))
    except OSError:
        pytest.skip("port 53 is taken")
    script = 'mount --bind "$1" /etc/resolv.conf && mount --bind "$2" /etc/nsswitch.conf && shift 2 && exec "$@"'
    yield ["unshare", "--mount", "sh", "-c", script, "sh", str(resolv), str(hosts)], server
    server.close()


def test_a_name_lookup_that_hangs(net, black_hole):
    """libzmq would resolve in its I/O thread and stop everybody for half a minute."""
    prefix, name_server = black_hole
    lost = net.chain("rep-req", name="lost", to="tcp://upstream.example.net:6000",
                     backend={"timeout": "300ms", "backoff": "10ms", "backoff_max": "50ms"})
    deaf = net.chain("sub-pub", name="deaf", at="tcp://publisher.example.net:6001")
    calls = net.chain("rep-req", to=net.rep())
    proxyd = net.proxyd(lost, deaf, calls, prefix=prefix)
    name_server.settimeout(5 * FACTOR)
    assert name_server.recv(512), "the lookup has begun"
    assert worst_call_s(net.caller(calls)) < 0.2 * FACTOR
    assert net.caller(lost).call(b"x") == [b"error 502 unavailable"]
    assert proxyd.chain("lost")["state"] == "down"
    assert proxyd.stop() < 2 * FACTOR


def test_a_name_that_does_not_exist(net):
    lost = net.chain("rep-req", name="lost", to="tcp://no-such-host.invalid:6000",
                     backend={"timeout": "200ms", "backoff": "10ms", "backoff_max": "50ms"})
    calls = net.chain("rep-req", to=net.rep())
    proxyd = net.proxyd(lost, calls)
    assert worst_call_s(net.caller(calls)) < 0.2 * FACTOR
    assert net.caller(lost).call(b"x") == [b"error 502 unavailable"]
    eventually(lambda: proxyd.chain("lost")["upstreams"][0]["cause"] == "unresolved", 15)


def test_localhost_is_a_name_too(net):
    server = net.context.socket(zmq.REP)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    calls = net.chain("rep-req", to=f"tcp://localhost:{port}", backend={"timeout": "20s"})
    net.proxyd(calls)
    caller = net.caller(calls)
    caller.send(b"x")
    assert server.poll(5000 * FACTOR)
    server.send(server.recv())
    assert caller.receive() == [b"x"]
    server.close(linger=0)


def stuck_upstreams(net):
    deaf = net.listener(stay_silent)
    mute = net.router(swallow)
    return [net.chain("rep-req", name="deaf", to=deaf.endpoint, backend={"timeout": "100ms", "backoff": "5ms"}),
            net.chain("rep-req", name="mute", to=mute, backend={"timeout": "100ms", "backoff": "5ms"})]


def test_upstreams_that_are_silent_swallow_or_are_not_there(net):
    chains = stuck_upstreams(net)
    chains.append(net.chain("rep-req", name="absent", to=net.endpoint(),
                            backend={"timeout": "100ms", "backoff": "5ms"}))
    calls = net.chain("rep-req", to=net.rep())
    net.proxyd(*chains, calls)
    for chain in chains:
        net.pipeline(chain).send_each([b"%d" % n for n in range(1000)])
    assert worst_call_s(net.caller(calls), 300) < 0.2 * FACTOR


def test_a_flooded_chain(net):
    """One chain has as much to do as it can; on two cores the other still answers promptly."""
    flooded = net.chain("rep-req", name="flooded", to=net.process(), queue={"max_messages": 100000})
    calls = net.chain("rep-req", to=net.process())
    net.proxyd(flooded, calls)
    flood = net.pipeline(flooded)
    flood.send_each([b"x"] * 20000)
    assert worst_call_s(net.caller(calls), 100) < 0.3 * FACTOR


def test_subscribers_that_never_read(net):
    """They cost bounded memory; publications to others and other chains go on."""
    news = net.chain("rep-pub", backend={"hwm": 10})
    calls = net.chain("rep-req", to=net.rep())
    proxyd = net.proxyd(news, calls)
    stuck = []
    for _ in range(5):
        connection = dial(news.published)
        connection.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.write(greeting())
        connection.read(64)
        connection.write(ready(b"SUB"))
        connection.read_frame()
        connection.write(frame(b"\1"))
        stuck.append(connection)
    speaker, caller = net.caller(news), net.caller(calls)
    reader = net.subscriber(news).wait_joined(lambda: speaker.call(b"probe"))
    before = proxyd.rss_bytes()
    payload = bytes(100000)
    worst_s = 0
    for number in range(300):
        began = time.monotonic()
        assert speaker.call(b"%d" % number, payload) == [b"accepted"]
        assert reader.receive()[0] == b"%d" % number
        assert caller.call(b"x") == [b"x"]
        worst_s = max(worst_s, time.monotonic() - began)
    assert worst_s < 0.3 * FACTOR
    assert SANITIZED or proxyd.rss_bytes(peak=True) - before < 5 * 12 * 100000 + (8 << 20)
    for connection in stuck:
        connection.close()


def test_a_caller_that_never_reads(net):
    noisy = net.chain("rep-req", name="noisy", to=net.rep(), queue={"max_messages": 3000, "max_bytes": "512MiB"})
    calls = net.chain("rep-req", to=net.rep())
    proxyd = net.proxyd(noisy, calls)
    deaf = net.pipeline(noisy, rcvhwm=1, rcvbuf=4096)
    for _ in range(500):
        deaf.send(bytes(50000))
    assert worst_call_s(net.caller(calls)) < 0.2 * FACTOR
    assert worst_call_s(net.caller(noisy)) < 0.5 * FACTOR
    proxyd.wait_for(noisy, queued=0, inflight=0, seconds=10)


def test_idle_with_five_chains_and_no_upstream_costs_nothing(net):
    """Under 1 % of one core while it keeps trying with the default backoff."""
    chains = [net.chain("rep-req", to=net.endpoint()), net.chain("rep-pub"),
              net.chain("sub-req", at=net.endpoint(), to=net.endpoint()),
              net.chain("sub-pub", at=net.endpoint()),
              net.chain("rep-req", name="second", to=[net.endpoint(), net.endpoint()])]
    proxyd = net.proxyd(*chains)
    for name in ("rep-req", "sub-req", "sub-pub", "second"):
        proxyd.wait_for(name, state="down")

    def share():
        began, cpu_s = time.monotonic(), proxyd.cpu_s()
        eventually(lambda: time.monotonic() - began >= 3, 10)
        return (proxyd.cpu_s() - cpu_s) / (time.monotonic() - began)
    eventually(lambda: share() < (0.05 if SANITIZED else 0.0101), 12, "a share that a noisy neighbour does not add to")
    assert SANITIZED or proxyd.rss_bytes() < 16 << 20
