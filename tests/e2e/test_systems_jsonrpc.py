# SPDX-License-Identifier: MIT
"""zmq_integration_lib through proxyd, as its own client, server and ports behave: JSON-RPC 2.0 over REQ and REP with
dialect = "jsonrpc", and streams of three frames through sub-pub. Then what JSON-RPC has besides: ids of every type,
batches, notifications."""
import base64
import json

import pytest

from harness import eventually
from peers import plain, swallow

QUICK = {"backoff": "10ms", "backoff_max": "50ms"}
IDS = [b"1", b"-0", b"9007199254740993", b"12345678901234567890", b"1.0", b"1e400", b'"1"', rb'"a\u00e9\/\""',
       "\"\u00e4\"".encode(), rb'"\ud800"', b"null", b"true", b"[1, 2]", b'{"id" :1}']
UNREADABLE = [b"", b'{"id":1', b"\xef\xbb\xbf{\"id\":1}", b'{"id":"\xe4"}', b'{"id":1}\0', b"[" * (1 << 20),
              b'{"id":1,"params":' + b"[" * 100000 + b"]" * 100000 + b"}", b'"id"', b"[]", b"[" + b"1," * 1000 + b"1]"]


def request(identifier=b'"1"', method="verify", params="4a501b51317e2c8f4a0fd7831d3e09dc"):
    """The bytes of one as its client sends it; the id is JSON already."""
    head = json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode()
    return head[:-1] + b', "id": ' + identifier + b"}"


def notification():
    return b'{"jsonrpc": "2.0", "method": "log", "params": ["x"]}'


def serve(server, request):
    """Its server: an error is a bare string, and any request gets some reply."""
    try:
        call = json.loads(request.body[0])
        assert call["jsonrpc"] == "2.0"
    except Exception:
        server.reply(request, b'{"jsonrpc": "2.0", "error": "invalid request", "id": null}')
        return
    outcome = {"result": len(call["params"]) == 32} if call["method"] == "verify" else {"error": "unknown method"}
    server.reply(request, json.dumps({"jsonrpc": "2.0", **outcome, "id": call.get("id")}).encode())


def result(answer):
    """What its client makes of a reply."""
    (frame,) = answer
    value = json.loads(frame)
    if "error" in value:
        raise ValueError(value["error"])
    return value["result"]


def error(reason, code, own, identifier=b'"1"'):
    """The bytes of an error of proxyd's."""
    return (b'{"jsonrpc":"2.0","id":' + identifier + b',"error":{"code":%d,"message":"%s","data":{"code":%d}}}'
            % (own, reason.encode(), code))


def accepted(answer, identifier):
    """The ticket of an ack for that id."""
    head = b'{"jsonrpc":"2.0","id":' + identifier + b',"result":{"accepted":true,"ack":"synced","ticket":"'
    tail = b'"}}'
    assert answer.startswith(head) and answer.endswith(tail), answer
    return answer[len(head):-len(tail)]


def rejecting(net):
    """A chain that answers everything by itself, as there never is a server, and its daemon."""
    calls = net.chain("rep-req", dialect="jsonrpc", frontend={"max_message": "4MiB"},
                      queue={"max_messages": 1000, "max_age": "50ms"})
    return calls, net.proxyd(calls)


def unavailable(identifier):
    return error("unavailable", 502, -32005, identifier)


# ---- as zmq_integration_lib has it -----------------------------------------------------------------------------------

def test_its_calls_and_its_errors_pass_as_they_are(net):
    server = net.rep(serve)
    calls = net.chain("rep-req", to=server, dialect="jsonrpc")
    net.proxyd(calls)
    caller = net.caller(calls)
    assert result(caller.call(request())) is True
    assert result(caller.call(request(params="short"))) is False
    with pytest.raises(ValueError, match="unknown method"):
        result(caller.call(request(method="nothing")))
    assert caller.call(b"no JSON") == [b'{"jsonrpc": "2.0", "error": "invalid request", "id": null}']
    assert caller.call(notification())[0].endswith(b'"id": null}'), "what the server has to say to one"
    assert server.bodies[:2] == [request(), request(params="short")]
    assert server.bodies[3:] == [b"no JSON", notification()]


def test_what_is_no_json_rpc_passes_as_it_is(net):
    calls = net.chain("rep-req", to=net.rep(), dialect="jsonrpc", frontend={"max_message": "4MiB"})
    net.proxyd(calls)
    pipeline = net.pipeline(calls)
    bodies = [[body] for body in [*UNREADABLE, notification()]] + [[request(), b"", b"\xff"]]
    sent = {pipeline.send(*body): body for body in bodies}
    assert pipeline.wait(seconds=10) == sent


