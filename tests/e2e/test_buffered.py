# SPDX-License-Identifier: MIT
"""buffered-rep-req, and sub-req with a queue on disk: an ack means stored, and what is stored is delivered in order,
at least once, or ends where the configuration or an operator says (G4-G6)."""
import json
import re
import subprocess
import time

import pytest

from harness import FACTOR, eventually, holds, proxyctl
from peers import echo, outcomes, swallow

QUICK = {"backoff": "10ms", "backoff_max": "50ms"}
ACK = re.compile(rb"accepted (queued|written|synced) ([!-~]{1,64})")


def numbered(count, start=0):
    return [b"%d" % number for number in range(start, start + count)]


def ack_of(answer):
    """(level, ticket) of an answer, which must be one frame and an ack."""
    match = ACK.fullmatch(answer[0]) if len(answer) == 1 else None
    assert match, answer
    return match[1].decode(), match[2]


def buffered(net, to, name="calls", backend=(), queue=(), **options):
    return net.chain("buffered-rep-req", to=to, name=name, backend={**QUICK, **dict(backend)}, queue=dict(queue), **options)


def store_all(net, chain, bodies):
    """Calls with all of them at once; returns their tickets, in order. Every one must be acked."""
    pipeline = net.pipeline(chain)
    tags = pipeline.send_each(bodies)
    answers = pipeline.wait()
    return [ack_of(answers[tag])[1] for tag in tags]


def ctl(proxyd, *words, expect=0):
    result = proxyctl("-c", proxyd.config_path, *words)
    assert result.returncode == expect, result.stdout + result.stderr
    return result.stdout


def ctl_json(proxyd, *words):
    return json.loads(ctl(proxyd, "--json", *words))


def restart(proxyd):
    proxyd.stop()
    return proxyd.start()


# ---- the ack, and what follows -----------------------------------------------------------------------------------

def test_calls_are_acked_as_synced_while_the_upstream_is_away_and_arrive_when_it_is_back(net):
    calls = buffered(net, net.endpoint(), backend={"window": 1})
    proxyd = net.proxyd(calls)
    bodies = [[b"first", b"", b"\x00\xff" * 100], *([body] for body in numbered(99))]
    pipeline = net.pipeline(calls)
    for body in bodies:
        pipeline.send(*body)
    acks = [ack_of(answer) for answer in pipeline.wait().values()]
    assert {level for level, _ in acks} == {"synced"} and len({ticket for _, ticket in acks}) == 100
    proxyd.wait_for(calls, accepted=100, queued=100, state="down")
    upstream = net.router(endpoint=calls.to[0])
    proxyd.wait_for(calls, delivered=100, queued=0, inflight=0, redelivered=0, state="up")
    assert [request.body for request in upstream.log] == bodies


@pytest.mark.parametrize("server, backend", [
    ("rep", {"correlation": "envelope", "window": 16}),
    ("rep", {"correlation": "auto", "window": 16}),
    ("router", {"window": 1}),
], ids=["rep-envelope", "rep-auto", "router-window-1"])
def test_order_holds_through_a_backlog_and_a_restart(net, server, backend):
    """(G5) One half is stored by one run, the other by the next; all are executed in the order of arrival."""
    calls = buffered(net, net.endpoint(), backend=backend)
    proxyd = net.proxyd(calls)
    store_all(net, calls, numbered(300))
    restart(proxyd)
    store_all(net, calls, numbered(300, 300))
    assert proxyd.chain(calls)["restored"] == 300
    upstream = getattr(net, server)(endpoint=calls.to[0])
    proxyd.wait_for(calls, delivered=600, accepted=600, redelivered=0, seconds=8)
    assert upstream.bodies == numbered(600)


def test_in_flight_are_never_more_than_the_window(net):
    upstream = net.router(lambda server, request: request.number == 0 and echo(server, request))
    calls = buffered(net, upstream, backend={"window": 4, "correlation": "envelope", "timeout": "60s"})
    proxyd = net.proxyd(calls)
    store_all(net, calls, numbered(50))
    proxyd.wait_for(calls, inflight=4, queued=45, delivered=1)
    eventually(lambda: len(upstream.log) >= 5)
    holds(lambda: len(upstream.log) == 5, 0.3, "four unanswered requests at the server")
    assert upstream.bodies == numbered(5)


