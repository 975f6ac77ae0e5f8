# SPDX-License-Identifier: MIT
"""The queue's bounds (G7) and what each `when_full` policy does about them; messages and frames over the limits;
endless multipart. Memory is the resident size of the real process."""
import os
import socket

import pytest

from harness import FACTOR, SANITIZED, eventually, holds, proxyctl
from peers import error_of, outcomes, swallow
from zmtp import MORE, dial, frame, message

MIB = 1 << 20


def paused(net, chain, **options):
    proxyd = net.proxyd(chain, **options)
    proxyd.control("pause", chain.name)
    proxyd.wait_for(chain, state="paused")
    return proxyd


def ordered_answers(pipeline, tags):
    return [pipeline.only_answers().get(tag) for tag in tags]


BOUNDS = {"messages": ({"max_messages": 10}, 1), "bytes": ({"max_bytes": "10KiB"}, 1024)}


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("when_full, refused, kept, ledger", [
    ("reject", range(10, 15), range(10), {"failed": {"queue-full": 5}, "dropped": {}}),
    ("drop-newest", range(10, 15), range(10), {"failed": {}, "dropped": {"newest": 5}}),
    ("drop-oldest", range(5), range(5, 15), {"failed": {}, "dropped": {"oldest": 5}}),
])
def test_a_full_queue_of_requests(net, bound, when_full, refused, kept, ledger):
    """The victim hears queue-full (503, never delivered), everybody else is served once there is room."""
    limits, size = BOUNDS[bound]
    upstream = net.router()
    calls = net.chain("rep-req", to=upstream, queue={**limits, "when_full": when_full})
    proxyd = paused(net, calls)
    pipeline = net.pipeline(calls)
    bodies = [b"%d" % n + b"." * (size - len(b"%d" % n)) for n in range(15)]
    tags = [pipeline.send(body) for body in bodies]
    proxyd.wait_for(calls, accepted=15, queued=10, **ledger)
    pipeline.wait(5)
    answers = ordered_answers(pipeline, tags)
    assert [n for n in range(15) if answers[n] and error_of(answers[n]) == (503, "queue-full")] == list(refused)
    proxyd.control("resume", calls.name)
    pipeline.wait()
    answers = ordered_answers(pipeline, tags)
    assert [n for n in range(15) if answers[n] == [bodies[n]]] == list(kept)
    assert sorted(upstream.bodies) == sorted(bodies[n] for n in kept)
    assert pipeline.call(b"room again") == [b"room again"]


@pytest.mark.parametrize("dropped_by", ["oldest", "operator"])
def test_who_is_dropped_between_two_attempts_hears_that_it_was_sent(net, dropped_by):
    """The first attempt may have been executed: 503 would promise that it was not."""
    upstream = net.router(swallow)
    calls = net.chain("rep-req", to=upstream, queue={"max_messages": 1, "when_full": "drop-oldest"},
                      backend={"timeout": "50ms", "retries": 5})
    proxyd = net.proxyd(calls)
    proxyd.wait_for(calls, state="up")
    caller = net.caller(calls)
    caller.send(b"sent")
    eventually(lambda: upstream.bodies == [b"sent"])
    proxyd.control("pause", calls.name)
    proxyd.wait_for(calls, queued=1, retries=1)
    if dropped_by == "oldest":
        net.caller(calls).send(b"in its place")
    else:
        assert proxyctl("-s", proxyd.control_endpoint, "queue", calls.name, "drop", "all").returncode == 0
    assert error_of(caller.receive()) == (504, "lost")
    proxyd.wait_for(calls, dropped={dropped_by: 1}, failed={})


@pytest.mark.parametrize("bound", BOUNDS)
def test_block_lets_callers_wait_and_loses_nothing(net, bound):
    limits, size = BOUNDS[bound]
    upstream = net.router()
    calls = net.chain("rep-req", to=upstream, queue={**limits, "when_full": "block"})
    proxyd = paused(net, calls)
    pipeline = net.pipeline(calls)
    tags = [pipeline.send(bytes(size)) for _ in range(500)]
    # Whether one that did not fit was taken off the wire to find that out is the daemon's own affair.
    proxyd.wait_for(calls, queued=10, accepted=lambda count: 10 <= count <= 11)
    holds(lambda: not pipeline.drain().answers and proxyd.chain(calls)["queued"] == 10, 0.2)
    assert proxyd.cpu_s() < 1.0 * FACTOR
    proxyd.control("resume", calls.name)
    assert outcomes(pipeline.wait()) == {"reply": 500}
    assert len(tags) == 500
    proxyd.wait_for(calls, accepted=500, delivered=500, failed={}, dropped={})


