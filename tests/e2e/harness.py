# SPDX-License-Identifier: MIT
"""Runs a real proxyd in a scratch directory and looks at it from outside: its configuration file, its control
socket, its log, its exit status, /proc. Every snapshot of `status` taken here must balance (G1 in test_guarantees.py).
Nothing here sleeps for luck: `eventually` polls a condition with a deadline.

    PROXYD_BUILD        directory of the binaries under test (default build/)
    PROXYD_TEST_FACTOR  stretches every deadline (default 1; 4 when the binary is sanitized)
"""
import ctypes
import itertools
import json
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import time

import pytest
import zmq

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = (ROOT / os.environ.get("PROXYD_BUILD", "build")).resolve()
PROXYD = BUILD / "proxyd"
PROXYCTL = BUILD / "proxyctl"


def _is_sanitized():
    return PROXYD.exists() and b"__asan_init" in PROXYD.read_bytes()


SANITIZED = _is_sanitized()
FACTOR = float(os.environ.get("PROXYD_TEST_FACTOR", "4" if SANITIZED else "1"))

SANITIZER_MARKS = ("AddressSanitizer", "LeakSanitizer", "ThreadSanitizer", "runtime error:")
READY_S = 5.0
STOP_MARGIN_S = 3.0


def eventually(condition, seconds=5.0, what=None):
    """The first true value of `condition()`; fails when there is none within `seconds` (stretched)."""
    deadline = time.monotonic() + seconds * FACTOR
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds * FACTOR:g} s: {what or condition}")
        time.sleep(0.01)


def holds(condition, seconds, what=None):
    """Fails as soon as `condition()` is false; watches for `seconds` (not stretched: it proves an absence)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), f"did not hold: {what or condition}"
        time.sleep(0.01)


# ---- addresses -------------------------------------------------------------------------------------------------
#
# Each test process has a loopback address of its own and counts ports up on it, below the range that the kernel
# hands out: no two runs can collide, and no outgoing connection can take a port that a test is about to use.

def _own_address():
    pid = os.getpid()
    return f"127.{64 + (pid >> 16) % 64}.{(pid >> 8) % 256}.{pid % 255}"


OWN_ADDRESS = _own_address()
_ports = itertools.count(10000)


def free_endpoint():
    """A tcp endpoint that nobody uses and nobody will get."""
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind((OWN_ADDRESS, port))
            except OSError:
                continue
        return f"tcp://{OWN_ADDRESS}:{port}"


def host_port(endpoint):
    """("127.0.0.1", 5555) of a tcp endpoint."""
    host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
    return host, int(port)


def endpoint_of(place):
    """The endpoint of a peer, a chain's side, or the text itself."""
    return place if isinstance(place, str) else place.endpoint


# ---- configuration ---------------------------------------------------------------------------------------------

