# SPDX-License-Identifier: MIT
"""HTTP: what it tells, and what becomes of those who abuse it."""
import contextlib
import http.client
import json
import random
import re
import shutil
import socket
import subprocess
import time

import pytest
import zmq

from exposition import Metrics
from harness import FACTOR, ROOT, balance_error, eventually, free_endpoint, host_port
from peers import swallow

VISIT_S = 5
PER_ADDRESS = 32
PAGES = ("/", "/metrics", "/healthz", "/readyz", "/api/status")


class Web:
    """A daemon with HTTP, as one who looks at it."""

    def __init__(self, net, *chains, host="127.0.0.1", **options):
        self.port = host_port(free_endpoint())[1]
        self.host = host
        address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.proxyd = net.proxyd(*chains, daemon={"http": address}, **options)

    def ask(self, path, method="GET", body=None, **headers):
        """(status, headers, body)"""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5 * FACTOR)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def metrics(self):
        status, headers, body = self.ask("/metrics")
        assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        return Metrics(body.decode())

    def connect(self, source="127.0.0.1"):
        return socket.create_connection((self.host, self.port), timeout=20 * FACTOR, source_address=(source, 0))


@pytest.fixture
def web(net):
    web = Web(net, net.chain("rep-req", to=net.rep()))
    web.proxyd.wait_for("rep-req", state="up")
    return web


# ---- what it tells ---------------------------------------------------------------------------------------------

def test_metrics_tell_what_status_tells(net):
    upstream, publisher = net.rep(), net.publisher()
    calls = net.chain("rep-req", to=[upstream, net.endpoint()], name="calls", queue={"max_messages": 0})
    orders = net.chain("buffered-rep-req", to=[net.endpoint()] * 2, name="orders")
    web = Web(net, calls, orders, net.chain("rep-pub"), net.chain("sub-pub", at=publisher))
    for _ in range(3):
        net.caller(calls).call(b"x")
    assert net.caller(orders).call(b"x")[0].startswith(b"accepted synced")
    web.proxyd.wait_for(calls, delivered=3, state="degraded")
    web.proxyd.wait_for(orders, state="down")
    metrics, status = web.metrics(), web.proxyd.status()
    assert metrics.value("proxyd_build_info", version=status["version"]) == 1
    for name, chain in status["chains"].items():
        assert metrics.value("proxyd_chain_info", chain=name, kind=chain["kind"], dialect="raw") == 1
        assert metrics.balance(name) == 0
        for word in ("accepted", "delivered", "retries", "restored", "orphaned", "expired"):
            assert metrics.value(f"proxyd_{word}_total", chain=name) == chain[word]
        for state in ("up", "degraded", "down", "paused", "draining"):
            assert metrics.value("proxyd_chain_state", chain=name, state=state) == (chain["state"] == state)
        for row in chain["upstreams"]:
            for state in ("up", "connecting", "down"):
                assert metrics.value("proxyd_upstream_state", chain=name, endpoint=row["endpoint"],
                                     state=state) == (row["state"] == state)
    assert metrics.value("proxyd_request_seconds_count", chain="calls") == 3
    assert metrics.value("proxyd_request_seconds_count", chain="orders") == 1
    assert metrics.value("proxyd_commit_seconds_count") >= 1
    assert metrics.value("proxyd_store_bytes_written_total") > 4096
    assert metrics.value("proxyd_queue_oldest_seconds", chain="orders") > 0
    assert metrics.value("proxyd_queue_max_messages", chain="orders") == 1000000
    assert ("proxyd_queue_max_messages", frozenset({("chain", "calls")})) not in metrics.samples
    assert metrics.value("proxyd_auth_total", verdict="denied") == 0
    assert metrics.value("proxyd_connections") >= 1
    assert 1e6 < metrics.value("process_resident_memory_bytes") < 1e9
    assert abs(metrics.value("process_start_time_seconds") - time.time()) < 60 * FACTOR