def test_what_callers_leave_behind_stays_within_bounds(net):
    """Callers send to a chain that stands still, and go: libzmq keeps their requests until they are read. Too much of
    that keeps newcomers out until the chain reads again; who was there before waits on."""
    calls = net.chain("rep-req", to=net.router(), queue={"max_messages": 4, "when_full": "block", "max_age": 0})
    proxyd = paused(net, calls)
    patient = net.pipeline(calls)
    bodies = patient.send_each([b"%d" % n for n in range(5)])
    proxyd.wait_for(calls, queued=4)

    def is_let_in():
        hasty = dial(calls.endpoint)
        try:
            hasty.handshake(b"REQ")
            hasty.send(b"", bytes(MIB))
        except (EOFError, ConnectionError):
            return False
        finally:
            hasty.close()
        return True
    let_in = 0
    while is_let_in():
        let_in += 1
        assert let_in < 100
    proxyd.logged("connection-refused", chain=calls.name, limit="unread")
    late = net.caller(calls)
    late.send(b"late")
    assert late.poll(0.2) is None and patient.drain().answers == {}
    proxyd.control("resume", calls.name)
    assert patient.wait() == {tag: [body] for tag, body in bodies.items()}
    assert late.receive() == [b"late"]
    proxyd.wait_for(calls, accepted=6 + let_in, delivered=6 + let_in, orphaned=let_in)


def test_block_on_publications_keeps_what_fits_and_takes_more_later(net):
    publisher, upstream = net.publisher(), net.rep()
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream,
                     queue={"max_messages": 5, "when_full": "block"})
    proxyd = paused(net, feed)
    publisher.wait_subscribed()
    for number in range(50):
        publisher.publish(b"%d" % number)
    proxyd.wait_for(feed, queued=5)
    holds(lambda: proxyd.chain(feed)["accepted"] <= 6, 0.2)
    proxyd.control("resume", feed.name)
    proxyd.wait_for(feed, accepted=50, delivered=50)
    assert upstream.bodies == [b"%d" % number for number in range(50)]


@pytest.mark.parametrize("when_full, kept", [
    ("drop-oldest", range(15, 20)), ("drop-newest", range(5)), ("reject", range(5))])
def test_a_full_queue_of_publications(net, when_full, kept):
    publisher, upstream = net.publisher(), net.rep()
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream,
                     queue={"max_messages": 5, "when_full": when_full})
    proxyd = paused(net, feed)
    publisher.wait_subscribed()
    for number in range(20):
        publisher.publish(b"%d" % number)
    status = proxyd.wait_for(feed, accepted=20, queued=5)
    assert sum(status["dropped"].values()) + sum(status["failed"].values()) == 15
    proxyd.control("resume", feed.name)
    proxyd.wait_for(feed, delivered=5)
    assert upstream.bodies == [b"%d" % number for number in kept]


def test_in_flight_counts_towards_the_bounds(net):
    upstream = net.wire(swallow)
    calls = net.chain("rep-req", to=upstream, queue={"max_messages": 6},
                      backend={"window": 4, "correlation": "envelope", "timeout": "20s"})
    proxyd = net.proxyd(calls, daemon={"drain_timeout": "50ms"})
    pipeline = net.pipeline(calls)
    pipeline.send_each([b"%d" % n for n in range(10)])
    proxyd.wait_for(calls, accepted=10, inflight=4, queued=2, failed={"queue-full": 4})


@pytest.mark.parametrize("when_full", ["reject", "drop-oldest", "drop-newest", "block"])
def test_a_request_larger_than_the_whole_queue_is_refused_at_once(net, when_full):
    """It could never fit: nobody is dropped or blocked for it."""
    upstream = net.router()
    calls = net.chain("rep-req", to=upstream, queue={"max_bytes": "10KiB", "when_full": when_full})
    proxyd = paused(net, calls)
    pipeline = net.pipeline(calls)
    pipeline.send(b"small")
    proxyd.wait_for(calls, queued=1)
    tag = pipeline.send(bytes(20000))
    pipeline.wait(1)
    assert error_of(pipeline.only_answers()[tag])[0] in (413, 503)
    proxyd.control("resume", calls.name)
    pipeline.wait()
    assert upstream.bodies == [b"small"]


