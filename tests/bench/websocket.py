#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Calls per second to one JSON-RPC server through a rep-req chain: over WebSocket, over wss, and over tcp to a REP
socket with the same work behind it. The servers are Python, each in a process of its own, and the bound: the last
column is what the daemon itself spent on a call.

    tests/bench/websocket.py BUILD [SECONDS]
"""
import json
import multiprocessing
import os
import pathlib
import statistics
import sys
import time

BUILD, SECONDS = pathlib.Path(sys.argv[1]).resolve(), float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
os.environ["PROXYD_BUILD"] = str(BUILD)
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import conftest  # noqa: E402
import harness  # noqa: E402
import webserver  # noqa: E402
import zmq  # noqa: E402

REQUEST = b'{"jsonrpc":"2.0","id":1,"method":"echo","params":[1,2,3]}'
ROUNDS, OUTSTANDING = 5, 64


def serve_rep(endpoint):
    socket = zmq.Context().socket(zmq.REP)
    socket.bind(endpoint)
    while True:
        call = json.loads(socket.recv())
        socket.send(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": call["params"]}).encode())


def serve_web(endpoint, tls):
    webserver.WebServer(endpoint, tls=tls)
    time.sleep(3600)


def calls_per_s(pipeline, outstanding):
    """With so many requests always on their way."""
    end, done = time.monotonic() + SECONDS, 0
    began = time.monotonic()
    for _ in range(outstanding):
        pipeline.send(REQUEST)
    while time.monotonic() < end:
        pipeline.socket.recv_multipart()
        pipeline.send(REQUEST)
        done += 1
    for _ in range(outstanding):
        pipeline.socket.recv_multipart()
    return (done + outstanding) / (time.monotonic() - began)


def main():
    net = conftest.Net()
    place = net.endpoint()
    path, context = webserver.certificate(net, "bench", f"IP:{harness.host_port(place)[0]}")
    fork = multiprocessing.get_context("fork")
    chains = {
        "tcp": (rep := net.endpoint(), serve_rep, (rep,), {}),
        "ws": ((plain := net.endpoint()).replace("tcp:", "ws:"), serve_web, (plain, None), {}),
        "wss": (place.replace("tcp:", "wss:"), serve_web, (place, context), {"tls_ca_file": str(path)}),
    }
    servers = [fork.Process(target=serve, args=arguments, daemon=True) for _, serve, arguments, _ in chains.values()]
    for server in servers:
        server.start()
    chains = {name: net.chain("rep-req", name=name, to=to, dialect="jsonrpc", backend={"window": OUTSTANDING, **backend})
              for name, (to, _, _, backend) in chains.items()}
    daemon = net.proxyd(*chains.values())
    for chain in chains.values():
        daemon.wait_for(chain, state="up")
    pipelines = {name: net.pipeline(chain) for name, chain in chains.items()}
    rates = {(name, n): [] for name in chains for n in (1, OUTSTANDING)}
    spent = {key: [] for key in rates}
    for _ in range(ROUNDS):
        for name, n in rates:
            before = daemon.cpu_s()
            rates[name, n].append(calls_per_s(pipelines[name], n))
            spent[name, n].append((daemon.cpu_s() - before) * 1e6 / (rates[name, n][-1] * SECONDS))
    print(f"{'':5} {'outstanding':>11} {'calls/s':>9} {'of tcp':>7} {'CPU us/call':>12}")
    for name, n in rates:
        ratio = statistics.median(a / b for a, b in zip(rates[name, n], rates["tcp", n]))
        print(f"{name:5} {n:11} {statistics.median(rates[name, n]):9.0f} {ratio:7.2f} {statistics.median(spent[name, n]):12.0f}")
    net.close()
    for server in servers:
        server.terminate()


main()
