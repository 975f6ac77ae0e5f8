# SPDX-License-Identifier: MIT
"""sub-req: publications become requests, in order (G5), again until they are answered (G6), or dead letters."""
import time

import pytest

from harness import eventually, holds
from peers import echo, swallow

QUICK = {"backoff": "10ms", "backoff_max": "50ms"}


def numbered(count):
    return [b"%d" % number for number in range(count)]


def publish_all(publisher, bodies):
    for body in bodies:
        publisher.publish(body)


@pytest.mark.parametrize("server", ["rep", "router"])
def test_publications_arrive_as_requests_unchanged_in_order_once(net, server):
    publisher, upstream = net.publisher(), getattr(net, server)()
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream, backend={"window": 1, **QUICK})
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed()
    sent = [[b"topic", b"", bytes([n % 256]), b"\xff"] for n in range(200)]
    for frames in sent:
        publisher.publish(*frames)
    proxyd.wait_for(feed, accepted=200, delivered=200, redelivered=0, state="up")
    assert [request.body for request in upstream.log] == sent


@pytest.mark.parametrize("server, backend", [
    ("rep", {"correlation": "envelope", "window": 16}),
    ("rep", {"correlation": "auto", "window": 16}),
    ("router", {"window": 1}),
], ids=["rep-envelope", "rep-auto", "router-window-1"])
def test_order_holds_through_a_backlog(net, server, backend):
    """(G5) 300 messages wait for the upstream to come up; they are executed in the order of arrival."""
    publisher, endpoint = net.publisher(), net.endpoint()
    feed = net.chain("sub-req", at=publisher.endpoint, to=endpoint, backend={**backend, **QUICK})
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed()
    publish_all(publisher, numbered(300))
    proxyd.wait_for(feed, accepted=300, queued=lambda count: count >= 299)
    upstream = getattr(net, server)(endpoint=endpoint)
    proxyd.wait_for(feed, delivered=300, redelivered=0, seconds=8)
    assert upstream.bodies == numbered(300)


def test_a_retry_goes_before_anything_not_yet_sent(net):
    """(G5, G6) One request is swallowed; it comes again, first, once, and is counted."""
    upstream = net.router(lambda server, request: request.number == 3 or echo(server, request))
    publisher = net.publisher()
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream,
                     backend={"window": 1, "timeout": "200ms", **QUICK})
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed()
    publish_all(publisher, numbered(10))
    status = proxyd.wait_for(feed, delivered=10)
    assert upstream.bodies == [b"0", b"1", b"2", b"3", b"3", b"4", b"5", b"6", b"7", b"8", b"9"]
    assert (status["redelivered"], status["retries"], status["recreates"]) == (1, 1, 1)


def test_duplicates_stay_within_the_window_and_are_counted(net):
    """(G6) The connection breaks with a whole window unanswered: no more than those come twice."""
    window, held = 8, []

    def break_once(server, request):
        if len(server.log) > 20 and not server.broken:
            held.append(request)
            if len(held) == window:
                server.broken = True
                request.connection.reset()
        elif not held or server.broken:
            server.reply(request, *request.body)
    publisher, upstream = net.publisher(), net.wire(break_once)
    upstream.broken = False
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream,
                     backend={"window": window, "correlation": "envelope", **QUICK})
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed()
    publish_all(publisher, numbered(100))
    status = proxyd.wait_for(feed, delivered=100)
    bodies = upstream.bodies
    first_attempts = list(dict.fromkeys(bodies))
    assert first_attempts == numbered(100)
    assert 1 <= len(bodies) - 100 <= window
    assert status["redelivered"] == len(bodies) - 100