def test_fill_refuse_drain_accept_again(net):
    """As often as you like."""
    calls = net.chain("rep-req", to=net.router(), queue={"max_messages": 20, "max_bytes": "1MiB"})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    for turn in range(5):
        proxyd.control("pause", calls.name)
        proxyd.wait_for(calls, state="paused")
        for _ in range(30):
            pipeline.send(bytes(1000))
        proxyd.wait_for(calls, queued=20, failed__queue_full=lambda _: True, accepted=30 * (turn + 1))
        proxyd.control("resume", calls.name)
        pipeline.wait()
        assert outcomes(pipeline.only_answers()) == {"reply": 20 * (turn + 1), "queue-full": 10 * (turn + 1)}
    assert proxyd.chain(calls)["queue_bytes"] == 0


# ---- limits of one message -------------------------------------------------------------------------------------

@pytest.mark.parametrize("body", [
    [bytes(11000)],                     # one frame over max_message
    [bytes(900)] * 12,                  # frames that each fit
    [b""] * 17,                         # more than max_frames
    [b"x"] * 60,
    [bytes(39000)],                     # close to the end of mercy
], ids=["one-frame", "sum-of-frames", "17-empty-frames", "60-frames", "almost-4x"])
def test_too_large_is_answered_and_the_connection_lives(net, body):
    """Up to four times the limit a caller hears of it."""
    upstream = net.router()
    calls = net.chain("rep-req", to=upstream, frontend={"max_message": "10KiB", "max_frames": 16})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    assert caller.call(bytes(10240), b"") == [bytes(10240), b""]
    assert error_of(caller.call(*body)) == (413, "too-large")
    assert caller.call(*[b""] * 16) == [b""] * 16
    assert len(upstream.log) == 2
    proxyd.wait_for(calls, accepted=3, delivered=2, failed={"too-large": 1})


def test_a_caller_who_reads_no_answers_is_given_no_more(net):
    """Large answers wait in libzmq, whose high-water marks count messages and not bytes. What the caller asks beyond
    that hears queue-full, and was not sent."""
    upstream = net.router(lambda server, request: server.reply(request, bytes(MIB)))
    calls = net.chain("rep-req", to=upstream)
    proxyd = net.proxyd(calls)
    deaf = dial(calls.endpoint).handshake(b"DEALER")
    deaf.write(b"".join(message(b"%d" % n, b"", b"x") for n in range(300)))
    status = proxyd.wait_for(calls, accepted=300, queued=0, inflight=0, seconds=20)
    assert status["failed"] == {"queue-full": 300 - status["delivered"]} and len(upstream.log) == status["delivered"]
    assert 64 <= status["delivered"] < 64 + 16 + 20, "the bound, a window, the kernel's buffers"
    assert SANITIZED or proxyd.rss_bytes(peak=True) < (64 + 2 * 16) * MIB + OVERHEAD
    assert net.caller(calls).call(b"y") == [bytes(MIB)]
    answers = {tag: body for tag, _, body in (deaf.read_message() for _ in range(300))}
    assert len(answers) == 300
    assert outcomes([[body] for body in answers.values()]) == {"reply": status["delivered"], **status["failed"]}
    deaf.send(b"again", b"", b"x")
    assert deaf.read_message() == [b"again", b"", bytes(MIB)]
    deaf.close()


@pytest.mark.parametrize("body", [[bytes(50000)], [bytes(9000)] * 6, [b""] * 70],
                         ids=["one-frame", "sum-of-frames", "70-frames"])
def test_far_too_large_is_cut_and_others_are_served(net, body):
    """Beyond four times a limit nobody is answered."""
    upstream = net.router()
    calls = net.chain("rep-req", to=upstream, frontend={"max_message": "10KiB", "max_frames": 16})
    net.proxyd(calls)
    rude = dial(calls.endpoint).handshake(b"REQ")
    rude.send(b"", *body)
    assert_cut(rude)
    caller = net.caller(calls)
    assert caller.call(b"fine") == [b"fine"]
    assert upstream.bodies == [b"fine"]


