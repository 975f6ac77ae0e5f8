# SPDX-License-Identifier: MIT
"""ZeroMQFramework through proxyd, as its own client, server, router and workers behave: REQ callers with two frames,
[event_name, JSON], through dialect = "zmqframework"."""
import json

import pytest
import zmq

from harness import eventually
from peers import plain, swallow

QUICK = {"backoff": "10ms", "backoff_max": "50ms"}


def create_message(event_name, event_data):
    return [event_name.encode(), json.dumps(event_data).encode()]


def parse_message(frames):
    """What every node of it makes of a message."""
    if len(frames) < 2:
        raise ValueError(f"Malformed message: {frames}")
    if frames[0] == b"":
        return frames[1].decode(), json.loads(frames[2])
    if len(frames) == 4 and frames[1] == b"":
        return frames[2].decode(), json.loads(frames[3])
    return frames[0].decode(), json.loads(frames[1])


def serve(node, request):
    """Its server and its workers. A worker drops what has fewer than four frames."""
    if node.kind == zmq.DEALER and len(node.frames[-1]) < 4:
        return
    try:
        event_name, data = parse_message(request.body)
        response = {"processed": data} if event_name == "message" else {"error": "unknown event"}
        answer = create_message(event_name, response)
    except ValueError as error:
        answer = create_message("error", {"error": str(error)})
    node.reply(request, *answer)


def test_its_calls_and_its_errors_pass_as_they_are(net):
    server = net.rep(serve)
    calls = net.chain("rep-req", to=server, dialect="zmqframework")
    net.proxyd(calls)
    client = net.caller(calls, identity=b"9b2c-node_4f1d-session")
    message = create_message("message", {"content": "Hello World!"})
    assert parse_message(client.call(*message)) == ("message", {"processed": {"content": "Hello World!"}})
    assert parse_message(client.call(*create_message("other", {}))) == ("other", {"error": "unknown event"})
    assert parse_message(client.call(b"message", b"no JSON"))[0] == "error"
    assert parse_message(client.call(b"message"))[0] == "error"
    assert server.log[0].body == message and server.log[2].body == [b"message", b"no JSON"]


def test_a_worker_behind_its_router_sees_four_frames(net):
    router = net.broker(worker_kind=zmq.DEALER, handler=serve)
    calls = net.chain("rep-req", to=router, dialect="zmqframework")
    net.proxyd(calls)
    pipeline = net.pipeline(calls)
    tags = {pipeline.send(*create_message("message", {"n": n})): n for n in range(100)}
    answers = pipeline.wait()
    assert {tag: parse_message(answers[tag]) for tag in tags} == {
        tag: ("message", {"processed": {"n": n}}) for tag, n in tags.items()}
    seen = [frames for worker in router.workers for frames in worker.frames]
    assert len(seen) == 100 and all(len(frames) == 4 and frames[1:3] == [b"", b"message"] for frames in seen)


def test_its_client_hears_why_a_call_failed(net, users):
    server = net.rep(swallow)
    calls = net.chain("rep-req", to=server, dialect="zmqframework", frontend={"max_message": "1KiB"},
                      backend={"timeout": "100ms"}, queue={"max_messages": 1, "max_age": "300ms"})
    guarded = net.chain("rep-req", to=server, dialect="zmqframework", name="guarded",
                        frontend={"auth": "plain", "users": ["bert"]})
    proxyd = net.proxyd(calls, guarded, daemon={"users": str(users.path)})
    pipeline = net.pipeline(calls)
    proxyd.wait_for(calls, state="up")
    message = create_message("message", {"content": 1})
    assert pipeline.call(*message) == [b"message", b'{"error":"timeout","code":504}']
    assert parse_message(pipeline.call(b"message", bytes(2000))) == ("message", {"error": "too-large", "code": 413})
    proxyd.control("pause", calls.name)
    proxyd.wait_for(calls, state="paused")
    waiting = pipeline.send(*message)
    proxyd.wait_for(calls, queued=1)
    full = b'{"error":"queue-full","code":503}'
    assert pipeline.call(b"\xff\0 not even text", b"{") == [b"\xff\0 not even text", full]
    assert pipeline.call(b"alone") == [b"alone", full]
    assert pipeline.call(b"three", b"{}", b"") == [b"three", full]
    assert pipeline.call(b"", b"ping", b"{}") == [b"ping", full], "some versions put an empty frame first"
    assert parse_message(pipeline.call(b"", b"{}")) == ("proxyd", {"error": "queue-full", "code": 503})
    eventually(lambda: waiting in pipeline.drain().answers)
    assert pipeline.answers[waiting] == [[b"message", b'{"error":"unavailable","code":502}']]
    denied = net.caller(guarded, **plain("anna")).call(*message)
    assert denied == [b"message", b'{"error":"denied","code":403}']


@pytest.mark.parametrize("kind", ["buffered-rep-req", "rep-pub"])
def test_an_accepted_call_repeats_its_event_name(net, kind):
    calls = net.chain(kind, dialect="zmqframework", backend=QUICK if kind == "buffered-rep-req" else {})
    proxyd = net.proxyd(calls)
    message = create_message("message", {"content": "Hello World!"})
    event_name, data = parse_message(net.caller(calls).call(*message))
    if kind == "rep-pub":
        assert (event_name, data) == ("message", {"accepted": True})
        return
    assert event_name == "message" and data.pop("ticket") and data == {"accepted": True, "ack": "synced"}
    server = net.rep(serve, endpoint=calls.to[0])
    proxyd.wait_for(calls, delivered=1)
    assert server.log[0].body == message
