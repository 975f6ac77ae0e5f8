# SPDX-License-Identifier: MIT
"""rep-req: requests go to an upstream and its own reply comes back, unchanged; what stands on the wire in each
correlation; callers that are many, slow or gone."""
import os
import time

import pytest
import zmq

from harness import FACTOR, eventually
from peers import outcomes, swallow

BODIES = {
    "text": [b"hello"],
    "one empty frame": [b""],
    "empty frames around": [b"", b"x", b"", b"y", b""],
    "binary": [bytes(range(256)) * 4, b"\xff\xfe\0\x80", b"\0"],
    "64 frames": [b"%d" % n for n in range(64)],
    "just under the limit": [os.urandom((1 << 20) - 1024), b"end"],
}


@pytest.mark.parametrize("server", ["rep", "router", "process", "broker"])
def test_reply_is_the_upstreams_own_unchanged(net, server):
    upstream = getattr(net, server)()
    calls = net.chain("rep-req", to=upstream)
    proxyd = net.proxyd(calls)
    for caller in (net.caller(calls), net.pipeline(calls), net.pipeline(calls, depth=9)):
        for body in BODIES.values():
            assert caller.call(*body) == body
    proxyd.wait_for(calls, accepted=3 * len(BODIES), delivered=3 * len(BODIES), state="up")


def test_reply_need_not_look_like_the_request(net):
    upstream = net.router(lambda server, request: server.reply(request, b"", b"\0", *[b"part"] * request.number))
    calls = net.chain("rep-req", to=upstream)
    net.proxyd(calls)
    caller = net.caller(calls)
    for count in range(5):
        assert caller.call(b"?") == [b"", b"\0", *[b"part"] * count]


def test_many_callers_at_once_each_get_their_own_answer(net):
    calls = net.chain("rep-req", to=net.rep())
    net.proxyd(calls)
    callers = [net.caller(calls) for _ in range(100)]
    for turn in range(3):
        for number, caller in enumerate(callers):
            caller.send(b"%d of %d" % (turn, number))
        for number, caller in enumerate(callers):
            assert caller.receive() == [b"%d of %d" % (turn, number)]


def test_one_connection_may_have_thousands_of_requests_outstanding(net):
    calls = net.chain("rep-req", to=net.rep(), queue={"max_messages": 10000})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    bodies = pipeline.send_each([b"%d" % n for n in range(3000)])
    answers = pipeline.wait(seconds=10)
    assert {tag: [body] for tag, body in bodies.items()} == answers
    assert proxyd.chain(calls)["delivered"] == 3000


def test_malformed_requests_are_counted_and_hurt_nobody(net):
    """Without an empty delimiter there is nobody to answer."""
    upstream = net.router()
    calls = net.chain("rep-req", to=upstream)
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    for frames in ([b"x"], [b"x", b"y"], [b"\xff" * 300], [b"a"] * 64):
        pipeline.socket.send_multipart(frames)
    assert pipeline.call(b"good") == [b"good"]
    status = proxyd.wait_for(calls, accepted=5, delivered=1, dropped__malformed=4)
    assert status["malformed"] == 4
    assert upstream.bodies == [b"good"]


# ---- on the wire -----------------------------------------------------------------------------------------------

def in_flight_per_connection(server, request):
    """A handler that answers late and remembers how many requests each connection had outstanding."""
    connection = getattr(request, "connection", None) or request.route[0]
    outstanding = server.__dict__.setdefault("outstanding", {})
    peaks = server.__dict__.setdefault("peaks", {})
    outstanding[connection] = outstanding.get(connection, 0) + 1
    peaks[connection] = max(peaks.get(connection, 0), outstanding[connection])

    def answer():
        outstanding[connection] -= 1
        server.reply(request, *request.body)
    server.later(0.02, answer)


def test_lockstep_is_one_request_per_connection_and_exactly_a_delimiter(net):
    upstream = net.wire(in_flight_per_connection)
    calls = net.chain("rep-req", to=upstream, backend={"correlation": "lockstep", "window": 4})
    net.proxyd(calls)
    pipeline = net.pipeline(calls)
    pipeline.send_each([b"%d" % n for n in range(40)])
    assert outcomes(pipeline.wait()) == {"reply": 40}
    assert all(frames == [b"", frames[1]] for frames in upstream.frames)
    assert set(upstream.peaks.values()) == {1} and 2 <= len(upstream.peaks) <= 4