def test_the_ledger_balances_in_every_scrape_under_load(net):
    calls = [net.chain("rep-req", to=net.router(), name=f"calls{i}") for i in range(2)]
    web = Web(net, *calls)
    pipelines = [net.pipeline(chain) for chain in calls]
    scrapes = []
    for _ in range(20):
        for pipeline in pipelines:
            pipeline.send_each([b"x"] * 200)
        scrapes.append(web.metrics())
        for pipeline in pipelines:
            pipeline.drain()
    for metrics in scrapes:
        assert [metrics.balance(chain.name) for chain in calls] == [0, 0]
    accepted = [metrics.sum("proxyd_accepted_total") for metrics in scrapes]
    assert accepted == sorted(accepted) and accepted[-1] > accepted[0]


def test_labels_are_escaped(net):
    odd = net.ipc('a"b\\c')
    web = Web(net, net.chain("rep-req", to=odd))
    assert web.metrics().value("proxyd_upstream_inflight", chain="rep-req", endpoint=odd) == 0


def test_times_fall_into_their_buckets(net):
    calls = net.chain("rep-req", to=net.rep(lambda server, request: server.later(
        0.1, lambda: server.reply(request, *request.body))))
    web = Web(net, calls)
    assert net.caller(calls).call(b"x") == [b"x"]
    web.proxyd.wait_for(calls, delivered=1)
    metrics = web.metrics()
    assert metrics.value("proxyd_request_seconds_bucket", chain="rep-req", le="0.065536") == 0
    assert metrics.value("proxyd_request_seconds_bucket", chain="rep-req", le="67.108864") == 1
    assert 0.09 < metrics.value("proxyd_request_seconds_sum", chain="rep-req") < 5 * FACTOR


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian package prometheus) is not here")
def test_promtool_finds_nothing_wrong(web):
    text = web.ask("/metrics")[2]
    check = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30 * FACTOR)
    assert (check.returncode, check.stdout, check.stderr) == (0, b"", b"")
    check = subprocess.run(["promtool", "check", "rules", ROOT / "etc" / "alerts.yml"], capture_output=True,
                           timeout=30 * FACTOR)
    assert check.returncode == 0, check


def test_manual_dashboard_and_alerts_name_what_there_is(net):
    families = Web(net, net.chain("buffered-rep-req")).metrics().families
    manual = (ROOT / "etc" / "man" / "proxyd.8.in").read_text()
    assert set(re.findall(r"\b(?:proxyd|process)_[a-z_]+", manual)) == set(families)
    dashboard = json.loads((ROOT / "etc" / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += re.findall(r"expr:((?: [^\n]*\n| >-\n(?: {10,}[^\n]*\n)+))", (ROOT / "etc" / "alerts.yml").read_text())
    assert len(queries) > 30
    named = set(re.findall(r"\b(?:proxyd|process)_[a-z_]+", " ".join(queries)))
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in named} <= set(families)
    assert named >= {"proxyd_chain_state", "proxyd_commit_seconds_bucket", "proxyd_request_seconds_bucket"}


def test_api_status_is_what_control_says(web):
    status, headers, body = web.ask("/api/status")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    told, asked = json.loads(body), web.proxyd.control("status")
    assert told.keys() == asked.keys()
    assert [balance_error(chain) for chain in told["chains"]] == [None]
    assert told["chains"][0].keys() == asked["chains"][0].keys()


def test_readiness_names_those_that_are_not_ready(net):
    upstream = net.rep(swallow)
    calls = net.chain("rep-req", to=[upstream, net.endpoint()], name="calls", backend={"timeout": "60s"})
    lonely = net.chain("rep-req", to=net.rep(), name="lonely")
    web = Web(net, calls, lonely)
    web.proxyd.wait_for(calls, state="degraded")
    web.proxyd.wait_for(lonely, state="up")
    assert web.ask("/readyz")[::2] == (200, b"ok\n")
    web.proxyd.control("pause", "lonely")
    eventually(lambda: web.ask("/readyz")[::2] == (503, b"lonely paused\n"))
    net.caller(calls).send(b"x")
    web.proxyd.wait_for(calls, inflight=1)
    web.proxyd.control("drain", "calls")
    eventually(lambda: web.ask("/readyz")[::2] == (503, b"calls draining\nlonely paused\n"))
    upstream.stop()
    web.proxyd.control("resume", "calls")
    web.proxyd.control("resume", "lonely")
    eventually(lambda: web.ask("/readyz")[::2] == (503, b"calls down\n"))
    assert web.ask("/healthz")[::2] == (200, b"ok\n")


def stop_thread(process, name):
    """Stops one thread of a process, which ptrace can; returns what lets it go on."""
    import ctypes
    import os
    import pathlib
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    seize, interrupt, detach, wall = 0x4206, 0x4207, 17, 0x40000000
    thread = next(int(task.name) for task in pathlib.Path(f"/proc/{process}/task").iterdir()
                  if (task / "comm").read_text().strip() == name)
    if libc.ptrace(seize, thread, None, None) != 0:
        pytest.skip("only root may stop a thread of a process that cannot be dumped")
    libc.ptrace(interrupt, thread, None, None)
    os.waitpid(thread, wall)
    return lambda: libc.ptrace(detach, thread, None, None)


def test_health_fails_while_a_loop_does_not_turn(net):
    web = Web(net, net.chain("rep-req", to=net.rep(), name="calls"), net.chain("rep-pub", name="events"))
    assert web.ask("/healthz")[::2] == (200, b"ok\n")
    go_on = stop_thread(web.proxyd.pid, "calls")
    try:
        eventually(lambda: web.ask("/healthz")[::2] == (503, b"calls stuck\n"), 10)
    finally:
        go_on()
    eventually(lambda: web.ask("/healthz")[::2] == (200, b"ok\n"))


def test_every_answer_is_fresh_and_shut_off_from_other_sites(web):
    for path in (*PAGES, "/nothing"):
        status, headers, body = web.ask(path)
        assert status == (404 if path == "/nothing" else 200), path
        assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY" and "Access-Control-Allow-Origin" not in headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none';") and "connect-src 'self'" in policy
        head = web.ask(path, "HEAD")
        assert (head[0], head[2]) == (status, b"")
        if path in ("/", "/healthz"):
            assert head[1]["Content-Length"] == str(len(body))


