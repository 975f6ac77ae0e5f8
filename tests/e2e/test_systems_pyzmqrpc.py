# SPDX-License-Identifier: MIT
"""pyzmqrpc3 through proxyd: a chain in the place of each of its standard proxies, between its own client and its own
server as they behave on the wire. Then dialect = "pyzmqrpc" by itself: acks and errors as its client reads them, real
replies instead of its proxies' bare 200, and its heartbeat on every side."""
import base64
import itertools
import json
import time
import zlib

import pytest

from harness import FACTOR, eventually
from peers import plain, swallow

HEARTBEAT = b"zmq_sub_heartbeat"
OK = {"status_code": 200, "status_message": "OK"}


def command(name="SimpleCommand", **state):
    """A request as its client encodes one."""
    return base64.b64encode(zlib.compress(json.dumps({"_icmd_": [name, state]}).encode()))


def serve(server, request):
    """Its server: the reply of ZmqRpcServer.handle_incoming_message."""
    def reply(code, text, response=None):
        value = {"status_code": code, "status_message": text, "response_message": response}
        server.reply(request, json.dumps({key: item for key, item in value.items() if item is not None}).encode())
    try:
        name, state = json.loads(zlib.decompress(base64.b64decode(request.body[0])))["_icmd_"]
    except Exception as error:
        reply(400, f"Incorrectly marshalled command: {error}")
        return
    if name != "SimpleCommand":
        reply(451, f"Service {name} is not registered")
    elif state.get("param1") == "raise":
        reply(463, "Exception raised when calling the service")
    else:
        reply(200, "OK", state.get("param1"))


class Client:
    """Its client on REQ: a reply that is not 200 raises, and the socket is made anew."""

    def __init__(self, net, chain, login=()):
        self._connect = lambda: net.caller(chain, **dict(login))
        self._caller = self._connect()

    def execute(self, request):
        (reply,) = self._caller.call(request)
        value = json.loads(reply.decode())
        if value.get("status_code") != 200:
            self._caller = self._connect()
            raise RuntimeError(value.get("status_message") or f"Error occurred with code {value['status_code']}")
        return value.get("response_message")


class Site:
    """The parts of a site of its, with a name and a password on each side of a chain or with none."""

    def __init__(self, net, users, has_passwords):
        self.net, self._has_passwords = net, has_passwords
        self.daemon = {"users": str(users.path)} if has_passwords else {}
        self.login = plain("anna") if has_passwords else {}
        self.frontend = {"auth": "plain"} if has_passwords else {}
        self.backend = {"backoff": "10ms", "backoff_max": "50ms"}
        if has_passwords:
            self.backend.update(username="site", password="password2")

    def server(self, endpoint):
        if self._has_passwords:
            return self.net.plain_server(endpoint, "site", "password2", serve)
        return self.net.rep(serve, endpoint)


@pytest.fixture(params=[False, True], ids=["open", "passwords"])
def site(net, users, request):
    return Site(net, users, request.param)


def parsed(answer):
    assert len(answer) == 1
    return json.loads(answer[0])


def error(answer):
    """(code, reason) of an error: 482 for its client, ours beside it."""
    value = parsed(answer)
    assert set(value) == {"status_code", "status_message", "code"} and value["status_code"] == 482
    reason, text = value["status_message"].split(": ", 1)
    assert text
    return value["code"], reason


# ---- its standard proxies ------------------------------------------------------------------------------------------

def test_rep_to_req(net, site):
    """ZmqProxyRep2Req; but the client gets its server's own reply."""
    calls = net.chain("rep-req", dialect="pyzmqrpc", frontend=site.frontend, backend=site.backend)
    net.proxyd(calls, daemon=site.daemon)
    server = site.server(calls.to[0])
    client = Client(net, calls, site.login)
    assert client.execute(command(param1="value1", param2="value2")) == "value1"
    assert client.execute(command()) is None
    for request, text in ((command(param1="raise"), "Exception raised"), (command("Unknown"), "not registered"),
                          (b"no base64", "Incorrectly marshalled")):
        with pytest.raises(RuntimeError, match=text):
            client.execute(request)
    assert client.execute(command(param1="again")) == "again"
    assert server.bodies[0] == command(param1="value1", param2="value2") and server.bodies[4] == b"no base64"


def test_its_client_hears_that_it_is_denied(net, users):
    calls = net.chain("rep-req", dialect="pyzmqrpc", frontend={"auth": "plain", "users": ["bert"]})
    net.proxyd(calls, daemon={"users": str(users.path)})
    with pytest.raises(RuntimeError, match="denied: this user may not use this chain"):
        Client(net, calls, plain("anna")).execute(command())


