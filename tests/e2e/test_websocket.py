# SPDX-License-Identifier: MIT
"""JSON-RPC servers over WebSocket behind rep-req and buffered-rep-req, and their notifications as publications."""
import json
import pathlib
import shutil
import socket
import ssl
import struct
import subprocess

import pytest

from harness import PROXYD, eventually, free_endpoint, holds, host_port
from webserver import certificate, echo, swallow


def request(method="echo", params=None, id='"a"', **more):
    """The text of a request; `id` is JSON, None leaves it out."""
    members = [f'"id": {id}'] if id is not None else []
    members += [f'"method": {json.dumps(method)}', f'"params": {json.dumps(params)}']
    return ('{"jsonrpc": "2.0", ' + ", ".join(members + [f'"{key}": {json.dumps(value)}' for key, value in more.items()])
            + "}").encode()


def error_code(answer):
    answer = json.loads(answer[0])  # an array of them, where it answers a batch
    error = (answer[0] if isinstance(answer, list) else answer).get("error", {})
    return error.get("code"), error.get("message")


def chain_to(net, server, kind="rep-req", timeout="5s", **options):
    options.setdefault("backend", {})
    options["backend"] = {"timeout": timeout, "backoff": "20ms", "backoff_max": "50ms", **options["backend"]}
    return net.chain(kind, to=server, dialect="jsonrpc", **options)


def act(server, peer, call):
    """What the method's name says."""
    method = call.get("method")
    if method == "error":
        server.answer(peer, call, error={"code": -32601, "message": "none", "data": [1.0]})
    elif method == "twice":
        server.answer(peer, call)
        server.answer(peer, call)
        server.send(peer, {"jsonrpc": "2.0", "id": 7, "result": "nobody's"})
        server.send(peer, "no JSON at all")
        server.send(peer, "")
    elif method == "chatty":
        server.send(peer, {"jsonrpc": "2.0", "method": "news", "params": [1]})
        server.send(peer, {"jsonrpc": "2.0", "id": call["id"], "method": "news", "params": [1]})
        server.answer(peer, call)
    elif method == "fragments":
        text = json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": "in pieces"})
        server.send(peer, [text[i:i + 7] for i in range(0, len(text), 7)])
    elif method == "binary":
        server.send(peer, json.dumps({"id": call["id"], "result": "bytes"}).encode())
    elif method == "one array":
        server.send(peer, [{"id": call["id"], "result": "alone"}])
    elif method == "reversed":
        server.held = getattr(server, "held", []) + [call]
        if len(server.held) == 20:
            for held in reversed(server.held):
                server.answer(peer, held)
    else:
        server.answer(peer, call)


