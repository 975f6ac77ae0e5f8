# SPDX-License-Identifier: MIT
"""dialect = "pyzmqrpc": acks and errors as its client reads them, real replies instead of its own proxies' bare
200, and its heartbeat on every side."""
import base64
import json
import time
import zlib

import pytest

from harness import FACTOR, eventually
from peers import swallow

HEARTBEAT = b"zmq_sub_heartbeat"
OK = {"status_code": 200, "status_message": "OK"}


def command(**state):
    """A request as its client encodes one."""
    return base64.b64encode(zlib.compress(json.dumps({"_icmd_": ["SimpleCommand", state]}).encode()))


def parsed(answer):
    assert len(answer) == 1
    return json.loads(answer[0])


def error(answer):
    """(code, reason) of an error: 482 for its client, ours beside it."""
    value = parsed(answer)
    assert set(value) == {"status_code", "status_message", "code"} and value["status_code"] == 482
    reason, text = value["status_message"].split(": ", 1)
    assert text
    return value["code"], reason


def test_requests_and_real_replies_pass_untouched(net):
    reply = json.dumps({**OK, "response_message": {"text": "\u00fc"}}).encode()
    upstream = net.rep(lambda server, request: server.reply(request, reply))
    calls = net.chain("rep-req", to=upstream, dialect="pyzmqrpc")
    net.proxyd(calls)
    request = command(param1="a", param2="b")
    assert net.caller(calls).call(request) == [reply]
    assert upstream.bodies == [request]


def test_errors_carry_their_reason_and_code(net):
    upstream = net.router(swallow)
    calls = net.chain("rep-req", to=upstream, dialect="pyzmqrpc", frontend={"max_message": "1KiB"},
                      backend={"timeout": "100ms"}, queue={"max_messages": 1, "max_age": "300ms"})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    assert error(pipeline.call(command(n=1))) == (504, "timeout")
    assert error(pipeline.call(bytes(2000))) == (413, "too-large")
    proxyd.control("pause", calls.name)
    proxyd.wait_for(calls, state="paused")
    waiting = pipeline.send(command(n=2))
    proxyd.wait_for(calls, queued=1)
    assert error(pipeline.call(command(n=3))) == (503, "queue-full")
    eventually(lambda: waiting in pipeline.drain().answers)
    assert error(pipeline.answers[waiting][0]) == (502, "unavailable")
    proxyd.control("drain", calls.name)
    proxyd.wait_for(calls, state="draining")
    assert error(pipeline.call(command(n=4))) == (503, "shutting-down")
    assert error(pipeline.call(b"\xff\xfe not even text")) == (503, "shutting-down")


def test_the_ack_of_a_publication_is_a_plain_ok(net):
    news = net.chain("rep-pub", dialect="pyzmqrpc")
    net.proxyd(news)
    assert parsed(net.caller(news).call(command(n=1))) == OK


def test_a_heartbeat_on_a_rep_frontend_is_answered_and_goes_no_further(net):
    """Its own server never answers again after one."""
    upstream = net.router()
    calls = net.chain("rep-req", to=upstream, dialect="pyzmqrpc")
    news = net.chain("rep-pub", dialect="pyzmqrpc")
    proxyd = net.proxyd(calls, news)
    for chain in (calls, news):
        caller = net.caller(chain)
        for _ in range(3):
            assert parsed(caller.call(HEARTBEAT)) == OK
        proxyd.wait_for(chain, accepted=0, heartbeats=3)
    assert net.caller(calls).call(HEARTBEAT, b"and more") == [HEARTBEAT, b"and more"]
    assert upstream.bodies == [(HEARTBEAT, b"and more")]


