# SPDX-License-Identifier: MIT
"""What comes after failure (G10): delivery resumes by itself within backoff_max + 6 s, whatever the upstream was
like before; why it was down stands in the status; and trying again never becomes a storm."""
import time

import pytest
import zmq
import zmq.auth.thread

from harness import FACTOR, SANITIZED, eventually, holds
from peers import bind_when_free, error_of, outcomes, swallow
from zmtp import demand_plain, dial, refuse_with_error, reset_at_once, stay_silent

QUICK = {"backoff": "20ms", "backoff_max": "200ms"}
RECOVERY_S = 0.2 + 6


def upstream_of(proxyd, chain, number=0):
    return proxyd.chain(chain)["upstreams"][number]


@pytest.mark.parametrize("window", [16, 200])
def test_upstream_killed_with_200_requests_in_flight(net, window):
    """Every caller hears, the codes are true, nothing runs twice, and it works again afterwards."""
    upstream = net.process(delay_s=0.01)
    calls = net.chain("rep-req", to=upstream, backend={
        "timeout": "1s", "window": window, "correlation": "envelope", **QUICK})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    bodies = pipeline.send_each([b"%d" % n for n in range(200)])
    proxyd.wait_for(calls, accepted=200, inflight=lambda count: count >= min(window, 150))
    eventually(lambda: len(upstream.bodies) >= 5)
    upstream.kill()
    executed_before = set(upstream.bodies)
    upstream.start()
    answers = pipeline.wait(seconds=RECOVERY_S + 5)
    counts = outcomes(answers)
    assert sum(counts.values()) == 200 and counts.get("lost", 0) >= min(window, 150) // 2
    assert set(counts) <= {"reply", "lost", "timeout", "unavailable"}
    seen = upstream.bodies
    assert len(seen) == len(set(seen)), "a request was executed twice without retries"
    for tag, body in bodies.items():
        if error_of(answers[tag]) is None:
            assert body in seen
        elif error_of(answers[tag])[0] == 502:
            assert body not in seen
        else:
            assert body not in set(seen) - executed_before, "a request given up ran later"
    for number in range(50):
        assert pipeline.call(b"after %d" % number) == [b"after %d" % number]
    proxyd.wait_for(calls, accepted=250, delivered=50 + counts.get("reply", 0))


@pytest.mark.parametrize("behaviour, cause", [
    (None, "refused"),
    (reset_at_once, None),
    (refuse_with_error, "auth-denied"),
    (demand_plain, "mechanism-mismatch"),
    (stay_silent, "silent"),
], ids=["refused", "reset", "auth-denied", "mechanism-mismatch", "silent"])
def test_resumes_after_any_kind_of_failure(net, behaviour, cause):
    """(G10) libzmq alone stays away for ever after some of these."""
    endpoint = net.endpoint()
    bad = net.listener(behaviour, endpoint) if behaviour else None
    calls = net.chain("rep-req", to=endpoint, backend={"timeout": "300ms", **QUICK})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    assert error_of(caller.call(b"nobody there")) == (502, "unavailable")
    if cause:
        eventually(lambda: upstream_of(proxyd, calls)["cause"] == cause, 8,
                   f"cause {cause}, not {upstream_of(proxyd, calls)}")
    eventually(lambda: upstream_of(proxyd, calls)["state"] == "down" and proxyd.chain(calls)["state"] == "down")
    if bad:
        bad.stop()
    good = net.router(endpoint=endpoint)
    proxyd.wait_for(calls, state="up", seconds=RECOVERY_S)
    assert caller.call(b"there") == [b"there"]
    assert upstream_of(proxyd, calls)["cause"] is None
    assert good.bodies == [b"there"]


def test_a_wrong_socket_type_is_survived(net):
    endpoint = net.endpoint()
    wrong = net.publisher(endpoint)
    calls = net.chain("rep-req", to=endpoint, backend={"timeout": "200ms", **QUICK})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    assert error_of(caller.call(b"x"))[0] == 502
    wrong.stop()
    net.rep(endpoint=endpoint)
    proxyd.wait_for(calls, state="up", seconds=RECOVERY_S)
    assert caller.call(b"y") == [b"y"]