def test_calls_over_websocket(net):
    server = net.web(act)
    chain = chain_to(net, server, frontend={"max_message": "8MiB"}, backend={"window": 32})
    daemon = net.proxyd(chain)
    daemon.wait_for(chain, state="up")
    caller = net.caller(chain)

    # The id is the caller's own, byte by byte, whatever it is; the server sees a number.
    for id in ('"a"', "1", "1.0", "1e400", "-0", "null", "true", '{"x": [1]}', '"\\u00e9\\/"', "12345678901234567890"):
        answer = caller.call(request(params=[id], id=id))
        assert answer == [b'{"jsonrpc": "2.0", "id": %s, "result": %s}' % (id.encode(), json.dumps([id]).encode())]
    assert all(type(call["id"]) is int for call in server.log)
    assert caller.call(request("error", id="5")) == [
        b'{"jsonrpc": "2.0", "id": 5, "error": {"code": -32601, "message": "none", "data": [1.0]}}']

    # Callers that use the same id share the connection, answered in the reverse order.
    pipeline = net.pipeline(chain)
    sent = {pipeline.send(request("reversed", n, id="1")): n for n in range(16)}
    others = [net.pipeline(chain) for _ in range(4)]
    for n, other in enumerate(others):
        sent[n] = other.send(request("reversed", 100 + n, id="1"))
    eventually(lambda: len(server.log) >= 27)
    answers = pipeline.wait()
    assert {tag: json.loads(answer[0])["result"] for tag, answer in answers.items()} == {tag: sent[tag] for tag in answers}
    for n, other in enumerate(others):
        assert [json.loads(answer[0])["result"] for answer in other.wait().values()] == [100 + n]
    assert len(server.peers) == 1

    for method, result in (("fragments", "in pieces"), ("binary", "bytes"), ("one array", "alone"), ("chatty", None)):
        assert json.loads(caller.call(request(method, id='"m"'))[0]).items() >= {"id": "m", "result": result}.items()
    large = "x" * 5_000_000
    assert json.loads(caller.call(request(params=large))[0])["result"] == large

    # A notification is sent, and answered with an empty frame; of a batch those that want an answer get one.
    assert caller.call(request("note", id=None)) == [b""]
    eventually(lambda: server.log[-1]["method"] == "note")
    batch = b"[" + b", ".join([request(params=1, id="1"), request("note", id=None), request("error", id="[]")]) + b"]"
    assert caller.call(batch) == [b'[{"jsonrpc": "2.0", "id": 1, "result": 1},{"jsonrpc": "2.0", "id": [], "error": '
                                  b'{"code": -32601, "message": "none", "data": [1.0]}}]']
    assert caller.call(b"[" + request("note", id=None) + b"]") == [b""]

    eventually(lambda: [call["method"] for call in server.log].count("note") == 3)
    seen = len(server.texts)
    for body in ([b"garbage"], [b'{"id":1,"method":"a"'], [request(params="x").replace(b"x", b"\xff")], [b"[" * 100_000],
                 [request(), request()]):
        assert error_code(caller.call(*body)) == (-32700, "bad-request")
    for body in ([b"1"], [b"[]"], [b'[1, {"method":"a"}]'], [b'{"id":1}'], [b'{"id":1,"method":2}'],
                 [b'{"id":1,"method":"a","\\u0069d":1048576}'],):
        assert error_code(caller.call(*body)) == (-32600, "bad-request"), body
    assert json.loads(caller.call(request("twice", 1))[0])["result"] == 1
    status = daemon.wait_for(chain, stray=4)
    assert len(server.texts) == seen + 1
    assert status["failed"] == {"bad-request": 11} and status["recreates"] == 0
    assert status["accepted"] == status["delivered"] + 11
    daemon.stop()
    eventually(lambda: server.closes == [1000])


def test_server_comes_goes_and_falls_silent(net):
    server = net.web()
    server.stop()
    chain = chain_to(net, server, timeout="400ms")
    daemon = net.proxyd(chain)
    caller = net.caller(chain)
    assert error_code(caller.call(request())) == (-32005, "unavailable")
    assert daemon.wait_for(chain, state="down")["upstreams"][0]["cause"] == "refused"
    server.start()
    daemon.wait_for(chain, state="up")
    assert json.loads(caller.call(request(params=1))[0])["result"] == 1

    server.handler = swallow
    caller.send(request("lost"))
    eventually(lambda: server.log[-1]["method"] == "lost")
    server.stop()
    assert error_code(caller.receive()) == (-32010, "lost")

    # What was not answered in time takes its connection with it: the late answer finds nobody.
    server.handler = lambda server, peer, call: server.later(0.6, lambda: server.answer(peer, call))
    server.start()
    daemon.wait_for(chain, state="up")
    assert error_code(caller.call(request("late", id='"late"'))) == (-32008, "timeout")
    server.handler = echo
    assert json.loads(caller.call(request(params=2, id='"next"'))[0]) == {"jsonrpc": "2.0", "id": "next", "result": 2}
    status = daemon.chain(chain)
    assert status["failed"] == {"unavailable": 1, "lost": 1, "timeout": 1} and status["recreates"] == 2
    assert [call["method"] for call in server.log].count("late") == 1


def accept_websocket(listener):
    """Shakes hands as a WebSocket server, by hand, and reads no further."""
    import base64
    import hashlib
    connection, _ = listener.accept()
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(4096)
    key = head.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    return connection


@pytest.fixture
def listener():
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.bind(host_port(free_endpoint()))
        made.listen()
        yield made


def busy_s(daemon):
    """How long the thread of the WebSockets had something to do, whether or not it got a processor for it."""
    for task in pathlib.Path(f"/proc/{daemon.pid}/task").iterdir():
        if (task / "comm").read_text() == "websockets\n":
            ran_ns, waited_ns, _ = map(int, (task / "schedstat").read_text().split())
            return (ran_ns + waited_ns) / 1e9
    raise AssertionError("no such thread")