def test_a_call_is_sent_again_until_it_is_answered(net):
    upstream = net.router(lambda server, request: request.number >= 3 and echo(server, request))
    calls = buffered(net, upstream, backend={"window": 1, "timeout": "60ms"})
    proxyd = net.proxyd(calls)
    store_all(net, calls, numbered(5))
    status = proxyd.wait_for(calls, delivered=5, dead=0)
    assert upstream.bodies == [b"0", b"0", b"0", *numbered(5)]
    assert (status["redelivered"], status["retries"]) == (3, 3)


def test_a_poisoned_message_becomes_one_dead_letter_and_takes_no_other_with_it(net):
    """At position 37 of 100: the server breaks whenever it comes. One failure alone is enough here, and those that broke
    with it in company are none. It is listed after a restart, and retried by hand."""
    def poison(server, request):
        if request.body == [b"37"] and not server.is_cured:
            request.connection.reset()
        else:
            server.reply(request, *request.body)
    upstream = net.wire(poison)
    upstream.is_cured = False
    calls = buffered(net, upstream, backend={"window": 8, "correlation": "envelope"}, queue={"max_attempts": 1})
    proxyd = net.proxyd(calls)
    store_all(net, calls, numbered(100))
    proxyd.wait_for(calls, delivered=99, dead=1, queued=0, inflight=0)
    (letter,) = ctl_json(proxyd, "dead", "calls", "list")["messages"]
    assert (letter["attempts"], letter["state"], letter["reason"]) == (1, "dead", "lost")
    restart(proxyd)
    proxyd.wait_for(calls, accepted=1, restored=1, dead=1, queued=0)
    assert ctl_json(proxyd, "dead", "calls", "list")["messages"][0]["id"] == letter["id"]
    upstream.is_cured = True
    assert ctl(proxyd, "dead", "calls", "retry", letter["id"]) == "queued again: 1 of 1\n"
    proxyd.wait_for(calls, delivered=1, dead=0, accepted=1, redelivered=1)
    assert sorted(set(upstream.bodies), key=int) == numbered(100) and upstream.bodies[-1] == b"37"


def test_calls_that_a_server_takes_down_with_it_are_no_dead_letters(net):
    """Each has a connection of its own. They break one by one, and the last one was in company, too."""
    upstream = net.wire(lambda server, request: echo(server, request) if request.body == [b"first"] else None,
                        socket_type=b"ROUTER")
    calls = buffered(net, upstream, backend={"window": 4}, queue={"max_attempts": 1})
    proxyd = net.proxyd(calls)
    store_all(net, calls, [b"first"])
    proxyd.wait_for(calls, delivered=1)
    store_all(net, calls, numbered(4))
    eventually(lambda: len(upstream.log) == 5)
    upstream.handler = echo
    for count, request in enumerate(upstream.log[1:5], 1):
        request.connection.reset()
        proxyd.wait_for(calls, retries=count)
    proxyd.wait_for(calls, delivered=5, dead=0)


def test_an_upstream_that_cannot_be_reached_is_not_the_messages_fault(net):
    """With max_attempts 1, dozens of refused connections make no dead letter."""
    refusals = []
    listener = net.listener(lambda connection: (refusals.append(1), connection.close()))
    calls = buffered(net, listener, queue={"max_attempts": 1}, backend={"backoff_max": "10ms"})
    proxyd = net.proxyd(calls)
    store_all(net, calls, numbered(3))
    eventually(lambda: len(refusals) > 20, what="connections that break in the handshake")
    proxyd.wait_for(calls, queued=3, dead=0)
    listener.close()
    net.router(endpoint=listener.endpoint)
    proxyd.wait_for(calls, delivered=3, dead=0)


@pytest.mark.parametrize("end", ["in flight", "between two attempts"])
def test_what_was_sent_before_a_restart_counts_as_redelivered_after_it(net, end):
    timeout = "60s" if end == "in flight" else "100ms"
    upstream = net.router(swallow)
    calls = buffered(net, upstream, backend={"timeout": timeout, "backoff": "60s", "backoff_max": "60s"})
    proxyd = net.proxyd(calls)
    store_all(net, calls, [b"x"])
    proxyd.wait_for(calls, **{"inflight": 1} if end == "in flight" else {"queued": 1, "retries": 1})
    eventually(lambda: upstream.log)
    upstream.handler = echo
    restart(proxyd)
    proxyd.wait_for(calls, accepted=1, delivered=1, redelivered=1)
    assert upstream.bodies == [b"x", b"x"]


# ---- limits of time and number -----------------------------------------------------------------------------------

