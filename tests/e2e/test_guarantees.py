# SPDX-License-Identifier: MIT
"""G1, G2, G3 and the honesty of the codes, under every fault at once: what callers heard, what upstreams saw and
what the ledger says must tell one story. All of what proxyd promises, by the numbers that tests name it by:

    G1   every snapshot of a ledger balances                       every test, by harness.py
    G2   a request gets exactly one answer, in time                here
    G3   what a caller heard has failed is not delivered later     here, test_timeouts.py
    G4   what was acked as synced is delivered, or accounted for   test_buffered.py, test_durability.py, ../durability
    G5   first attempts leave in the order of arrival              test_sub_req.py, test_buffered.py
    G6   only an unknown outcome makes a duplicate                 test_sub_req.py, test_buffered.py
    G7   memory and disk stay within bounds                        test_queue_bounds.py, test_abuse.py
    G8   a stuck chain slows no other                              test_isolation.py
    G9   a damaged store opens                                     test_durability.py, ../unit/test_store_damage.c
    G10  when an upstream comes back, delivery resumes by itself   test_recovery.py
"""
import random
import threading

import pytest
import zmq

from harness import FACTOR, balance_error, eventually
from peers import echo, error_of, outcomes

SAFE_CODES = {400, 403, 413, 429, 502, 503}
MAX_AGE_S = 2.0


class Auditor(threading.Thread):
    """While its block runs, takes snapshots of `status` as fast as it can; at the end all must have balanced."""

    def __init__(self, proxyd):
        super().__init__(daemon=True)
        self._proxyd, self._stopping = proxyd, threading.Event()
        self.snapshots, self.errors = 0, []

    def run(self):
        while not self._stopping.is_set():
            for chain in self._proxyd.control("status")["chains"]:
                self.snapshots += 1
                error = balance_error(chain)
                if error:
                    self.errors.append(error)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, failure, *_):
        self._stopping.set()
        self.join()
        assert not self.errors, self.errors[:3]
        assert failure or self.snapshots > 20, self.snapshots


def moody(random_source):
    """An upstream that answers, swallows, is late, says it twice, hangs up."""
    def handler(server, request):
        mood = random_source.random()
        if mood < 0.80:
            server.later(random_source.random() * 0.02, lambda: server.reply(request, *request.body))
        elif mood < 0.86:
            pass
        elif mood < 0.92:
            server.later(0.25, lambda: server.reply(request, *request.body))
        elif mood < 0.97:
            echo(server, request)
            if len(request.route) > 1:
                echo(server, request)
        else:
            request.connection.reset()
    return handler


