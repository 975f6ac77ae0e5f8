# SPDX-License-Identifier: MIT
"""Workers of ZeroMQFramework, that connect to the backend of a rep-req chain: their own wire format frame by frame, who
is alive, which of them gets a request, and what becomes of one whose worker dies."""
import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid

import pytest
import zmq

from harness import FACTOR, PROXYCTL, Users, eventually, holds, set_parent_death_signal
from peers import plain

QUICK = {"interval": "100ms", "timeout": "400ms", "max_missed": 3}


class Worker:
    """A DEALER by the name of `<node_id>_<session_id>`, and another one for heartbeats. `handler(worker, frames)`
    answers a request; what it drops, and what it repeats, is as ZeroMQFramework does it."""

    def __init__(self, net, chain, node, handler=None, session="s", interval_s=0.1, options=()):
        self.node, self.session, self.id = node, session, f"{node}_{session}".encode()
        self.log, self.dropped = [], []
        self._context, self.handler, self._interval_s = net.context, handler or Worker.echo, interval_s
        self._places = chain.published, chain.conf["backend"]["workers"]["heartbeat"].lstrip("@")
        self._options = dict(options)
        self.is_heard, self._stopping, self._thread = True, False, None
        self._jobs = queue.SimpleQueue()
        self.start()

    def echo(self, frames):
        self.reply(frames, json.dumps({"node": self.node, "got": json.loads(frames[3])}).encode())

    def swallow(self, frames):
        """Never answers."""

    def start(self):
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def _connect(self, place):
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.identity = self.id
        for option, value in self._options.items():
            setattr(socket, option, value)
        socket.connect(place)
        return socket

    @staticmethod
    def _send(socket, frames):
        """A socket that was denied has nobody to send to, and would block."""
        with contextlib.suppress(zmq.Again):
            socket.send_multipart(frames, zmq.DONTWAIT)

    def heartbeat(self, node_type="worker"):
        return json.dumps({"node_id": self.node, "session_id": self.session, "node_type": node_type,
                           "last_heartbeat": int(time.time() * 1000), "missed_count": 0}).encode()

    def _run(self):
        self._socket, beats = (self._connect(place) for place in self._places)
        due_s = 0
        while not self._stopping:
            if self.is_heard and time.monotonic() >= due_s:
                self._send(beats, [b"", b"heartbeat", self.heartbeat()])
                due_s = time.monotonic() + self._interval_s
            while not self._jobs.empty():
                self._jobs.get()()
            if self._socket.poll(10):
                frames = self._socket.recv_multipart()
                if len(frames) < 4:
                    self.dropped.append(frames)
                else:
                    self.log.append(frames)
                    self.handler(self, frames)
        self._socket.close(linger=0)
        beats.close(linger=0)

    def do(self, action):
        """From a test: runs `action()` in the worker's thread soon."""
        self._jobs.put(action)

    def reply(self, frames, data):
        """From the handler, or through `do`."""
        self._send(self._socket, [frames[0], frames[1], frames[2], data])

    def close(self):
        self._stopping = True
        self._thread.join()

    @property
    def bodies(self):
        return [json.loads(frames[3]) for frames in self.log]


@pytest.fixture
def workers(net):
    """Makes a rep-req chain for workers, and workers for it."""
    class Made:
        def __init__(self):
            self.all = []

        def chain(self, workers=(), frontend=(), backend=(), queue=(), **options):
            return net.chain("rep-req", to="@" + net.endpoint(), dialect="zmqframework", frontend=frontend, backend={
                "backoff": "20ms", "backoff_max": "50ms", **dict(backend),
                "workers": {"heartbeat": "@" + net.endpoint(), **QUICK, **dict(workers)}}, queue=queue, **options)

        def add(self, chain, node, handler=None, **options):
            worker = Worker(net, chain, node, handler, **options)
            self.all.append(worker)
            return worker

    made = Made()
    yield made
    for worker in made.all:
        worker.close()


def live(proxyd, chain, count):
    """Waits until so many workers get requests; returns their rows."""
    def rows():
        found = proxyd.control("show", chain.name)["status"]["workers"]
        return found if sum(row["state"] == "live" for row in found) == count else None
    return eventually(rows, what=f"{count} live workers") if count else eventually(lambda: rows() is not None)


def ask(caller, n, event=b"MESSAGE", seconds=5.0):
    """The event and the parsed data of the answer to one call."""
    name, data = caller.call(event, json.dumps(n).encode(), seconds=seconds)
    return name, json.loads(data)


