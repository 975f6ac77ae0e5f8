# SPDX-License-Identifier: MIT
"""What users of comparable systems ran into and no other file here covers. Elsewhere: a stuck REQ, requests lost
with a connection, half of the requests to a dead endpoint -> test_recovery.py; an unanswered caller after an
internal error -> test_guarantees.py; zombies, stale replies -> test_timeouts.py; blocking sends, lookups,
subscribers -> test_isolation.py; high-water marks and memory -> test_queue_bounds.py; stops -> test_stop.py."""
import contextlib
import ctypes
import os
import random
import subprocess
import time

import pytest
import zmq

from conftest import Net
from harness import FACTOR, eventually, holds
from peers import error_of
from zmtp import dial

QUICK = {"backoff": "20ms", "backoff_max": "200ms"}
HEARTBEAT_S = 5 + 10  # an idle link is pinged every 5 s and given up 10 s after a ping without an answer
RECOVERY_S = 0.2 + 6


# ---- silence of our own ----------------------------------------------------------------------------------------

@pytest.fixture(scope="module", autouse=True)
def standstill():
    """A chain with when_full = "block" that stands still while the other tests of this file run."""
    net = Net()
    calls = net.chain("rep-req", to=net.router(),
                      queue={"max_messages": 4, "when_full": "block", "max_age": 0})
    proxyd = net.proxyd(calls)
    proxyd.control("pause", calls.name)
    proxyd.wait_for(calls, state="paused")
    patient = net.pipeline(calls)
    bodies = patient.send_each([b"%d" % n + bytes(100000) for n in range(300)])
    proxyd.wait_for(calls, queued=4)
    descriptors = proxyd.fd_count()
    hasty = net.pipeline(calls)
    hasty.send_each([bytes(1000)] * 10000)
    hasty.socket.close(linger=1000)
    yield proxyd, calls, patient, bodies, time.monotonic(), descriptors
    net.close()


# ---- half-open links -------------------------------------------------------------------------------------------