# ---- who may ask -----------------------------------------------------------------------------------------------

def test_only_get_and_head_and_no_bodies(web):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"):
        status, headers, _ = web.ask("/metrics", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD"), method
    assert web.ask("/metrics", body=b"x" * 100000)[0] == 413
    assert web.ask("/api/status?now=1")[0] == 200
    for path in ("/metrics/", "//metrics", "/../metrics", "/status.html", "/%2e%2e/etc/passwd"):
        assert web.ask(path)[0] == 404, path


def test_on_loopback_only_its_own_names_are_answered(web):
    for host in ("localhost", "LOCALHOST:9633", f"127.0.0.1:{web.port}", "127.5.6.7", "[::1]", "[::1]:80"):
        assert web.ask("/api/status", Host=host)[0] == 200, host
    for host in ("rebound.example", "rebound.example:9633", "localhost.rebound.example", "10.0.0.1", "[::2]", "", ":",
                 "127.0.0.1.nip.io", "0.0.0.0", "[::1", "x" * 3000, "localhost@rebound.example"):
        assert web.ask("/api/status", Host=host)[0] == 403, host
        assert web.ask("/", Host=host)[0] == 403, host


def test_it_listens_at_ipv6(net):
    web = Web(net, net.chain("rep-pub"), host="::1")
    assert web.ask("/healthz")[0] == 200


def test_an_address_that_others_reach_is_warned_of(net):
    own_network = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    proxyd = net.proxyd(net.chain("rep-pub"), daemon={"http": "*:9633"}, prefix=own_network)
    proxyd.logged("open-http", address="*:9633", auth="none")
    local = net.proxyd(net.chain("rep-pub"), daemon={"http": f"127.0.0.1:{host_port(free_endpoint())[1]}"})
    local.logged("ready")
    assert not local.events("open-http")


def test_an_address_in_use_ends_the_start(net, web):
    late = net.prepare(net.chain("rep-pub"), daemon={"http": f"127.0.0.1:{web.port}"}).start(ready=False)
    late.expect_exit(1)
    assert "Address already in use" in late.log and f"127.0.0.1:{web.port}" in late.log


def test_without_http_nothing_is_loaded(net):
    def mapped(proxyd):
        return open(f"/proc/{proxyd.pid}/maps").read()
    try:
        assert "libmicrohttpd" not in mapped(net.proxyd(net.chain("rep-pub")))
    except PermissionError:
        pytest.skip("only root can look into a process that cannot be dumped")
    assert "libmicrohttpd" in mapped(Web(net, net.chain("rep-pub")).proxyd)


# ---- abuse -----------------------------------------------------------------------------------------------------

def drained(connection):
    """What comes until the other side ends it; None when it has not within its time-out."""
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass
    except TimeoutError:
        return None
    return data


def test_batches_on_the_control_socket_let_others_in(net):
    """A batch is a turn of the loop that serves both."""
    web = Web(net, *[net.chain("rep-pub", name=f"c{number}") for number in range(10)])
    batch = json.dumps([{"jsonrpc": "2.0", "id": 1, "method": "status"}] * 32).encode()
    with net.context.socket(zmq.DEALER) as dealer:
        dealer.hwm, dealer.linger = 0, 0
        dealer.connect(web.proxyd.control_endpoint)
        for _ in range(300):
            dealer.send_multipart([b"", batch])
        dealer.recv_multipart()
        for _ in range(5):
            assert web.ask("/healthz")[0] == 200
        answered = 1
        while dealer.poll(0):
            dealer.recv_multipart()
            answered += 1
    assert answered < 5 * 16


def test_who_takes_too_long_is_ended(web):
    """A request that trickles in, a connection that says nothing, an answer that nobody reads: all end in time, and
    nobody else waits for them."""
    files, began = web.proxyd.fd_count(), time.monotonic()
    with web.connect() as slow, web.connect() as silent, web.connect() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n")
        slow.settimeout(0.5)
        ended = None
        while ended is None and time.monotonic() - began < 3 * VISIT_S * FACTOR:
            try:
                slow.send(b"X-Trickle: 1\r\n"[:1])
                ended = None if slow.recv(4096) else time.monotonic()
            except TimeoutError:
                assert web.ask("/healthz")[0] == 200
            except OSError:
                ended = time.monotonic()
        assert ended and ended - began >= VISIT_S - 1
        assert drained(silent) == b""
        eventually(lambda: web.proxyd.fd_count() <= files, VISIT_S)


def test_long_headers_are_refused(web):
    for request in (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 10_000 + b"\r\n\r\n",
                    b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
                    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 5000 + b"\r\n"):
        with web.connect() as connection:
            connection.sendall(request)
            answer = drained(connection)
            assert answer == b"" or answer.split()[1] in (b"413", b"414", b"431"), answer
    assert web.ask("/metrics")[0] == 200


def test_a_crowd_from_one_address_leaves_room_for_others(web):
    files = web.proxyd.fd_count()
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(web.connect()) for _ in range(300)]
        with web.connect("127.0.0.2") as other:
            other.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert drained(other).startswith(b"HTTP/1.1 200 ")
        assert web.proxyd.fd_count() - files <= PER_ADDRESS + 2
        ended = 0
        for connection in crowd[PER_ADDRESS:]:
            connection.settimeout(5 * FACTOR)
            ended += drained(connection) == b""
        assert ended == len(crowd) - PER_ADDRESS
    eventually(lambda: web.proxyd.fd_count() <= files + 1)


def test_a_pipeline_is_answered_in_order(web):
    paths = [random.Random(1).choice(PAGES) for _ in range(100)]
    with web.connect() as connection:
        connection.sendall(b"".join(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode()
                                    for path in paths[:-1]))
        connection.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % paths[-1].encode())
        stream = connection.makefile("rb")
        for path in paths:
            assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
            headers = dict(line.rstrip().split(b": ", 1) for line in iter(stream.readline, b"\r\n"))
            body = stream.read(int(headers[b"Content-Length"]))
            assert (body[:1] == b"{") == (path == "/api/status") and (b"# HELP" in body) == (path == "/metrics")
        assert stream.read() == b""


def test_garbage_hurts_nobody(web):
    rng = random.Random(1)
    seeds = [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /metrics HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01",
             b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
             b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"GET\x00/\x00HTTP/1.1\n\n", b"HEAD http://x/ HTTP/1.1\r\n\r\n"]
    for number in range(200):
        data = bytearray(rng.choice(seeds))
        for _ in range(number % 5):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with web.connect() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(data[:rng.randrange(len(data)) or None])
            connection.shutdown(socket.SHUT_WR)
            assert drained(connection) is not None
    assert web.ask("/metrics")[0] == 200 and web.proxyd.status()
