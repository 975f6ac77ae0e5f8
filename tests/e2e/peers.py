# SPDX-License-Identifier: MIT
"""The other side of proxyd: real ZeroMQ servers, callers, publishers and subscribers that tests can script,
stop, kill and ask what they saw. Owns sockets and threads of the test process; knows nothing of proxyd.

Run as a program it is an echoing REP server that can be killed: `peers.py ENDPOINT LOG [DELAY_S]`.
"""
import heapq
import itertools
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time

import zmq
from zmq.auth.thread import ThreadAuthenticator

from harness import FACTOR, eventually, set_parent_death_signal


def echo(server, request):
    server.reply(request, *request.body)


def swallow(server, request):
    """Never answers."""


def bind_when_free(socket, endpoint):
    """Binds as soon as the address is free: libzmq closes what had it on its own thread."""
    def is_bound():
        try:
            socket.bind(endpoint)
            return True
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                raise
            return False
    eventually(is_bound, 5, f"bind {endpoint}")


class Request:
    """What a server received: `route` are the frames up to and with the empty delimiter (none on REP)."""

    def __init__(self, route, body, number):
        self.route, self.body, self.number = route, body, number
        self.at = time.monotonic()

    def __repr__(self):
        return f"<{self.number}: {self.route} {self.body}>"


def split_at_delimiter(frames):
    """(address frames and delimiter, body) of what a ROUTER received; its own routing id may be empty-looking."""
    end = frames.index(b"", 1) + 1
    return frames[:end], frames[end:]


class Server:
    """A ROUTER or REP server in a thread. `handler(server, request)` answers now, later, twice or never;
    `log` holds every request in order of arrival, `frames` what was on the wire."""

    def __init__(self, context, endpoint, kind=zmq.ROUTER, handler=echo, options=(), connects=False):
        self.context, self.endpoint, self.kind, self.handler = context, endpoint, kind, handler
        self.options, self._connects = dict(options), connects
        self.log, self.frames = [], []
        self._numbers, self._ties = itertools.count(), itertools.count()
        self._thread = None
        self.start()

    def start(self):
        """Binds (again) at the same endpoint, or connects to it."""
        assert self._thread is None
        self._jobs, self._timers, self._stopping = queue.SimpleQueue(), [], False
        self._socket = self.context.socket(self.kind)
        self._socket.linger = 0
        self._socket.sndhwm = self._socket.rcvhwm = 0
        for option, value in self.options.items():
            self._socket.setsockopt(option, value)
        if self._connects:
            self._socket.connect(self.endpoint)
        else:
            bind_when_free(self._socket, self.endpoint)
        self._waker_in, self._waker_out = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def stop(self):
        """Closes the socket: connections break, what it still held is gone."""
        if self._thread is None:
            return
        self._stopping = True
        os.write(self._waker_out, b"x")
        self._thread.join()
        self._thread = None
        os.close(self._waker_in)
        os.close(self._waker_out)
    close = stop

    def _run(self):
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._waker_in, zmq.POLLIN)
        while not self._stopping:
            wait_s = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            ready = dict(poller.poll(None if wait_s is None else wait_s * 1000 + 1))
            if self._waker_in in ready:
                os.read(self._waker_in, 4096)
                while not self._jobs.empty():
                    self._jobs.get()()
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
            if self._socket in ready:
                self._take()
        self._socket.close(linger=0)

    def _take(self):
        for _ in range(1 if self.kind == zmq.REP else 256):
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            route, body = ([], frames) if self.kind == zmq.REP else split_at_delimiter(frames)
            request = Request(route, body, next(self._numbers))
            self.frames.append(frames)
            self.log.append(request)
            self.handler(self, request)

    def reply(self, request, *body):
        """From the handler, or through `later` and `do`."""
        self._socket.send_multipart([*request.route, *body], zmq.DONTWAIT)

    def send(self, *frames):
        self._socket.send_multipart(frames, zmq.DONTWAIT)

    def later(self, seconds, action):
        """From the handler: runs `action()` in the server's thread after so long."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._ties), action))

    def do(self, action):
        """From a test: runs `action()` in the server's thread soon."""
        self._jobs.put(action)
        os.write(self._waker_out, b"x")

    @property
    def bodies(self):
        """The bodies received, each as its only frame or as a tuple."""
        return [request.body[0] if len(request.body) == 1 else tuple(request.body) for request in self.log]


class PlainServer(Server):
    """A REP server that asks for a name and a password, on a context of its own: each has one ZAP handler."""

    def __init__(self, endpoint, name, password, handler=echo):
        context = zmq.Context()
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._authenticator.configure_plain(domain="*", passwords={name: password})
        super().__init__(context, endpoint, zmq.REP, handler, {zmq.PLAIN_SERVER: 1})

    def close(self):
        self.stop()
        self._authenticator.stop()
        self.context.destroy(linger=0)