def test_envelope_is_many_requests_on_one_connection_told_apart_by_an_id(net):
    upstream = net.wire(in_flight_per_connection)
    calls = net.chain("rep-req", to=upstream, backend={"correlation": "envelope", "window": 8})
    net.proxyd(calls)
    pipeline = net.pipeline(calls)
    pipeline.send_each([b"%d" % n for n in range(40)])
    assert outcomes(pipeline.wait()) == {"reply": 40}
    assert all(len(frames) == 3 and frames[0] and frames[1] == b"" for frames in upstream.frames)
    assert len({frames[0] for frames in upstream.frames}) == 40
    assert list(upstream.peaks.values()) == [8]


@pytest.mark.parametrize("socket_type, becomes", [(b"REP", "envelope"), (b"ROUTER", "lockstep")])
def test_auto_learns_from_the_first_reply_what_its_peer_is(net, socket_type, becomes):
    """A ROUTER that unpacks exactly three frames keeps working; a REP socket gets many at once."""
    upstream = net.wire(in_flight_per_connection, socket_type=socket_type)
    calls = net.chain("rep-req", to=upstream, backend={"correlation": "auto", "window": 6})
    net.proxyd(calls)
    pipeline = net.pipeline(calls)
    pipeline.call(b"first")
    assert upstream.frames == [[b"", b"first"]]
    pipeline.send_each([b"%d" % n for n in range(60)])
    pipeline.wait()
    if becomes == "lockstep":
        assert all(frames == [b"", frames[1]] for frames in upstream.frames)
        assert set(upstream.peaks.values()) == {1} and len(upstream.peaks) <= 6
    else:
        assert len([frames for frames in upstream.frames if frames[0] != b""]) > 40
        assert max(upstream.peaks.values()) > 1


@pytest.mark.parametrize("correlation", ["lockstep", "envelope", "auto"])
def test_rep_workers_behind_a_broker_work_in_every_correlation(net, correlation):
    """A REP behind ROUTER and DEALER returns the id frame like any other address frame."""
    broker = net.broker(handler=lambda server, request: server.reply(request, *request.body, b"done"))
    calls = net.chain("rep-req", to=broker, backend={"correlation": correlation})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls, depth=2)
    bodies = pipeline.send_each([b"%d" % n for n in range(200)])
    assert pipeline.wait() == {tag: [body, b"done"] for tag, body in bodies.items()}
    row = proxyd.control("show", calls.name)["status"]["upstreams"][0]
    assert row["peer"] == ("envelope" if correlation == "envelope" else "lockstep")


def test_auto_forgets_what_its_peer_was_when_the_connection_breaks(net):
    """A ROUTER may come back where a REP was."""
    endpoint = net.endpoint()
    first = net.rep(endpoint=endpoint)
    calls = net.chain("rep-req", to=endpoint, backend={"backoff": "20ms", "backoff_max": "100ms"})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    pipeline.send_each([b"%d" % n for n in range(20)])
    pipeline.wait()
    first.stop()
    proxyd.wait_for(calls, state="down")

    def three_frames_only(server, request):
        _, empty, body = [*request.route, *request.body]
        assert empty == b""
        server.reply(request, body)
    second = net.router(three_frames_only, endpoint=endpoint)
    assert pipeline.call(b"after") == [b"after"]
    assert all(len(frames) == 3 for frames in second.frames)


def test_window_is_per_upstream(net):
    upstreams = [net.router(swallow), net.router(swallow)]
    calls = net.chain("rep-req", to=upstreams, backend={"window": 3, "timeout": "20s"}, queue={"max_age": "20s"})
    proxyd = net.proxyd(calls, daemon={"drain_timeout": "50ms"})
    net.pipeline(calls).send_each([b"%d" % n for n in range(20)])
    proxyd.wait_for(calls, accepted=20, inflight=6, queued=14)
    eventually(lambda: [len(upstream.log) for upstream in upstreams] == [3, 3])