def test_nothing_to_do_costs_nothing(net, listener):
    up, mute = net.chain("rep-req", name="up", to=net.web()), net.chain(
        "rep-req", name="mute", to="ws://{}:{}".format(*listener.getsockname()))
    daemon = net.proxyd(up, mute)
    daemon.wait_for(up, state="up")
    connection, _ = listener.accept()
    connection.recv(4096)  # its handshake, which is not answered
    before = busy_s(daemon)
    holds(lambda: busy_s(daemon) - before < 0.3, 0.7, "little work")
    connection.close()


def test_request_that_was_given_up_is_not_sent_on(net, listener):
    chain = chain_to(net, "ws://{}:{}/deep/path?x=1".format(*listener.getsockname()), timeout="300ms",
                     frontend={"max_message": "32MiB"})
    net.proxyd(chain)
    connection = accept_websocket(listener)
    size = 12_000_000  # more than both kernels hold
    assert error_code(net.caller(chain).call(request(params="x" * size))) == (-32008, "timeout")
    received = 0
    while data := connection.recv(1 << 20):
        received += len(data)
    assert received < size
    connection.close()


def test_answer_without_an_end_ends_its_connection(net, listener):
    chain = chain_to(net, "ws://{}:{}".format(*listener.getsockname()), timeout="10s")
    net.proxyd(chain)
    connection = accept_websocket(listener)
    caller = net.caller(chain)
    caller.send(request())
    connection.recv(4096)
    connection.sendall(struct.pack("!BBQ", 0x81, 127, 1 << 40))
    piece, sent = b" " * (1 << 20), 0

    def is_cut():
        nonlocal sent
        try:
            connection.sendall(piece)
            sent += 1
            return sent > 200
        except OSError:
            return True
    eventually(is_cut, 10)
    assert sent <= 64 + 32 and error_code(caller.receive()) == (-32010, "lost")
    connection.close()


def test_buffered_calls_wait_for_the_server_and_go_in_order(net):
    server = net.web()
    server.stop()
    chain = chain_to(net, server, "buffered-rep-req")
    daemon = net.proxyd(chain)
    pipeline = net.pipeline(chain)
    calls = [pipeline.send(request(params=n, id="1")) for n in range(50)]
    garbage = pipeline.send(b"garbage")
    pipeline.send(request("note", id=None))
    answers = pipeline.wait()
    assert [json.loads(answers[tag][0])["result"]["ack"] for tag in calls] == ["synced"] * 50
    assert error_code(answers[garbage]) == (-32700, "bad-request")
    server.start()
    status = daemon.wait_for(chain, delivered=51)
    assert [call["params"] for call in server.log[:50]] == list(range(50))
    eventually(lambda: server.log[-1]["method"] == "note")
    assert status["accepted"] == 52 and status["queued"] == status["redelivered"] == 0


def test_stored_message_that_is_no_request_becomes_a_dead_letter(net):
    before = net.chain("buffered-rep-req", to=net.endpoint())
    daemon = net.proxyd(before)
    caller = net.caller(before)
    for body in (b"garbage", request(params=1)):
        assert caller.call(body)[0].startswith(b"accepted synced")
    daemon.stop()
    server = net.web()
    after = chain_to(net, server, "buffered-rep-req", at=before.endpoint)
    daemon.write((after,))
    daemon.start()
    daemon.wait_for(after, dead=1, delivered=1)
    assert [call["params"] for call in server.log] == [1]


@pytest.mark.parametrize("was_sent", [True, False])
def test_what_another_backend_cannot_carry_is_refused_only_if_it_was_not_sent(net, was_sent):
    old, server = net.router(lambda server, request: None), net.web()
    before = net.chain("rep-req", to=old, backend={"timeout": "50ms", "retries": 5})
    after = net.chain("rep-req", at=before.endpoint, to=server, backend={"timeout": "50ms", "retries": 5})
    daemon = net.proxyd(before)
    daemon.wait_for(before, state="up")
    if not was_sent:
        daemon.control("pause", before.name)
    caller = net.caller(before)
    caller.send(b"no JSON")
    if was_sent:
        eventually(lambda: old.log)
        daemon.control("pause", before.name)
    daemon.wait_for(before, queued=1)
    daemon.write((after,))
    daemon.control("reload")
    daemon.control("resume", after.name)
    assert caller.receive() == [b"error 504 lost" if was_sent else b"error 400 bad-request"]