@pytest.mark.parametrize("correlation", ["lockstep", "envelope", "auto"])
def test_one_story_under_every_fault_at_once(net, correlation):
    """(G1, G2, G3) Upstreams that misbehave, die and come back; a small queue; oversized, malformed and aged
    requests; callers that pipeline, and callers that leave."""
    chance = random.Random(4711)
    upstreams = [net.wire(moody(chance)) for _ in range(2)]
    calls = net.chain("rep-req", to=upstreams, frontend={"max_message": "64KiB"},
                      backend={"timeout": "200ms", "window": 4, "correlation": correlation,
                               "backoff": "10ms", "backoff_max": "100ms"},
                      queue={"max_messages": 40, "max_age": f"{int(MAX_AGE_S * 1000)}ms"})
    proxyd = net.proxyd(calls)
    pipelines = [net.pipeline(calls) for _ in range(4)]
    bodies, malformed, oversized = {}, 0, 0
    with Auditor(proxyd):
        for round_number in range(12):
            if round_number in (4, 8):
                upstreams[round_number // 8].stop()
            if round_number in (6, 10):
                upstreams[(round_number - 2) // 8].start()
            for number, pipeline in enumerate(pipelines):
                for _ in range(10):
                    body = b"%d" % len(bodies)
                    bodies[(number, pipeline.send(body))] = body
            pipelines[0].socket.send_multipart([b"no delimiter"])
            malformed += 1
            pipelines[1].send(bytes(100000))
            oversized += 1
            eventually(lambda: sum(len(p.drain().answers) for p in pipelines) > 20 * round_number)
        for pipeline in pipelines:
            pipeline.wait(seconds=MAX_AGE_S + 1 + 2)
        status = proxyd.wait_for(calls, queued=0, inflight=0)

    answers = {(n, tag): answer for n, p in enumerate(pipelines) for tag, answer in p.only_answers().items()}
    assert max(max(p.took_s.values()) for p in pipelines) <= (MAX_AGE_S + 1) * max(1, FACTOR / 2), "G2"
    heard = outcomes(answers)
    assert heard.pop("too-large") == oversized
    assert status["delivered"] == heard.pop("reply")
    assert status["accepted"] == len(bodies) + malformed + oversized
    assert status["malformed"] == malformed and status["orphaned"] == 0
    expired = status["expired"]
    failed = {reason: count for reason, count in status["failed"].items() if reason != "too-large"}
    if expired:
        failed["unavailable"] = failed.get("unavailable", 0) + expired
    assert failed == heard, "the ledger and the callers disagree"

    seen = [body for upstream in upstreams for body in upstream.bodies]
    assert len(seen) == len(set(seen)), "no retries were asked for, yet something was sent twice"
    for key, body in bodies.items():
        error = error_of(answers[key])
        if error is None:
            assert answers[key] == [body], "an answer went to the wrong request"
            assert body in seen
        elif error[0] in SAFE_CODES:
            assert body not in seen, f"{error} was promised never to be delivered"
    assert heard.get("timeout", 0) + heard.get("lost", 0) > 10, "the faults did bite"

    # After all that, a thousand good calls.
    for upstream in upstreams:
        upstream.handler = echo
    proxyd.wait_for(calls, state="up", seconds=7)
    survivor = net.pipeline(calls)
    for _ in range(25):
        survivor.send_each([b"good"] * 40)
        survivor.wait()
    assert outcomes(survivor.only_answers()) == {"reply": 1000}


def test_callers_that_leave_are_counted_not_waited_for(net):
    """(G2) Its other half: the only requests without an answer are those whose callers are gone."""
    upstream = net.router(lambda server, request: server.later(0.2, lambda: echo(server, request)))
    calls = net.chain("rep-req", to=upstream, backend={"window": 50})
    proxyd = net.proxyd(calls)
    leaving, staying = [net.caller(calls) for _ in range(20)], [net.caller(calls) for _ in range(20)]
    for number, caller in enumerate(leaving + staying):
        caller.send(b"%d" % number)
    proxyd.wait_for(calls, accepted=40)
    for caller in leaving:
        caller.close()
    assert [caller.receive() for caller in staying] == [[b"%d" % n] for n in range(20, 40)]
    proxyd.wait_for(calls, accepted=40, delivered=40, orphaned=20)


@pytest.mark.parametrize("fault", ["absent", "swallowing", "dying", "draining", "full"])
def test_whatever_was_refused_safely_never_arrives(net, fault):
    """(G3) After 502 and 503 the request is not delivered; after 504 nothing that proxyd still held is."""
    endpoint = net.endpoint()
    swallowing = net.router(lambda server, request: None, endpoint) if fault == "swallowing" else None
    dying = net.wire(lambda server, request: server.stop(), endpoint) if fault == "dying" else None
    calls = net.chain("rep-req", to=endpoint, queue={"max_messages": 50 if fault != "full" else 5, "max_age": "3s"},
                      backend={"timeout": "200ms", "window": 4, "backoff": "10ms", "backoff_max": "50ms"})
    proxyd = net.proxyd(calls)
    if fault == "draining":
        proxyd.control("drain", calls.name)
        proxyd.wait_for(calls, state="draining")
    pipeline = net.pipeline(calls)
    bodies = pipeline.send_each([b"doomed %d" % n for n in range(12)])
    answers = pipeline.wait(seconds=20)
    assert "reply" not in outcomes(answers)
    for bad in (swallowing, dying):
        if bad:
            seen = set(bad.bodies)
            bad.stop()
            for tag, body in bodies.items():
                assert error_of(answers[tag])[0] == 504 or body not in seen
    proxyd.control("resume", calls.name)
    upstream = net.rep(endpoint=endpoint)
    assert net.caller(calls).call(b"alive", seconds=7) == [b"alive"]
    assert upstream.bodies == [b"alive"]


@pytest.mark.parametrize("kind", ["sub-req", "rep-pub", "sub-pub"])
def test_the_ledger_balances_while_messages_move(net, kind):
    """(G1) Snapshots taken all the time, while thousands of messages pass and some are refused."""
    upstream, publisher = net.rep(), net.publisher()
    at = publisher.endpoint if kind.startswith("sub") else None
    chain = net.chain(kind, at=at, to=upstream if kind.endswith("req") else None, queue={"max_messages": 200})
    proxyd = net.proxyd(chain)
    pipeline = None if at else net.pipeline(chain)
    if at:
        publisher.wait_subscribed()
    sent = 0

    def keep_sending():
        nonlocal sent
        for number in range(sent, sent + 300):
            publisher.publish(b"%d" % number) if at else pipeline.send(b"%d" % number)
        sent += 300
        return sent >= 3000 and auditor.snapshots > 30
    with Auditor(proxyd) as auditor:
        eventually(keep_sending, 10)
        status = proxyd.wait_for(chain, accepted=sent, queued=0, inflight=0, seconds=10)
    assert status["delivered"] + sum(status["dropped"].values()) + sum(status["failed"].values()) == sent
    if kind == "sub-req":
        assert len(upstream.log) == status["delivered"]
    if kind == "rep-pub":
        heard = outcomes(pipeline.wait(seconds=10))
        assert heard["reply"] == status["delivered"] and heard.get("queue-full", 0) == sent - heard["reply"]


def test_every_address_frame_comes_back_and_no_routing_id_goes_out(net):
    """Envelopes of any depth and content; the upstream sees none of it. (N3: routing ids stay inside.)"""
    upstream = net.wire()
    calls = net.chain("rep-req", to=upstream)
    net.proxyd(calls)
    dealer = net.context.socket(zmq.DEALER)
    dealer.connect(calls.endpoint)
    for depth in (0, 1, 5, 30):
        addresses = [b"\0\xff%d" % n + bytes(n * 7) for n in range(1, depth + 1)]
        dealer.send_multipart([*addresses, b"", b"body", b"", b"more"])
        assert dealer.poll(5000 * FACTOR)
        assert dealer.recv_multipart() == [*addresses, b"", b"body", b"", b"more"]
    dealer.close(linger=0)
    for frames in upstream.frames:
        assert frames[frames.index(b"") + 1:] == [b"body", b"", b"more"] and frames.index(b"") <= 1