def test_max_age_counts_on_through_a_restart(net):
    calls = buffered(net, net.endpoint(), queue={"max_age": "1s"})
    proxyd = net.proxyd(calls)
    began = time.monotonic()
    store_all(net, calls, numbered(3))
    holds(lambda: proxyd.chain(calls)["queued"] == 3, 0.5, "nothing expires early")
    restart(proxyd)
    proxyd.wait_for(calls, accepted=3, expired=3, queued=0)
    assert 0.9 <= time.monotonic() - began < 1.4 * FACTOR
    restart(proxyd)
    assert proxyd.chain(calls)["accepted"] == 0


def test_a_patient_chain_gives_the_reply_where_it_comes_in_time_and_the_ack_where_not(net):
    def slow(server, request):
        server.later(1.0 if request.body == [b"slow"] else 0, lambda: echo(server, request))
    upstream = net.router(slow)
    calls = buffered(net, upstream, queue={"patience": "300ms"}, backend={"window": 1})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    assert caller.call(b"quick", b"two") == [b"quick", b"two"]
    began = time.monotonic()
    assert ack_of(caller.call(b"slow"))[0] == "synced"
    assert 0.28 <= time.monotonic() - began < 0.3 + 0.3 * FACTOR
    proxyd.wait_for(calls, delivered=2, orphaned=0)
    assert caller.poll(0.1) is None, "a second answer"
    restart(proxyd)
    assert proxyd.chain(calls)["restored"] == 0


def test_a_patient_caller_whose_call_becomes_a_dead_letter_gets_the_ack(net):
    calls = buffered(net, net.router(swallow), backend={"timeout": "100ms"}, queue={"patience": "60s", "max_attempts": 1})
    proxyd = net.proxyd(calls)
    assert ack_of(net.caller(calls).call(b"poison"))[0] == "synced"
    proxyd.wait_for(calls, dead=1, queued=0, inflight=0)


def test_a_patient_caller_whose_call_was_sent_and_dropped_hears_that_nobody_knows(net):
    upstream = net.router(swallow)
    calls = buffered(net, upstream, backend={"timeout": "50ms", "backoff": "60s", "backoff_max": "60s"},
                     queue={"patience": "60s"})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    caller.send(b"sent")
    proxyd.wait_for(calls, retries=1, queued=1, inflight=0)
    ctl(proxyd, "queue", calls.name, "drop", "all")
    assert caller.receive() == [b"error 504 lost"]
    assert upstream.bodies == [b"sent"]


@pytest.mark.parametrize("store", ["memory", "disk"])
def test_a_request_that_ended_unsent_is_taken_when_it_comes_again(net, store):
    calls = buffered(net, net.endpoint(), queue={"store": store, "dedupe": "60s", "patience": "60s", "max_messages": 2,
                                                 "when_full": "drop-oldest"})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    pipeline.send_each(numbered(3))
    assert outcomes(pipeline.wait(1)) == {"queue-full": 1}
    pipeline.send(b"0")
    assert outcomes(pipeline.wait(2)) == {"queue-full": 2}
    if store == "disk":
        restart(proxyd)
        pipeline.send(b"1")
        proxyd.wait_for(calls, dropped__oldest=1)
    upstream = net.rep(endpoint=calls.to[0])
    proxyd.wait_for(calls, queued=0, inflight=0)
    assert upstream.bodies == ([b"0", b"1"] if store == "disk" else [b"2", b"0"])


def test_a_request_that_expired_unsent_is_taken_when_it_comes_again(net):
    calls = buffered(net, net.endpoint(), queue={"dedupe": "60s", "patience": "60s", "max_age": "500ms"})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    assert caller.call(b"same") == [b"error 502 unavailable"]
    proxyd.kill()
    proxyd.start()
    net.rep(endpoint=calls.to[0])
    assert net.caller(calls).call(b"same") == [b"same"]


def test_a_request_that_an_operator_dropped_is_taken_when_it_comes_again(net):
    """Whether it was in memory or, behind a thousand others, on disk only."""
    calls = buffered(net, net.endpoint(), queue={"dedupe": "60s"})
    proxyd = net.proxyd(calls)
    ids = [int(ticket[:16], 16) for ticket in store_all(net, calls, numbered(2000))]
    assert ctl(proxyd, "queue", "calls", "drop", ids[0], ids[-1], ids[-2]) == "dropped: 3 of 3\n"
    store_all(net, calls, [b"0", b"1999", b"1"])
    proxyd.wait_for(calls, queued=1999, dropped={"operator": 3, "duplicate": 1})
    restart(proxyd)
    store_all(net, calls, [b"1998", b"1999"])
    proxyd.wait_for(calls, queued=2000, dropped={"duplicate": 1})