@pytest.mark.parametrize("upstream_count", [1, 2])
def test_after_a_break_the_unanswered_come_again_one_at_a_time(net, upstream_count):
    """Until one of them succeeds; so a message that kills its server is found out and takes no other with it."""
    publisher = net.publisher()
    outstanding, in_company = set(), []

    def poison(server, request):
        is_deadly, has_company = request.body == [b"5"], b"5" in [each.body[0] for each in list(outstanding)]
        outstanding.add(request)

        def finish():
            outstanding.discard(request)
            if not is_deadly:
                server.reply(request, *request.body)
                return
            in_company.append(len(outstanding) > 0)
            outstanding.difference_update([each for each in list(outstanding) if each.connection is request.connection])
            request.connection.reset()
        if is_deadly or has_company:
            server.later(0.05 if is_deadly else 0.1, finish)
        else:
            finish()
    upstreams = [net.wire(poison) for _ in range(upstream_count)]
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstreams, queue={"max_attempts": 3},
                     backend={"window": 8, "correlation": "envelope", **QUICK})
    proxyd = net.proxyd(feed)
    proxyd.wait_for(feed, state="up")
    publisher.wait_subscribed()
    publish_all(publisher, numbered(30))
    proxyd.wait_for(feed, delivered=29, dead=1, queued=0, inflight=0)
    assert {body for upstream in upstreams for body in upstream.bodies} == set(numbered(30))
    assert in_company == [True, False, False, False], "one failure in company, which does not count, three alone"


def test_max_attempts_makes_a_dead_letter_and_the_rest_flow(net):
    """Head-of-line blocking ends after max_attempts time-outs."""
    publisher = net.publisher()
    upstream = net.router(lambda server, request: request.body == [b"3"] or echo(server, request))
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream, queue={"max_attempts": 2},
                     backend={"window": 1, "timeout": "100ms", **QUICK})
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed()
    publish_all(publisher, numbered(8))
    proxyd.wait_for(feed, accepted=8, delivered=7, dead=1, queued=0, inflight=0)
    assert upstream.bodies == [b"0", b"1", b"2", b"3", b"3", b"4", b"5", b"6", b"7"]


@pytest.mark.parametrize("server", ["absent", "refusing"])
def test_never_having_been_connected_is_no_failed_attempt(net, server):
    publisher, endpoint = net.publisher(), net.endpoint()
    blocker = net.listener(lambda connection: connection.reset(), endpoint) if server == "refusing" else None
    feed = net.chain("sub-req", at=publisher.endpoint, to=endpoint, queue={"max_attempts": 1},
                     backend={"timeout": "50ms", **QUICK})
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed()
    publish_all(publisher, numbered(5))
    proxyd.wait_for(feed, accepted=5, queued=5)
    holds(lambda: proxyd.chain(feed)["dead"] == 0, 0.4)
    if blocker:
        blocker.stop()
    upstream = net.rep(endpoint=endpoint)
    proxyd.wait_for(feed, delivered=5, dead=0, seconds=8)
    assert upstream.bodies == numbered(5)


def test_retries_for_ever_by_default(net):
    publisher, upstream = net.publisher(), net.router(swallow)
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream,
                     backend={"timeout": "50ms", "backoff": "5ms", "backoff_max": "10ms"})
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed().publish(b"again")
    eventually(lambda: len(upstream.log) >= 8)
    assert set(upstream.bodies) == {b"again"}
    upstream.handler = echo
    proxyd.wait_for(feed, delivered=1, dead=0, redelivered=lambda count: count >= 7)


def test_one_in_flight_while_the_peers_type_is_unknown(net):
    """(G5) `auto` does not send a second request before the first reply has shown who answers."""
    publisher, upstream = net.publisher(), net.wire(swallow)
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream, backend={"window": 16, "timeout": "20s"})
    proxyd = net.proxyd(feed, daemon={"drain_timeout": "50ms"})
    publisher.wait_subscribed()
    publish_all(publisher, numbered(50))
    proxyd.wait_for(feed, accepted=50, inflight=1)
    eventually(lambda: upstream.log)
    holds(lambda: len(upstream.log) == 1, 0.2)


def test_max_age_expires_what_waits_too_long(net):
    publisher, endpoint = net.publisher(), net.endpoint()
    feed = net.chain("sub-req", at=publisher.endpoint, to=endpoint, queue={"max_age": "300ms"}, backend=QUICK)
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed()
    publish_all(publisher, numbered(5))
    proxyd.wait_for(feed, accepted=5, expired=5, queued=0)
    upstream = net.rep(endpoint=endpoint)
    proxyd.wait_for(feed, state="up", seconds=7)
    publisher.publish(b"fresh")
    proxyd.wait_for(feed, delivered=1)
    assert upstream.bodies == [b"fresh"]