class Namespaces:
    """Two networks of their own, joined by a cable that can be cut: 10.231.0.1 and 10.231.0.2."""

    def __init__(self):
        self.names = [f"proxyd{os.getpid()}{side}" for side in "ab"]
        for name in self.names:
            self.run("ip", "netns", "add", name)
        self.run("ip", "-n", self.names[0], "link", "add", "v0", "type", "veth", "peer", "name", "v1",
                 "netns", self.names[1])
        for number, name in enumerate(self.names):
            self.run("ip", "-n", name, "address", "add", f"10.231.0.{number + 1}/24", "dev", f"v{number}")
            self.run("ip", "-n", name, "link", "set", f"v{number}", "up")
            self.run("ip", "-n", name, "link", "set", "lo", "up")

    @staticmethod
    def run(*command):
        subprocess.run(command, check=True, capture_output=True)

    @contextlib.contextmanager
    def inside(self, number):
        """Sockets made and processes started here live in that network."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/self/ns/net") as home, open(f"/run/netns/{self.names[number]}") as there:
            assert libc.setns(there.fileno(), 0) == 0
            try:
                yield
            finally:
                assert libc.setns(home.fileno(), 0) == 0

    def cut(self):
        """From now on every packet vanishes, both ways; no side is told."""
        self.run("ip", "netns", "exec", self.names[1], "nft",
                 "add table ip cut; add chain ip cut in { type filter hook input priority 0; policy drop; }; "
                 "add chain ip cut out { type filter hook output priority 0; policy drop; }")

    def heal(self):
        self.run("ip", "netns", "exec", self.names[1], "nft", "delete table ip cut")

    def delete(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.fixture
def networks():
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    made = None
    try:
        made = Namespaces()
        made.cut()
        made.heal()
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        if made:
            made.delete()
        pytest.skip(f"no network namespaces or nft here: {error}")
    yield made
    made.delete()


def start_across(net, networks):
    """proxyd in one network, an upstream and a publisher in the other; callers and subscribers over ipc."""
    with networks.inside(1):
        upstream = net.process(endpoint="tcp://10.231.0.2:6000")
        publisher = net.publisher("tcp://10.231.0.2:6001")
    calls = net.chain("rep-req", at=net.ipc("calls"), to=upstream, backend={"timeout": "1s", **QUICK})
    feed = net.chain("sub-pub", at=publisher.endpoint, to=net.ipc("feed"), frontend=QUICK)
    with networks.inside(0):
        proxyd = net.proxyd(calls, feed)
    proxyd.wait_for(calls, state="up")
    publisher.wait_subscribed()
    return proxyd, calls, feed, publisher


def test_a_link_that_went_silent_is_given_up_and_comes_back(net, networks):
    """(G10) Every packet vanishes. A subscriber alone would wait for ever: only heartbeats find out."""
    proxyd, calls, feed, publisher = start_across(net, networks)
    caller = net.caller(calls)
    assert caller.call(b"before") == [b"before"]
    networks.cut()
    assert error_of(caller.call(b"into the void")) == (504, "timeout")
    assert error_of(caller.call(b"nowhere")) == (502, "unavailable")
    proxyd.wait_for(feed, state="down", seconds=HEARTBEAT_S + 2)
    networks.heal()
    proxyd.wait_for(calls, state="up", seconds=RECOVERY_S)
    proxyd.wait_for(feed, state="up", seconds=RECOVERY_S)
    assert caller.call(b"after") == [b"after"]
    publisher.wait_subscribed().publish(b"after")
    proxyd.wait_for(feed, accepted=1)


def test_a_publisher_that_was_power_cycled_is_found_again(net, networks):
    """Its side of the connection is gone and nobody said so: ours would stay for ever."""
    proxyd, _, feed, publisher = start_across(net, networks)
    networks.cut()
    networks.run("ip", "netns", "exec", networks.names[1], "ss", "-K", "state", "established")
    eventually(lambda: not publisher.poll_subscriptions(), what="the publisher's side is gone")
    networks.heal()
    publisher.wait_subscribed(seconds=HEARTBEAT_S + RECOVERY_S).publish(b"after")
    proxyd.wait_for(feed, accepted=1)


# ---- one routing id, two connections ---------------------------------------------------------------------------

@pytest.mark.parametrize("door", ["frontend", "tickets", "control"])
def test_a_caller_that_comes_back_with_its_old_identity_is_served(net, door):
    """A device restarts; its old connection still looks alive. libzmq would not read the new one, nor forget what it
    has sent when it goes."""
    tickets = net.endpoint()
    calls = net.chain("buffered-rep-req", to=net.rep(), frontend={"tickets": [tickets]}, queue={"patience": "5s"})
    proxyd = net.proxyd(calls)
    place = {"frontend": calls.endpoint, "tickets": tickets, "control": proxyd.control_endpoint}[door]
    old = dial(place).handshake(b"REQ", identity=b"pi_1")
    old.send(b"", b"old")
    assert old.read_message()[0] == b""
    again = net.caller(place, identity=b"pi_1")
    assert again.call(b"again", seconds=3)
    old.close()
    assert again.call(b"and again", seconds=3)


def test_nobody_gets_the_answer_to_a_request_of_a_namesake(net):
    """The first one's reply is late; the second one, of the same identity, waits for its own."""
    held = []
    upstream = net.router(lambda server, request: held.append(request))
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "20s"})
    proxyd = net.proxyd(calls)
    old = dial(calls.endpoint).handshake(b"DEALER", identity=b"pi_1")
    old.send(b"", b"secret of the first")
    eventually(lambda: len(held) == 1)
    second = net.caller(calls, identity=b"pi_1")
    second.send(b"second")
    eventually(lambda: len(held) == 2, 3, "the second one is served at all")
    for request in held:
        upstream.do(lambda request=request: upstream.reply(request, *request.body))
    assert second.receive() == [b"second"]
    assert second.poll(0.1) is None
    proxyd.wait_for(calls, accepted=2, delivered=2)
    old.close()


# ---- whatever arrives ------------------------------------------------------------------------------------------