def test_identical_requests_of_one_caller_get_the_first_ones_ticket(net):
    calls = buffered(net, net.endpoint(), queue={"dedupe": "60s"})
    proxyd = net.proxyd(calls)
    tickets = store_all(net, calls, [b"same"] * 20 + [b"other"])
    assert len(set(tickets[:20])) == 1 and tickets[20] != tickets[0]
    assert store_all(net, calls, [b"same"]) == tickets[:1]
    proxyd.wait_for(calls, accepted=22, queued=2, dropped__duplicate=20)
    upstream = net.rep(endpoint=calls.to[0])
    proxyd.wait_for(calls, delivered=2)
    assert upstream.bodies == [b"same", b"other"]
    assert store_all(net, calls, [b"same"]) == tickets[:1], "remembered after it was delivered"
    proxyd.kill()
    proxyd.start()
    assert store_all(net, calls, [b"same", b"other"]) == [tickets[0], tickets[20]], "and after a kill"
    proxyd.wait_for(calls, queued=0, inflight=0, dropped__duplicate=2)
    restart(proxyd)
    assert store_all(net, calls, [b"same", b"new"])[0] == tickets[0]
    proxyd.wait_for(calls, accepted=2, delivered=1, dropped__duplicate=1)
    assert list(dict.fromkeys(upstream.bodies)) == [b"same", b"other", b"new"], "delivered again is not accepted again"


def test_the_same_request_counts_as_new_when_the_window_is_over(net):
    calls = buffered(net, net.endpoint(), queue={"dedupe": "100ms"})
    proxyd = net.proxyd(calls)
    (first,) = store_all(net, calls, [b"same"])
    eventually(lambda: store_all(net, calls, [b"same"]) != [first], what="a ticket of its own")
    proxyd.wait_for(calls, queued=2)


def test_a_backlog_drains_at_the_drain_rate(net):
    calls = buffered(net, net.endpoint(), queue={"drain_rate": 100})
    proxyd = net.proxyd(calls)
    store_all(net, calls, numbered(120))
    upstream = net.router(endpoint=calls.to[0])
    proxyd.wait_for(calls, delivered=120)
    took_s = upstream.log[-1].at - upstream.log[0].at
    assert 1.0 <= took_s < 1.5 * FACTOR, took_s


FULL = {"max_messages": 10}


def test_a_full_queue_on_disk_rejects(net):
    calls = buffered(net, net.endpoint(), queue={**FULL, "when_full": "reject"})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    pipeline.send_each(numbered(30))
    assert outcomes(pipeline.wait()) == {"reply": 10, "queue-full": 20}
    restart(proxyd)
    assert net.caller(calls).call(b"x") == [b"error 503 queue-full"]
    upstream = net.rep(endpoint=calls.to[0])
    proxyd.wait_for(calls, delivered=10)
    assert upstream.bodies == numbered(10)


def test_a_full_queue_on_disk_drops_the_oldest(net):
    calls = buffered(net, net.endpoint(), queue={**FULL, "when_full": "drop-oldest"})
    proxyd = net.proxyd(calls)
    for body in numbered(30):
        store_all(net, calls, [body])
    proxyd.wait_for(calls, queued=10, dropped__oldest=20)
    restart(proxyd)
    upstream = net.rep(endpoint=calls.to[0])
    proxyd.wait_for(calls, delivered=10, accepted=10)
    assert upstream.bodies == numbered(10, 20)


@pytest.mark.parametrize("room, count", [(10, 300), (2500, 4000)], ids=["on-its-way", "beyond-memory"])
def test_a_burst_into_a_full_queue_on_disk_drops_the_oldest_of_it(net, room, count):
    """Also where the oldest is still on its way to the medium, or there only."""
    calls = buffered(net, net.endpoint(), backend={"window": 64}, queue={"max_messages": room, "when_full": "drop-oldest"})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    pipeline.send_each(numbered(count))
    pipeline.wait(count, seconds=30)
    proxyd.wait_for(calls, queued=room, dropped={"oldest": count - room})
    upstream = net.rep(endpoint=calls.to[0])
    proxyd.wait_for(calls, delivered=room, seconds=30)
    assert upstream.bodies == numbered(room, count - room)