def test_replies_late_twice_permuted_or_unasked_reach_nobody_wrong(net):
    """Every reply comes twice, in another order, among replies to requests that never were."""
    held = []

    def confuse(server, request):
        held.append(request)
        if len(held) == 8:
            for each in reversed(held):
                server.reply(each, *each.body)
                each.connection.send(os.urandom(len(each.route[0])), b"", b"never asked")
                each.connection.send(b"", b"no id at all")
                server.reply(each, *each.body)
            held.clear()
    upstream = net.wire(confuse)
    calls = net.chain("rep-req", to=upstream, backend={"correlation": "envelope", "window": 8})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    bodies = pipeline.send_each([b"%d" % n for n in range(400)])
    assert pipeline.wait() == {tag: [body] for tag, body in bodies.items()}
    status = proxyd.wait_for(calls, delivered=400, stray=lambda count: count >= 1200 - 3)
    assert status["accepted"] == 400


def test_a_second_reply_in_lockstep_is_not_the_next_ones_answer(net):
    def twice(server, request):
        server.reply(request, *request.body)
        server.reply(request, *request.body)
    calls = net.chain("rep-req", to=net.wire(twice, socket_type=b"ROUTER"),
                      backend={"backoff": "10ms", "backoff_max": "50ms"})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    for number in range(20):
        assert caller.call(b"%d" % number) == [b"%d" % number]
        proxyd.wait_for(calls, stray=number + 1)


# ---- callers ----------------------------------------------------------------------------------------------------

def test_one_slow_call_delays_no_other(net):
    """A window of lock-step connections: only a full one makes others wait."""
    def slow_when_told(server, request):
        server.later(1.0 if request.body == [b"slow"] else 0, lambda: server.reply(request, *request.body))
    calls = net.chain("rep-req", to=net.router(slow_when_told), backend={"window": 4})
    net.proxyd(calls)
    pipeline = net.pipeline(calls)
    slow = [pipeline.send(b"slow") for _ in range(3)]
    began = time.monotonic()
    for number in range(20):
        pipeline.call(b"%d" % number)
    assert time.monotonic() - began < 0.8 * FACTOR
    pipeline.wait()
    assert all(pipeline.took_s[tag] >= 1.0 for tag in slow)


def test_a_caller_that_never_reads_its_answers_delays_no_other(net):
    """Sending to callers never blocks; what a full pipe cannot take is counted, not waited for."""
    calls = net.chain("rep-req", to=net.rep(), queue={"max_messages": 5000, "max_bytes": "1GiB"})
    proxyd = net.proxyd(calls)
    deaf = net.pipeline(calls, rcvhwm=1, rcvbuf=4096)
    for number in range(400):
        deaf.send(bytes(100000))
    caller = net.caller(calls)
    for number in range(50):
        assert caller.call(b"%d" % number, seconds=2) == [b"%d" % number]
    proxyd.wait_for(calls, accepted=450, inflight=0, queued=0, seconds=10)


def test_a_caller_gone_before_its_reply_is_counted_orphaned(net):
    """Nobody waits for it, and it is no other's answer."""
    held = []
    upstream = net.router(lambda server, request: held.append(request))
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "20s"})
    proxyd = net.proxyd(calls)
    caller, survivor = net.caller(calls), net.caller(calls)
    caller.send(b"bye")
    survivor.send(b"still here")
    eventually(lambda: len(held) == 2)
    before = proxyd.fd_count()
    caller.close()
    eventually(lambda: proxyd.fd_count() < before, what="the end of the caller's connection")
    for request in held:
        upstream.do(lambda request=request: upstream.reply(request, *request.body))
    assert survivor.receive() == [b"still here"]
    proxyd.wait_for(calls, accepted=2, delivered=2, orphaned=1)


def test_a_listening_upstream_works_as_well(net):
    """`@` makes the backend bind; the server connects."""
    calls = net.chain("rep-req", to="@" + net.endpoint())
    proxyd = net.proxyd(calls)
    server = net.context.socket(zmq.REP)
    server.connect(calls.published)
    caller = net.caller(calls)
    caller.send(b"x")
    assert server.poll(5000 * FACTOR), proxyd.status()
    server.send(server.recv())
    assert caller.receive() == [b"x"]
    server.close(linger=0)