def test_retry_goes_to_the_other_server(net):
    silent, server = net.web(swallow), net.web()
    chain = net.chain("rep-req", to=[silent, server], dialect="jsonrpc",
                      backend={"timeout": "200ms", "retries": 2, "backoff": "10ms", "backoff_max": "10ms"})
    daemon = net.proxyd(chain)
    daemon.wait_for(chain, state="up")
    caller = net.caller(chain)
    for n in range(4):
        assert json.loads(caller.call(request(params=n))[0])["result"] == n
    assert daemon.chain(chain)["delivered"] == 4 and silent.log


def subscribe(server, peer, call):
    if isinstance(call, dict) and call.get("method") == "SUBSCRIBE":
        server.answer(peer, call, **({"error": {"code": -32001, "message": "no"}} if call["params"] == ["secret"]
                                     else {"result": call["params"]}))


def test_ws_pub_publishes_notifications(net):
    server = net.web(subscribe)
    topics = ["core", 'odd "topic"']
    chain = net.chain("ws-pub", at=server, frontend={"subscribe": topics, "backoff": "10ms", "backoff_max": "20ms"},
                      backend={"hwm": 10000})
    refused = net.chain("ws-pub", name="refused", at=server, frontend={"subscribe": ["secret"]})
    daemon = net.proxyd(chain, refused)
    subscriber = net.subscriber(chain)
    daemon.wait_for(chain, state="up")
    daemon.wait_for(refused, state="down", upstreams=lambda rows: rows[0]["cause"] == "refused")
    assert topics in [call["params"] for call in server.log]
    subscriber.wait_joined(lambda: server.notify("core", 0))

    text = '{"jsonrpc":"2.0", "method":"core","params":{"n":1.0, "deep":[[]]}}'
    odd = '{"id":null,"method":"caf\\u00e9","params":1}'
    everybody = lambda message: [server.do(server.deliver(peer, message)) for peer in list(server.peers)]
    everybody(text)
    everybody(odd)
    everybody('{"id":3,"method":"a request of its own"}')
    everybody("garbage")
    everybody('[{"method":"one"},{"method":"two"}]')
    assert subscriber.receive() == [b"core", text.encode()]
    assert subscriber.receive() == ["café".encode(), odd.encode()]
    assert subscriber.take(2) == [[b"one", b'{"method":"one"}'], [b"two", b'{"method":"two"}']]

    server.stop()
    daemon.wait_for(chain, state="down")
    before = len(server.log)
    server.start()
    eventually(lambda: topics in [call["params"] for call in server.log[before:]])
    daemon.wait_for(chain, state="up")
    server.notify("core", "again")
    assert json.loads(subscriber.receive()[1])["params"] == "again"

    # Thousands at once go through in order, none is lost.
    async def flood():
        for peer in list(server.peers):
            for n in range(5000):
                await server.deliver(peer, '{"method":"n","params":%d}' % n)
    server.do(flood())
    assert [json.loads(subscriber.receive()[1])["params"] for _ in range(5000)] == list(range(5000))