def test_a_heartbeat_from_a_publisher_is_swallowed_and_counted(net):
    publisher, upstream = net.publisher(), net.rep()
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream, dialect="pyzmqrpc")
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed()
    for frames in ([HEARTBEAT], [b"news"], [HEARTBEAT], [HEARTBEAT, b"not alone"]):
        publisher.publish(*frames)
    proxyd.wait_for(feed, accepted=2, delivered=2, heartbeats=2)
    assert upstream.bodies == [b"news", (HEARTBEAT, b"not alone")]


def test_it_subscribes_to_the_heartbeat_beside_its_topics(net):
    publisher, upstream = net.publisher(), net.rep()
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream, dialect="pyzmqrpc",
                     frontend={"subscribe": ["weather"]})
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed(b"weather").wait_subscribed(HEARTBEAT)
    publisher.publish(HEARTBEAT)
    publisher.publish(b"news")
    publisher.publish(b"weather")
    proxyd.wait_for(feed, heartbeats=1, accepted=1, delivered=1)
    assert upstream.bodies == [b"weather"]


def test_heartbeats_count_as_sound(net):
    publisher = net.publisher()
    feed = net.chain("sub-pub", at=publisher.endpoint, dialect="pyzmqrpc",
                     frontend={"recreate_after": f"{int(400 * FACTOR)}ms", "backoff": "10ms"})
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed()
    began = time.monotonic()
    last = [0.0]

    def beats():
        if time.monotonic() - last[0] > 0.05:
            last[0] = time.monotonic()
            publisher.publish(HEARTBEAT)
        return time.monotonic() - began > 1.0 * FACTOR
    eventually(beats)
    assert proxyd.chain(feed)["recreates"] == 0
    eventually(lambda: proxyd.chain(feed)["recreates"] >= 1, 3, "a new socket once heartbeats end")


@pytest.mark.parametrize("dialect, carried", [("raw", 1), ("pyzmqrpc", 0)])
def test_elsewhere_the_heartbeat_is_a_message_like_any_other(net, dialect, carried):
    upstream = net.router()
    calls = net.chain("rep-req", to=upstream, dialect=dialect)
    net.proxyd(calls)
    net.caller(calls).call(HEARTBEAT)
    assert len(upstream.log) == carried


def test_a_publisher_backend_sends_heartbeats_only_when_idle(net):
    news = net.chain("rep-pub", dialect="pyzmqrpc", backend={"heartbeat": "150ms"})
    proxyd = net.proxyd(news)
    subscriber, caller = net.subscriber(news), net.caller(news)
    assert subscriber.receive() == [HEARTBEAT]
    began = time.monotonic()
    assert [subscriber.receive(), subscriber.receive()] == [[HEARTBEAT]] * 2
    assert time.monotonic() - began >= 0.2

    def busy():
        caller.call(b"news")
        return time.monotonic() - began > 1.0
    eventually(busy)
    received = []
    while message := subscriber.poll(0.05):
        received.append(message)
    assert received.count([HEARTBEAT]) <= 1 + int(FACTOR > 1) * 10
    assert proxyd.chain(news)["accepted"] == proxyd.chain(news)["delivered"] > 10


def test_a_heartbeat_is_an_error_where_the_dialect_has_none(net):
    proxyd = net.prepare(net.chain("rep-pub", backend={"heartbeat": "1s"})).start(ready=False)
    proxyd.expect_exit(2)
    assert 'chain "rep-pub"' in proxyd.log and "heartbeat" in proxyd.log


def test_silence_of_a_pyzmqrpc_publisher_is_bounded_by_default(net):
    """`recreate_after` defaults to 600 s in this dialect and to never elsewhere."""
    chains = [net.chain("sub-pub", at=net.endpoint(), name="plain"),
              net.chain("sub-pub", at=net.endpoint(), name="beating", dialect="pyzmqrpc")]
    proxyd = net.proxyd(*chains)
    defaults = [proxyd.control("show", chain.name)["config"]["frontend"]["recreate_after"] for chain in chains]
    assert defaults[0] in (0, "0", "0ms") and defaults[1] in (600000, "600s", "10m"), defaults
