# SPDX-License-Identifier: MIT
"""The time-out of an attempt and what follows it: the head-of-line clock, time-out and recreate, retries, max_age,
and error codes that are true to their promise."""
import time

import pytest

from harness import FACTOR, eventually, holds
from peers import echo, error_of, outcomes, swallow

QUICK = {"backoff": "10ms", "backoff_max": "50ms"}


@pytest.mark.parametrize("correlation", ["lockstep", "envelope", "auto"])
def test_silence_ends_as_a_504_at_the_timeout(net, correlation):
    upstream = net.router(swallow)
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "200ms", "correlation": correlation})
    proxyd = net.proxyd(calls)
    began = time.monotonic()
    assert error_of(net.caller(calls).call(b"x")) == (504, "timeout")
    assert 0.2 <= time.monotonic() - began < 0.2 + 0.3 * FACTOR
    assert upstream.bodies == [b"x"]
    proxyd.wait_for(calls, accepted=1, failed={"timeout": 1}, inflight=0, recreates=1)


@pytest.mark.parametrize("correlation", ["lockstep", "envelope"])
def test_a_reply_later_than_the_timeout_is_nobodys_answer(net, correlation):
    """The late reply meets a closed connection; the next request's answer is its own."""
    def late_for_the_first(server, request):
        server.later(0.3 if request.number == 0 else 0.25, lambda: server.reply(request, *request.body))
    upstream = net.router(late_for_the_first)
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "280ms", "correlation": correlation, **QUICK})
    net.proxyd(calls)
    caller = net.caller(calls)
    assert error_of(caller.call(b"first")) == (504, "timeout")
    assert caller.call(b"second") == [b"second"]
    assert caller.call(b"third") == [b"third"]


def test_a_request_given_up_is_not_delivered_by_a_reconnect(net):
    """(G3) It was sent into a pipe whose peer never read it; a peer that comes then must not get it."""
    stuck = net.process()
    calls = net.chain("rep-req", to=stuck, backend={"timeout": "200ms", **QUICK})
    proxyd = net.proxyd(calls)
    proxyd.wait_for(calls, state="up")
    stuck.kill()
    assert error_of(net.caller(calls).call(b"zombie"))[0] in (502, 504)
    stuck.start()
    proxyd.wait_for(calls, state="up", seconds=7)
    assert net.caller(calls).call(b"alive") == [b"alive"]
    assert stuck.bodies == [b"alive"]


def test_a_server_that_works_through_its_queue_is_not_slow(net):
    """The clock of a request starts when it becomes the oldest one owed: ten of 100 ms each, in 300 ms."""
    upstream = net.process(delay_s=0.1)
    calls = net.chain("rep-req", to=upstream, backend={"timeout": f"{int(300 * FACTOR)}ms",
                                                       "correlation": "envelope"})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    pipeline.send_each([b"%d" % n for n in range(10)])
    assert outcomes(pipeline.wait()) == {"reply": 10}
    assert max(pipeline.took_s.values()) >= 1.0
    proxyd.wait_for(calls, delivered=10, recreates=0)


def test_answers_to_younger_requests_do_not_excuse_the_oldest(net):
    """A connection that owes one answer for ever is replaced although it answers others."""
    def skip_the_first(server, request):
        if request.number:
            server.reply(request, *request.body)
    calls = net.chain("rep-req", to=net.wire(skip_the_first),
                      backend={"timeout": "300ms", "correlation": "envelope"})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    first = pipeline.send(b"never")
    proxyd.wait_for(calls, inflight=1)
    while first not in pipeline.drain().answers:
        assert time.monotonic() - pipeline.sent[first] < 1.0 * FACTOR + 0.3
        pipeline.call(b"meanwhile", seconds=1)
    assert error_of(pipeline.answers[first][0]) == (504, "timeout")
    assert "timeout" not in outcomes([a[0] for tag, a in pipeline.answers.items() if tag != first])


def test_on_a_shared_connection_the_oldest_times_out_and_the_others_are_lost(net):
    upstream = net.wire(swallow)
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "200ms", "correlation": "envelope"})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    tags = [pipeline.send(b"%d" % n) for n in range(10)]
    answers = pipeline.wait()
    assert error_of(answers[tags[0]]) == (504, "timeout")
    assert [error_of(answers[tag]) for tag in tags[1:]] == [(504, "lost")] * 9
    proxyd.wait_for(calls, failed={"timeout": 1, "lost": 9}, recreates=1)


