# SPDX-License-Identifier: MIT
"""Stopping and draining: everything that was accepted is answered or fails within drain_timeout, in order, with
codes that stay true; a second signal stops at once; nothing blocks the way out."""
import signal
import time

import pytest

from harness import FACTOR, eventually, holds
from peers import error_of, outcomes, swallow

NUMBERS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}


def loaded(net, upstream, count=300, drain="2s", **backend):
    """A daemon with `count` requests accepted, most of them not yet answered."""
    calls = net.chain("rep-req", to=upstream, backend={"window": 8, **{"timeout": "20s", **backend}},
                      queue={"max_age": "20s"})
    proxyd = net.proxyd(calls, daemon={"drain_timeout": drain})
    pipeline = net.pipeline(calls)
    bodies = pipeline.send_each([b"%d" % n for n in range(count)])
    proxyd.wait_for(calls, accepted=count)
    return proxyd, calls, pipeline, bodies


@pytest.mark.parametrize("number", NUMBERS)
def test_under_load_everything_accepted_is_still_answered(net, number):
    """The upstream is quick enough: nobody hears an error, and the daemon ends as soon as it is done."""
    upstream = net.router(lambda server, request: server.later(0.02, lambda: server.reply(request, *request.body)))
    proxyd, _, pipeline, _ = loaded(net, upstream, drain="10s")
    began = time.monotonic()
    proxyd.signal(NUMBERS[number])
    assert proxyd.wait() == 0
    assert time.monotonic() - began < 5 * FACTOR
    assert outcomes(pipeline.wait(seconds=2)) == {"reply": 300}
    assert "STOPPING=1" in proxyd.notifications()


def test_at_the_end_of_drain_timeout_the_rest_hears_the_truth(net):
    """What was sent is `lost`, what was not is `shutting-down`, and that never arrives."""
    upstream = net.router(swallow)
    proxyd, _, pipeline, bodies = loaded(net, upstream, drain="500ms")
    eventually(lambda: len(upstream.log) == 8)
    began = time.monotonic()
    proxyd.signal(signal.SIGTERM)
    answers = pipeline.wait(seconds=3)
    heard_s = time.monotonic() - began
    assert proxyd.wait() == 0
    assert 0.4 <= heard_s < 0.5 + 1.0 * FACTOR
    assert outcomes(answers) == {"lost": 8, "shutting-down": 292}
    seen = set(upstream.bodies)
    for tag, body in bodies.items():
        assert error_of(answers[tag]) == ((504, "lost") if body in seen else (503, "shutting-down"))


def test_a_request_that_waits_for_its_retry_was_sent_before(net):
    """So it is `lost` at the end, though nothing of it is in flight."""
    upstreams = [net.router(swallow), net.router(swallow)]
    proxyd, calls, pipeline, _ = loaded(net, upstreams, count=1, drain="200ms", timeout="50ms", retries=5,
                                        backoff="1h", backoff_max="1h")
    proxyd.wait_for(calls, retries=1)
    proxyd.stop()
    assert outcomes(pipeline.wait(seconds=1)) == {"lost": 1}


def test_with_no_upstream_at_all(net):
    """Nobody to send to is no reason to stay."""
    calls = net.chain("rep-req", to=net.endpoint(), backend={"timeout": "20s"}, queue={"max_age": "20s"})
    proxyd = net.proxyd(calls, daemon={"drain_timeout": "300ms"})
    pipeline = net.pipeline(calls)
    pipeline.send_each([b"%d" % n for n in range(50)])
    proxyd.wait_for(calls, accepted=50, queued=50)
    took_s = proxyd.stop()
    assert took_s < 0.3 + 1.5 * FACTOR
    assert outcomes(pipeline.wait(seconds=1)) == {"shutting-down": 50}


def test_a_full_upstream_does_not_hold_it(net):
    """Its TCP window is closed and libzmq's pipe is full."""
    deaf = net.listener(lambda connection: connection.handshake(b"ROUTER") and holds_open(connection))
    calls = net.chain("rep-req", to=deaf.endpoint, queue={"max_bytes": "256MiB"},
                      backend={"correlation": "envelope", "window": 100, "timeout": "20s"})
    proxyd = net.proxyd(calls, daemon={"drain_timeout": "300ms"})
    pipeline = net.pipeline(calls)
    for _ in range(150):
        pipeline.send(bytes(500000))
    proxyd.wait_for(calls, accepted=150, inflight=100, seconds=10)
    assert proxyd.stop() < 0.3 + 2 * FACTOR
    assert set(outcomes(pipeline.wait(seconds=2))) == {"lost", "shutting-down"}


