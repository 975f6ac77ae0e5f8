# SPDX-License-Identifier: MIT
"""A scripted JSON-RPC server over WebSocket, in a thread of the test process. Owns its loop; knows nothing of proxyd."""
import asyncio
import base64
import http
import json
import ssl
import subprocess
import threading

import websockets

from harness import eventually, host_port


def echo(server, peer, call):
    """The result is the request's params."""
    server.answer(peer, call)


def swallow(server, peer, call):
    """Never answers."""


def certificate(net, name, alternative):
    """A self-signed certificate and a server's context with it."""
    path = net.scratch / f"{name}.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", path.with_suffix(".key"), "-out", path, "-days", "2", "-subj", "/CN=test", "-addext",
                    f"subjectAltName={alternative}"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, path.with_suffix(".key"))
    return path, context


class WebServer:
    """`handler(server, peer, call)` is run for each message, `call` being its JSON (or its text, where it is none);
    it answers now, later, twice or never. `log` holds the calls, `texts` what was on the wire, `headers` those of each
    connection, `closes` how each one ended."""

    def __init__(self, endpoint, handler=echo, credentials=None, status=None, tls=None):
        self.place, self.handler, self.credentials, self.status, self.tls = endpoint, handler, credentials, status, tls
        self.log, self.texts, self.headers, self.closes, self.peers = [], [], [], [], set()
        self._thread = None
        self.start()

    @property
    def endpoint(self):
        """As proxyd is to be configured."""
        return self.place.replace("tcp://", "wss://" if self.tls else "ws://")

    def start(self):
        """Binds (again) at the same place."""
        assert self._thread is None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        def bind():
            try:
                self._server = self.do(self._serve())
                return True
            except OSError:
                return False
        eventually(bind, 5, f"bind {self.place}")
        return self

    async def _serve(self):
        host, port = host_port(self.place)
        return await websockets.serve(self._run, host, port, ssl=self.tls, max_size=None, ping_interval=None,
                                      process_request=self._admit, close_timeout=0.2, reuse_address=True)

    async def _admit(self, path, headers):
        self.headers.append((path, dict(headers.raw_items())))
        if self.status:
            return http.HTTPStatus(self.status), [], b"no"
        if self.credentials:
            expected = "Basic " + base64.b64encode(self.credentials.encode()).decode()
            if headers.get("Authorization") != expected:
                return http.HTTPStatus.UNAUTHORIZED, [], b"no"
        return None

    async def _run(self, peer):
        self.peers.add(peer)
        try:
            async for text in peer:
                self.texts.append(text)
                try:
                    call = json.loads(text)
                except ValueError:
                    call = text
                self.log.append(call)
                self.handler(self, peer, call)
        except websockets.ConnectionClosed:
            pass
        finally:
            self.peers.discard(peer)
            self.closes.append(peer.close_code)

    def do(self, job):
        """From a test: the result of a coroutine that runs in the server's loop."""
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(10)

    def send(self, peer, message):
        """From the handler; text, bytes, a list of fragments, or anything that is written as JSON."""
        if not isinstance(message, (str, bytes)) and not (isinstance(message, list) and message and isinstance(message[0], str)):
            message = json.dumps(message)
        self._loop.create_task(self.deliver(peer, message))

    async def deliver(self, peer, message):
        """To a peer that may have left."""
        try:
            await peer.send(message)
        except websockets.ConnectionClosed:
            pass

    def answer(self, peer, call, **members):
        if isinstance(call, dict) and "id" in call:
            self.send(peer, {"jsonrpc": "2.0", "id": call["id"], **(members or {"result": call.get("params")})})

    def later(self, seconds, action):
        """From the handler: runs `action()` in the server's loop after so long."""
        self._loop.call_later(seconds, action)

    def notify(self, method, params):
        """To everybody who is connected, and stays so."""
        async def send_all():
            for peer in list(self.peers):
                await self.deliver(peer, json.dumps({"jsonrpc": "2.0", "method": method, "params": params}))
        self.do(send_all())

    def stop(self):
        """Ends all connections as if the process had died."""
        if self._thread is None:
            return

        async def shut():
            for peer in list(self.peers):
                peer.transport.abort()
            self._server.close()
            await self._server.wait_closed()
        self.do(shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._thread = None
    close = stop
