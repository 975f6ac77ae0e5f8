# SPDX-License-Identifier: MIT
"""Tickets: what a caller hears of its buffered call afterwards, for how long, and that nobody else hears it."""
import pytest

from endure import worse
from harness import SANITIZED, eventually
from peers import echo, swallow
from test_buffered import buffered, ctl, ctl_json, restart, store_all
from zmtp import dial, message


def with_tickets(net, to, at=None, **options):
    """A buffered chain with a `tickets` endpoint, and that endpoint."""
    at = at or net.endpoint()
    return buffered(net, to, frontend={"tickets": [at]}, **options), at


class Asker:
    """A REQ at a tickets endpoint."""

    def __init__(self, net, endpoint):
        self._caller = net.caller(endpoint)

    def ask(self, *frames):
        return self._caller.call(*frames)

    def wait(self, ticket, answer):
        """Until the answer is this one."""
        eventually(lambda: self.ask(ticket) == answer, what=f"{answer} for a ticket, last {self.ask(ticket)}")


def test_a_ticket_is_pending_then_done_with_the_whole_reply(net):
    calls, at = with_tickets(net, net.endpoint())
    proxyd = net.proxyd(calls)
    asker = Asker(net, at)
    (ticket,) = store_all(net, calls, [b"question"])
    assert asker.ask(ticket) == [b"pending"]
    net.rep(lambda server, request: server.reply(request, b"answer", b"", b"\x00\xff"), endpoint=calls.to[0])
    proxyd.wait_for(calls, delivered=1)
    assert asker.ask(ticket) == [b"done", b"answer", b"", b"\x00\xff"]
    assert asker.ask(ticket) == [b"done", b"answer", b"", b"\x00\xff"], "asking takes nothing away"
    assert ctl_json(proxyd, "ticket", "calls", ticket.decode()) == {"state": "done", "frames": ["YW5zd2Vy", "", "AP8="]}
    assert proxyd.chain(calls)["accepted"] == 1, "a query is not a message"


@pytest.mark.parametrize("end", ["restart", "kill"])
def test_replies_and_tickets_outlive_the_daemon(net, end):
    upstream = net.rep()
    calls, at = with_tickets(net, upstream)
    proxyd = net.proxyd(calls)
    done = store_all(net, calls, [b"a", b"b"])
    proxyd.wait_for(calls, delivered=2)
    upstream.stop()
    pending = store_all(net, calls, [b"c"])  # its commit takes the replies with it
    if end == "kill":
        proxyd.kill()
        proxyd.start()
    else:
        restart(proxyd)
    asker = Asker(net, at)
    assert [asker.ask(ticket) for ticket in done] == [[b"done", b"a"], [b"done", b"b"]]
    assert asker.ask(*pending) == [b"pending"]
    upstream.start()
    asker.wait(pending[0], [b"done", b"c"])


def test_a_dead_letters_ticket_says_why(net):
    upstream = net.router(swallow)
    calls, at = with_tickets(net, upstream, backend={"timeout": "30ms"}, queue={"max_attempts": 2})
    proxyd = net.proxyd(calls)
    (ticket,) = store_all(net, calls, [b"x"])
    proxyd.wait_for(calls, dead=1)
    asker = Asker(net, at)
    assert asker.ask(ticket) == [b"dead", b"timeout"]
    assert ctl(proxyd, "ticket", "calls", ticket.decode()) == "dead timeout\n"
    upstream.handler = echo
    ctl(proxyd, "dead", "calls", "retry", "all")
    asker.wait(ticket, [b"done", b"x"])


def test_a_reply_is_kept_for_keep_replies_and_remembered_as_expired_as_long_again(net):
    calls, at = with_tickets(net, net.rep(), queue={"keep_replies": "400ms"})
    net.proxyd(calls)
    (ticket,) = store_all(net, calls, [b"x"])
    asker = Asker(net, at)
    asker.wait(ticket, [b"done", b"x"])
    asker.wait(ticket, [b"expired"])
    asker.wait(ticket, [b"unknown"])


def test_the_ticket_of_a_request_that_grew_too_old_is_expired(net):
    calls, at = with_tickets(net, net.endpoint(), queue={"max_age": "200ms", "keep_replies": "1s"})
    proxyd = net.proxyd(calls)
    asker = Asker(net, at)
    (ticket,) = store_all(net, calls, [b"question"])
    proxyd.wait_for(calls, expired=1, queued=0)
    assert asker.ask(ticket) == [b"expired"]
    restart(proxyd)
    assert asker.ask(ticket) == [b"expired"]
    asker.wait(ticket, [b"unknown"])


def test_the_ticket_of_a_request_that_was_sent_and_grew_too_old_is_expired(net):
    calls, at = with_tickets(net, net.rep(swallow), queue={"max_age": "300ms"})
    proxyd = net.proxyd(calls)
    (ticket,) = store_all(net, calls, [b"question"])
    proxyd.wait_for(calls, failed={"timeout": 1}, inflight=0)
    assert Asker(net, at).ask(ticket) == [b"expired"]