class Broker:
    """The load-balancing broker of every ZeroMQ tutorial: a ROUTER for callers, a DEALER for its workers."""

    def __init__(self, context, endpoint, worker_count=2, handler=echo, worker_kind=zmq.REP):
        self.endpoint = endpoint
        self._front, self._back, self._control, steer = (
            context.socket(kind) for kind in (zmq.ROUTER, zmq.DEALER, zmq.PAIR, zmq.PAIR))
        name = f"inproc://broker-{id(self)}"
        self._control.bind(name + "-control")
        steer.connect(name + "-control")
        self._front.bind(endpoint)
        self._back.bind(name)
        self.workers = [Server(context, name, worker_kind, handler, connects=True) for _ in range(worker_count)]
        self._thread = threading.Thread(target=self._run, args=(steer,), daemon=True)
        self._thread.start()

    def _run(self, steer):
        zmq.proxy_steerable(self._front, self._back, None, steer)
        for socket in (self._front, self._back, steer):
            socket.close(linger=0)

    def close(self):
        for worker in self.workers:
            worker.close()
        self._control.send(b"TERMINATE")
        self._thread.join()
        self._control.close(linger=0)


class EchoProcess:
    """A REP server in a process of its own that echoes after `delay_s`. Its log survives kill -9."""

    def __init__(self, endpoint, log_path, delay_s=0):
        self.endpoint, self._log_path, self._delay_s = endpoint, log_path, delay_s
        self._process = None
        self.start()

    def start(self):
        assert self._process is None
        self._process = subprocess.Popen(
            [sys.executable, __file__, self.endpoint, str(self._log_path), str(self._delay_s)],
            stdout=subprocess.PIPE, preexec_fn=set_parent_death_signal)
        assert self._process.stdout.readline() == b"bound\n"
        return self

    def kill(self):
        """kill -9, and it is gone when this returns."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._process = None
    close = kill

    def freeze(self):
        self._process.send_signal(signal.SIGSTOP)

    @property
    def bodies(self):
        """The first frame of every request ever received, across restarts."""
        try:
            with open(self._log_path, "rb") as log:
                return [bytes.fromhex(line.decode()) for line in log.read().splitlines()]
        except FileNotFoundError:
            return []


# ---- callers ---------------------------------------------------------------------------------------------------

ERROR = re.compile(rb"error (\d{3}) ([a-z-]+)")


def error_of(answer):
    """(code, reason) when a raw-dialect answer is an error of proxyd, else None."""
    match = ERROR.fullmatch(answer[0]) if len(answer) == 1 else None
    return match and (int(match[1]), match[2].decode())


def plain(name, password=None):
    """The options of a socket that logs in."""
    return {"plain_username": name.encode(), "plain_password": (password or f"secret of {name}").encode()}


class Caller:
    """A REQ socket, as most callers are."""

    def __init__(self, context, endpoint, **options):
        self.socket = context.socket(zmq.REQ)
        self.socket.linger = 0
        for option, value in options.items():
            setattr(self.socket, option, value)
        self.socket.connect(endpoint)

    def send(self, *frames):
        self.socket.send_multipart(frames)

    def knock(self, *frames):
        """Sends to a peer that will not let it in, or has not: libzmq forgets a connection that was refused, and
        a socket without one blocks."""
        try:
            self.socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            pass

    def receive(self, seconds=5.0):
        """The answer's frames; fails on silence."""
        answer = self.poll(seconds * FACTOR)
        assert answer is not None, f"no answer within {seconds * FACTOR:g} s"
        return answer

    def poll(self, seconds):
        """The answer's frames, or None when there is none yet."""
        return self.socket.recv_multipart() if self.socket.poll(int(seconds * 1000)) else None

    def call(self, *frames, seconds=5.0):
        self.send(*frames)
        return self.receive(seconds)

    def close(self):
        self.socket.close(linger=0)