def test_a_full_queue_on_disk_lets_callers_wait(net):
    calls = buffered(net, net.endpoint(), queue={**FULL, "when_full": "block"})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    pipeline.send_each(numbered(200))
    pipeline.wait(10)
    holds(lambda: len(pipeline.drain().answers) == 10, 0.2, "ten acks")
    upstream = net.rep(endpoint=calls.to[0])
    assert outcomes(pipeline.wait()) == {"reply": 200}
    proxyd.wait_for(calls, delivered=200)
    assert upstream.bodies == numbered(200)


@pytest.mark.parametrize("queue, level, kept", [
    ({"store": "memory"}, "queued", 0),
    ({"sync": "100ms"}, "written", 20),
    ({"sync": "always"}, "synced", 20),
])
def test_the_ack_says_what_it_stands_for(net, queue, level, kept):
    calls = buffered(net, net.endpoint(), queue=queue)
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    pipeline.send_each(numbered(20))
    assert {ack_of(answer)[0] for answer in pipeline.wait().values()} == {level}
    proxyd.kill()
    proxyd.start()
    assert proxyd.chain(calls)["restored"] == kept


# ---- sub-req on disk ---------------------------------------------------------------------------------------------

def test_publications_on_disk_survive_a_kill(net):
    publisher = net.publisher()
    feed = net.chain("sub-req", at=publisher, to=net.endpoint(), backend={"window": 1, **QUICK}, queue={"store": "disk"})
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed()
    for body in numbered(200):
        publisher.publish(body)
    proxyd.wait_for(feed, accepted=200, queued=200)
    eventually(lambda: proxyd.control("status")["store"]["messages"] == 200, what="all of them committed")
    proxyd.kill()
    proxyd.start()
    proxyd.wait_for(feed, accepted=200, restored=200)
    upstream = net.router(endpoint=feed.to[0])
    proxyd.wait_for(feed, delivered=200)
    assert upstream.bodies == numbered(200)


def test_chains_share_one_store_and_keep_their_own_messages(net):
    chains = [buffered(net, net.endpoint(), name=f"calls-{n}") for n in range(3)]
    proxyd = net.proxyd(*chains)
    for n, chain in enumerate(chains):
        store_all(net, chain, numbered(10, 100 * n))
    proxyd.kill()
    proxyd.start()
    for n, chain in enumerate(chains):
        upstream = net.rep(endpoint=chain.to[0])
        proxyd.wait_for(chain, restored=10, delivered=10)
        assert upstream.bodies == numbered(10, 100 * n)


# ---- operating a queue -------------------------------------------------------------------------------------------

def test_a_chain_renamed_between_runs_leaves_its_messages_in_the_store_and_says_so(net):
    old, new = (buffered(net, net.endpoint(), name=name) for name in ("old", "new"))
    proxyd = net.proxyd(old)
    store_all(net, old, numbered(3))
    proxyd.stop()
    proxyd.write((new,))
    proxyd.start()
    assert proxyd.events("queue-kept", chain="old", messages=3, dead=0)
    assert proxyd.chain(new)["queued"] == 0
    proxyd.stop()
    proxyd.write((old, new))
    proxyd.start()
    assert proxyd.chain(old)["restored"] == 3
    assert len(proxyd.events("queue-kept")) == 1


def test_proxyctl_lists_shows_drops_and_exports_what_is_queued(net, tmp_path):
    calls = buffered(net, net.endpoint())
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    pipeline.send(b"\x00\xff", b"")
    for body in numbered(24):
        pipeline.send(body)
    pipeline.wait()
    page = ctl_json(proxyd, "queue", "calls", "list")
    assert len(page["messages"]) == 20 and {entry["state"] for entry in page["messages"]} == {"queued"}
    rest = ctl_json(proxyd, "queue", "calls", "list", page["next"])
    assert ctl_json(proxyd, "queue", "calls", "list", "0")["next"] == page["next"]
    assert len(rest["messages"]) == 5 and rest["next"] is None
    ids = [entry["id"] for entry in page["messages"] + rest["messages"]]
    assert ids == sorted(ids, key=int) and len(set(ids)) == 25
    assert ctl_json(proxyd, "queue", "calls", "peek", ids[0])["frames"] == ["AP8=", ""]
    assert ctl(proxyd, "queue", "calls", "peek", ids[3]) == "2\n"
    ctl(proxyd, "queue", "calls", "export", tmp_path / "all.jsonl")
    assert (tmp_path / "all.jsonl").stat().st_mode & 0o777 == 0o600
    exported = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [entry["id"] for entry in exported] == ids and exported[0]["frames"] == ["AP8=", ""]
    for words in ("peek", "0"), ("drop", ids[1], "x", ids[2]), ("drop", ids[1], "all"), ("list", "-1"):
        done = proxyctl("-s", proxyd.control_endpoint, "queue", "calls", *words)
        assert done.returncode == 2 and done.stdout == ""
    assert '"all" is not the id of a message' in proxyctl("-s", proxyd.control_endpoint, "dead", "calls", "retry", "1", "all").stderr
    assert ctl(proxyd, "queue", "calls", "drop", ids[1], ids[24]) == "dropped: 2 of 2\n"
    assert ctl(proxyd, "queue", "calls", "drop", ids[1], expect=1) == "dropped: 0 of 1\n"
    proxyd.wait_for(calls, queued=23, dropped__operator=2)
    upstream = net.rep(endpoint=calls.to[0])
    proxyd.wait_for(calls, delivered=23)
    assert upstream.bodies == [(b"\x00\xff", b""), *numbered(22, 1)]