def test_lock_step_connections_fail_alone(net):
    def answer_even(server, request):
        if int(request.body[0]) % 2 == 0:
            server.reply(request, *request.body)
    upstream = net.router(answer_even)
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "200ms", "correlation": "lockstep"})
    net.proxyd(calls)
    pipeline = net.pipeline(calls)
    pipeline.send_each([b"%d" % n for n in range(10)])
    assert outcomes(pipeline.wait()) == {"reply": 5, "timeout": 5}
    assert sorted(upstream.bodies) == [b"%d" % n for n in range(10)]


@pytest.mark.parametrize("server", ["router", "wire"])
def test_an_upstream_that_swallows_every_fifth_request(net, server):
    """40 of 50 are answered, ten time out, nothing stalls."""
    upstream = getattr(net, server)(lambda server, request: request.number % 5 == 4 or echo(server, request))
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "250ms", **QUICK})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    answers = [caller.call(b"%d" % n) for n in range(50)]
    assert outcomes(answers) == {"reply": 40, "timeout": 10}
    assert upstream.bodies == [b"%d" % n for n in range(50)]
    proxyd.wait_for(calls, delivered=40, failed={"timeout": 10}, recreates=10)


# ---- retries ---------------------------------------------------------------------------------------------------

def test_a_retry_goes_out_after_a_timeout(net):
    upstream = net.router(lambda server, request: request.number and echo(server, request))
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "150ms", "retries": 1, **QUICK})
    proxyd = net.proxyd(calls)
    assert net.caller(calls).call(b"x") == [b"x"]
    assert upstream.bodies == [b"x", b"x"]
    proxyd.wait_for(calls, accepted=1, delivered=1, retries=1, recreates=1, redelivered=1)


def test_a_retry_goes_to_the_next_endpoint(net):
    mute, good = net.router(swallow), net.router()
    calls = net.chain("rep-req", to=[mute, good],
                      backend={"timeout": "150ms", "retries": 1, "balance": "failover", **QUICK})
    proxyd = net.proxyd(calls)
    proxyd.wait_for(calls, state="up")
    assert net.caller(calls).call(b"x") == [b"x"]
    assert (mute.bodies, good.bodies) == ([b"x"], [b"x"])


def test_retries_follow_a_lost_connection_too(net):
    def hang_up_first(server, request):
        if request.number == 0:
            request.connection.reset()
        else:
            server.reply(request, *request.body)
    upstream = net.wire(hang_up_first)
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "2s", "retries": 1, **QUICK})
    proxyd = net.proxyd(calls)
    assert net.caller(calls).call(b"x") == [b"x"]
    proxyd.wait_for(calls, delivered=1, retries=1)


def test_as_many_attempts_as_promised_and_then_504(net):
    upstream = net.router(swallow)
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "100ms", "retries": 2, **QUICK})
    proxyd = net.proxyd(calls)
    assert error_of(net.caller(calls).call(b"x")) == (504, "timeout")
    assert upstream.bodies == [b"x"] * 3
    proxyd.wait_for(calls, failed={"timeout": 1}, retries=2)


# ---- codes -----------------------------------------------------------------------------------------------------

def test_no_upstream_within_the_timeout_is_a_502_and_never_delivered(net):
    endpoint = net.endpoint()
    calls = net.chain("rep-req", to=endpoint, backend={"timeout": "200ms", **QUICK})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    pipeline.send_each([b"%d" % n for n in range(20)])
    assert outcomes(pipeline.wait()) == {"unavailable": 20}
    assert 0.2 <= min(pipeline.took_s.values()) and max(pipeline.took_s.values()) < 0.2 + 0.5 * FACTOR
    upstream = net.router(endpoint=endpoint)
    assert net.caller(calls).call(b"alive", seconds=7) == [b"alive"]
    assert upstream.bodies == [b"alive"]
    proxyd.wait_for(calls, failed={"unavailable": 20}, delivered=1)