def test_any_frames_at_all(net):
    """2000 messages of random frames: none hurts, each is accounted for, the delimited ones answered."""
    chance = random.Random(50)
    upstream = net.rep()
    calls = net.chain("rep-req", to=upstream, queue={"max_messages": 5000})
    proxyd = net.proxyd(calls)
    dealer = net.context.socket(zmq.DEALER)
    dealer.sndhwm = dealer.rcvhwm = 0
    dealer.connect(calls.endpoint)
    requests, malformed = [], 0
    for _ in range(2000):
        frames = [chance.randbytes(chance.choice([0, 0, 1, 2, 5, 300])) for _ in range(chance.randint(1, 12))]
        dealer.send_multipart(frames)
        if b"" in frames[:-1]:
            requests.append(frames)
        else:
            malformed += 1
    status = proxyd.wait_for(calls, accepted=2000, queued=0, inflight=0, seconds=10)
    assert status["malformed"] == malformed and status["delivered"] == len(requests)
    answers = []
    while len(answers) < len(requests):
        assert dealer.poll(5000 * FACTOR)
        answers.append(dealer.recv_multipart())
    assert sorted(answers) == sorted(requests)
    dealer.close(linger=0)


def test_garbage_on_the_wire(net):
    """Connections that are no ZMTP at all, or stop halfway; a good caller beside them does not notice."""
    chance = random.Random(7)
    calls, news = net.chain("rep-req", to=net.rep()), net.chain("rep-pub")
    proxyd = net.proxyd(calls, news)
    caller = net.caller(calls)
    garbage = [b"", b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 10, b"\xff" + bytes(8) + b"\x7f\x03",
               bytes(100), b"\x01\x00" * 50] + [chance.randbytes(200) for _ in range(40)]
    for endpoint in (calls.endpoint, news.published):
        for number, data in enumerate(garbage):
            connection = dial(endpoint)
            connection.write(data)
            if number % 2:
                connection.reset()
            else:
                connection.close()
            assert caller.call(b"%d" % number) == [b"%d" % number]
    for socket_type in (b"PUB", b"NONSENSE", b"", b"ROUTER"):
        odd = dial(calls.endpoint)
        odd.write(b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48))
        odd.write(b"\x04" + bytes([6 + 16 + len(socket_type)]) + b"\x05READY\x0bSocket-Type"
                  + len(socket_type).to_bytes(4, "big") + socket_type)
        odd.write(b"\x01\x00\x00\x04more")
        assert caller.call(b"x") == [b"x"]
        odd.close()
    status = proxyd.wait_for(calls, queued=0, inflight=0, failed={})
    assert status["accepted"] == status["delivered"] + status["malformed"] >= 2 * len(garbage) + 4


def test_a_caller_may_ping(net):
    """Heartbeats from REQ callers and towards REP upstreams keep links, and break none."""
    upstream = net.rep(options={zmq.HEARTBEAT_IVL: 30, zmq.HEARTBEAT_TIMEOUT: 300, zmq.HEARTBEAT_TTL: 300})
    calls = net.chain("rep-req", to=upstream)
    proxyd = net.proxyd(calls)
    caller = net.caller(calls, heartbeat_ivl=30, heartbeat_timeout=300, heartbeat_ttl=300)
    caller.call(b"x")
    descriptors = proxyd.fd_count()
    for number in range(200):
        assert caller.call(b"%d" % number) == [b"%d" % number]
    assert proxyd.fd_count() == descriptors
    assert proxyd.chain(calls)["recreates"] == 0


def test_block_keeps_its_link_through_its_own_silence(standstill):
    """While intake stands still, longer than any heartbeat time-out, callers lose neither link nor request; and libzmq
    comes to no harm by its heartbeats to one who left before its requests were read."""
    proxyd, calls, patient, bodies, since, descriptors = standstill
    holds(lambda: proxyd.fd_count() >= descriptors, HEARTBEAT_S + 1.5 - (time.monotonic() - since))
    proxyd.control("resume", calls.name)
    assert patient.wait(seconds=10) == {tag: [body] for tag, body in bodies.items()}