def libconfig(value):
    """A Python value in libconfig's syntax: dict -> group, list -> array, tuple -> list."""
    if isinstance(value, dict):
        return "{ " + " ".join(f"{key} = {libconfig(item)};" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[ " + ", ".join(map(libconfig, value)) + " ]"
    if isinstance(value, tuple):
        return "(\n  " + ",\n  ".join(map(libconfig, value)) + "\n)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


class Chain:
    """One chain of a configuration. `at` and `to` are where its frontend and its backend stand; callers connect
    to the chain itself (`endpoint`), subscribers of a PUB backend to `to`."""

    def __init__(self, kind, at=None, to=None, name=None, dialect=None, frontend=(), backend=(), queue=()):
        self.kind = kind
        self.name = name or kind
        self.at = self._places(at)
        self.to = self._places(to)
        self.conf = {"name": self.name, "kind": kind}
        if dialect:
            self.conf["dialect"] = dialect
        self.conf["frontend"] = {"endpoints": self.at, **dict(frontend)}
        self.conf["backend"] = {"endpoints": self.to, **dict(backend)}
        if queue:
            self.conf["queue"] = dict(queue)

    @staticmethod
    def _places(place):
        places = place if isinstance(place, list) else [place or free_endpoint()]
        return [endpoint_of(each) for each in places]

    @property
    def endpoint(self):
        return self.at[0].lstrip("@>")

    @property
    def published(self):
        return self.to[0].lstrip("@>")


def balance_error(chain):
    """What is wrong with the ledger of a chain's status; None when it balances."""
    total = (chain["delivered"] + sum(chain["failed"].values()) + chain["expired"]
             + sum(chain["dropped"].values()) + chain["dead"] + chain["queued"] + chain["inflight"])
    if chain["accepted"] == total:
        return None
    return f"chain {chain['name']}: accepted {chain['accepted']} != {total}: {json.dumps(chain)}"


def set_parent_death_signal():
    """In a child: dies with the test run, so that an interrupted run leaves nothing behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Proxyd:
    """One daemon. `config` is a tuple of Chain, or the whole file as text; `daemon` adds to its daemon group;
    `prefix` are the words of a command that executes it (`ip netns exec …`)."""

    def __init__(self, context, scratch, config, daemon=(), env=(), prefix=()):
        self.context = context
        self.scratch = pathlib.Path(scratch)
        self.config_path = self.scratch / "proxyd.conf"
        self.log_path = self.scratch / "stderr.log"
        self.control_endpoint = f"ipc://{self.scratch}/control.sock"
        self.process = None
        self.notified = []
        self._env = dict(env)
        self._prefix = list(prefix)
        self._drain_s = 1.0
        self._balance_errors = []
        self._notify = None
        self.write(config, daemon)

    # -- life

    def write(self, config, daemon=()):
        """Writes the configuration file."""
        if not isinstance(config, str):
            settings = {"state_dir": str(self.scratch / "state"), "control": self.control_endpoint,
                        "drain_timeout": "1s", **dict(daemon)}
            self._drain_s = _seconds(settings["drain_timeout"])
            self.control_endpoint = settings["control"]
            chains = tuple(chain.conf if isinstance(chain, Chain) else chain for chain in config)
            (self.scratch / "state").mkdir(exist_ok=True)
            config = f"daemon = {libconfig(settings)};\nchains = {libconfig(chains)};\n"
        self.config_path.write_text(config)

    def start(self, ready=True):
        """Starts it and, unless told otherwise, waits for READY=1."""
        assert self.process is None
        if self._notify:
            self._notify.close()
        self.notified = []
        notify_path = self.scratch / "notify"
        notify_path.unlink(missing_ok=True)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(notify_path))
        self._notify.setblocking(False)
        environment = {**os.environ, "NOTIFY_SOCKET": str(notify_path),
                       "ASAN_OPTIONS": "abort_on_error=0:exitcode=99", "UBSAN_OPTIONS": "print_stacktrace=1",
                       **self._env}
        command = [*self._prefix, str(PROXYD), "-c", str(self.config_path)]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=environment, preexec_fn=set_parent_death_signal)
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self):
        def is_ready():
            assert self.process.poll() is None, f"proxyd exited {self.process.returncode}:\n{self.log}"
            return "READY=1" in self.notifications()
        eventually(is_ready, READY_S, "READY=1")

    def notifications(self):
        """Every line that came over NOTIFY_SOCKET so far."""
        while True:
            try:
                self.notified += self._notify.recv(65536).decode().splitlines()
            except BlockingIOError:
                return self.notified

    @property
    def is_running(self):
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self):
        return self.process.pid

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=None):
        """The exit status of a daemon that was told to stop; fails when it does not end within `seconds` (default:
        drain_timeout and a margin)."""
        limit = (self._drain_s + STOP_MARGIN_S if seconds is None else seconds) * FACTOR
        try:
            status = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"proxyd still runs {limit:g} s after it was told to stop:\n{self.log}") from None
        self.process = None
        return status

    def stop(self, expect=0):
        """SIGTERM, then the exit status must be `expect`. Returns the seconds that took."""
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        status = self.wait()
        assert status == expect, f"proxyd exited {status}, not {expect}:\n{self.log}"
        return time.monotonic() - began

    def kill(self):
        """kill -9; nothing is checked afterwards."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def finish(self):
        """The end of every test: the ledger balances, the daemon stops cleanly, no sanitizer has spoken."""
        errors = []
        try:
            if self.is_running:
                assert "READY=1" in self.notifications(), "proxyd neither became ready nor ended"
                if self.control_endpoint:
                    self.status()
                self.stop()
            elif self.process is not None:
                errors.append(f"proxyd ended by itself with {self.process.returncode}")
        except AssertionError as error:
            errors.append(str(error))
            if self.is_running:
                self.kill()
        if self._notify:
            self._notify.close()
        errors += self._balance_errors
        log = self.log
        if any(mark in log for mark in SANITIZER_MARKS):
            errors.append("a sanitizer has spoken")
        assert not errors, "\n".join(errors) + f"\n--- log ---\n{log[-8000:]}"

    def expect_exit(self, status, seconds=READY_S):
        """For a daemon that must refuse to start: waits for its end and checks its exit status."""
        assert self.wait(seconds) == status, self.log

    # -- control

    def control(self, method, chain=None, timeout=5.0):
        """The result of one JSON-RPC call over the control socket; fails on an error object or silence."""
        answer = self.control_raw({"jsonrpc": "2.0", "id": 1, "method": method,
                                   **({"params": {"chain": chain}} if chain else {})}, timeout)
        assert "result" in answer, f"{method} {chain or ''}: {answer}"
        return answer["result"]

    def control_raw(self, request, timeout=5.0):
        """The parsed answer to any JSON value (or any bytes) sent to the control socket."""
        with self.context.socket(zmq.REQ) as control:
            control.linger = 0
            control.rcvtimeo = control.sndtimeo = int(timeout * FACTOR * 1000)
            control.connect(self.control_endpoint)
            try:
                control.send(request if isinstance(request, bytes) else json.dumps(request).encode())
                return json.loads(control.recv())
            except zmq.Again:
                raise AssertionError(f"the control socket does not answer:\n{self.log}") from None

    def status(self):
        """`status`, each chain by its name under "chains"; a ledger that does not balance fails the test."""
        status = self.control("status")
        for chain in status["chains"]:
            error = balance_error(chain)
            if error:
                self._balance_errors.append(error)
                raise AssertionError(error)
        status["chains"] = {chain["name"]: chain for chain in status["chains"]}
        return status

    def chain(self, chain):
        """The status of one chain, by name or Chain."""
        return self.status()["chains"][getattr(chain, "name", chain)]

    def wait_for(self, chain, seconds=5.0, **wanted):
        """Waits until the chain's status shows all of `wanted` (a value, or a predicate of the value); returns
        that snapshot. `failed__timeout=3` looks into failed["timeout"]."""
        last = {}

        def shows():
            last.update(self.chain(chain))
            return last if all(_matches(last, path, value) for path, value in wanted.items()) else None
        try:
            return dict(eventually(shows, seconds))
        except AssertionError as error:
            expected = {path: (value.__doc__ or "a predicate") if callable(value) else value for path, value in wanted.items()}
            raise AssertionError(f"{error}\nwanted {expected}\nlast {json.dumps(last)}") from None

    # -- from outside

    @property
    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def events(self, token, **fields):
        """The log's events of that token (text format) whose fields include `fields`, as dicts."""
        found = []
        for line in self.log.splitlines():
            try:
                words = shlex.split(line)
            except ValueError:
                continue
            if len(words) >= 3 and words[2] == token:
                event = dict(word.split("=", 1) for word in words[3:] if "=" in word)
                if all(event.get(key) == str(value) for key, value in fields.items()):
                    found.append(event)
        return found

    def logged(self, token, seconds=5.0, **fields):
        """The same, as soon as there are any: a thread of the daemon's own writes them."""
        return eventually(lambda: self.events(token, **fields), seconds, f"{token} {fields}")

    def rss_bytes(self, peak=False):
        key = "VmHWM:" if peak else "VmRSS:"
        for line in open(f"/proc/{self.pid}/status"):
            if line.startswith(key):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def cpu_s(self):
        """User and system time used so far, all threads."""
        fields = open(f"/proc/{self.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def fd_count(self):
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except PermissionError:
            pytest.skip("only root can look into a process that cannot be dumped")


def proxyctl(*words, **options):
    """What became of a proxyctl: its returncode, stdout and stderr."""
    return subprocess.run([PROXYCTL, *map(str, words)], capture_output=True, text=True, timeout=20 * FACTOR, **options)


class Users:
    """A users file, made and changed by proxyctl as an operator does."""

    def __init__(self, directory, **passwords):
        self.path = pathlib.Path(directory) / "users"
        for name, password in passwords.items():
            self.set(name, password)

    def set(self, name, password=None, *options):
        words = ["--stdin"] if password else []
        self._run(name, *words, *options, text=password)

    def delete(self, name):
        self._run(name, "--delete")

    def _run(self, name, *options, text=None):
        done = proxyctl("passwd", self.path, name, *options, input=text)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _matches(status, path, value):
    for step in path.split("__"):
        status = status.get(step, 0) if isinstance(status, dict) else status
    return value(status) if callable(value) else status == value


def _seconds(text):
    for unit, factor in (("ms", 1e-3), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)):
        if str(text).endswith(unit):
            return float(str(text)[: -len(unit)]) * factor
    return float(text)