# ---- subscribing -----------------------------------------------------------------------------------------------

def test_subscribes_to_prefixes_only(net):
    publisher, upstream = net.publisher(), net.rep()
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream,
                     frontend={"subscribe": ["weather", "sport."]})
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed(b"weather").wait_subscribed(b"sport.")
    publish_all(publisher, [b"news", b"weather", b"sport", b"weather.local", b"sport.tennis", b"Weather"])
    proxyd.wait_for(feed, delivered=3)
    assert upstream.bodies == [b"weather", b"weather.local", b"sport.tennis"]


def test_several_publishers_and_one_that_is_away(net):
    publishers, away, upstream = [net.publisher(), net.publisher()], net.endpoint(), net.rep()
    feed = net.chain("sub-req", at=[*publishers, away], to=upstream,
                     frontend={"backoff": "20ms", "backoff_max": "100ms"})
    proxyd = net.proxyd(feed)
    for number, publisher in enumerate(publishers):
        publisher.wait_subscribed().publish(b"from %d" % number)
    proxyd.wait_for(feed, delivered=2, state="degraded")
    publishers[0].stop()
    publishers[1].publish(b"still")
    proxyd.wait_for(feed, delivered=3)
    publishers[0].start().wait_subscribed(seconds=7).publish(b"back")
    net.publisher(away).wait_subscribed(seconds=7).publish(b"at last")
    proxyd.wait_for(feed, delivered=5, state="up")
    assert sorted(upstream.bodies) == [b"at last", b"back", b"from 0", b"from 1", b"still"]


def test_publishers_may_connect_to_it(net):
    """`@` makes the frontend bind, as for a fleet that pushes to one place."""
    upstream = net.rep()
    feed = net.chain("sub-req", at="@" + net.endpoint(), to=upstream)
    proxyd = net.proxyd(feed)
    publishers = [net.publisher(feed.endpoint, bind=False) for _ in range(3)]
    for number, publisher in enumerate(publishers):
        publisher.wait_subscribed().publish(b"%d" % number)
    proxyd.wait_for(feed, delivered=3)
    assert sorted(upstream.bodies) == [b"0", b"1", b"2"]


def test_a_publication_too_large_is_counted_and_not_delivered(net):
    publisher, upstream = net.publisher(), net.rep()
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream,
                     frontend={"max_message": "1KiB", "max_frames": 4})
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed()
    publisher.publish(bytes(2000))
    publisher.publish(*[b"f"] * 5)
    publisher.publish(b"fits")
    proxyd.wait_for(feed, accepted=3, delivered=1, failed={"too-large": 2})
    assert upstream.bodies == [b"fits"]


def test_an_upstream_killed_and_restarted_gets_everything_in_order(net):
    publisher, upstream = net.publisher(), net.process(delay_s=0.002)
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream, backend={"timeout": "1s", **QUICK})
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed()
    publish_all(publisher, numbered(400))
    for limit in (50, 150):
        eventually(lambda limit=limit: len(set(upstream.bodies)) > limit)
        upstream.kill()
        upstream.start()
    status = proxyd.wait_for(feed, delivered=400, seconds=15)
    bodies = upstream.bodies
    assert list(dict.fromkeys(bodies)) == numbered(400)
    assert len(bodies) - 400 <= status["redelivered"] <= 2 * 16


def test_a_silent_wait_is_bounded_by_the_timeout(net):
    """A message is never stuck behind an upstream that accepts and says nothing."""
    publisher = net.publisher()
    mute, good = net.router(swallow), net.rep()
    feed = net.chain("sub-req", at=publisher.endpoint, to=[mute, good],
                     backend={"timeout": "100ms", "window": 1, **QUICK})
    proxyd = net.proxyd(feed)
    proxyd.wait_for(feed, state="up")
    publisher.wait_subscribed()
    began = time.monotonic()
    publish_all(publisher, numbered(5))
    proxyd.wait_for(feed, delivered=5, seconds=8)
    assert set(good.bodies) == set(numbered(5))
    assert time.monotonic() - began < 8