def test_its_client_hears_why_a_call_failed(net, users):
    server = net.rep(swallow)
    calls = net.chain("rep-req", to=server, dialect="jsonrpc", frontend={"max_message": "1KiB", "rate": 100},
                      backend={"timeout": "100ms"}, queue={"max_messages": 1, "max_age": "300ms"})
    guarded = net.chain("rep-req", to=server, dialect="jsonrpc", name="guarded",
                        frontend={"auth": "plain", "users": ["bert"]})
    proxyd = net.proxyd(calls, guarded, daemon={"users": str(users.path)})
    pipeline = net.pipeline(calls)
    proxyd.wait_for(calls, state="up")
    answer = pipeline.call(request())
    assert answer == [error("timeout", 504, -32008)]
    with pytest.raises(ValueError, match="timeout"):
        result(answer)
    assert pipeline.call(request(params="x" * 2000)) == [error("too-large", 413, -32002)]
    proxyd.control("pause", calls.name)
    proxyd.wait_for(calls, state="paused")
    waiting = pipeline.send(request(b"1"))
    proxyd.wait_for(calls, queued=1)
    assert pipeline.call(request(b"2")) == [error("queue-full", 503, -32006, b"2")]
    eventually(lambda: waiting in pipeline.drain().answers)
    assert pipeline.answers[waiting] == [[unavailable(b"1")]]
    proxyd.control("drain", calls.name)
    proxyd.wait_for(calls, state="draining")
    assert pipeline.call(request(b"3")) == [error("shutting-down", 503, -32007, b"3")]
    answers = [pipeline.send(request(b"4")) for _ in range(300)]
    pipeline.wait(len(pipeline.sent))
    assert [error("rate-limited", 429, -32003, b"4")] in [pipeline.answers[tag][0] for tag in answers]
    assert net.caller(guarded, **plain("anna")).call(request(b"5")) == [error("denied", 403, -32001, b"5")]


@pytest.mark.parametrize("event", [b"None", b"EOS"])
def test_its_streams_keep_their_three_frames(net, event):
    output = net.publisher()
    relay = net.chain("sub-pub", at=output, frontend={"subscribe": ["asr"]}, dialect="jsonrpc")
    net.proxyd(relay)
    output.wait_subscribed(b"asr")
    port = net.subscriber(relay, b"asr").wait_joined(lambda: output.publish(b"asr", b"", b"probe"))
    session = json.dumps({"data": base64.b64encode(b"Hi boy").decode(), "session_id": "4a50"}).encode()
    for data in (b"", b"\0\xff" * 1000, session):
        output.publish(b"asr", data, event)
        output.publish(b"other", data, event)
    assert port.take(3) == [[b"asr", data, event] for data in (b"", b"\0\xff" * 1000, session)]


# ---- JSON-RPC 2.0 ----------------------------------------------------------------------------------------------------

def test_an_id_of_any_type_comes_back_byte_by_byte(net):
    calls, _ = rejecting(net)
    pipeline = net.pipeline(calls)
    wanted = {pipeline.send(request(identifier)): [unavailable(identifier)] for identifier in IDS}
    wanted[pipeline.send(b'{"id":1,"method":"m","\\u0069d":2}')] = [unavailable(b"2")]
    wanted.update({pipeline.send(body): [unavailable(b"null")] for body in UNREADABLE})
    wanted[pipeline.send(request(), b"")] = [unavailable(b"null")]
    assert pipeline.wait() == wanted


def test_a_batch_has_an_answer_for_each_request_and_a_notification_an_empty_one(net):
    calls, _ = rejecting(net)
    caller = net.caller(calls)
    batch = b" [" + b" ,".join([request(b"1"), notification(), request(b'"],"'), b"{}", b"7"]) + b"]\n"
    answers = [unavailable(identifier) for identifier in (b"1", b'"],"', b"null", b"null")]
    assert caller.call(batch) == [b"[" + b",".join(answers) + b"]"]
    assert caller.call(notification()) == [b""]
    assert caller.call(b"[" + notification() + b"," + notification() + b"]") == [b""]


def test_a_buffered_call_is_acked_with_its_id_and_delivered_as_it_is(net):
    calls = net.chain("buffered-rep-req", dialect="jsonrpc", backend=QUICK)
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    tickets = {accepted(caller.call(request(identifier))[0], identifier) for identifier in IDS}
    assert len(tickets) == len(IDS)
    (batch,) = caller.call(b"[" + request(b"1") + b"," + notification() + b"," + request(b"2") + b"]")
    first, second = batch[1:-1].split(b',{"jsonrpc"')
    assert accepted(first, b"1") == accepted(b'{"jsonrpc"' + second, b"2")
    assert caller.call(notification()) == [b""]
    server = net.rep(serve, endpoint=calls.to[0])
    proxyd.wait_for(calls, delivered=len(IDS) + 2)
    assert server.bodies[:len(IDS)] == [request(identifier) for identifier in IDS]


def test_the_ack_of_a_patient_call_has_its_id_although_the_request_is_on_the_disk_only(net):
    calls = net.chain("buffered-rep-req", dialect="jsonrpc", backend=QUICK, queue={"patience": "500ms"})
    net.proxyd(calls)
    pipeline = net.pipeline(calls)
    tags = [pipeline.send(request(b"%d" % number)) for number in range(1500)]  # the queue keeps 1024 in memory
    answers = pipeline.wait(seconds=10)
    assert len({accepted(answers[tag][0], b"%d" % number) for number, tag in enumerate(tags)}) == len(tags)


def test_the_ack_of_a_publication_has_neither_level_nor_ticket(net):
    news = net.chain("rep-pub", dialect="jsonrpc")
    net.proxyd(news)
    assert net.caller(news).call(request(b"1")) == [b'{"jsonrpc":"2.0","id":1,"result":{"accepted":true}}']
    assert net.caller(news).call(notification()) == [b""]
