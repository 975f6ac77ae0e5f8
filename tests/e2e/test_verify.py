# SPDX-License-Identifier: MIT
"""verify on SUB frontends: only messages whose session an RPC server calls valid pass, in their order, for one call each
`cache`. The streams and the server speak as those of zmq_integration_lib."""
import base64
import json
import threading
import time

import pytest

from harness import eventually, proxyctl

VALID = {"4a50", "alice", "bob", "é\n\""}


class Verifier:
    """The RPC server: one frame of JSON-RPC 2.0 in, one out. `answer(session)` is the result, or an exception; its text
    goes into `error`, a bare string."""

    def __init__(self, net, **options):
        self.calls = []
        self.answer = lambda session: session in VALID
        self.server = net.rep(self._serve, **options)
        self.endpoint = self.server.endpoint

    def _serve(self, server, request):
        call = json.loads(request.body[0])
        assert call == {"jsonrpc": "2.0", "method": "verify", "params": call["params"], "id": call["id"]}
        self.calls.append(call["params"])
        reply = {"jsonrpc": "2.0", "id": call["id"]}
        try:
            reply["result"] = self.answer(call["params"])
        except ValueError as error:
            reply["error"] = str(error)
        server.reply(request, json.dumps(reply).encode())


def message(session, text=b"Hi boy", topic=b"hello", event=b"None"):
    """What a session-aware outpad pushes."""
    data = {"data": base64.b64encode(text).decode(), "session_id": session}
    return [topic, json.dumps(data).encode(), event]


class Stream:
    """publisher -> sub-pub with verify -> subscriber; the probes that joined them have passed."""

    def __init__(self, net, verifier, daemon=(), queue=(), **verify):
        self.publisher = net.publisher()
        self.chain = net.chain("sub-pub", at=self.publisher, frontend={
            "backoff": "20ms", "backoff_max": "50ms",
            "verify": {"endpoint": getattr(verifier, "endpoint", verifier), **verify}}, queue=queue, backend={"hwm": 100000})
        self.proxyd = net.proxyd(self.chain, daemon=dict(daemon))
        self.publisher.wait_subscribed()
        self.subscriber = net.subscriber(self.chain)

    def join(self):
        self.subscriber.wait_joined(lambda: self.publish("alice", b"probe"))
        self.base = self.proxyd.wait_for(self.chain, queued=0, inflight=0)
        return self

    def publish(self, session, text=b"Hi boy"):
        self.publisher.publish(*message(session, text))

    def texts(self, count):
        return [base64.b64decode(json.loads(data)["data"]) for _, data, _ in self.subscriber.take(count)]


@pytest.fixture
def verifier(net):
    return Verifier(net)


def test_only_messages_of_valid_sessions_pass_unchanged_and_in_order(net, verifier):
    stream = Stream(net, verifier).join()
    sent = []
    for n in range(50):
        for session in ("4a50", "nobody", "bob"):
            stream.publish(session, b"%d" % n)
            sent += [message(session, b"%d" % n)] if session in VALID else []
    assert stream.subscriber.take(100) == sent
    status = stream.proxyd.wait_for(stream.chain, delivered=stream.base["delivered"] + 100,
                                    dropped={"unverified": 50}, state="up")
    assert [row["endpoint"] for row in status["upstreams"]] == [stream.publisher.endpoint, verifier.endpoint]
    assert sorted(set(verifier.calls)) == ["4a50", "alice", "bob", "nobody"] and len(verifier.calls) == 4


def test_a_thousand_messages_a_second_of_one_session_cost_one_call(net, verifier):
    stream = Stream(net, verifier).join()
    for n in range(5000):
        stream.publish("alice", b"%d" % n)
    assert stream.texts(5000) == [b"%d" % n for n in range(5000)]
    assert verifier.calls == ["alice"]