def test_wss_asks_for_certificates_and_shows_passwords(net):
    place = free_endpoint()
    path, context = certificate(net, "good", f"IP:{host_port(place)[0]}")
    other_path, other_context = certificate(net, "other", "DNS:elsewhere.example")
    good = net.web(endpoint=place, tls=context, credentials="bot:open sesame")
    elsewhere = net.web(tls=other_context)
    strict_place = free_endpoint()
    strict_path, strict_context = certificate(net, "strict", f"IP:{host_port(strict_place)[0]}")
    strict_context.verify_mode = ssl.CERT_REQUIRED
    strict_context.load_verify_locations(strict_path)
    strict_context.maximum_version = ssl.TLSVersion.TLSv1_2
    strict = net.web(endpoint=strict_place, tls=strict_context)
    plain = net.web(credentials="bot:open sesame")
    password = {"username": "bot", "password": "open sesame"}

    def chain(name, server, **backend):
        return net.chain("rep-req", name=name, to=server, dialect="jsonrpc", backend=backend)
    chains = {
        "good": (chain("good", good, tls_ca_file=str(path), **password), None),
        "plain": (chain("plain", plain, **password), None),
        "system": (chain("system", good, **password), "untrusted"),
        "elsewhere": (chain("elsewhere", elsewhere, tls_ca_file=str(other_path)), "untrusted"),
        "password": (chain("password", good, tls_ca_file=str(path), username="bot", password="close sesame"), "auth-denied"),
        "nobody": (chain("nobody", plain), "auth-denied"),
        "no-tls": (chain("no-tls", plain.endpoint.replace("ws:", "wss:")), "mechanism-mismatch"),
        "strict": (chain("strict", strict, tls_ca_file=str(strict_path)), "mechanism-mismatch"),
        "absent": (chain("absent", net.endpoint().replace("tcp:", "wss:")), "refused"),
        "not-found": (chain("not-found", net.web(status=404)), "mechanism-mismatch"),
        "moved": (chain("moved", net.web(status=301), **password), "mechanism-mismatch"),
        "unresolved": (chain("unresolved", "wss://nowhere.invalid/rpc"), "unresolved"),
    }
    daemon = net.proxyd(*(each for each, _ in chains.values()))
    for each, cause in chains.values():
        daemon.wait_for(each, state="down" if cause else "up",
                        upstreams=lambda rows, cause=cause: rows[0]["cause"] == cause)
    for name in ("good", "plain"):
        assert json.loads(net.caller(chains[name][0]).call(request(params=name))[0])["result"] == name
    assert "sesame" not in daemon.log


def test_a_reload_trusts_what_the_ca_file_holds_by_then(net):
    place = free_endpoint()
    (old, old_context), (new, new_context) = (certificate(net, name, f"IP:{host_port(place)[0]}") for name in ("old", "new"))
    trusted = net.scratch / "trusted.pem"
    shutil.copy(old, trusted)
    server = net.web(endpoint=place, tls=old_context)
    chain = net.chain("rep-req", to=server, dialect="jsonrpc", backend={"tls_ca_file": str(trusted), "backoff_max": "200ms"})
    daemon = net.proxyd(chain)
    daemon.wait_for(chain, state="up")
    shutil.copy(new, trusted)
    assert daemon.control("reload")["changed"] == [chain.name]
    daemon.wait_for(chain, upstreams=lambda rows: rows[0]["cause"] == "untrusted")
    server.stop()
    server.tls = new_context
    server.start()
    daemon.wait_for(chain, state="up")
    assert daemon.control("reload")["unchanged"] == 1


def test_configuration_is_checked(net):
    def problems(kind, frontend, backend):
        text = f'''chains = ( {{ name = "a"; kind = "{kind}"; frontend = {{ {frontend} }}; backend = {{ {backend} }}; }} );'''
        path = net.scratch / "a.conf"
        path.write_text(text)
        return subprocess.run([PROXYD, "-t", "-c", path], capture_output=True, text=True).stderr
    here, there = 'endpoints = [ "tcp://127.0.0.1:9" ];', 'endpoints = [ "ws://h/p" ];'
    for kind, frontend, backend, message in (
            ("rep-pub", here, there, "WebSocket servers belong to REQ backends and ws-pub frontends"),
            ("sub-pub", there, here, "WebSocket servers belong to REQ backends and ws-pub frontends"),
            ("ws-pub", here + 'subscribe = [ "a" ];', here, "a ws-pub chain hears WebSocket servers"),
            ("ws-pub", there, here, "frontend.subscribe is missing"),
            ("rep-req", here, there + 'tls_ca_file = "/x";', "tls_ca_file has no wss:// endpoint beside it"),
            ("rep-req", here, there.replace("ws:", "wss:") + 'tls_ca_file = "/x";', "/x: No such file"),
            ("rep-req", here, there.replace("ws:", "wss:") + 'tls_ca_file = "/dev/zero";', "/dev/zero: is not a regular file"),
            ("rep-req", here, there.replace("ws:", "@ws:"), "a WebSocket is connected to, and never bound"),
            ("rep-req", here, there.replace("h/", "u:p@h/"), "a user name is written as username"),
            ("rep-req", here, there.replace("h/", "h:x/"), "the port must be a number")):
        assert message in problems(kind, frontend, backend)
    assert problems("rep-req", here, there) == ""
