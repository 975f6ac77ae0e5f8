# SPDX-License-Identifier: MIT
"""Red's ZMQ server through proxyd, as it and its clients behave: a bare ROUTER that knows exactly three frames,
[identity, empty, body], and REQ callers with one JSON frame, through dialect = "red"."""
import json

import pytest

from harness import eventually
from peers import plain, swallow

QUICK = {"backoff": "10ms", "backoff_max": "50ms", "window": 1}
IDS = [b"123", b"9007199254740993", b"12345678901234567890", b"1.0", b"1e400", b'"a\\u00e9\\/"', b"null", b"false",
       b"[1, {}]", b'{"id" :[2]}']
UNREADABLE = [b"", b"{}", b"[]", b'"id"', b'{"id":1', b'{"id":"\xff"}', b"{" * (1 << 20), b'{"id":1}{"id":1}',
              b'{"id":1,"kwargs":' + b"[" * 100000 + b"]" * 100000 + b"}"]


def request(identifier=b"123", method="say_hello", **kwargs):
    """The bytes of one as the documented client sends it; the id is JSON already."""
    head = json.dumps({"requester": "ZMQExample", "cog": "ZMQExample", "method": method, "kwargs": kwargs}).encode()
    return head[:-1] + b', "id": ' + identifier + b"}"


def serve(server, request):
    """Red's own answers: 400 for what it cannot read or find, 500 when the command raises; an id it cannot read is 0.
    It sees nothing but three frames: whatever has more of an envelope it does not answer."""
    if len(server.frames[-1]) != 3:
        return
    identifier = 0
    try:
        call = json.loads(request.body[0])
        identifier = call["id"]
        status, message = {"say_hello": (200, f"Hi {call['kwargs'].get('user')}!"),
                           "fail": (500, "division by zero")}.get(call["method"], (400, repr(call["method"])))
    except Exception as error:
        status, message = 400, str(error)
    server.reply(request, json.dumps({"status": status, "id": identifier, "message": message}).encode())


def error(reason, code, identifier=b"123"):
    """The head of an error of proxyd's; a text for a person follows."""
    return b'{"id":%s,"status":%d,"message":"%s: ' % (identifier, code, reason.encode())


def test_its_server_sees_three_frames_however_many_call(net):
    server = net.router(serve)
    calls = net.chain("rep-req", to=server, dialect="red")
    net.proxyd(calls)
    pipeline = net.pipeline(calls)
    tags = {pipeline.send(request(b"%d" % number, user=number)): number for number in range(200)}
    answers = pipeline.wait()
    for tag, number in tags.items():
        assert json.loads(answers[tag][0]) == {"status": 200, "id": number, "message": f"Hi {number}!"}
    for identity, empty, body in server.frames:
        assert identity and empty == b"" and json.loads(body)["cog"] == "ZMQExample"
    assert len(server.frames) == 200


def test_its_own_errors_pass_as_they_are(net):
    server = net.router(serve)
    calls = net.chain("rep-req", to=server, dialect="red")
    net.proxyd(calls)
    caller = net.caller(calls)
    assert caller.call(request(method="fail")) == [b'{"status": 500, "id": 123, "message": "division by zero"}']
    assert caller.call(request(method="none")) == [b'{"status": 400, "id": 123, "message": "\'none\'"}']
    assert json.loads(caller.call(b"no JSON")[0])["id"] == 0
    assert server.bodies[2] == b"no JSON"


def test_a_password_stands_in_front_of_it(net, users):
    server = net.router(serve)
    door = net.chain("rep-req", to=server, dialect="red", frontend={"auth": "plain", "users": ["anna"]})
    net.proxyd(door, daemon={"users": str(users.path)})
    assert json.loads(net.caller(door, **plain("anna")).call(request())[0])["status"] == 200
    (answer,) = net.caller(door, **plain("bert")).call(request(b'{"n":1}'))
    assert answer.startswith(error("denied", 403, b'{"n":1}'))
    net.caller(door, **plain("anna", "wrong")).knock(request(b"666"))
    assert json.loads(net.caller(door, **plain("anna")).call(request(b"2"))[0])["id"] == 2
    assert not any(b"666" in body for body in server.bodies)


def test_its_client_hears_why_a_call_failed(net):
    server = net.router(swallow)
    calls = net.chain("rep-req", to=server, dialect="red", frontend={"max_message": "1KiB"},
                      backend={"timeout": "100ms"}, queue={"max_messages": 1, "max_age": "300ms"})
    proxyd = net.proxyd(calls)
    pipeline = net.pipeline(calls)
    proxyd.wait_for(calls, state="up")
    (answer,) = pipeline.call(request())
    text = "timeout: no answer in time; the outcome is unknown"
    assert json.loads(answer) == {"id": 123, "status": 504, "message": text}
    assert pipeline.call(request(user="x" * 2000))[0].startswith(error("too-large", 413))
    proxyd.control("pause", calls.name)
    proxyd.wait_for(calls, state="paused")
    waiting = pipeline.send(request(b"1"))
    proxyd.wait_for(calls, queued=1)
    assert pipeline.call(request(b"2"))[0].startswith(error("queue-full", 503, b"2"))
    eventually(lambda: waiting in pipeline.drain().answers)
    assert pipeline.answers[waiting][0][0].startswith(error("unavailable", 502, b"1"))


def test_an_id_of_any_type_comes_back_byte_by_byte(net):
    calls = net.chain("rep-req", dialect="red", frontend={"max_message": "4MiB"},
                      queue={"max_messages": 1000, "max_age": "50ms"})
    net.proxyd(calls)
    pipeline = net.pipeline(calls)
    wanted = {pipeline.send(request(identifier)): identifier for identifier in IDS}
    wanted.update({pipeline.send(body): b"null" for body in UNREADABLE})
    wanted[pipeline.send(b'{"id":1,"id":2}')] = b"2"
    for tag, answer in pipeline.wait().items():
        assert answer[0].startswith(error("unavailable", 502, wanted[tag])), answer[0][:200]


@pytest.mark.parametrize("kind, ticket", [("buffered-rep-req", b',"ticket":"'), ("rep-pub", b"}")])
def test_an_accepted_call_has_status_202(net, kind, ticket):
    calls = net.chain(kind, dialect="red", backend=QUICK if kind == "buffered-rep-req" else {})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    for identifier in IDS:
        (answer,) = caller.call(request(identifier))
        assert answer.startswith(b'{"id":' + identifier + b',"status":202,"message":"accepted"' + ticket)
    if kind == "buffered-rep-req":
        server = net.router(serve, endpoint=calls.to[0])
        proxyd.wait_for(calls, delivered=len(IDS))
        assert server.bodies == [request(identifier) for identifier in IDS]
        assert {len(frames) for frames in server.frames} == {3}
