# SPDX-License-Identifier: MIT
"""The fixture `net`: everything a test starts, ended in order when the test is over. The daemons end first, while
their peers are still there, and each must balance its ledgers, stop cleanly and have kept its sanitizers quiet."""
import shutil
import tempfile
from pathlib import Path

import pytest
import zmq

import harness
import peers
import webserver
import zmtp


BLOCKED_MS = int(30000 * harness.FACTOR)  # a call that waits for longer fails: no test hangs


class Net:
    """Makes daemons and peers on free addresses."""

    def __init__(self):
        self.context = zmq.Context()
        self.context.max_sockets = 4000
        self.context.sndtimeo = self.context.rcvtimeo = BLOCKED_MS
        self.scratch = Path(tempfile.mkdtemp(prefix="proxyd-e2e-"))
        self._daemons, self._peers = [], []

    endpoint = staticmethod(harness.free_endpoint)
    chain = staticmethod(harness.Chain)

    def _add(self, peer):
        self._peers.append(peer)
        return peer

    def ipc(self, name):
        return f"ipc://{self.scratch}/{name}"

    def prepare(self, *chains, text=None, **options):
        """A daemon that is configured but not started."""
        directory = self.scratch / f"proxyd{len(self._daemons)}"
        directory.mkdir()
        daemon = harness.Proxyd(self.context, directory, chains if text is None else text, **options)
        self._daemons.append(daemon)
        return daemon

    def proxyd(self, *chains, **options):
        """A daemon that is ready."""
        return self.prepare(*chains, **options).start()

    def rep(self, handler=peers.echo, endpoint=None, **options):
        return self._add(peers.Server(self.context, endpoint or self.endpoint(), zmq.REP, handler, **options))

    def router(self, handler=peers.echo, endpoint=None, **options):
        return self._add(peers.Server(self.context, endpoint or self.endpoint(), zmq.ROUTER, handler, **options))

    def plain_server(self, endpoint, name, password, handler=peers.echo):
        return self._add(peers.PlainServer(endpoint, name, password, handler))

    def broker(self, **options):
        return self._add(peers.Broker(self.context, self.endpoint(), **options))

    def wire(self, handler=peers.echo, endpoint=None, socket_type=b"REP"):
        return self._add(zmtp.WireServer(endpoint or self.endpoint(), handler, socket_type))

    def listener(self, serve, endpoint=None):
        return self._add(zmtp.Listener(endpoint or self.endpoint(), serve))

    def web(self, handler=webserver.echo, endpoint=None, **options):
        return self._add(webserver.WebServer(endpoint or self.endpoint(), handler, **options))

    def process(self, delay_s=0, endpoint=None):
        log = self.scratch / f"process{len(self._peers)}.log"
        return self._add(peers.EchoProcess(endpoint or self.endpoint(), log, delay_s))

    def caller(self, chain, **options):
        return self._add(peers.Caller(self.context, harness.endpoint_of(chain), **options))

    def pipeline(self, chain, depth=0, **options):
        return self._add(peers.Pipeline(self.context, harness.endpoint_of(chain), depth, **options))

    def publisher(self, endpoint=None, **options):
        return self._add(peers.Publisher(self.context, endpoint or self.endpoint(), **options))

    def subscriber(self, chain, topic=b"", **options):
        place = chain.published if isinstance(chain, harness.Chain) else harness.endpoint_of(chain)
        return self._add(peers.Subscriber(self.context, place, topic, **options))

    def close(self):
        errors = []
        for daemon in self._daemons:
            try:
                daemon.finish()
            except AssertionError as error:
                errors.append(str(error))
        for peer in self._peers:
            peer.close()
        self.context.destroy(linger=0)
        if not errors:
            shutil.rmtree(self.scratch, ignore_errors=True)
        assert not errors, "\n".join(errors)


@pytest.fixture
def net():
    everything = Net()
    yield everything
    everything.close()


@pytest.fixture
def users(net):
    return harness.Users(net.scratch, anna="secret of anna", bert="secret of bert")


def pytest_sessionstart():
    if not harness.PROXYD.exists():
        raise pytest.UsageError(f"no {harness.PROXYD}: make it first, or set PROXYD_BUILD")
