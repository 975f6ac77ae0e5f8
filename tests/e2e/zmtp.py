# SPDX-License-Identifier: MIT
"""ZMTP 3.1 by hand over plain TCP, for what libzmq's own sockets cannot do: claim a socket type, refuse a
handshake, answer with half a frame, stay silent, show every byte of the envelope. Also TCP peers that never
come as far as ZMTP. NULL mechanism only.

    greeting  FF 00*8 7F | 3 | minor | mechanism, 20 bytes | as-server | 31 zeros
    frame     flags (1 = more, 2 = long, 4 = command) | size, 1 or 8 bytes | body
"""
import socket
import struct
import threading
import time

from harness import eventually, host_port
from peers import Request, echo

MORE, LONG, COMMAND = 1, 2, 4


def greeting(mechanism=b"NULL", as_server=0):
    return b"\xff" + bytes(8) + b"\x7f\x03\x01" + mechanism.ljust(20, b"\0") + bytes([as_server]) + bytes(31)


def frame(body, flags=0):
    if len(body) > 255:
        return struct.pack(">BQ", flags | LONG, len(body)) + body
    return struct.pack(">BB", flags, len(body)) + body


def command(name, body=b""):
    return frame(bytes([len(name)]) + name + body, COMMAND)


def ready(socket_type, identity=b""):
    properties = b""
    for key, value in ((b"Socket-Type", socket_type), (b"Identity", identity)):
        properties += bytes([len(key)]) + key + struct.pack(">I", len(value)) + value
    return command(b"READY", properties)


def message(*frames):
    return b"".join(frame(body, MORE) for body in frames[:-1]) + frame(frames[-1])


class Connection:
    """One TCP connection that speaks ZMTP. Reading answers PING with PONG unless `answers_pings` is off."""

    def __init__(self, tcp):
        self.tcp = tcp
        self.answers_pings = True
        self.peer_type = None
        self._writing = threading.Lock()
        if tcp.family == socket.AF_INET:
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, data):
        with self._writing:
            self.tcp.sendall(data)

    def read(self, size):
        data = b""
        while len(data) < size:
            piece = self.tcp.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def read_frame(self):
        flags, = self.read(1)
        size, = struct.unpack(">Q", self.read(8)) if flags & LONG else self.read(1)
        return flags, self.read(size)

    def handshake(self, socket_type, identity=b""):
        """The whole NULL handshake; the peer's Socket-Type is in `peer_type` afterwards."""
        self.write(greeting())
        self.read(64)
        self.write(ready(socket_type, identity))
        _, body = self.read_frame()
        at = body.index(b"Socket-Type") + len(b"Socket-Type")
        size, = struct.unpack(">I", body[at:at + 4])
        self.peer_type = body[at + 4:at + 4 + size]
        return self

    def read_message(self):
        """The frames of the next message; commands are handled on the way. EOFError at the end."""
        frames = []
        while True:
            flags, body = self.read_frame()
            if flags & COMMAND:
                if body[:5] == b"\4PING" and self.answers_pings:
                    self.write(command(b"PONG", body[7:]))
                continue
            frames.append(body)
            if not flags & MORE:
                return frames

    def send(self, *frames):
        self.write(message(*frames))

    def reset(self):
        """Ends with RST: what was in flight is lost. A thread that reads here is woken first: it holds the
        connection open."""
        try:
            self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.tcp.shutdown(socket.SHUT_RD)
        except OSError:
            pass
        self.tcp.close()

    def close(self):
        try:
            self.tcp.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.tcp.close()


def dial(endpoint, timeout_s=5.0, source=None):
    """A connection to `endpoint`, tcp (from the address `source`) or ipc, before its handshake."""
    if endpoint.startswith("ipc://"):
        tcp = socket.socket(socket.AF_UNIX)
        tcp.settimeout(timeout_s)
        tcp.connect(endpoint.removeprefix("ipc://"))
        return Connection(tcp)
    return Connection(socket.create_connection(host_port(endpoint), timeout_s, source and (source, 0)))


class Listener:
    """A TCP listener with a thread for each connection, which runs `serve(connection)`. `accepted` counts."""

    def __init__(self, endpoint, serve):
        self.endpoint, self._serve = endpoint, serve
        self.accepted, self.accepted_at = 0, []
        self._listener = None
        self.connections = []
        self.start()

    def start(self):
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        eventually(self._bind, 5, f"bind {self.endpoint}")
        self._listener.listen(128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def _bind(self):
        try:
            self._listener.bind(host_port(self.endpoint))
            return True
        except OSError:
            return False

    def _accept(self, listener):
        while True:
            try:
                tcp, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            self.accepted_at.append(time.monotonic())
            connection = Connection(tcp)
            self.connections.append(connection)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection):
        try:
            self._serve(connection)
        except (EOFError, OSError):
            pass
        connection.close()

    def stop(self):
        """Stops listening and closes every connection."""
        if self._listener:
            try:
                self._listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self._listener.close()
            self._listener = None
        for connection in self.connections:
            connection.close()
        self.connections = []
    close = stop


def stay_silent(connection):
    """Reads and says nothing, not even a greeting."""
    while connection.tcp.recv(65536):
        pass


def reset_at_once(connection):
    connection.reset()


def refuse_with_error(connection):
    """What a server says that denies: an ERROR command. libzmq's client never tries again after it."""
    connection.write(greeting())
    connection.read(64)
    connection.write(command(b"ERROR", b"\x03400"))
    stay_silent(connection)


def demand_plain(connection):
    """A server that wants another mechanism."""
    connection.write(greeting(b"PLAIN", 1))
    stay_silent(connection)


class WireServer(Listener):
    """Like peers.Server, but by hand: it claims to be any `socket_type`, keeps what every connection sent as it
    stood on the wire, and may close, reset or answer twice. `handler(server, request)`; `request.connection`."""

    def __init__(self, endpoint, handler=echo, socket_type=b"REP"):
        self.handler, self.socket_type = handler, socket_type
        self.log, self.frames = [], []
        self._turn = threading.RLock()
        super().__init__(endpoint, self._talk)

    def _talk(self, connection):
        connection.handshake(self.socket_type)
        while True:
            frames = connection.read_message()
            with self._turn:
                end = frames.index(b"") + 1
                request = Request(frames[:end], frames[end:], len(self.log))
                request.connection = connection
                self.frames.append(frames)
                self.log.append(request)
                self.handler(self, request)

    def reply(self, request, *body):
        request.connection.send(*request.route, *body)

    def later(self, seconds, action):
        def run():
            with self._turn:
                try:
                    action()
                except OSError:
                    pass
        timer = threading.Timer(seconds, run)
        timer.daemon = True
        timer.start()

    @property
    def bodies(self):
        return [request.body[0] if len(request.body) == 1 else tuple(request.body) for request in self.log]


def wire_publisher(publish):
    """A `serve` for a Listener: finishes the handshake as a PUB, then runs `publish(connection)` while pings and
    subscriptions are read (and pings answered) beside it."""
    def serve(connection):
        connection.handshake(b"PUB")
        threading.Thread(target=_ignore_end, args=(publish, connection), daemon=True).start()
        while True:
            connection.read_message()
    return serve


def _ignore_end(publish, connection):
    try:
        publish(connection)
    except OSError:
        pass
