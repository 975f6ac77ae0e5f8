# SPDX-License-Identifier: MIT
"""The control socket, spoken to directly, and through proxyctl; and proxyctl's commands that need no daemon."""
import json
import os
import pty
import random
import re
import signal
import socket
import stat
import subprocess
import tempfile
import time

import pytest
import zmq

from harness import FACTOR, PROXYCTL, eventually, holds, proxyctl, set_parent_death_signal
from peers import error_of, swallow

LEDGER = ["accepted", "delivered", "failed", "dropped", "expired", "dead", "queued", "inflight"]
BESIDE = ["oldest_ms", "retries", "recreates", "redelivered", "orphaned", "malformed", "restored",
          "stray", "heartbeats", "slow_subscriber", "queue_bytes", "p50_us", "p99_us"]


def ctl(proxyd, *arguments):
    return proxyctl("-c", proxyd.config_path, *arguments)


class Background:
    """A proxyctl that goes on; ended by the test or with it."""

    def __init__(self, *arguments, **options):
        self.process = subprocess.Popen([PROXYCTL, *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                                        preexec_fn=set_parent_death_signal, **options)

    def line(self):
        return self.process.stdout.readline().rstrip("\n")

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.wait()

    def wait(self):
        try:
            return self.process.wait(10 * FACTOR)
        finally:
            self.process.kill()
            self.process.stdout.close()


# ---- the methods -----------------------------------------------------------------------------------------------

def test_status_has_every_field_of_every_chain(net):
    upstream, publisher = net.rep(), net.publisher()
    chains = [net.chain("rep-req", to=[upstream, net.endpoint()], name="z"), net.chain("rep-pub", name="a"),
              net.chain("sub-req", at=publisher, to=upstream), net.chain("sub-pub", at=publisher)]
    proxyd = net.proxyd(*chains)
    net.caller(chains[0]).call(b"x")
    status = proxyd.control("status")
    assert list(status) == ["version", "uptime_ms", "chains", "auth", "connections"]
    assert status["version"] == "0.1.0" and status["auth"] == {}
    assert set(status["connections"]) == {"now", "refused", "cut"} and status["connections"]["now"] >= 1
    assert [chain["name"] for chain in status["chains"]] == ["z", "a", "sub-req", "sub-pub"]
    for chain, made in zip(status["chains"], chains):
        assert set(chain) == {"name", "kind", "state", "upstreams", *LEDGER, *BESIDE}
        assert chain["kind"] == made.kind
        assert all(isinstance(chain[name], dict if name in ("failed", "dropped") else int) for name in LEDGER)
        assert chain["oldest_ms"] is None
        for upstream_row in chain["upstreams"]:
            assert set(upstream_row) == {"endpoint", "state", "cause"}
    endpoints = [row["endpoint"] for row in status["chains"][0]["upstreams"]]
    assert endpoints == chains[0].to
    proxyd.wait_for(chains[0], state="degraded",
                    upstreams=lambda rows: [row["cause"] for row in rows] == [None, "refused"])


def test_uptime_grows_by_the_clock(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    began, first = time.monotonic(), proxyd.status()["uptime_ms"]
    eventually(lambda: proxyd.status()["uptime_ms"] >= first + 200)
    assert proxyd.status()["uptime_ms"] - first <= (time.monotonic() - began) * 1000 + 50


def test_oldest_ms_is_the_age_of_what_waits(net):
    calls = net.chain("rep-req", to=net.rep(swallow), backend={"timeout": "60s"})
    proxyd = net.proxyd(calls)
    net.caller(calls).send(b"x")
    proxyd.wait_for(calls, inflight=1, oldest_ms=lambda age: age is not None and 100 <= age < 60000)


def test_show_gives_the_whole_configuration_but_no_password(net):
    calls = net.chain("rep-req", to=net.rep(), dialect="pyzmqrpc",
                      backend={"username": "site-7", "password": "hunter2-canary", "window": 3, "timeout": "1500ms"},
                      queue={"max_bytes": "2MiB"})
    proxyd = net.proxyd(calls)
    shown = proxyd.control("show", "rep-req")
    config = shown["config"]
    assert (config["name"], config["kind"], config["dialect"]) == ("rep-req", "rep-req", "pyzmqrpc")
    assert config["frontend"]["endpoints"] == calls.at
    assert config["backend"]["endpoints"] == calls.to
    assert config["backend"]["username"] == "site-7"
    assert (config["backend"]["window"], config["backend"]["timeout"]) == (3, "1500ms")
    assert (config["backend"]["correlation"], config["backend"]["balance"]) == ("auto", "round-robin")  # defaults
    assert (config["queue"]["max_bytes"], config["queue"]["max_age"]) == ("2MiB", "30s")
    assert config["queue"]["when_full"] == "reject"
    assert shown["status"]["name"] == "rep-req"
    (row,) = shown["status"]["upstreams"]
    assert {"endpoint", "state", "cause", "inflight", "connections", "peer"} == set(row)
    for text in (json.dumps(shown), ctl(proxyd, "show", "rep-req").stdout, proxyd.log):
        assert "hunter2-canary" not in text


def test_show_tells_how_long_calls_take(net):
    calls = net.chain("rep-req", to=net.rep(lambda server, request: server.later(
        0.05, lambda: server.reply(request, *request.body))))
    proxyd = net.proxyd(calls)
    assert "lately" not in ctl(proxyd, "show", "rep-req").stdout
    assert net.caller(calls).call(b"x") == [b"x"]
    status = proxyd.wait_for(calls, delivered=1)
    assert 40_000 <= status["p50_us"] == status["p99_us"] <= 5_000_000
    assert re.search(r"^  lately: half within [0-9.e+]+ ms, 99 % within [0-9.e+]+ ms$",
                     ctl(proxyd, "show", "rep-req").stdout, re.MULTILINE)


def test_show_leaves_out_what_does_not_concern_the_kind(net):
    proxyd = net.proxyd(net.chain("sub-pub", at=net.publisher()))
    config = proxyd.control("show", "sub-pub")["config"]
    assert "subscribe" in config["frontend"] and "hwm" in config["backend"]
    assert "retries" not in config["backend"] and "window" not in config["backend"]


def test_pause_holds_messages_and_resume_sends_them(net):
    upstream = net.rep()
    calls = net.chain("rep-req", to=upstream)
    proxyd = net.proxyd(calls)
    assert net.caller(calls).call(b"before") == [b"before"]
    assert proxyd.control("pause", "rep-req") is True
    proxyd.wait_for(calls, state="paused")
    caller = net.caller(calls)
    caller.send(b"held")
    proxyd.wait_for(calls, queued=1, inflight=0)
    assert upstream.bodies == [b"before"]
    proxyd.control("resume", "rep-req")
    assert caller.receive() == [b"held"]
    proxyd.wait_for(calls, state="up")


def test_drain_refuses_what_is_new_and_resume_ends_it(net):
    upstream = net.rep(swallow)
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "60s"})
    proxyd = net.proxyd(calls)
    net.caller(calls).send(b"old")
    proxyd.wait_for(calls, inflight=1)
    proxyd.control("drain", "rep-req")
    proxyd.wait_for(calls, state="draining")
    assert error_of(net.caller(calls).call(b"new")) == (503, "shutting-down")
    upstream.do(lambda: upstream.reply(upstream.log[0], b"answer"))
    proxyd.wait_for(calls, inflight=0, delivered=1, failed={"shutting-down": 1})
    proxyd.control("resume", "rep-req")
    proxyd.wait_for(calls, state="up")
    upstream.handler = lambda server, request: server.reply(request, *request.body)
    assert net.caller(calls).call(b"again") == [b"again"]