def test_what_proxyctl_dropped_does_not_come_back_with_a_kill(net):
    calls = buffered(net, net.endpoint())
    proxyd = net.proxyd(calls)
    store_all(net, calls, numbered(3))
    assert ctl(proxyd, "queue", "calls", "drop", "all") == "dropped: 3 of 3\n"
    proxyd.kill()
    proxyd.start()
    proxyd.wait_for(calls, accepted=0, restored=0)


def test_proxyctl_drops_everything_that_is_queued(net):
    calls = buffered(net, net.endpoint())
    proxyd = net.proxyd(calls)
    store_all(net, calls, numbered(250))
    assert ctl(proxyd, "queue", "calls", "drop", "all") == "dropped: 250 of 250\n"
    proxyd.wait_for(calls, queued=0, dropped__operator=250)


def test_proxyctl_drops_and_retries_dead_letters(net):
    upstream = net.router(swallow)
    calls = buffered(net, upstream, backend={"window": 1, "timeout": "30ms"}, queue={"max_attempts": 1})
    proxyd = net.proxyd(calls)
    store_all(net, calls, numbered(5))
    proxyd.wait_for(calls, dead=5)
    letters = ctl_json(proxyd, "dead", "calls", "list")["messages"]
    assert [letter["reason"] for letter in letters] == ["timeout"] * 5
    assert ctl(proxyd, "dead", "calls", "drop", letters[0]["id"]) == "dropped: 1 of 1\n"
    proxyd.wait_for(calls, dead=4, dropped__operator=1)
    upstream.handler = echo
    assert ctl(proxyd, "dead", "calls", "retry", "all") == "queued again: 4 of 4\n"
    proxyd.wait_for(calls, dead=0, delivered=4)
    assert upstream.bodies == [*numbered(5), *numbered(4, 1)]
    assert ctl(proxyd, "dead", "calls", "retry", "all") == "queued again: 0 of 0\n"


# ---- whose store it is -------------------------------------------------------------------------------------------

def test_a_second_daemon_on_the_same_state_dir_is_refused(net):
    calls = buffered(net, net.endpoint())
    first = net.proxyd(calls)
    state_dir = str(first.scratch / "state")
    second = net.prepare(buffered(net, net.endpoint(), name="others"), daemon={"state_dir": state_dir})
    second.start(ready=False)
    second.expect_exit(1)
    assert state_dir in second.log
    store_all(net, calls, numbered(3))
    first.kill()
    second.start()  # the lock ends with its holder


def foreign_database(path):
    subprocess.run(["/usr/bin/python3", "-c", "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); "
                    "d.execute('CREATE TABLE diary (day TEXT)'); d.commit()", path], check=True)


def newer_database(path):
    subprocess.run(["/usr/bin/python3", "-c", "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); "
                    "d.executescript('CREATE TABLE later (id); PRAGMA user_version = 1000')", path], check=True)


@pytest.mark.parametrize("change", [foreign_database, newer_database])
def test_a_database_that_is_newer_or_not_ours_is_left_alone(net, change):
    proxyd = net.proxyd(buffered(net, net.endpoint()))
    proxyd.stop()
    database = proxyd.scratch / "state" / "store.db"
    if change is foreign_database:
        database.unlink()
        (database.parent / "store.mark").unlink()  # else the mark knows better
    change(database)
    before = database.read_bytes()
    proxyd.start(ready=False)
    proxyd.expect_exit(1)
    assert database.read_bytes() == before and str(database) in proxyd.log