def test_an_answer_holds_as_long_as_cache_says(net, verifier):
    stream = Stream(net, verifier, cache="200ms").join()
    verifier.answer = lambda session: False
    eventually(lambda: stream.publish("alice") or
               stream.proxyd.chain(stream.chain)["dropped"].get("unverified"), what="the session to be asked about again")
    assert verifier.calls[:2] == ["alice", "alice"]
    verifier.answer = lambda session: True
    eventually(lambda: stream.publish("alice") or stream.subscriber.poll(0.01))


NO_SESSION = [
    [b"hello", b"", b"None"],
    [b"hello", b"{", b"None"],
    [b"hello", b"[" * 100000, b"None"],
    [b"hello", b'{"session_id":' * 5000 + b"1" + b"}" * 5000, b"None"],
    [b"hello", b'"alice"', b"None"],
    [b"hello", b'{"session_id": 7}', b"None"],
    [b"hello", b'{"session_id": "alice\xff"}', b"None"],
    [b"hello", b'{"session_id": "' + b"a" * 5000 + b'"}', b"None"],
    [b"hello", b'{"session_id": "a\\u0000lice"}', b"None"],
    [b"hello", message("alice")[1]],
    [*message("alice"), b"fourth"],
    [message("alice")[1]],
]


def test_what_has_no_session_is_unverified(net, verifier):
    stream = Stream(net, verifier).join()
    for count, frames in enumerate(NO_SESSION, 1):
        stream.publisher.publish(*frames)
        stream.publish("alice", b"behind it")
        assert stream.texts(1) == [b"behind it"], frames
        assert stream.proxyd.chain(stream.chain)["dropped"] == {"unverified": count}, frames
    assert verifier.calls == ["alice"]


def test_odd_sessions_arrive_as_they_are(net, verifier):
    """Escapes, and the last of two, as the programs behind proxyd read them."""
    stream = Stream(net, verifier).join()
    stream.publish("é\n\"")
    stream.publisher.publish(b"hello", b'{"session_id": "nobody", "data": "MQ==", "session_id": "bob"}', b"None")
    stream.subscriber.take(2)
    assert verifier.calls == ["alice", "é\n\"", "bob"]


@pytest.mark.parametrize("result", ["true", 1, None, {"valid": True}], ids=repr)
def test_only_true_is_a_yes(net, verifier, result):
    stream = Stream(net, verifier).join()
    verifier.answer = lambda session: result
    stream.publish("bob")
    stream.proxyd.wait_for(stream.chain, dropped={"unverified": 1})
    stream.publish("bob")
    stream.proxyd.wait_for(stream.chain, dropped={"unverified": 2})
    assert verifier.calls == ["alice", "bob"], "a no is remembered"


def test_an_error_is_no_answer(net, verifier):
    """Nothing passes, and the next message asks again."""
    stream = Stream(net, verifier).join()

    def refuse(session):
        raise ValueError("Method not found")
    verifier.answer = refuse
    stream.publish("bob")
    stream.proxyd.wait_for(stream.chain, dropped={"unverified": 1})
    verifier.answer = lambda session: True
    eventually(lambda: stream.publish("bob") or stream.subscriber.poll(0.01))
    assert verifier.calls == ["alice", "bob", "bob"]


def test_messages_wait_in_their_place_for_a_slow_answer(net, verifier):
    """They count as queued; those of a known session behind them keep the order."""
    stream = Stream(net, verifier).join()
    gate = threading.Event()
    verifier.answer = lambda session: gate.wait(20) if session == "bob" else session in VALID
    for n in range(3):
        stream.publish("bob", b"bob %d" % n)
        stream.publish("alice", b"alice %d" % n)
    stream.proxyd.wait_for(stream.chain, queued=6, delivered=stream.base["delivered"])
    assert stream.subscriber.poll(0.05) is None
    gate.set()
    assert stream.texts(6) == [b"bob 0", b"alice 0", b"bob 1", b"alice 1", b"bob 2", b"alice 2"]
    assert verifier.calls == ["alice", "bob"]