def test_a_request_waits_for_an_upstream_that_comes_within_the_timeout(net):
    endpoint = net.endpoint()
    calls = net.chain("rep-req", to=endpoint, backend={"timeout": "20s", **QUICK})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    caller.send(b"early")
    proxyd.wait_for(calls, queued=1, state="down")
    net.rep(endpoint=endpoint)
    assert caller.receive() == [b"early"]


def test_once_sent_the_code_is_504_even_if_nobody_is_left(net):
    """The first attempt's outcome is unknown, so a later 502 would be a lie."""
    def hang_up_for_good(server, request):
        request.connection.reset()
        server.stop()
    upstream = net.wire(hang_up_for_good)
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "200ms", "retries": 3, **QUICK})
    net.proxyd(calls)
    assert error_of(net.caller(calls).call(b"x"))[0] == 504
    assert upstream.bodies == [b"x"]


def test_an_upstream_that_hangs_up_is_a_504_lost_at_once(net):
    upstream = net.wire(lambda server, request: request.connection.reset())
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "20s", **QUICK})
    proxyd = net.proxyd(calls)
    began = time.monotonic()
    assert error_of(net.caller(calls).call(b"x")) == (504, "lost")
    assert time.monotonic() - began < 2 * FACTOR
    assert upstream.bodies == [b"x"]
    proxyd.wait_for(calls, failed={"lost": 1})


def test_half_a_reply_is_no_reply(net):
    def half(server, request):
        whole = b"\x00\x00\x02\x00\x00\x0a0123456789"
        request.connection.write(whole[: len(whole) // 2])
        request.connection.close()
    calls = net.chain("rep-req", to=net.wire(half, socket_type=b"ROUTER"), backend={"timeout": "20s", **QUICK})
    net.proxyd(calls)
    assert error_of(net.caller(calls).call(b"x")) == (504, "lost")


# ---- max_age ---------------------------------------------------------------------------------------------------

def test_max_age_unsent_is_expired_and_the_caller_hears_unavailable(net):
    upstream = net.router()
    calls = net.chain("rep-req", to=upstream, queue={"max_age": "250ms"})
    proxyd = net.proxyd(calls)
    proxyd.control("pause", calls.name)
    proxyd.wait_for(calls, state="paused")
    pipeline = net.pipeline(calls)
    pipeline.send_each([b"%d" % n for n in range(5)])
    assert {error_of(answer) for answer in pipeline.wait().values()} == {(502, "unavailable")}
    assert 0.25 <= min(pipeline.took_s.values()) and max(pipeline.took_s.values()) < 0.25 + 1 * FACTOR
    proxyd.control("resume", calls.name)
    assert pipeline.call(b"after") == [b"after"]
    assert upstream.bodies == [b"after"]
    proxyd.wait_for(calls, accepted=6, expired=5, delivered=1, failed={})


def test_max_age_of_a_request_that_was_sent_is_a_timeout(net):
    upstream = net.router(swallow)
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "100ms", "retries": 1000, **QUICK},
                      queue={"max_age": "500ms"})
    proxyd = net.proxyd(calls)
    began = time.monotonic()
    assert error_of(net.caller(calls).call(b"x")) == (504, "timeout")
    assert 0.45 <= time.monotonic() - began < 0.5 + 1 * FACTOR
    attempts = len(upstream.log)
    assert 2 <= attempts <= 5
    holds(lambda: len(upstream.log) == attempts, 0.3, "nothing sent after the caller heard")
    proxyd.wait_for(calls, failed={"timeout": 1}, expired=0, queued=0, inflight=0)


def test_a_request_whose_caller_died_is_not_worked_on_after_its_age(net):
    """It expires in the queue; the upstream never sees it."""
    upstream = net.router()
    calls = net.chain("rep-req", to=upstream, queue={"max_age": "200ms"})
    proxyd = net.proxyd(calls)
    proxyd.control("pause", calls.name)
    caller = net.caller(calls)
    caller.send(b"gone")
    proxyd.wait_for(calls, queued=1)
    before = proxyd.fd_count()
    caller.close()
    eventually(lambda: proxyd.fd_count() < before)
    proxyd.wait_for(calls, expired=1, queued=0, orphaned=1)
    proxyd.control("resume", calls.name)
    assert net.caller(calls).call(b"next") == [b"next"]
    assert upstream.bodies == [b"next"]