def test_stop_is_answered_and_then_done(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    assert proxyd.control("stop") is True
    assert proxyd.wait() == 0
    assert proxyd.events("stopping", cause="operator")


def test_it_answers_while_it_drains(net):
    upstream = net.rep(swallow)
    calls = net.chain("rep-req", to=upstream, backend={"timeout": "60s"})
    proxyd = net.proxyd(calls, daemon={"drain_timeout": "60s"})
    net.caller(calls).send(b"x")
    proxyd.wait_for(calls, inflight=1)
    proxyd.signal(signal.SIGTERM)
    proxyd.wait_for(calls, state="draining")
    proxyd.control("stop")  # once more changes nothing: only a signal hurries it
    assert proxyd.chain(calls)["inflight"] == 1
    proxyd.signal(signal.SIGTERM)
    assert proxyd.wait() == 0


# ---- what is sent there ----------------------------------------------------------------------------------------

def request(method="status", **more):
    return {"jsonrpc": "2.0", "id": 7, "method": method, **more}


REFUSED = {
    "no json": (b"status", -32700, None),
    "half of it": (b'{"jsonrpc": "2.0", "id": 7', -32700, None),
    "not utf-8": (b'{"jsonrpc": "2.0", "id": "\xff"}', -32700, None),
    "nothing": (b"", -32700, None),
    "deep": (b"[" * 60000, -32700, None),
    "a key twice": (b'{"jsonrpc": "2.0", "id": 7, "method": "stop", "method": "status"}', -32700, None),
    "nul": (b'{"jsonrpc": "2.0", "id": 7, "method": "status\\u0000"}', -32700, None),
    "no object": (b"[]", -32600, None),
    "a number": (b"1e999", -32700, None),
    "other version": ({"jsonrpc": "1.0", "id": 7, "method": "status"}, -32600, 7),
    "no version": ({"id": 7, "method": "status"}, -32600, 7),
    "no method": ({"jsonrpc": "2.0", "id": 7}, -32600, 7),
    "method no text": (request(3), -32600, 7),
    "params no structure": (request("show", params="a"), -32600, 7),
    "unknown method": (request("frobnicate"), -32601, 7),
    "proxyctl's own": (request("serve"), -32601, 7),
    "method of 60 KB": (request("x" * 60000), -32601, 7),
    "no chain": (request("show"), -32602, 7),
    "chain no text": (request("show", params={"chain": 5}), -32602, 7),
    "unknown chain": (request("pause", params={"chain": "nope"}), -32602, 7),
    "id an object": ({"jsonrpc": "2.0", "id": {}, "method": "pause", "params": ["rep-req"]}, -32600, None),
    "too large": (b" " * 100_000, -32600, None),
}


def test_what_is_wrong_is_refused_with_its_code(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    for what, (sent, code, id_) in REFUSED.items():
        answer = proxyd.control_raw(sent)
        assert answer["error"]["code"] == code, f"{what}: {answer}"
        assert answer["id"] == id_ and answer["jsonrpc"] == "2.0", f"{what}: {answer}"
    assert "nope" in proxyd.control_raw(request("pause", params={"chain": "nope"}))["error"]["message"]
    assert proxyd.status()


def test_ids_come_back_and_none_is_null(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    for id_ in (0, -1, 1 << 53, "x", "", "ü", None, 1.5):
        assert proxyd.control_raw({"jsonrpc": "2.0", "id": id_, "method": "status"})["id"] == id_
    assert proxyd.control_raw({"jsonrpc": "2.0", "method": "status"})["id"] is None


def test_the_chain_may_be_given_by_position(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    answer = proxyd.control_raw(request("show", params=["rep-req"]))
    assert answer["result"]["status"]["name"] == "rep-req"


def test_a_batch_is_answered_request_by_request(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    answers = proxyd.control_raw([request("pause", params=["rep-req"]), {**request("show", params=["rep-req"]), "id": "b"},
                                  1, [], {"jsonrpc": "2.0", "method": "status"}, request("reload"),
                                  request("queue", params={"chain": "rep-req", "do": "list"})])
    assert [(answer["id"], answer.get("error", {}).get("code")) for answer in answers] \
        == [(7, None), ("b", None), (None, -32600), (None, -32600), (None, None), (7, -32000), (7, -32000)]
    assert answers[1]["result"]["config"]["name"] == "rep-req"
    assert proxyd.chain("rep-req")["state"] == "paused"


def test_garbage_hurts_nobody(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    rng = random.Random(1)
    with net.context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(proxyd.control_endpoint)
        for _ in range(300):
            dealer.send_multipart([rng.randbytes(rng.choice([0, 0, 1, 5, 300]))
                                   for _ in range(rng.choice([1, 2, 3, 40]))])
        dealer.send_multipart([b"", b"{}", b"{}"])
        for _ in range(5):
            assert proxyd.status()


def test_the_whole_envelope_comes_back(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    with net.context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(proxyd.control_endpoint)
        dealer.send_multipart([b"\x07", b"more", b"", json.dumps(request()).encode()])
        assert dealer.poll(5000 * FACTOR)
        *envelope, answer = dealer.recv_multipart()
        assert envelope == [b"\x07", b"more", b""] and "result" in json.loads(answer)
        dealer.send_multipart([b"\x07", b"", b"{}", b"{}"])
        assert dealer.poll(5000 * FACTOR)
        assert json.loads(dealer.recv_multipart()[-1])["error"]["message"] == "a request is one frame"


def test_a_pipeline_is_answered_whole_and_in_order(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    with net.context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(proxyd.control_endpoint)
        for start in range(0, 300, 50):  # within the high-water marks
            for number in range(start, start + 50):
                dealer.send_multipart([b"", json.dumps({**request(), "id": number}).encode()])
            for number in range(start, start + 50):
                assert dealer.poll(5000 * FACTOR), f"no answer {number}"
                assert json.loads(dealer.recv_multipart()[1])["id"] == number


def test_a_peer_that_never_reads_delays_nobody(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    with net.context.socket(zmq.DEALER) as dealer:
        dealer.linger, dealer.rcvhwm, dealer.sndhwm = 0, 1, 0
        dealer.connect(proxyd.control_endpoint)
        for _ in range(5000):
            dealer.send_multipart([b"", json.dumps(request()).encode()])
        for _ in range(5):
            assert proxyd.status()


# ---- the socket itself -----------------------------------------------------------------------------------------

def path_of(proxyd):
    return proxyd.control_endpoint.removeprefix("ipc://")


def test_only_the_owner_may_use_it(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    found = os.stat(path_of(proxyd))
    assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600


def test_who_may_not_use_it_is_told_so(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    os.chmod(path_of(proxyd), 0)
    as_anybody = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    refused = subprocess.run([*as_anybody, PROXYCTL, "-s", proxyd.control_endpoint, "status"],
                             capture_output=True, text=True, timeout=10 * FACTOR)
    assert refused.returncode == 1
    assert refused.stderr == f"proxyctl: {proxyd.control_endpoint}: Permission denied\n"
    os.chmod(path_of(proxyd), 0o600)


def test_control_group_may_use_it_too(net):
    import grp
    group = grp.getgrgid(os.getgroups()[-1] if os.geteuid() else 1)
    proxyd = net.proxyd(net.chain("rep-req"), daemon={"control_group": group.gr_name})
    found = os.stat(path_of(proxyd))
    assert stat.S_IMODE(found.st_mode) == 0o660 and found.st_gid == group.gr_gid


def test_an_unknown_control_group_is_an_error(net):
    proxyd = net.prepare(net.chain("rep-req"), daemon={"control_group": "no-such-group"})
    proxyd.start(ready=False)
    assert proxyd.wait() in (1, 2)
    assert "no-such-group" in proxyd.log


def test_a_stale_socket_file_is_replaced(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    proxyd.kill()
    assert os.path.exists(path_of(proxyd))
    proxyd.start()
    assert proxyd.status()


def test_a_live_socket_is_never_taken(net):
    first = net.proxyd(net.chain("rep-req"))
    second = net.prepare(net.chain("rep-req"), daemon={"control": first.control_endpoint})
    second.start(ready=False).expect_exit(1)
    assert path_of(first) in second.log
    assert first.status()


def test_a_regular_file_is_never_taken(net):
    proxyd = net.prepare(net.chain("rep-req"))
    with open(path_of(proxyd), "w") as file:
        file.write("precious")
    proxyd.start(ready=False).expect_exit(1)
    assert path_of(proxyd) in proxyd.log
    assert open(path_of(proxyd)).read() == "precious"


def test_it_may_be_off(net):
    calls = net.chain("rep-req", to=net.rep())
    proxyd = net.proxyd(calls, daemon={"control": ""})
    assert net.caller(calls).call(b"x") == [b"x"]
    result = ctl(proxyd, "status")
    assert result.returncode == 2 and "no control socket" in result.stderr


# ---- proxyctl ----------------------------------------------------------------------------------------------------

def test_every_command_of_the_usage_that_the_daemon_does_is_a_method(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    commands = re.findall(r"^  ([a-z]+) ", proxyctl("-h").stdout, re.MULTILINE)
    assert commands[:3] == ["status", "top", "show"]
    own = {"call", "keygen", "passwd", "publish", "serve", "subscribe", "top"}
    for command in commands:
        if command == "stop":
            continue
        answer = proxyd.control_raw(request(command))
        assert (answer.get("error", {}).get("code") == -32601) == (command in own), command


def test_status_is_a_table_for_people(net):
    upstream = net.rep()
    calls = net.chain("rep-req", to=[upstream, net.endpoint()], name="calls",
                      backend={"balance": "failover", "timeout": "300ms"})
    proxyd = net.proxyd(calls, net.chain("rep-pub", name="a-much-longer-name"))
    for _ in range(3):
        net.caller(calls).call(b"x")
    upstream.stop()
    proxyd.wait_for(calls, upstreams=lambda rows: rows[0]["state"] != "up")
    assert error_of(net.caller(calls).call(b"x")) == (502, "unavailable")
    proxyd.wait_for(calls, state="down", upstreams=lambda rows: all(row["cause"] for row in rows))
    text = ctl(proxyd, "status").stdout
    lines = text.splitlines()
    assert re.fullmatch(r"proxyd 0\.1\.0, up \d+(ms|\.\ds)", lines[0])
    titles = "CHAIN KIND STATE ACCEPTED DELIVERED FAILED QUEUED INFLIGHT OLDEST".split()
    assert lines[2].split() == titles
    row = next(line for line in lines if line.startswith("calls"))
    assert row.split() == ["calls", "rep-req", "down", "4", "3", "1", "0", "0", "-"]
    assert row.index("rep-req") == lines[2].index("KIND")
    for title, value in zip(titles[3:], row.split()[3:]):  # numbers stand below the end of their title
        assert row[:lines[2].index(title) + len(title)].endswith(value)
    assert f"  {upstream.endpoint}  down, refused" in text
    assert "  failed: unavailable 1" in lines
    assert "\033" not in text and "DEAD" not in text


def test_colour_is_for_terminals_and_not_for_those_who_decline(net):
    proxyd = net.proxyd(net.chain("rep-pub"))
    for environment, is_coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        terminal, end = pty.openpty()
        subprocess.run([PROXYCTL, "-c", proxyd.config_path, "status"], stdout=end, timeout=10 * FACTOR,
                       env={**{key: value for key, value in os.environ.items() if key != "NO_COLOR"}, **environment})
        os.close(end)
        text = os.read(terminal, 65536).decode()
        os.close(terminal)
        assert ("\033[32mup" in text) == is_coloured and "rep-pub" in text


def test_json_is_what_the_socket_said(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    for arguments in (["--json", "status"], ["status", "--json"]):
        status = json.loads(ctl(proxyd, *arguments).stdout)
        assert set(status) == {"version", "uptime_ms", "chains", "auth", "connections"}
    assert json.loads(ctl(proxyd, "show", "--json", "rep-req").stdout)["config"]["name"] == "rep-req"
    assert json.loads(ctl(proxyd, "pause", "--json", "rep-req").stdout) is True


def test_show_is_readable(net):
    calls = net.chain("rep-req", to=net.rep())
    proxyd = net.proxyd(calls)
    lines = [line.split() for line in ctl(proxyd, "show", "rep-req").stdout.splitlines()]
    assert ["timeout", "5s"] in lines and ["when_full", "reject"] in lines
    assert ["endpoints", calls.endpoint] in lines


def test_commands_act_and_are_silent(net):
    calls = net.chain("rep-req", to=net.rep())
    proxyd = net.proxyd(calls)
    for command, state in (("pause", "paused"), ("drain", "draining"), ("resume", "up")):
        result = ctl(proxyd, command, "rep-req")
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        proxyd.wait_for(calls, state=state)
    assert ctl(proxyd, "stop").returncode == 0
    assert proxyd.wait() == 0


def test_refusals_exit_1_with_the_reason(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    result = ctl(proxyd, "pause", "nope")
    assert result.returncode == 1 and result.stdout == ""
    assert 'there is no chain "nope"' in result.stderr


def test_socket_option_needs_no_configuration(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    assert proxyctl("-s", proxyd.control_endpoint, "status").returncode == 0
    result = proxyctl("-c", "/nonexistent.conf", "status")
    assert result.returncode == 2 and "/nonexistent.conf" in result.stderr


def test_no_daemon_is_said_at_once(net):
    began = time.monotonic()
    result = proxyctl("-s", net.ipc("nobody.sock"), "status")
    assert result.returncode == 1
    assert "is proxyd running?" in result.stderr
    assert time.monotonic() - began < 3 * FACTOR


def test_a_daemon_that_does_not_answer_is_given_up(net):
    proxyd = net.proxyd(net.chain("rep-req"))
    proxyd.signal(signal.SIGSTOP)
    result = ctl(proxyd, "status")
    proxyd.signal(signal.SIGCONT)
    assert result.returncode == 1
    assert "does not answer within 5 s" in result.stderr or ": silent; is proxyd running?" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["show"], ["show", "a", "b"], ["status", "--delay", "1s"],
                                       ["call", "--timeout", "5 weeks", "tcp://127.0.0.1:1", "x"],
                                       ["call", "--user", "u", "tcp://127.0.0.1:1", "x"], ["--frob", "status"],
                                       ["subscribe", "--count", "-1", "tcp://127.0.0.1:1"],
                                       ["-s", "127.0.0.1:1", "status"], ["serve", "127.0.0.1:1"], ["call", "tcp://*:1", "x"]])
def test_bad_usage_exits_2(arguments):
    result = proxyctl(*arguments)
    assert result.returncode == 2 and result.stdout == "" and result.stderr


# ---- trying endpoints out ----------------------------------------------------------------------------------------

def test_call_prints_the_reply_a_frame_a_line(net):
    server = net.rep(lambda server, request: server.reply(request, b"one", "zwei ü".encode(), b"\x1b[2J\x00\xff\\",
                                                          b""))
    result = proxyctl("call", server.endpoint, "a frame", "")
    assert result.returncode == 0
    assert result.stdout == "one\nzwei ü\n\\x1b[2J\\x00\\xff\\\\\n\n"
    assert server.bodies == [(b"a frame", b"")]
    frames = json.loads(proxyctl("call", "--json", server.endpoint, "x").stdout)
    assert frames == ["one", "zwei ü", {"hex": b"\x1b[2J\x00\xff\\".hex()}, ""]


def test_call_sends_frames_that_begin_with_a_dash(net):
    server = net.rep()
    assert proxyctl("call", server.endpoint, "--", "-x", "--json").stdout == "-x\n--json\n"


def test_call_waits_for_a_server_that_is_only_just_starting(net):
    endpoint = net.endpoint()
    call = subprocess.Popen([PROXYCTL, "call", endpoint, "hello"], stdout=subprocess.PIPE, text=True)
    holds(lambda: call.poll() is None, 0.3)
    net.rep(endpoint=endpoint)
    assert call.communicate(timeout=5 * FACTOR) == ("hello\n", None)


def test_call_says_why_there_is_no_answer(net):
    for endpoint, timeout, reason in ((net.endpoint(), "200ms", "refused"),
                                      (net.rep(swallow).endpoint, "200ms", "no answer within 200 ms"),
                                      ("tcp://no-such-host.invalid:1", "5s", "unresolved")):
        result = proxyctl("call", "--timeout", timeout, endpoint, "x")
        assert result.returncode == 1 and result.stdout == ""
        assert reason in result.stderr and endpoint in result.stderr
    silent = socket.create_server(("127.0.0.1", 0))
    result = proxyctl("call", "--timeout", "200ms", f"tcp://127.0.0.1:{silent.getsockname()[1]}", "x")
    silent.close()
    assert "no connection within 200 ms" in result.stderr


def test_call_presents_credentials(net):
    with tempfile.NamedTemporaryFile(dir=net.scratch) as file:
        file.write(b"secret\n")
        file.flush()
        seen = []
        with net.context.socket(zmq.ROUTER) as zap, net.context.socket(zmq.REP) as server:
            zap.linger = server.linger = 0
            zap.bind("inproc://zeromq.zap.01")
            server.plain_server = True
            endpoint = net.endpoint()
            server.bind(endpoint)
            caller = Background("call", "--user", "anna", "--password-file", file.name, endpoint, "x")
            assert zap.poll(5000 * FACTOR)
            frames = zap.recv_multipart()
            seen = frames[-3:]
            zap.send_multipart([*frames[:2], b"1.0", frames[3], b"400", b"no", b"", b""])
            assert caller.wait() == 1
        assert seen == [b"PLAIN", b"anna", b"secret"]


def test_serve_answers_the_same_frames_and_prints_requests(net):
    endpoint = net.endpoint()
    server = Background("serve", endpoint)
    with net.context.socket(zmq.REQ) as caller:
        caller.linger = 0
        caller.connect(endpoint)
        for frames in ([b"one"], [b"two", b"", b"\xff"]):
            caller.send_multipart(frames)
            assert caller.poll(5000 * FACTOR)
            assert caller.recv_multipart() == frames
    assert server.line() == "one"
    assert server.line() == "two |  | \\xff"
    assert server.end(signal.SIGINT) == 0


def test_serve_waits_before_it_answers(net):
    endpoint = net.endpoint()
    server = Background("serve", "--delay", "300ms", endpoint)
    with net.context.socket(zmq.REQ) as caller:
        caller.linger = 0
        caller.connect(endpoint)
        caller.send(b"x")
        assert server.line() == "x"
        began = time.monotonic()
        assert caller.poll(5000 * FACTOR)
        assert time.monotonic() - began > 0.2
    assert server.end() == 0


def test_publish_waits_for_a_subscriber(net):
    endpoint = net.endpoint()
    result = proxyctl("publish", "--timeout", "100ms", endpoint, "x")
    assert result.returncode == 1 and "no subscriber within 100 ms" in result.stderr
    publisher = Background("publish", endpoint, "topic", "body")
    subscriber = net.subscriber(endpoint)
    assert subscriber.receive() == [b"topic", b"body"]
    assert publisher.wait() == 0


def test_publish_takes_lines_of_standard_input(net):
    endpoint = net.endpoint()
    publisher = Background("publish", endpoint, stdin=subprocess.PIPE)
    subscriber = net.subscriber(endpoint)
    publisher.process.stdin.write("one\n\nthree")
    publisher.process.stdin.close()
    assert subscriber.take(3) == [[b"one"], [b""], [b"three"]]
    assert publisher.wait() == 0


def test_subscribe_prints_the_topics_it_asked_for(net):
    publisher = net.publisher()
    subscriber = Background("subscribe", "--count", "2", publisher.endpoint, "a", "b")
    publisher.wait_subscribed(b"a").wait_subscribed(b"b")
    for frames in ([b"a1", b"x"], [b"c"], [b"b", b""]):
        publisher.publish(*frames)
    assert [subscriber.line(), subscriber.line()] == ["a1 | x", "b | "]
    assert subscriber.wait() == 0


def test_subscribe_comes_back_to_a_publisher_that_was_away(net):
    publisher = net.publisher()
    subscriber = Background("subscribe", publisher.endpoint, stderr=subprocess.DEVNULL)
    publisher.wait_subscribed()
    publisher.publish(b"one")
    assert subscriber.line() == "one"
    publisher.stop()
    publisher.start()
    publisher.wait_subscribed()
    publisher.publish(b"two")
    assert subscriber.line() == "two"
    assert subscriber.end() == 0