def test_a_worker_speaks_as_with_its_own_router(net, workers):
    """[client id, "", event, JSON] comes in, the same first two frames go back, and the event name."""
    chain = workers.chain()
    proxyd = net.proxyd(chain)
    worker = workers.add(chain, "w1", session=str(uuid.uuid4()))
    row, = live(proxyd, chain, 1)
    assert row["id"] == worker.id.decode() and row["inflight"] == 0 and row["heard_ms"] < 1000 * FACTOR
    caller = net.caller(chain)
    assert ask(caller, {"content": "Hello"}) == (b"MESSAGE", {"node": "w1", "got": {"content": "Hello"}})
    client, empty, event, data = worker.log[0]
    assert (empty, event, json.loads(data)) == (b"", b"MESSAGE", {"content": "Hello"}) and client
    status = proxyd.wait_for(chain, state="up", delivered=1, failed={}, stray=0)
    assert status["heartbeats"] >= 1 and status["upstreams"] == [{"endpoint": chain.to[0], "state": "up", "cause": None}]


def test_without_a_worker_a_request_waits_and_is_then_unavailable(net, workers):
    chain = workers.chain(backend={"timeout": "300ms"})
    proxyd = net.proxyd(chain)
    caller = net.caller(chain)
    assert ask(caller, 1) == (b"MESSAGE", {"error": "unavailable", "code": 502})
    assert proxyd.chain(chain)["state"] == "down"
    caller.send(b"MESSAGE", b"2")
    workers.add(chain, "w1")
    assert json.loads(caller.receive()[1])["got"] == 2


def test_round_robin_and_heartbeats_of_others(net, workers):
    """Nodes that are no workers send heartbeats to the same port, and get no requests."""
    chain = workers.chain()
    proxyd = net.proxyd(chain)
    both = [workers.add(chain, node) for node in ("w1", "w2")]
    stranger = net.context.socket(zmq.DEALER)
    stranger.connect(chain.conf["backend"]["workers"]["heartbeat"].lstrip("@"))
    stranger.send_multipart([b"", b"heartbeat", both[0].heartbeat("client").replace(b"w1", b"w3")])
    for junk in (b"", b"{", b"[" * 100000, b'{"node_id": 1, "session_id": "s", "node_type": "worker"}', b"\xff{}",
                 b'{"node_id": "\\u001b[2J", "session_id": "s", "node_type": "worker"}',
                 json.dumps({"node_id": "w" * 200, "session_id": "s", "node_type": "worker"}).encode()):
        stranger.send_multipart([b"", b"heartbeat", junk])
    stranger.send_multipart([b"", b"something"])
    live(proxyd, chain, 2)
    caller = net.caller(chain)
    nodes = [ask(caller, n)[1]["node"] for n in range(20)]
    assert nodes.count("w1") == nodes.count("w2") == 10
    assert {row["id"] for row in live(proxyd, chain, 2)} == {"w1_s", "w2_s"}
    stranger.close(linger=0)


def test_a_silent_worker_gets_no_requests_and_is_forgotten(net, workers):
    """Its connection is there, but no heartbeat comes: the live one gets them all."""
    chain = workers.chain()
    proxyd = net.proxyd(chain)
    silent = workers.add(chain, "w1")
    workers.add(chain, "w2")
    live(proxyd, chain, 2)
    silent.is_heard = False
    states = lambda: {row["id"]: row["state"] for row in proxyd.control("show", chain.name)["status"]["workers"]}
    eventually(lambda: states() == {"w1_s": "late", "w2_s": "live"})
    assert proxyd.chain(chain)["state"] == "degraded"
    caller = net.caller(chain)
    assert {ask(caller, n)[1]["node"] for n in range(6)} == {"w2"}
    eventually(lambda: states() == {"w2_s": "live"})
    proxyd.wait_for(chain, state="up")
    proxyd.logged("worker-lost", worker="w1_s")
    silent.is_heard = True
    live(proxyd, chain, 2)
    assert {ask(caller, n)[1]["node"] for n in range(6)} == {"w1", "w2"}


