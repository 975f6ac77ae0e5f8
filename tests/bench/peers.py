# SPDX-License-Identifier: MIT
"""Starts and ends the processes of a measurement: proxyd itself (by the harness of the end-to-end tests, which also
looks whether its ledger balances), the C program's roles, the other references. Everything dies with this process."""
import contextlib
import json
import os
import pathlib
import select
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

import harness  # noqa: E402
import zmq  # noqa: E402
from harness import Chain, free_endpoint, host_port  # noqa: E402

PEER = harness.BUILD / "bench" / "peer"
PASSWORD = "a password of the benchmark"
READY_S = 90
SLICE_MARGIN_S = 30


class NotAvailable(Exception):
    """What is to be measured does not exist here; says why."""


class Failed(Exception):
    """A process did not do what it was started for."""


class Process:
    """A process that says `ready` on stdout when it is."""

    def __init__(self, *command):
        self.name = " ".join(map(str, command[1:3]))
        self._process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                         preexec_fn=harness.set_parent_death_signal)
        self.pid = self._process.pid
        try:
            if self.read_line(READY_S) != "ready":
                raise Failed(f"{self.name} is not ready")
        except Failed:
            self.stop()
            raise

    def read_line(self, seconds):
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise Failed(f"{self.name} says nothing for {seconds:.0f} s")
        line = self._process.stdout.readline().strip()
        if not line:
            raise Failed(f"{self.name} ended: {self._process.stderr.read().strip()}")
        return line

    def write_line(self, line):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def stop(self):
        self._process.kill()
        self._process.communicate()


class Load(Process):
    """A role that measures: see meter.h."""

    def begin(self, seconds, pid=0):
        self.write_line(f"go {round(seconds * 1000)} {pid}")

    def end(self, seconds):
        return json.loads(self.read_line(seconds + SLICE_MARGIN_S))

    def measure(self, seconds, pid=0):
        self.begin(seconds, pid)
        return self.end(seconds)


class Stage:
    """Where one experiment plays: keeps what was started, in a scratch directory, and ends it again."""

    def __init__(self, scratch):
        self.scratch = pathlib.Path(scratch)
        self._ends = contextlib.ExitStack()
        self._daemons = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self._ends.__exit__(*error)

    def _keep(self, process):
        self._ends.callback(process.stop)
        return process

    def role(self, *words):
        """A server or a reference played by the C program."""
        return self._keep(Process(PEER, *words))

    def load(self, *words):
        return self._keep(Load(PEER, *words))

    def echo(self):
        endpoint = free_endpoint()
        self.role("echo", endpoint)
        return endpoint

    def slow_echo(self, delay_ms):
        endpoint = free_endpoint()
        self.role("slow-echo", delay_ms, endpoint)
        return endpoint

    def forward(self, kind, *pairs):
        return self.role("forward", kind, *(endpoint for pair in pairs for endpoint in pair))

    def rep2req(self, backend):
        frontend = free_endpoint()
        return self._keep(Process("/usr/bin/python3", HERE / "rep2req.py", frontend, backend)), frontend

    def mosquitto(self):
        """(process id, host, port) of a broker that persists, and bounds nothing."""
        endpoint = free_endpoint()
        host, port = host_port(endpoint)
        folder = self.scratch / "mosquitto"
        folder.mkdir()
        os.chmod(folder, 0o777)  # it gives up root by itself
        (self.scratch / "mosquitto.conf").write_text(
            f"listener {port} {host}\nallow_anonymous true\npersistence true\npersistence_location {folder}/\n"
            "max_queued_messages 0\nset_tcp_nodelay true\nlog_type none\n")
        process = subprocess.Popen(["/usr/sbin/mosquitto", "-c", str(self.scratch / "mosquitto.conf")],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   preexec_fn=harness.set_parent_death_signal)

        def end():
            process.kill()
            process.wait()
        self._ends.callback(end)
        wait_for_port(host, port)
        return process.pid, host, port

    def users_file(self):
        """A users file with the user `bench`."""
        path = self.scratch / "users"
        done = subprocess.run([str(harness.PROXYCTL), "passwd", str(path), "bench", "--stdin"], text=True,
                              input=PASSWORD, capture_output=True)
        if done.returncode != 0:
            raise NotAvailable(first_line(done.stderr))
        return str(path)

    def proxyd(self, *chains, **daemon):
        """A running daemon with these chains, its store in a scratch directory of its own."""
        self._daemons += 1
        scratch = self.scratch / f"proxyd{self._daemons}"
        scratch.mkdir()
        daemon = {"log_level": "warning", **daemon}
        proxyd = harness.Proxyd(zmq.Context.instance(), scratch, tuple(chains), daemon)
        check = subprocess.run([str(harness.PROXYD), "-t", "-c", str(proxyd.config_path)], capture_output=True,
                               text=True)
        if check.returncode != 0:
            raise NotAvailable(first_line(check.stderr).split(": ", 2)[-1])
        self._ends.callback(end_daemon, proxyd)
        return proxyd.start()


def end_daemon(proxyd):
    try:
        proxyd.finish()
    except AssertionError as error:
        raise Failed(str(error)) from None


def first_line(text):
    return (text.strip().splitlines() or ["no reason given"])[0]


def wait_for_port(host, port):
    import socket
    deadline = time.monotonic() + READY_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        if time.monotonic() > deadline:
            raise Failed(f"nobody listens on {host}:{port}")
        time.sleep(0.01)


def wait_until_empty(proxyd):
    """Until no chain of the daemon holds a message any more, so that it does not work while another is measured."""
    deadline = time.monotonic() + READY_S
    while any(chain["queued"] or chain["inflight"] for chain in proxyd.status()["chains"].values()):
        if time.monotonic() > deadline:
            raise Failed("the backlog does not drain")
        time.sleep(0.02)


__all__ = ["Chain", "Failed", "NotAvailable", "PASSWORD", "Stage", "free_endpoint", "harness", "wait_until_empty"]