def assert_cut(connection):
    """The other side ends the connection, long before it misses the answer to a ping."""
    connection.tcp.settimeout(0.01)

    def is_cut():
        try:
            return connection.tcp.recv(65536) == b""
        except socket.timeout:
            return False
        except ConnectionError:
            return True
    eventually(is_cut, 3, "the connection is cut")


@pytest.mark.parametrize("piece", [60000, 0], ids=["filled-frames", "empty-frames"])
def test_endless_multipart_is_cut_in_bounded_memory(net, piece):
    """(G7) A message that never ends is not kept while it arrives."""
    calls = net.chain("rep-req", to=net.router(), frontend={"max_message": "64KiB"})
    proxyd = net.proxyd(calls)
    before = proxyd.rss_bytes()
    endless = dial(calls.endpoint).handshake(b"DEALER")
    block = frame(bytes(piece), MORE) * (1 if piece else 20000)
    endless.tcp.settimeout(10 * FACTOR)
    endless.write(frame(b"", MORE))
    sent, is_cut = 0, False
    try:
        while sent < 1024 * MIB // (1 if piece else 30):
            endless.write(block)
            sent += len(block)
    except (ConnectionError, socket.timeout):
        is_cut = True
    assert is_cut, f"swallowed {sent} bytes of one message"
    assert SANITIZED or proxyd.rss_bytes(peak=True) < before + 64 * MIB
    assert net.caller(calls).call(b"fine") == [b"fine"]


# ---- memory ----------------------------------------------------------------------------------------------------

OVERHEAD = 24 * MIB  # connections, libzmq's buffers, fragmentation: what stays beside the queue


@pytest.mark.parametrize("when_full", ["reject", "drop-oldest"])
def test_200_callers_of_1_mib_stay_within_the_byte_bound(net, when_full):
    """600 MiB knock at a queue of 32 MiB. While they arrive, libzmq holds the message that each caller is just
    sending and, where the machine is slow, one that the chain is about to refuse; after that, only what is queued
    stays."""
    calls = net.chain("rep-req", to=net.router(), frontend={"max_message": "2MiB"},
                      queue={"max_bytes": "32MiB", "when_full": when_full, "max_age": "60s"})
    proxyd = paused(net, calls)
    callers = [net.pipeline(calls) for _ in range(200)]
    body = os.urandom(MIB)
    for _ in range(3):
        for caller in callers:
            caller.send(body)
    status = proxyd.wait_for(calls, accepted=600, seconds=30)
    assert status["queued"] == 32 and status["queue_bytes"] <= 32 * MIB
    assert sum(status["failed"].values()) + sum(status["dropped"].values()) == 568
    if not SANITIZED:
        eventually(lambda: proxyd.rss_bytes() < 32 * MIB + OVERHEAD, 10, "no more resident than is queued")
        assert proxyd.rss_bytes(peak=True) < (32 + 2 * 200) * MIB + OVERHEAD
    proxyd.control("resume", calls.name)
    answers = [answer for caller in callers for answer in caller.wait(seconds=20).values()]
    assert answers.count([body]) == 32
    assert outcomes([answer for answer in answers if answer != [body]]) == {"queue-full": 568}
    if not SANITIZED:
        eventually(lambda: proxyd.rss_bytes() < OVERHEAD, 10, "memory given back when all are answered")


def test_memory_of_peers_that_have_left_is_given_back(net):
    """Here of answers that they did not read; the chain has long been done with them."""
    calls = net.chain("rep-req", to=net.rep(), queue={"max_messages": 1000})
    proxyd = net.proxyd(calls)
    deaf = [dial(calls.endpoint).handshake(b"DEALER") for _ in range(20)]
    for peer in deaf:
        for _ in range(4):
            peer.send(b"", bytes(900000))
    proxyd.wait_for(calls, accepted=80, queued=0, inflight=0)
    if not SANITIZED:
        holds(lambda: proxyd.rss_bytes() > OVERHEAD, 1.5)
    for peer in deaf:
        peer.close()
    if not SANITIZED:
        eventually(lambda: proxyd.rss_bytes() < OVERHEAD, 10)