def test_what_is_no_ticket_is_unknown(net):
    upstream = net.rep()
    calls, at = with_tickets(net, upstream)
    others, at_others = with_tickets(net, upstream, name="others")
    proxyd = net.proxyd(calls, others)
    asker = Asker(net, at)
    (ticket,) = store_all(net, calls, [b"x"])
    asker.wait(ticket, [b"done", b"x"])
    flipped = [ticket[:n] + bytes([ticket[n] ^ 1]) + ticket[n + 1:] for n in range(len(ticket))]
    for wrong in (b"", b"x", b"0" * 48, b"\x00\xff" * 24, ticket[:-1], ticket + b"0", ticket * 50, *flipped):
        assert asker.ask(wrong) == [b"unknown"], wrong
    assert asker.ask(ticket, b"and more") == [b"unknown"]
    assert Asker(net, at_others).ask(ticket) == [b"unknown"], "of another chain"
    assert ctl(proxyd, "ticket", "calls", "nonsense") == "unknown\n"


def test_without_a_tickets_endpoint_no_replies_are_kept(net):
    calls = buffered(net, net.rep())
    proxyd = net.proxyd(calls)
    (ticket,) = store_all(net, calls, [b"x"])
    proxyd.wait_for(calls, delivered=1)
    eventually(lambda: ctl(proxyd, "ticket", "calls", ticket.decode()) == "unknown\n")


def test_kept_replies_give_way_to_requests_oldest_first(net):
    """They count towards max_bytes: ten replies fit, then requests take their room."""
    upstream = net.rep(lambda server, request: server.reply(request, b"r" * 1000))
    calls, at = with_tickets(net, upstream, queue={"max_bytes": "10KiB", "when_full": "reject"})
    proxyd = net.proxyd(calls)
    tickets = []
    for number in range(30):
        tickets += store_all(net, calls, [b"%04d" % number + b"q" * 800])
    proxyd.wait_for(calls, delivered=30)
    asker = Asker(net, at)
    states = [asker.ask(ticket)[0] for ticket in tickets]
    kept = states.count(b"done")
    assert 5 <= kept <= 10 and states == [b"expired"] * (30 - kept) + [b"done"] * kept


def test_a_ticket_names_the_first_of_identical_requests(net):
    calls, at = with_tickets(net, net.endpoint(), queue={"dedupe": "60s"})
    proxyd = net.proxyd(calls)
    tickets = store_all(net, calls, [b"same"] * 3)
    net.rep(endpoint=calls.to[0])
    Asker(net, at).wait(tickets[2], [b"done", b"same"])
    proxyd.wait_for(calls, delivered=1, dropped__duplicate=2)


def test_who_reads_no_answers_is_given_no_more(net):
    """Replies wait in libzmq, whose high-water marks count messages and not bytes."""
    reply = bytes(1 << 20)
    calls, at = with_tickets(net, net.rep(lambda server, request: server.reply(request, reply)))
    proxyd = net.proxyd(calls)
    (ticket,) = store_all(net, calls, [b"question"])
    asker = Asker(net, at)
    asker.wait(ticket, [b"done", reply])
    deaf = dial(at).handshake(b"DEALER")
    deaf.write(message(b"", ticket) * 180)
    settled = proxyd.rss_bytes(peak=True)
    for _ in range(180):
        assert asker.ask(ticket) == [b"done", reply], "others are served"
    assert SANITIZED or proxyd.rss_bytes(peak=True) < settled + (100 << 20)
    deaf.close()


def test_many_queries_at_once_are_all_answered(net):
    calls, at = with_tickets(net, net.rep())
    proxyd = net.proxyd(calls)
    tickets = store_all(net, calls, [b"%d" % number for number in range(500)])
    proxyd.wait_for(calls, delivered=500)
    pipeline = net.pipeline(at)
    tags = [pipeline.send(ticket) for ticket in tickets]
    answers = pipeline.wait()
    assert [answers[tag] for tag in tags] == [[b"done", b"%d" % number] for number in range(500)]


def test_queries_under_way_are_answered_when_their_endpoint_is_made_anew(net):
    """The store is busy with another chain's sync when the queries come, and still is when the frontend goes."""
    calls, at = with_tickets(net, net.endpoint())
    busy = buffered(net, net.endpoint(), name="busy")
    proxyd = net.proxyd(calls, busy, env={**worse(SYNC_MS=300), "MALLOC_PERTURB_": "165"})
    (ticket,) = store_all(net, calls, [b"question"])
    askers = [net.caller(at) for _ in range(20)]
    for asker in askers:
        assert asker.call(ticket) == [b"pending"]
    net.pipeline(busy).send(b"x")
    proxyd.wait_for(busy, accepted=1)
    for asker in askers:
        asker.send(ticket)
    calls.conf["frontend"]["rate"] = 1000
    proxyd.write((calls, busy))
    assert proxyd.control("reload")["changed"] == ["calls"]
    answers = [asker.receive() for asker in askers]
    assert all(answer in ([b"error 507 store-failed"], [b"pending"]) for answer in answers)
    proxyd.wait_for(busy, queued=1)
    assert net.caller(at).call(ticket) == [b"pending"]