def test_a_worker_that_does_not_answer_has_timed_out_and_another_one_answers(net, workers):
    chain = workers.chain(backend={"timeout": "300ms", "retries": 2})
    proxyd = net.proxyd(chain)
    deaf = workers.add(chain, "w1", Worker.swallow)
    live(proxyd, chain, 1)
    caller = net.caller(chain)
    caller.send(b"MESSAGE", b"1")
    eventually(lambda: deaf.log)
    workers.add(chain, "w2")
    assert json.loads(caller.receive()[1]) == {"node": "w2", "got": 1}
    proxyd.wait_for(chain, delivered=1, retries=lambda n: n >= 1, redelivered=lambda n: n >= 1, failed={})


def test_a_worker_that_dies_ends_as_a_time_out(net, workers):
    """Its heartbeat says so before `timeout` does."""
    chain = workers.chain(backend={"timeout": "60s"}, workers={"timeout": "200ms", "max_missed": 2})
    proxyd = net.proxyd(chain)
    dying = workers.add(chain, "w1", Worker.swallow)
    workers.add(chain, "w2", Worker.swallow)
    live(proxyd, chain, 2)
    pipe = net.pipeline(chain)
    pipe.send(b"MESSAGE", b"1")
    pipe.send(b"MESSAGE", b"2")
    eventually(lambda: dying.log)
    dying.is_heard = False
    answer, = pipe.wait(1).values()
    assert json.loads(answer[1]) == {"error": "timeout", "code": 504}
    status = proxyd.wait_for(chain, failed={"timeout": 1}, inflight=1)
    assert status["state"] == "up"


def test_a_late_reply_reaches_nobody(net, workers):
    """The reply to an attempt that was given up is not taken for the next one's, and what it held is not sent again."""
    held = []
    chain = workers.chain(backend={"timeout": "200ms"})
    proxyd = net.proxyd(chain)
    worker = workers.add(chain, "w1", lambda worker, frames: held.append(frames))
    live(proxyd, chain, 1)
    caller = net.caller(chain)
    assert ask(caller, 1)[1] == {"error": "timeout", "code": 504}

    def answer_both(worker, frames):
        worker.reply(held[0], b'"the old one"')
        Worker.echo(worker, frames)
    worker.handler = answer_both
    eventually(lambda: ask(caller, 2)[1] == {"node": "w1", "got": 2}, what="the worker to be connected again")
    assert worker.bodies == [1, 2]
    proxyd.wait_for(chain, stray=1, failed__timeout=1, delivered=1)


def test_replies_of_strangers_and_to_others_are_counted(net, workers):
    """An id that is in flight at one worker cannot be answered by another peer."""
    chain = workers.chain()
    proxyd = net.proxyd(chain)
    worker = workers.add(chain, "w1", Worker.swallow)
    live(proxyd, chain, 1)
    caller = net.caller(chain)
    caller.send(b"MESSAGE", b"1")
    eventually(lambda: worker.log)
    other = workers.add(chain, "w2")
    live(proxyd, chain, 2)
    stranger = net.context.socket(zmq.DEALER)
    stranger.connect(chain.published)
    stranger.send_multipart([worker.log[0][0], b"", b"MESSAGE", b'"mine"'])
    stranger.send_multipart([b"no delimiter"])
    other.do(lambda: other.reply(worker.log[0], b'"mine"'))
    proxyd.wait_for(chain, stray=3, inflight=1)
    worker.do(lambda: worker.reply(worker.log[0], b'"right"'))
    assert caller.receive() == [b"MESSAGE", b'"right"']
    stranger.close(linger=0)


def test_a_request_that_workers_would_ignore_is_refused(net, workers):
    """They drop fewer than four frames in silence, which would look like a time-out of theirs."""
    chain = workers.chain()
    proxyd = net.proxyd(chain)
    worker = workers.add(chain, "w1")
    live(proxyd, chain, 1)
    caller = net.caller(chain)
    name, data = caller.call(b"MESSAGE")
    assert (name, json.loads(data)) == (b"MESSAGE", {"error": "bad-request", "code": 400})
    assert ask(caller, 1)[1]["got"] == 1
    assert not worker.dropped and proxyd.chain(chain)["failed"] == {"bad-request": 1}


def test_a_worker_that_comes_back_under_its_name(net, workers):
    """A new connection takes over from one that hangs."""
    chain = workers.chain(workers={"timeout": "60s"}, backend={"window": 1000})
    proxyd = net.proxyd(chain)
    old = workers.add(chain, "w1", Worker.swallow)
    live(proxyd, chain, 1)
    old.is_heard = False
    new = workers.add(chain, "w1")
    caller = net.caller(chain)
    eventually(lambda: net.caller(chain).send(b"MESSAGE", b"0") or new.log)
    assert ask(caller, 2)[1] == {"node": "w1", "got": 2}


