# SPDX-License-Identifier: MIT
"""sub-pub: publications pass, frames and order unchanged; slow subscribers, silent publishers, heartbeats."""
import time

import pytest

from harness import FACTOR, eventually, holds
from zmtp import dial, frame, ready, greeting, wire_publisher


def joined(net, relay, publisher, **options):
    """A subscriber behind the chain whose subscription has arrived."""
    publisher.wait_subscribed()
    return net.subscriber(relay, **options).wait_joined(lambda: publisher.publish(b"probe"))


def test_frames_and_order_are_unchanged(net):
    publisher = net.publisher()
    relay = net.chain("sub-pub", at=publisher.endpoint, backend={"hwm": 5000})  # all of them, however slow
    proxyd = net.proxyd(relay)
    subscriber = joined(net, relay, publisher)
    probes = proxyd.wait_for(relay, queued=0, inflight=0)["accepted"]
    messages = [[b"%d" % n, b"", b"\xff\0" * (n % 50)] for n in range(1000)]
    for message in messages:
        publisher.publish(*message)
    assert subscriber.take(1000) == messages
    proxyd.wait_for(relay, accepted=probes + 1000, delivered=probes + 1000, failed={}, dropped={})


def test_several_publishers_keep_their_own_order(net):
    publishers = [net.publisher() for _ in range(3)]
    relay = net.chain("sub-pub", at=publishers)
    net.proxyd(relay)
    for publisher in publishers:
        publisher.wait_subscribed()
    subscriber = joined(net, relay, publishers[0])
    for number in range(100):
        for name, publisher in zip(b"abc", publishers):
            publisher.publish(bytes([name]), b"%d" % number)
    received = subscriber.take(300)
    for name in b"abc":
        assert [m[1] for m in received if m[0] == bytes([name])] == [b"%d" % n for n in range(100)]


@pytest.mark.parametrize("when_full, survivors, reason", [
    ("drop-oldest", range(90, 100), "oldest"),
    ("drop-newest", range(10), "newest"),
    ("reject", range(10), None),
])
def test_what_does_not_fit_is_counted_exactly(net, when_full, survivors, reason):
    """sent = delivered + counted drops."""
    publisher = net.publisher()
    relay = net.chain("sub-pub", at=publisher.endpoint, queue={"max_messages": 10, "when_full": when_full})
    proxyd = net.proxyd(relay)
    subscriber = joined(net, relay, publisher)
    proxyd.control("pause", relay.name)
    before = proxyd.wait_for(relay, state="paused", queued=0, inflight=0)
    for number in range(100):
        publisher.publish(b"%d" % number)
    where = {"dropped": {reason: 90}} if reason else {"failed": {"queue-full": 90}}
    proxyd.wait_for(relay, accepted=before["accepted"] + 100, queued=10, **where)
    proxyd.control("resume", relay.name)
    assert subscriber.take(10) == [[b"%d" % n] for n in survivors]
    proxyd.wait_for(relay, delivered=before["delivered"] + 10, queued=0)


def mute_subscriber(net, relay):
    """A subscriber that subscribes to everything and never reads again."""
    connection = dial(relay.published)
    connection.tcp.setsockopt(1, 8, 4096)  # SOL_SOCKET, SO_RCVBUF
    connection.write(greeting())
    connection.read(64)
    connection.write(ready(b"SUB"))
    connection.read_frame()
    connection.write(frame(b"\1"))
    return connection


def test_a_slow_subscriber_beside_a_fast_one(net):
    """The fast one gets everything, in order; the slow one costs bounded memory and is counted."""
    publisher = net.publisher()
    relay = net.chain("sub-pub", at=publisher.endpoint, backend={"hwm": 20})
    proxyd = net.proxyd(relay)
    fast = joined(net, relay, publisher)
    slow = mute_subscriber(net, relay)
    payload = bytes(50000)
    worst_s = 0
    for number in range(600):
        began = time.monotonic()
        publisher.publish(b"%d" % number, payload)
        assert fast.receive() == [b"%d" % number, payload]
        worst_s = max(worst_s, time.monotonic() - began)
    status = proxyd.wait_for(relay, slow_subscriber=lambda count: count >= 1, queued=0, inflight=0)
    assert status["accepted"] == status["delivered"] and status["dropped"] == {}
    assert status["slow_subscriber"] < 50, "episodes are counted, not messages"
    assert worst_s < 0.5 * FACTOR
    slow.close()


def test_a_silent_publisher_gets_a_new_socket(net):
    """`recreate_after`: it finished its handshake and answers pings, but publishes nothing."""
    silent = net.listener(wire_publisher(lambda connection: None))
    lively = net.publisher()
    relay = net.chain("sub-pub", at=[silent.endpoint, lively.endpoint], frontend={
        "recreate_after": "300ms", "backoff": "10ms", "backoff_max": "20ms"})
    proxyd = net.proxyd(relay)
    lively.wait_subscribed()
    began = time.monotonic()
    eventually(lambda: lively.publish(b"sound") or silent.accepted >= 4, 4, "new connections to the silent one")
    assert time.monotonic() - began >= 0.6
    assert proxyd.chain(relay)["recreates"] >= 3
    assert len(lively.poll_subscriptions()) == 1, "the lively one kept its connection"


def test_without_recreate_after_silence_is_allowed(net):
    silent = net.listener(wire_publisher(lambda connection: None))
    relay = net.chain("sub-pub", at=silent.endpoint)
    proxyd = net.proxyd(relay)
    proxyd.wait_for(relay, state="up")
    holds(lambda: silent.accepted == 1, 0.5)
    assert proxyd.chain(relay)["recreates"] == 0


def test_a_publisher_that_was_silent_is_heard_again(net):
    """The new socket reaches a publisher that has come back to life at the same address."""
    silent = net.listener(wire_publisher(lambda connection: None))
    relay = net.chain("sub-pub", at=silent.endpoint, frontend={
        "recreate_after": "200ms", "backoff": "10ms", "backoff_max": "20ms"})
    net.proxyd(relay)
    subscriber = net.subscriber(relay)
    eventually(lambda: silent.accepted >= 2)
    silent.stop()
    publisher = net.publisher(silent.endpoint).wait_subscribed(seconds=7)
    subscriber.wait_joined(lambda: publisher.publish(b"alive"))


def test_a_publisher_that_refuses_or_breaks_is_tried_again(net):
    turns = []

    def break_twice(connection):
        turns.append(connection)
        if len(turns) == 1:
            connection.reset()
        elif len(turns) == 2:
            connection.write(greeting())
            connection.read(64)
            connection.write(b"\4\x0a\5ERROR\x03400")
            connection.tcp.recv(1)
        else:
            wire_publisher(lambda c: c.send(b"third time"))(connection)
    fake = net.listener(break_twice)
    relay = net.chain("sub-pub", at=fake.endpoint, frontend={"backoff": "20ms", "backoff_max": "100ms"})
    proxyd = net.proxyd(relay)
    proxyd.wait_for(relay, accepted=1, state="up", seconds=7)


def test_pause_and_drain(net):
    publisher = net.publisher()
    relay = net.chain("sub-pub", at=publisher.endpoint)
    proxyd = net.proxyd(relay)
    subscriber = joined(net, relay, publisher)
    proxyd.control("pause", relay.name)
    proxyd.wait_for(relay, state="paused")
    publisher.publish(b"kept")
    proxyd.wait_for(relay, queued=1)
    assert subscriber.poll(0.05) is None
    proxyd.control("resume", relay.name)
    assert subscriber.receive() == [b"kept"]
    proxyd.wait_for(relay, state="up", queued=0)