class Pipeline:
    """A DEALER with any number of requests outstanding. Each carries a tag (and `depth` more address frames) in
    its envelope; `answers` maps the tag to every answer that came for it, with the time it took."""

    def __init__(self, context, endpoint, depth=0, **options):
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.sndhwm = self.socket.rcvhwm = 0
        for option, value in options.items():
            setattr(self.socket, option, value)
        self.socket.connect(endpoint)
        self._addresses = [bytes([7, n]) for n in range(depth)]
        self._numbers = itertools.count()
        self.sent, self.answers, self.took_s = {}, {}, {}

    def send(self, *body):
        """Sends one request and returns its tag."""
        tag = b"%d" % next(self._numbers)
        self.sent[tag] = time.monotonic()
        self.socket.send_multipart([tag, *self._addresses, b"", *body])
        return tag

    def send_each(self, bodies):
        """{tag: body} of many one-frame requests."""
        return {self.send(body): body for body in bodies}

    def drain(self):
        """Takes what has arrived, without waiting."""
        while True:
            try:
                tag, *rest = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return self
            depth = len(self._addresses)
            assert rest[:depth] == self._addresses and rest[depth] == b"", f"envelope came back as {rest}"
            self.answers.setdefault(tag, []).append(rest[depth + 1:])
            self.took_s.setdefault(tag, time.monotonic() - self.sent.get(tag, 0))

    def wait(self, count=None, seconds=5.0):
        """Waits until `count` (default: all sent) requests have an answer; returns {tag: answer} of each one's
        only answer, and fails when any has two."""
        wanted = len(self.sent) if count is None else count
        deadline = time.monotonic() + seconds * FACTOR
        while len(self.drain().answers) < wanted:
            left = deadline - time.monotonic()
            assert left > 0, f"{len(self.answers)} of {wanted} answered within {seconds * FACTOR:g} s"
            self.socket.poll(int(left * 1000) + 1)
        return self.only_answers()

    def only_answers(self):
        twice = {tag: answers for tag, answers in self.drain().answers.items() if len(answers) > 1}
        assert not twice, f"answered twice: {twice}"
        return {tag: answers[0] for tag, answers in self.answers.items()}

    def call(self, *body, seconds=5.0):
        tag = self.send(*body)
        deadline = time.monotonic() + seconds * FACTOR
        while tag not in self.drain().answers:
            left = deadline - time.monotonic()
            assert left > 0, f"no answer within {seconds * FACTOR:g} s"
            self.socket.poll(int(left * 1000) + 1)
        return self.answers[tag][0]

    def close(self):
        self.socket.close(linger=0)


def outcomes(answers):
    """How often each outcome occurs among answers: "reply", or the reason of an error."""
    counts = {}
    for answer in answers.values() if isinstance(answers, dict) else answers:
        error = error_of(answer)
        outcome = error[1] if error else "reply"
        counts[outcome] = counts.get(outcome, 0) + 1
    return counts


# ---- publications ----------------------------------------------------------------------------------------------

class Publisher:
    """An XPUB that knows who has subscribed, so that no publication is lost to a slow joiner."""

    def __init__(self, context, endpoint, bind=True, **options):
        self.endpoint = endpoint
        self.topics = []
        self._context, self._binds, self._options = context, bind, options
        self.start()

    def start(self):
        self.socket = self._context.socket(zmq.XPUB)
        self.socket.linger = 0
        self.socket.sndhwm = 0
        self.socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        for option, value in self._options.items():
            setattr(self.socket, option, value)
        if self._binds:
            bind_when_free(self.socket, self.endpoint)
        else:
            self.socket.connect(self.endpoint)
        return self

    def stop(self):
        self.socket.close(linger=0)
        self.topics = []
    close = stop

    def wait_subscribed(self, topic=b"", seconds=5.0):
        """Waits until somebody has subscribed to `topic`."""
        def subscribed():
            self.poll_subscriptions()
            return topic in self.topics
        eventually(subscribed, seconds, f"a subscription to {topic}")
        return self

    def poll_subscriptions(self):
        while self.socket.poll(0):
            message = self.socket.recv()
            if message[:1] == b"\1":
                self.topics.append(message[1:])
            elif message[1:] in self.topics:
                self.topics.remove(message[1:])
        return self.topics

    def publish(self, *frames):
        self.socket.send_multipart(frames)


class Subscriber:
    """A SUB socket. `wait_joined` proves that its subscription has arrived."""

    def __init__(self, context, endpoint, topic=b"", bind=False, **options):
        self.socket = context.socket(zmq.SUB)
        self.socket.linger = 0
        self.socket.rcvhwm = 0
        for option, value in options.items():
            setattr(self.socket, option, value)
        self.socket.setsockopt(zmq.SUBSCRIBE, topic)
        (self.socket.bind if bind else self.socket.connect)(endpoint)

    def wait_joined(self, publish_probe, seconds=5.0):
        """Calls `publish_probe()` until one comes through, then forgets the probes. Publications made by the
        same source afterwards arrive behind them."""
        def joined():
            publish_probe()
            return self.poll(0.02)
        probe = eventually(joined, seconds, "a publication to come through")
        while self.poll(0.05) == probe:
            pass
        return self

    def poll(self, seconds):
        return self.socket.recv_multipart() if self.socket.poll(int(seconds * 1000)) else None

    def receive(self, seconds=5.0):
        message = self.poll(seconds * FACTOR)
        assert message is not None, f"no publication within {seconds * FACTOR:g} s"
        return message

    def take(self, count, seconds=5.0):
        """The next `count` publications."""
        return [self.receive(seconds) for _ in range(count)]

    def close(self):
        self.socket.close(linger=0)


def _serve(endpoint, log_path, delay_s):
    socket = zmq.Context().socket(zmq.REP)
    bind_when_free(socket, endpoint)
    log = open(log_path, "ab", buffering=0)
    print("bound", flush=True)
    while True:
        frames = socket.recv_multipart()
        log.write(frames[0].hex().encode() + b"\n")
        if delay_s:
            time.sleep(delay_s)
        socket.send_multipart(frames)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], float(sys.argv[3]))