def test_buffered_rep_to_req(net, site):
    """ZmqBufferedProxyRep2ReqThread; but what was accepted while the server is away is not lost."""
    calls = net.chain("buffered-rep-req", dialect="pyzmqrpc", frontend=site.frontend, backend=site.backend)
    proxyd = net.proxyd(calls, daemon=site.daemon)
    server = site.server(calls.to[0])
    client = Client(net, calls, site.login)
    assert client.execute(command(param1="while it is there")) is None, "accepted, not executed"
    proxyd.wait_for(calls, delivered=1)
    server.stop()
    pipeline = net.pipeline(calls, **site.login)
    requests = {pipeline.send(body): body for body in (command(param1=str(n)) for n in range(20))}
    for answer in pipeline.wait().values():
        value = parsed(answer)
        assert value.pop("ticket") and value == {**OK, "ack": "synced"}
    server.start()
    proxyd.wait_for(calls, delivered=21, queued=0)
    assert server.bodies[1:] == list(requests.values())


def test_sub_to_pub_and_rep_to_pub(net, site):
    """ZmqProxySub2Pub and ZmqProxyRep2Pub: one string frame, and no response but a plain OK on REQ."""
    publisher = net.publisher()
    relay = net.chain("sub-pub", at=publisher, dialect="pyzmqrpc")
    news = net.chain("rep-pub", dialect="pyzmqrpc", frontend=site.frontend)
    net.proxyd(relay, news, daemon=site.daemon)
    client = Client(net, news, site.login)
    publisher.wait_subscribed(b"")
    receiver = net.subscriber(relay).wait_joined(lambda: publisher.publish(b"probe"))
    publisher.publish(HEARTBEAT)
    publisher.publish(command(param1="value2sub"))
    assert receiver.receive() == [command(param1="value2sub")], "its heartbeat is not a message"
    receiver = net.subscriber(news).wait_joined(lambda: client.execute(b"probe"))
    assert client.execute(command(param1="value3")) is None
    assert receiver.receive() == [command(param1="value3")]


def test_pub_to_sub_req_to_rep_pub_to_sub(net, users):
    """The chained proxies of its own tests, with a password between the two. A frontend of ours sends ids back as a REP
    socket does: by `envelope` the order holds although many are in flight."""
    sender = net.publisher()
    events = net.chain("rep-pub", dialect="pyzmqrpc", frontend={"auth": "plain"}, backend={"heartbeat": "200ms"})
    samples = net.chain("sub-req", at=sender, to=events.endpoint, dialect="pyzmqrpc",
                        backend={"username": "anna", "password": "secret of anna", "correlation": "envelope"})
    proxyd = net.proxyd(events, samples, daemon={"users": str(users.path)})
    sender.wait_subscribed(b"")
    receiver = net.subscriber(events).wait_joined(lambda: sender.publish(b"probe"))
    for number in range(100):
        sender.publish(b"test %d" % number)
    received = (message for message in iter(receiver.receive, None) if message not in ([HEARTBEAT], [b"probe"]))
    assert list(itertools.islice(received, 100)) == [[b"test %d" % number] for number in range(100)]
    assert receiver.receive() == [HEARTBEAT]
    proxyd.wait_for(samples, delivered=proxyd.chain(samples)["accepted"], queued=0, inflight=0)


# ---- the dialect -----------------------------------------------------------------------------------------------------

def test_requests_and_real_replies_pass_untouched(net):
    reply = json.dumps({**OK, "response_message": {"text": "\u00fc"}}).encode()
    upstream = net.rep(lambda server, request: server.reply(request, reply))
    calls = net.chain("rep-req", to=upstream, dialect="pyzmqrpc")
    net.proxyd(calls)
    request = command(param1="a", param2="b")
    assert net.caller(calls).call(request) == [reply]
    assert upstream.bodies == [request]


def test_errors_carry_their_reason_and_code(net):
    upstream = net.router(swallow)
    calls = net.chain("rep-req", to=upstream, dialect="pyzmqrpc", frontend={"max_message": "1KiB"},
                      backend={"timeout": "100ms"}, queue={"max_messages": 1, "max_age": "300ms"})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    assert error(pipeline.call(command(n=1))) == (504, "timeout")
    assert error(pipeline.call(bytes(2000))) == (413, "too-large")
    proxyd.control("pause", calls.name)
    proxyd.wait_for(calls, state="paused")
    waiting = pipeline.send(command(n=2))
    proxyd.wait_for(calls, queued=1)
    assert error(pipeline.call(command(n=3))) == (503, "queue-full")
    eventually(lambda: waiting in pipeline.drain().answers)
    assert error(pipeline.answers[waiting][0]) == (502, "unavailable")
    proxyd.control("drain", calls.name)
    proxyd.wait_for(calls, state="draining")
    assert error(pipeline.call(command(n=4))) == (503, "shutting-down")
    assert error(pipeline.call(b"\xff\xfe not even text")) == (503, "shutting-down")


def test_the_ack_of_a_publication_is_a_plain_ok(net):
    news = net.chain("rep-pub", dialect="pyzmqrpc")
    net.proxyd(news)
    assert parsed(net.caller(news).call(command(n=1))) == OK