def holds_open(connection):
    eventually(lambda: connection.tcp.fileno() < 0, 60)


def test_a_second_signal_stops_at_once(net):
    upstream = net.router(swallow)
    proxyd, calls, pipeline, _ = loaded(net, upstream, count=20, drain="30s")
    proxyd.signal(signal.SIGTERM)
    eventually(lambda: "STOPPING=1" in proxyd.notifications())
    holds(lambda: proxyd.is_running, 0.2, "it drains")
    began = time.monotonic()
    proxyd.signal(signal.SIGTERM)
    assert proxyd.wait(5) in (0, 1)
    assert time.monotonic() - began < 1.5 * FACTOR
    assert set(outcomes(pipeline.drain().answers and pipeline.only_answers() or {})) <= {"lost", "shutting-down"}


def test_idle_it_stops_at_once(net):
    publisher = net.publisher()
    proxyd = net.proxyd(net.chain("rep-req", to=net.rep()), net.chain("rep-pub"),
                        net.chain("sub-req", at=publisher.endpoint, to=net.rep()),
                        net.chain("sub-pub", at=publisher.endpoint), daemon={"drain_timeout": "30s"})
    assert proxyd.stop() < 1.0 * FACTOR


def test_publications_on_their_way_are_sent_before_it_ends(net):
    news = net.chain("rep-pub")
    proxyd = net.proxyd(news)
    pipeline = net.pipeline(news)
    subscriber = net.subscriber(news).wait_joined(lambda: pipeline.call(b"probe"))
    pipeline.send_each([b"%d" % n + bytes(1000) for n in range(500)])
    pipeline.wait()
    proxyd.stop()
    assert [message[0][:-1000] for message in subscriber.take(500)] == [b"%d" % n for n in range(500)]


def test_sub_req_finishes_its_queue_when_there_is_time(net):
    publisher = net.publisher()
    upstream = net.router(lambda server, request: server.later(0.005, lambda: server.reply(request, *request.body)))
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream, backend={"window": 1})
    proxyd = net.proxyd(feed, daemon={"drain_timeout": "10s"})
    publisher.wait_subscribed()
    for number in range(100):
        publisher.publish(b"%d" % number)
    proxyd.wait_for(feed, accepted=100)
    proxyd.stop()
    assert upstream.bodies == [b"%d" % number for number in range(100)]


def test_stop_by_control_is_the_same_as_a_signal(net):
    upstream = net.router(lambda server, request: server.later(0.02, lambda: server.reply(request, *request.body)))
    proxyd, _, pipeline, _ = loaded(net, upstream, count=50, drain="10s")
    proxyd.control("stop")
    assert proxyd.wait() == 0
    assert outcomes(pipeline.wait(seconds=2)) == {"reply": 50}


def test_drain_refuses_the_new_and_finishes_the_old(net):
    """And `resume` ends it. Other chains do not notice."""
    upstream = net.router(lambda server, request: server.later(0.05, lambda: server.reply(request, *request.body)))
    proxyd, calls, pipeline, _ = loaded(net, upstream, count=50)
    proxyd.control("drain", calls.name)
    proxyd.wait_for(calls, state="draining")
    late = net.pipeline(calls)
    assert error_of(late.call(b"late")) == (503, "shutting-down")
    assert outcomes(pipeline.wait()) == {"reply": 50}
    proxyd.wait_for(calls, state="draining", queued=0, inflight=0)
    proxyd.control("resume", calls.name)
    proxyd.wait_for(calls, state="up")
    assert late.call(b"again") == [b"again"]
    assert b"late" not in upstream.bodies


def test_a_paused_chain_stops_in_order(net):
    calls = net.chain("rep-req", to=net.router())
    proxyd = net.proxyd(calls, daemon={"drain_timeout": "300ms"})
    proxyd.control("pause", calls.name)
    pipeline = net.pipeline(calls)
    pipeline.send_each([b"%d" % n for n in range(5)])
    proxyd.wait_for(calls, queued=5, state="paused")
    proxyd.stop()
    assert set(outcomes(pipeline.wait(seconds=1))) <= {"shutting-down", "reply"}
