# SPDX-License-Identifier: MIT
"""How several upstreams share the requests: round-robin, least-pending, failover, all."""
from peers import error_of, swallow


def test_round_robin_shares_evenly(net):
    upstreams = [net.rep() for _ in range(3)]
    calls = net.chain("rep-req", to=upstreams, backend={"balance": "round-robin"})
    proxyd = net.proxyd(calls)
    proxyd.wait_for(calls, state="up")
    caller = net.caller(calls)
    for number in range(30):
        caller.call(b"%d" % number)
    assert [len(upstream.log) for upstream in upstreams] == [10, 10, 10]


def test_least_pending_prefers_the_quick(net):
    quick = net.router()
    stuck = net.router(swallow)
    calls = net.chain("rep-req", to=[stuck, quick], backend={"balance": "least-pending", "timeout": "20s"})
    proxyd = net.proxyd(calls, daemon={"drain_timeout": "50ms"})
    proxyd.wait_for(calls, state="up")
    pipeline = net.pipeline(calls)
    for number in range(40):
        pipeline.send(b"%d" % number)
        proxyd.wait_for(calls, accepted=number + 1, queued=0, inflight=lambda count: count <= 1)
    assert len(stuck.log) <= 1 and len(quick.log) >= 39


def test_failover_uses_the_first_that_is_up_and_returns_to_it(net):
    first, second = net.router(), net.router()
    calls = net.chain("rep-req", to=[first, second],
                      backend={"balance": "failover", "backoff": "20ms", "backoff_max": "100ms"})
    proxyd = net.proxyd(calls)
    proxyd.wait_for(calls, state="up")
    caller = net.caller(calls)
    assert [caller.call(b"a") for _ in range(5)] == [[b"a"]] * 5
    assert (len(first.log), len(second.log)) == (5, 0)
    first.stop()
    proxyd.wait_for(calls, state="degraded")
    assert [caller.call(b"b") for _ in range(5)] == [[b"b"]] * 5
    assert (len(first.log), len(second.log)) == (5, 5)
    first.start()
    proxyd.wait_for(calls, state="up", seconds=7)
    caller.call(b"c")
    assert (len(first.log), len(second.log)) == (6, 5)


def naming(name):
    return lambda server, request: server.reply(request, name, *request.body)


def test_all_asks_everyone_and_answers_as_the_first_endpoint_did(net):
    slow_first = net.router(lambda server, request: server.later(
        0.05, lambda: server.reply(request, b"first", *request.body)))
    others = [net.router(naming(b"second")), net.rep(naming(b"third"))]
    calls = net.chain("rep-req", to=[slow_first, *others], backend={"balance": "all"})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    bodies = pipeline.send_each([b"%d" % n for n in range(20)])
    assert pipeline.wait() == {tag: [b"first", body] for tag, body in bodies.items()}
    for upstream in (slow_first, *others):
        assert sorted(upstream.bodies) == sorted(bodies.values())
    proxyd.wait_for(calls, accepted=20, delivered=20)


def test_all_fails_when_any_fails_and_never_says_it_was_not_delivered(net):
    good, mute = net.router(), net.router(swallow)
    calls = net.chain("rep-req", to=[good, mute], backend={"balance": "all", "timeout": "150ms"})
    proxyd = net.proxyd(calls)
    assert error_of(net.caller(calls).call(b"x")) == (504, "timeout")
    assert good.bodies == mute.bodies == [b"x"]
    proxyd.wait_for(calls, failed__timeout=1, inflight=0, queued=0)


def test_all_retries_only_those_that_have_not_answered(net):
    good = net.router(naming(b"good"))
    forgetful = net.router(lambda server, request: request.number and server.reply(request, b"forgetful"))
    calls = net.chain("rep-req", to=[good, forgetful],
                      backend={"balance": "all", "timeout": "150ms", "retries": 1, "backoff": "10ms"})
    proxyd = net.proxyd(calls)
    assert net.caller(calls).call(b"x") == [b"good", b"x"]
    assert (good.bodies, forgetful.bodies) == ([b"x"], [b"x", b"x"])
    proxyd.wait_for(calls, delivered=1, retries=1)


def test_all_sends_to_nobody_while_one_is_away(net):
    """The 502 is true of every endpoint; with all of them there, the next call succeeds."""
    good, away = net.router(), net.endpoint()
    calls = net.chain("rep-req", to=[good, away], backend={
        "balance": "all", "timeout": "200ms", "backoff": "20ms", "backoff_max": "100ms"})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    assert error_of(caller.call(b"x")) == (502, "unavailable")
    assert good.log == []
    late = net.router(endpoint=away)
    proxyd.wait_for(calls, state="up", seconds=7)
    assert caller.call(b"y") == [b"y"]
    assert (good.bodies, late.bodies) == ([b"y"], [b"y"])