def test_least_pending_and_window(net, workers):
    """Four at a slow worker, the rest at the quick one; nobody gets more than its window."""
    chain = workers.chain(workers={"strategy": "least-pending"}, backend={"window": 4, "timeout": "20s"})
    proxyd = net.proxyd(chain)
    slow, quick = workers.add(chain, "w1", Worker.swallow), workers.add(chain, "w2")
    live(proxyd, chain, 2)
    pipe = net.pipeline(chain)
    for n in range(40):
        pipe.send(b"MESSAGE", b"%d" % n)
    pipe.wait(36)
    assert len(slow.log) == 4 and len(quick.log) == 36
    rows = {row["id"]: row["inflight"] for row in live(proxyd, chain, 2)}
    assert rows == {"w1_s": 4, "w2_s": 0}


def test_sticky_keeps_a_caller_at_its_worker_while_that_lives(net, workers):
    chain = workers.chain(workers={"strategy": "sticky"})
    proxyd = net.proxyd(chain)
    crew = {node: workers.add(chain, node) for node in ("w1", "w2", "w3")}
    live(proxyd, chain, 3)
    callers = [net.caller(chain) for _ in range(9)]
    first = [ask(caller, 0)[1]["node"] for caller in callers]
    assert len(set(first)) == 3
    workers.add(chain, "w4")
    live(proxyd, chain, 4)
    for _ in range(3):
        assert [ask(caller, 0)[1]["node"] for caller in callers] == first
    crew["w1"].close()
    live(proxyd, chain, 3)
    then = [ask(caller, 0)[1]["node"] for caller in callers]
    assert [now for was, now in zip(first, then) if was != "w1"] == [was for was in first if was != "w1"]
    assert "w1" not in then


def test_sticky_callers_of_a_busy_worker_wait_without_holding_up_others(net, workers):
    chain = workers.chain(workers={"strategy": "sticky"}, backend={"window": 1, "timeout": "20s"})
    proxyd = net.proxyd(chain)
    busy, free = workers.add(chain, "w1", Worker.swallow), workers.add(chain, "w2")
    live(proxyd, chain, 2)
    stuck, other = net.pipeline(chain), net.pipeline(chain)
    while not busy.log:
        stuck, other = other, stuck
        stuck.send(b"MESSAGE", b"0")
        eventually(lambda: busy.log or stuck.drain().answers)
    for n in range(5):
        stuck.send(b"MESSAGE", b"%d" % n)
    for n in range(5):
        assert json.loads(other.call(b"MESSAGE", b"%d" % n)[1])["node"] == "w2"
    assert len(busy.log) == 1 and proxyd.chain(chain)["inflight"] == 6
    busy.handler = Worker.echo
    busy.do(lambda: busy.echo(busy.log[0]))
    stuck.wait()
    assert busy.bodies == [0, 0, 1, 2, 3, 4] and free.log


def test_a_stopped_worker_process_is_no_zombie(net, workers):
    """(G3) A request that was given up, and is larger than the kernel takes at once, is not delivered later."""
    chain = workers.chain(backend={"timeout": "300ms"}, frontend={"max_message": "32MiB"}, workers={"timeout": "60s"})
    proxyd = net.proxyd(chain)
    heartbeat = chain.conf["backend"]["workers"]["heartbeat"].lstrip("@")
    process = subprocess.Popen([sys.executable, "-c", FROZEN, chain.published, heartbeat], stdout=subprocess.PIPE,
                               preexec_fn=set_parent_death_signal, text=True)
    assert process.stdout.readline() == "ready\n"
    live(proxyd, chain, 1)
    caller = net.caller(chain)
    assert ask(caller, 1)[1] == 1
    process.send_signal(signal.SIGSTOP)
    name, data = caller.call(b"MESSAGE", b'"' + b"x" * 30000000 + b'"')
    assert json.loads(data) == {"error": "timeout", "code": 504}
    process.send_signal(signal.SIGCONT)
    assert eventually(lambda: ask(caller, 2)[1] == 2)
    process.terminate()
    seen = process.communicate()[0].split()
    assert "30000002" not in seen and "1" in seen, seen