def test_a_heartbeat_on_a_rep_frontend_is_answered_and_goes_no_further(net):
    """Its own server never answers again after one."""
    upstream = net.router()
    calls = net.chain("rep-req", to=upstream, dialect="pyzmqrpc")
    news = net.chain("rep-pub", dialect="pyzmqrpc")
    proxyd = net.proxyd(calls, news)
    for chain in (calls, news):
        caller = net.caller(chain)
        for _ in range(3):
            assert parsed(caller.call(HEARTBEAT)) == OK
        proxyd.wait_for(chain, accepted=0, heartbeats=3)
    assert net.caller(calls).call(HEARTBEAT, b"and more") == [HEARTBEAT, b"and more"]
    assert upstream.bodies == [(HEARTBEAT, b"and more")]


def test_a_heartbeat_from_a_publisher_is_swallowed_and_counted(net):
    publisher, upstream = net.publisher(), net.rep()
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream, dialect="pyzmqrpc")
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed()
    for frames in ([HEARTBEAT], [b"news"], [HEARTBEAT], [HEARTBEAT, b"not alone"]):
        publisher.publish(*frames)
    proxyd.wait_for(feed, accepted=2, delivered=2, heartbeats=2)
    assert upstream.bodies == [b"news", (HEARTBEAT, b"not alone")]


def test_it_subscribes_to_the_heartbeat_beside_its_topics(net):
    publisher, upstream = net.publisher(), net.rep()
    feed = net.chain("sub-req", at=publisher.endpoint, to=upstream, dialect="pyzmqrpc",
                     frontend={"subscribe": ["weather"]})
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed(b"weather").wait_subscribed(HEARTBEAT)
    publisher.publish(HEARTBEAT)
    publisher.publish(b"news")
    publisher.publish(b"weather")
    proxyd.wait_for(feed, heartbeats=1, accepted=1, delivered=1)
    assert upstream.bodies == [b"weather"]


def test_heartbeats_count_as_sound(net):
    publisher = net.publisher()
    feed = net.chain("sub-pub", at=publisher.endpoint, dialect="pyzmqrpc",
                     frontend={"recreate_after": f"{int(400 * FACTOR)}ms", "backoff": "10ms"})
    proxyd = net.proxyd(feed)
    publisher.wait_subscribed()
    began = time.monotonic()
    last = [0.0]

    def beats():
        if time.monotonic() - last[0] > 0.05:
            last[0] = time.monotonic()
            publisher.publish(HEARTBEAT)
        return time.monotonic() - began > 1.0 * FACTOR
    eventually(beats)
    assert proxyd.chain(feed)["recreates"] == 0
    eventually(lambda: proxyd.chain(feed)["recreates"] >= 1, 3, "a new socket once heartbeats end")


@pytest.mark.parametrize("dialect, carried", [("raw", 1), ("pyzmqrpc", 0)])
def test_elsewhere_the_heartbeat_is_a_message_like_any_other(net, dialect, carried):
    upstream = net.router()
    calls = net.chain("rep-req", to=upstream, dialect=dialect)
    net.proxyd(calls)
    net.caller(calls).call(HEARTBEAT)
    assert len(upstream.log) == carried


def test_a_publisher_backend_sends_heartbeats_only_when_idle(net):
    news = net.chain("rep-pub", dialect="pyzmqrpc", backend={"heartbeat": "150ms"})
    proxyd = net.proxyd(news)
    subscriber, caller = net.subscriber(news), net.caller(news)
    assert subscriber.receive() == [HEARTBEAT]
    began = time.monotonic()
    assert [subscriber.receive(), subscriber.receive()] == [[HEARTBEAT]] * 2
    assert time.monotonic() - began >= 0.2

    def busy():
        caller.call(b"news")
        return time.monotonic() - began > 1.0
    eventually(busy)
    received = []
    while message := subscriber.poll(0.05):
        received.append(message)
    assert received.count([HEARTBEAT]) <= 1 + int(FACTOR > 1) * 10
    assert proxyd.chain(news)["accepted"] == proxyd.chain(news)["delivered"] > 10


def test_a_heartbeat_is_an_error_where_the_dialect_has_none(net):
    proxyd = net.prepare(net.chain("rep-pub", backend={"heartbeat": "1s"})).start(ready=False)
    proxyd.expect_exit(2)
    assert 'chain "rep-pub"' in proxyd.log and "heartbeat" in proxyd.log


def test_silence_of_a_pyzmqrpc_publisher_is_bounded_by_default(net):
    """`recreate_after` defaults to 600 s in this dialect and to never elsewhere."""
    chains = [net.chain("sub-pub", at=net.endpoint(), name="plain"),
              net.chain("sub-pub", at=net.endpoint(), name="beating", dialect="pyzmqrpc")]
    proxyd = net.proxyd(*chains)
    defaults = [proxyd.control("show", chain.name)["config"]["frontend"]["recreate_after"] for chain in chains]
    assert defaults[0] in (0, "0", "0ms") and defaults[1] in (600000, "600s", "10m"), defaults