def test_credentials_that_become_right_are_enough(net):
    """A real PLAIN server that first denies, then accepts, and never restarts."""
    context = zmq.Context()
    guard = zmq.auth.thread.ThreadAuthenticator(context)
    guard.start()
    server = context.socket(zmq.REP)
    server.linger = 0
    try:
        guard.configure_plain(domain="*", passwords={"site-7": "not it"})
        server.plain_server = True
        endpoint = net.endpoint()
        server.bind(endpoint)
        calls = net.chain("rep-req", to=endpoint, backend={
            "timeout": "300ms", "username": "site-7", "password": "s3cret", **QUICK})
        proxyd = net.proxyd(calls)
        caller = net.caller(calls)
        assert error_of(caller.call(b"denied")) == (502, "unavailable")
        proxyd.wait_for(calls, state="down")
        assert upstream_of(proxyd, calls)["cause"] == "auth-denied"
        guard.configure_plain(domain="*", passwords={"site-7": "s3cret"})
        proxyd.wait_for(calls, state="up", seconds=RECOVERY_S)
        caller.send(b"let in")
        assert server.recv() == b"let in"
        server.send(b"welcome")
        assert caller.receive() == [b"welcome"]
        assert "s3cret" not in proxyd.log
    finally:
        server.close(linger=0)
        guard.stop()
        context.destroy(linger=0)


def test_a_difference_of_mechanisms_is_not_taken_for_a_refusal_in_between(net):
    """Both ends find it, and now this one, now that one hangs up first."""
    with zmq.Context() as context, context.socket(zmq.REP) as server:
        server.linger, server.plain_server, endpoint = 0, True, net.endpoint()
        server.bind(endpoint)
        calls = net.chain("rep-req", to=endpoint, backend={"backoff": "1ms", "backoff_max": "20ms"})
        proxyd = net.proxyd(calls)
        eventually(lambda: upstream_of(proxyd, calls)["cause"] == "mechanism-mismatch")
        holds(lambda: upstream_of(proxyd, calls)["cause"] == "mechanism-mismatch", 0.5)


@pytest.mark.parametrize("balance", ["round-robin", "least-pending", "failover"])
@pytest.mark.parametrize("absent", ["refusing", "silent"])
def test_one_of_two_upstreams_never_up_costs_nothing(net, balance, absent):
    """100 of 100 are answered, none late."""
    never = net.listener(stay_silent).endpoint if absent == "silent" else net.endpoint()
    good = net.rep()
    calls = net.chain("rep-req", to=[never, good], backend={"timeout": "2s", "balance": balance, **QUICK})
    proxyd = net.proxyd(calls)
    proxyd.wait_for(calls, state="degraded")
    caller = net.caller(calls)
    worst_s = 0
    for number in range(100):
        began = time.monotonic()
        assert caller.call(b"%d" % number) == [b"%d" % number]
        worst_s = max(worst_s, time.monotonic() - began)
    assert worst_s < 0.5 * FACTOR
    assert len(good.log) == 100


def test_requests_before_and_between_outages_all_work_again(net):
    """The upstream reads a request and dies, again and again."""
    upstream = net.process()
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "1s", **QUICK})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    for turn in range(4):
        assert caller.call(b"alive %d" % turn, seconds=7) == [b"alive %d" % turn]
        upstream.freeze()
        caller.send(b"doomed")
        proxyd.wait_for(calls, inflight=1)
        upstream.kill()
        assert error_of(caller.receive())[0] == 504
        upstream.start()
    for number in range(100):
        assert caller.call(b"%d" % number) == [b"%d" % number]
    assert b"doomed" not in upstream.bodies


@pytest.mark.parametrize("window", [1, 16])
def test_a_slow_server_that_came_up_late_still_works_on_a_window_of_requests(net, window):
    calls = net.chain("rep-req", to=net.endpoint(), backend={"window": window, **QUICK})
    proxyd = net.proxyd(calls)
    eventually(lambda: upstream_of(proxyd, calls)["cause"] == "refused")
    net.pipeline(calls).send_each([b"%d" % n for n in range(20)])
    proxyd.wait_for(calls, queued=20)
    net.router(swallow, endpoint=calls.to[0])
    proxyd.wait_for(calls, inflight=window, queued=20 - window)