FROZEN = """
import json, sys, zmq
context = zmq.Context()
work, beats = (context.socket(zmq.DEALER) for _ in range(2))
for socket, place in zip((work, beats), sys.argv[1:]):
    socket.identity = b"w_1"
    socket.connect(place)
beats.send_multipart([b"", b"heartbeat", json.dumps({"node_id": "w", "session_id": "1", "node_type": "worker"}).encode()])
print("ready", flush=True)
while True:
    frames = work.recv_multipart()
    print(len(frames[3]), flush=True)
    work.send_multipart(frames)
"""


def test_workers_need_the_password_where_there_is_one(net, workers):
    users = net.scratch / "users"
    for name in ("worker-1", "other"):
        subprocess.run([PROXYCTL, "passwd", users, name, "--stdin"], input=b"secret\n", check=True, capture_output=True)
    chain = workers.chain(backend={"auth": "plain", "users": ["worker-*"]})
    proxyd = net.proxyd(chain, daemon={"users": str(users)})
    login = lambda name: {"plain_username": name, "plain_password": b"secret"}
    workers.add(chain, "w1", options=login(b"worker-1"))
    workers.add(chain, "w2", options=login(b"other"))
    workers.add(chain, "w3")
    live(proxyd, chain, 1)
    eventually(lambda: len(proxyd.events("auth", user="other")) >= 2, what="refusals at both sockets")
    assert [row["id"] for row in live(proxyd, chain, 1)] == ["w1_s"]
    assert ask(net.caller(chain), 1)[1]["node"] == "w1"


def test_a_worker_whose_user_is_removed_works_no_more(net, workers):
    """What it holds is lost, or answered by another one; nobody else says that it lives."""
    users = Users(net.scratch, anna="secret of anna", bert="secret of bert")
    chain = workers.chain(backend={"auth": "plain", "retries": 1, "timeout": "20s"}, workers={"timeout": "20s"})
    proxyd = net.proxyd(chain, daemon={"users": str(users.path)})
    first = workers.add(chain, "w1", Worker.swallow, options=plain("anna"))
    live(proxyd, chain, 1)
    caller = net.caller(chain)
    caller.send(b"MESSAGE", b"1")
    eventually(lambda: first.log)
    bert = net.context.socket(zmq.DEALER)
    for option, value in plain("bert").items():
        setattr(bert, option, value)
    bert.connect(chain.conf["backend"]["workers"]["heartbeat"].lstrip("@"))
    bert.send_multipart([b"", b"heartbeat", first.heartbeat()])
    proxyd.wait_for(chain, stray=1)
    users.delete("anna")
    assert proxyd.control("reload")["unchanged"] == 1
    live(proxyd, chain, 0)
    workers.add(chain, "w2", options=plain("bert"))
    assert json.loads(caller.receive()[1])["node"] == "w2"
    first.do(lambda: first.reply(first.log[0], b"2"))
    assert [ask(caller, n)[1]["node"] for n in range(5)] == ["w2"] * 5
    bert.close(linger=0)


def test_a_crowd_of_names_is_bounded(net, workers):
    chain = workers.chain(workers={"timeout": "60s"})
    proxyd = net.proxyd(chain)
    stranger = net.context.socket(zmq.DEALER)
    stranger.sndhwm = 0
    stranger.connect(chain.conf["backend"]["workers"]["heartbeat"].lstrip("@"))
    for n in range(5000):
        stranger.send_multipart([b"", b"heartbeat", json.dumps(
            {"node_id": f"w{n}", "session_id": "s", "node_type": "worker"}).encode()])
    proxyd.wait_for(chain, heartbeats=5000)
    assert len(proxyd.control("show", chain.name)["status"]["workers"]) == 256
    assert len(proxyd.logged("workers-full")) == 1
    caller = net.caller(chain)
    caller.send(b"MESSAGE", b"1")
    holds(lambda: caller.poll(0) is None, 0.2)
    stranger.close(linger=0)


def test_stopping_tells_everybody(net, workers):
    chain = workers.chain(backend={"window": 1, "timeout": "20s"})
    proxyd = net.proxyd(chain, daemon={"drain_timeout": "300ms"})
    worker = workers.add(chain, "w1", Worker.swallow)
    live(proxyd, chain, 1)
    pipe = net.pipeline(chain)
    for n in range(3):
        pipe.send(b"MESSAGE", b"%d" % n)
    eventually(lambda: worker.log)
    proxyd.wait_for(chain, accepted=3)
    proxyd.signal(signal.SIGTERM)
    reasons = [json.loads(answer[1])["error"] for answer in pipe.wait().values()]
    assert sorted(reasons) == ["lost", "shutting-down", "shutting-down"]
    assert proxyd.wait() == 0
