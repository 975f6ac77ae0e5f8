#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""How a whole proxyd stands a storm at its door, with real ZeroMQ clients on this machine. Prints figures.

    tests/load/door.py BUILD bad N       N clients with bad passwords, while users come and calls go on
    tests/load/door.py BUILD cold N      N good users at once, none of them remembered
    tests/load/door.py BUILD timing N    how long a denial takes: for an unknown user, for a wrong password
"""
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
os.environ["PROXYD_BUILD"] = os.path.abspath(sys.argv[1]) if len(sys.argv) == 4 else sys.exit(__doc__)

import zmq  # noqa: E402
from zmq.utils.monitor import recv_monitor_message  # noqa: E402

from harness import PROXYCTL, Chain, Proxyd, eventually  # noqa: E402
from peers import Caller, Server  # noqa: E402

PASSWORD = "open sesame"
STORM_S = 10


def make_users(path, names):
    """All with one hash: each is still checked for itself."""
    subprocess.run([PROXYCTL, "passwd", path, names[0], "--stdin"], input=PASSWORD, text=True, check=True)
    line_hash = path.read_text().strip().split(":", 1)[1]
    path.write_text("".join(f"{name}:{line_hash}\n" for name in names))


def login(context, endpoint, name, password=PASSWORD, address=None):
    place = endpoint.replace("tcp://", f"tcp://{address}:0;") if address else endpoint
    return Caller(context, place, plain_username=name.encode(), plain_password=password.encode())


def timed_call(caller):
    began = time.monotonic()
    caller.call(b"x", seconds=60)
    return (time.monotonic() - began) * 1000


def spread(values):
    values = sorted(values)
    return "median %.1f, p99 %.1f, max %.1f ms (%d)" % (
        statistics.median(values), values[int(len(values) * 0.99)], values[-1], len(values))


def verdicts(proxyd):
    return proxyd.control("status", timeout=30)["auth"]


def bad(context, proxyd, endpoint, count):
    steady = login(context, endpoint, "user0")
    steady.call(b"x")
    calm = [timed_call(steady) for _ in range(2000)]
    rss, cpu = proxyd.rss_bytes(), proxyd.cpu_s()
    attackers = [login(context, endpoint, "user0", f"guess {number}") for number in range(count)]
    for attacker in attackers:
        attacker.send(b"never")
    began, calls, comers, new = time.monotonic(), [], [], 1
    while time.monotonic() - began < STORM_S:
        fresh = login(context, endpoint, "user0")
        comers.append(timed_call(fresh))
        fresh.close()
        calls += [timed_call(steady) for _ in range(100)]
    stranger = login(context, endpoint, f"user{new}")
    print(f"calls before:            {spread(calm)}")
    print(f"calls meanwhile:         {spread(calls)}")
    print(f"a known user comes in:   {spread(comers)}")
    print(f"an unremembered one:     {timed_call(stranger):.0f} ms")
    print(f"memory: {rss >> 20} MiB before, {proxyd.rss_bytes(peak=True) >> 20} MiB at most; "
          f"CPU {(proxyd.cpu_s() - cpu) / (time.monotonic() - began):.2f} cores; verdicts {verdicts(proxyd)}")


def cold(context, proxyd, endpoint, count):
    began = time.monotonic()
    users = [login(context, endpoint, f"user{number}") for number in range(count)]
    for user in users:
        user.send(b"x")
    took = []
    poller = zmq.Poller()
    for user in users:
        poller.register(user.socket, zmq.POLLIN)
    while len(took) < count and time.monotonic() - began < 120:
        for socket, _ in poller.poll(1000):
            socket.recv_multipart()
            poller.unregister(socket)
            took.append(time.monotonic() - began)
    print(f"{len(took)} of {count} in, the last after {took[-1]:.1f} s: {len(took) / took[-1]:.0f} a second; "
          f"{proxyd.rss_bytes(peak=True) >> 20} MiB at most; verdicts {verdicts(proxyd)}")


def denial_ms(context, endpoint, name, address):
    socket = context.socket(zmq.REQ)
    socket.linger = 0
    socket.plain_username, socket.plain_password = name.encode(), b"wrong"
    monitor = socket.get_monitor_socket(zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    socket.connect(endpoint.replace("tcp://", f"tcp://{address}:0;"))
    began = None
    while True:
        assert monitor.poll(20000), "neither let in nor denied"
        if recv_monitor_message(monitor)["event"] == zmq.EVENT_CONNECTED:
            began = time.monotonic()
        else:
            break
    took = (time.monotonic() - began) * 1000
    socket.disable_monitor()
    socket.close()
    return took


def timing(context, proxyd, endpoint, count):
    """In turns, each from an address of its own, so that nobody is slowed down."""
    unknown, wrong = [], []
    for number in range(count):
        address = f"127.9.{number // 100}.{number % 100 + 1}"
        unknown.append(denial_ms(context, endpoint, f"nobody{number}", address))
        wrong.append(denial_ms(context, endpoint, f"user{number % 1000}", address))
    wins = sum((u > w) + (u == w) / 2 for u in unknown for w in wrong) / (count * count)
    print(f"unknown user:   {spread(unknown)}\nwrong password: {spread(wrong)}\n"
          f"told apart with probability (AUC) {wins:.3f}; 0.5 = not at all; verdicts {verdicts(proxyd)}")


def main():
    storm = {"bad": bad, "cold": cold, "timing": timing}[sys.argv[2]]
    count = int(sys.argv[3])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context = zmq.Context()
    context.max_sockets = 10000
    with tempfile.TemporaryDirectory() as scratch:
        users = pathlib.Path(scratch) / "users"
        make_users(users, [f"user{number}" for number in range(max(count, 1000))])
        server = Server(context, "tcp://127.0.0.1:15901")
        chain = Chain("rep-req", at="tcp://127.0.0.1:15900", to=server.endpoint, frontend={"auth": "plain"})
        proxyd = Proxyd(context, scratch, (chain,), daemon={"users": str(users), "max_connections_per_address": 0}).start()
        try:
            eventually(lambda: proxyd.chain(chain)["state"] == "up")
            storm(context, proxyd, chain.endpoint, count)
        finally:
            proxyd.stop()
            server.close()
            context.destroy(linger=0)


main()