def test_trying_again_is_no_storm(net):
    """Exponential backoff up to backoff_max, with full jitter: never in step, never idle for long, and cheap."""
    upstream = net.listener(reset_at_once)
    calls = net.chain("rep-req", to=upstream.endpoint, backend={"backoff": "20ms", "backoff_max": "200ms"})
    proxyd = net.proxyd(calls)
    eventually(lambda: upstream.accepted >= 8, what="the backoff to have reached its bound")
    began, count, cpu_s = time.monotonic(), upstream.accepted, proxyd.cpu_s()
    eventually(lambda: time.monotonic() - began >= 2.0)
    attempts = upstream.accepted - count
    assert 5 <= attempts <= 60, attempts
    gaps = [b - a for a, b in zip(upstream.accepted_at[8:], upstream.accepted_at[9:])]
    assert max(gaps) < 0.2 + 0.3 * FACTOR
    assert max(gaps) - min(gaps) > 0.06, f"no jitter: {gaps}"
    assert SANITIZED or proxyd.cpu_s() - cpu_s < 0.1


def test_a_flapping_upstream_leaks_no_sockets(net):
    upstream = net.router()
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "1s", "backoff": "5ms", "backoff_max": "20ms"})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    caller.call(b"x")
    fds = proxyd.fd_count()
    for _ in range(15):
        upstream.stop()
        proxyd.wait_for(calls, state="down")
        upstream.start()
        proxyd.wait_for(calls, state="up", seconds=RECOVERY_S)
        assert caller.call(b"x") == [b"x"]
    eventually(lambda: proxyd.fd_count() <= fds + 4, 5, "as many descriptors as before")


def test_states_follow_the_upstreams(net):
    first, second = net.router(), net.router()
    calls = net.chain("rep-req", to=[first, second], backend=QUICK)
    proxyd = net.proxyd(calls)
    proxyd.wait_for(calls, state="up")
    assert [row["endpoint"] for row in proxyd.chain(calls)["upstreams"]] == [first.endpoint, second.endpoint]
    first.stop()
    proxyd.wait_for(calls, state="degraded")
    assert [row["state"] == "up" for row in proxyd.chain(calls)["upstreams"]] == [False, True]
    second.stop()
    proxyd.wait_for(calls, state="down")
    first.start()
    proxyd.wait_for(calls, state="degraded", seconds=RECOVERY_S)
    second.start()
    proxyd.wait_for(calls, state="up", seconds=RECOVERY_S)


@pytest.mark.parametrize("attempt", range(5))
def test_what_a_publisher_sent_before_it_closed_is_not_lost(net, attempt):
    """What has arrived is taken in, even if its sender is gone when the chain comes to read it."""
    publisher = net.publisher(sndhwm=0)
    feed = net.chain("sub-pub", at=publisher.endpoint)
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed()
    for number in range(500):
        publisher.publish(b"%d" % number)
    publisher.socket.close(linger=2000)
    proxyd.wait_for(feed, accepted=500, delivered=500)


def test_an_upstream_that_answers_and_closes_has_answered(net):
    """A reply that has arrived counts, even if its sender is gone when the chain comes to read it."""
    calls = net.chain("rep-req", backend={"timeout": "5s", **QUICK})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    context = zmq.Context()
    answered = 0
    for number in range(20):
        server = context.socket(zmq.REP)
        bind_when_free(server, calls.to[0])
        proxyd.wait_for(calls, state="up")
        caller.send(b"%d" % number)
        assert server.poll(5000)
        server.send(server.recv())
        server.close(linger=2000)
        answered += caller.receive() == [b"%d" % number]
        proxyd.wait_for(calls, state="down")
    context.term()
    assert answered == 20


def test_a_server_that_connects_answers_and_leaves_has_answered(net):
    calls = net.chain("rep-req", to="@" + net.endpoint(), backend={"timeout": "5s", **QUICK})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    for number in range(30):
        server = dial(calls.published).handshake(b"REP")
        caller.send(b"%d" % number)
        server.send(*server.read_message())
        server.close()
        assert caller.receive() == [b"%d" % number]
        proxyd.wait_for(calls, state="down")