def test_waiting_messages_stay_within_the_bounds_of_the_queue(net, verifier):
    stream = Stream(net, verifier, queue={"max_messages": 10}).join()
    gate = threading.Event()
    verifier.answer = lambda session: gate.wait(20)
    for n in range(100):
        stream.publish("bob", b"%d" % n)
    stream.proxyd.wait_for(stream.chain, queued=10, dropped={"oldest": 90})
    gate.set()
    assert stream.texts(10) == [b"%d" % n for n in range(90, 100)]


def test_without_the_server_nothing_passes_and_with_it_everything_again(net):
    """Away from the start, then there, then gone with a question on its way."""
    endpoint = net.endpoint()
    stream = Stream(net, endpoint, timeout="300ms", cache="1ms")
    began = time.monotonic()
    for n in range(5):
        stream.publish("alice", b"%d" % n)
    status = stream.proxyd.wait_for(stream.chain, dropped={"unverified": 5})
    assert 0.25 < time.monotonic() - began and status["state"] == "degraded"
    assert {row["endpoint"]: row["state"] for row in status["upstreams"]}[endpoint] == "down"
    verifier = Verifier(net, endpoint=endpoint)
    stream.proxyd.wait_for(stream.chain, state="up")
    stream.join()
    gate = threading.Event()
    verifier.answer = lambda session: gate.wait(20)
    stream.publish("alice", b"lost")
    eventually(lambda: len(verifier.calls) >= 2)
    stream.proxyd.wait_for(stream.chain, dropped=lambda dropped: dropped["unverified"] > 5)
    gate.set()
    verifier.answer = lambda session: True
    eventually(lambda: stream.publish("alice", b"again") or stream.subscriber.poll(0.01))


def test_many_sessions_at_once(net, verifier):
    """Each is asked about once, however they are mixed."""
    verifier.answer = lambda session: int(session[1:]) % 2 == 0 if session[0] == "s" else True
    stream = Stream(net, verifier, queue={"max_messages": 0}).join()
    for n in range(3000):
        stream.publish(f"s{n % 300}", b"%d" % n)
    assert stream.texts(1500) == [b"%d" % n for n in range(3000) if n % 2 == 0]
    assert len(verifier.calls) == 301
    stream.proxyd.wait_for(stream.chain, dropped={"unverified": 1500})


def test_a_stored_message_is_verified_when_its_turn_comes(net, verifier):
    """sub-req on disk: what waited through a restart is asked about by the new daemon."""
    publisher, server = net.publisher(), net.rep()
    chain = net.chain("sub-req", at=publisher, to=server, queue={"store": "disk"},
                      frontend={"verify": {"endpoint": verifier.endpoint}})
    proxyd = net.proxyd(chain)
    publisher.wait_subscribed()
    proxyd.control("pause", chain.name)
    for session in ("alice", "bob", "alice"):
        publisher.publish(*message(session))
    proxyd.wait_for(chain, queued=3)
    proxyd.stop()
    verifier.answer = lambda session: session == "alice"
    proxyd.start()
    proxyd.wait_for(chain, restored=3, delivered=2, dropped={"unverified": 1})
    assert server.bodies == [tuple(message("alice"))] * 2


def test_the_server_may_ask_for_a_password(net):
    """As any upstream may: here it stands behind a chain of its own."""
    verifier = Verifier(net)
    users, secret = net.scratch / "users", net.scratch / "secret"
    proxyctl("passwd", users, "relay", "--stdin", input="sesame\n", check=True)
    secret.touch(0o600)
    secret.write_text("sesame\n")
    door = net.chain("rep-req", to=verifier, frontend={"auth": "plain"}, name="door")
    net.proxyd(door, daemon={"users": str(users)})
    stream = Stream(net, door, username="relay", password_file=str(secret)).join()
    stream.publish("bob", b"in")
    assert stream.texts(1) == [b"in"]
    other = Stream(net, door, timeout="200ms")
    other.publish("bob")
    status = other.proxyd.wait_for(other.chain, dropped={"unverified": 1})
    assert status["upstreams"][1]["state"] == "down"
