# SPDX-License-Identifier: MIT
"""What a durable chain must endure, as procedures that `make test` runs briefly and tests/durability at length: kill -9
under load, damaged files, large backlogs, a machine made worse (shim.c). Each compares the history of its callers and
of its upstream, intent and outcome of both, with the guarantees, and returns its figures."""
import ctypes
import functools
import os
import pathlib
import random
import re
import struct
import subprocess
import tempfile
import threading
import time

import zmq

from harness import ROOT, SANITIZED, eventually
from peers import bind_when_free

UNCOMMITTED = 64  # deletes that a kill may undo (G6)
ACKED = re.compile(rb"accepted (?:synced|written) [!-~]{1,64}")


# ---- the machine made worse --------------------------------------------------------------------------------------

@functools.lru_cache
def shim():
    """The path of shim.c, compiled."""
    source = pathlib.Path(__file__).with_name("shim.c")
    made = tempfile.NamedTemporaryFile(prefix="proxyd-shim-", suffix=".so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", made.name, source, "-ldl"], check=True)
    return made


def worse(**settings):
    """The environment of a daemon on a worse machine: worse(SYNC_MS=20), worse(CLOCK_FILE=path)."""
    return {"LD_PRELOAD": shim().name, **({"ASAN_OPTIONS": "verify_asan_link_order=0:exitcode=99"} if SANITIZED else {}),
            **{f"SHIM_{name}": str(value) for name, value in settings.items()}}


class WallClock:
    """How far the wall clock of a daemon is off, in seconds; may change while it runs."""

    def __init__(self, path):
        self.path = path
        self.set(0)

    def set(self, seconds):
        with open(self.path, "r+b" if os.path.exists(self.path) else "wb") as file:
            file.write(struct.pack("=q", seconds))


class SmallDisk:
    """A tmpfs of so many bytes, where root may mount one."""

    def __init__(self, path, size):
        self.path = pathlib.Path(path)
        self.path.mkdir()
        self.is_mounted = os.geteuid() == 0 and self._mount(b"size=%d" % size)

    def _mount(self, options):
        return ctypes.CDLL(None, use_errno=True).mount(b"none", bytes(self.path), b"tmpfs", 0, options) == 0

    def fill(self):
        """Takes all that is free."""
        with open(self.path / "filler", "wb", buffering=0) as file:
            while True:
                try:
                    file.write(b"\0" * 65536)
                except OSError:
                    return

    def free(self):
        (self.path / "filler").unlink()

    def close(self):
        if self.is_mounted:
            ctypes.CDLL(None).umount2(bytes(self.path), 2)


class Medium:
    """tests/unit/medium.c: an ext4 on a device that remembers each write and sync, and can be had as a power cut at
    any moment might have left it. Make it before there are threads; `is_there` is false where that cannot be had."""
    KINDS = 4

    def __init__(self, directory):
        directory = pathlib.Path(directory)
        directory.mkdir()
        self.live, self.cut_at = directory / "live", directory / "cut"
        self._library = self._load()
        error = ctypes.create_string_buffer(256)
        self._medium = ctypes.c_void_p(self._library.medium_new(bytes(directory), error, len(error)))
        self.is_there, self.error = bool(self._medium), error.value.decode()

    @staticmethod
    @functools.lru_cache
    def _load():
        with tempfile.TemporaryDirectory() as directory:
            path = f"{directory}/medium.so"
            subprocess.run(["gcc", "-D_GNU_SOURCE", "-shared", "-fPIC", "-O2", f"-I{ROOT}", "-o", path,
                            ROOT / "tests" / "unit" / "medium.c"], check=True)
            library = ctypes.CDLL(path)
        library.medium_new.restype = ctypes.c_void_p
        library.medium_position.restype = ctypes.c_uint64
        library.medium_cut.restype = ctypes.c_bool
        return library

    @property
    def position(self):
        return self._library.medium_position(self._medium)

    def stop(self):
        self._library.medium_stop(self._medium)

    def cut(self, position, kind):
        """Mounts it at `cut_at`; false when ext4 itself did not come back, or not for writing."""
        if not self._library.medium_cut(self._medium, ctypes.c_uint64(position), kind):
            return False
        try:
            probe = self.cut_at / "probe"
            probe.touch()
            probe.unlink()
            return True
        except OSError:
            self.uncut()
            return False

    def uncut(self):
        self._library.medium_uncut(self._medium)

    def close(self):
        if self.is_there:
            self.uncut()
            self._library.medium_stop(self._medium)
            self._library.medium_free(self._medium)


def disk_usage(directory):
    """Bytes that its files really occupy."""
    return sum(path.stat().st_blocks * 512 for path in pathlib.Path(directory).glob("*"))


# ---- callers and upstream with a history -------------------------------------------------------------------------

def body_of(number, size=None):
    """A body that says which one it is and cannot be taken for another: number, then bytes that follow from it."""
    size = 8 + number * 7919 % 1000 if size is None else size
    return struct.pack(">Q", number) + (b"%016x" % (number * 0x9E3779B97F4A7C15 % 2**64) * (size // 16 + 1))[:size - 8]


def number_of(body):
    """The number in a body, all of whose bytes must be right."""
    (number,) = struct.unpack_from(">Q", body)
    assert body == body_of(number, len(body)), f"a body that nobody sent: {body[:40]}"
    return number


def ends_with_context(run):
    """A thread whose test has failed finds its socket gone; what is to be said the test has said."""
    @functools.wraps(run)
    def guarded(self):
        try:
            run(self)
        except zmq.ZMQError:
            if not self._socket.closed and not self._socket.context.closed:
                raise
    return guarded


class Load:
    """A thread that calls with rising numbers, `outstanding` at a time, until it is stopped. `sent` counts what may
    have arrived, `acked` are the numbers of which an ack came, `refused` those of an error."""

    def __init__(self, context, endpoint, outstanding=64, start=0, size=None):
        self.sent, self.acked, self.refused, self.took_s = start, set(), {}, []
        self._size, self._outstanding = size, outstanding
        self._stopping = False
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(endpoint)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @ends_with_context
    def _run(self):
        waiting = {}
        while not self._stopping:
            while len(waiting) < self._outstanding:
                number = self.sent
                self.sent += 1  # intent first
                waiting[number] = time.monotonic()
                self._socket.send_multipart([b"%d" % number, b"", body_of(number, self._size)])
            if self._socket.poll(50):
                self._take(waiting)
        self._socket.close(linger=0)

    def _take(self, waiting):
        while True:
            try:
                tag, _, answer = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            number = int(tag)
            began = waiting.pop(number, None)
            if ACKED.fullmatch(answer):
                self.acked.add(number)
                self.took_s.append(time.monotonic() - began if began else 0)
            else:
                self.refused[number] = answer

    def stop(self):
        self._stopping = True
        self._thread.join()
        return self


class Sink:
    """A REP server in a thread that logs the number of each request before it answers."""

    def __init__(self, context, endpoint):
        self.log = []
        self._stopping = False
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        bind_when_free(self._socket, endpoint)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @ends_with_context
    def _run(self):
        while not self._stopping:
            if self._socket.poll(50):
                self.log.append(number_of(self._socket.recv()))
                self._socket.send(b"ok")
        self._socket.close(linger=0)

    def close(self):
        self._stopping = True
        self._thread.join()


def first_attempts(log):
    return list(dict.fromkeys(log))


# ---- kill -9 under load ------------------------------------------------------------------------------------------

def kill_rounds(net, chain, proxyd, rounds, seed, window=16):
    """kill -9 at random moments under load, `rounds` times. Nothing acked is lost, what comes twice was in flight or
    just settled, first attempts keep their order, every ledger balances. Figures."""
    dice = random.Random(seed)
    sink = Sink(net.context, chain.to[0])
    acked, sent, duplicates, worst_ready_s = set(), 0, 0, 0.0
    lives = []  # where in the sink's log each life of the daemon begins
    for number in range(rounds + 1):
        lives.append(len(sink.log))
        arrived = set(sink.log)
        began = time.monotonic()
        proxyd.start()
        worst_ready_s = max(worst_ready_s, time.monotonic() - began)
        # What came back is what was stored and has not arrived, give or take what a kill leaves unknown.
        restored, most = proxyd.chain(chain)["restored"], sent - len(arrived) + window + UNCOMMITTED
        assert len(acked - arrived) <= restored <= most, f"seed {seed}, round {number}: {restored} restored, not {most}"
        if number == rounds:
            break
        load = Load(net.context, chain.endpoint, start=sent)
        time.sleep(dice.uniform(0.005, 0.3))  # the random moment is the test
        proxyd.kill()
        load.stop()
        acked |= load.acked
        sent = load.sent
        assert not load.refused, load.refused
    status = proxyd.wait_for(chain, queued=0, inflight=0, seconds=60)
    sink.close()
    lost = acked - set(sink.log)
    assert not lost, f"seed {seed}: {len(lost)} acked calls never arrived: {sorted(lost)[:10]}"
    first = first_attempts(sink.log)
    assert first == sorted(first), f"seed {seed}: first attempts out of order"
    assert set(first) <= set(range(sent))
    last_at, life = {}, 0
    for position, number in enumerate(sink.log):
        while life + 1 < len(lives) and position >= lives[life + 1]:
            life += 1
        if number in last_at:
            duplicates += 1
            assert last_at[number] >= lives[life] - window - UNCOMMITTED, f"seed {seed}: {number} was settled long ago"
        last_at[number] = position
    assert duplicates <= rounds * (window + UNCOMMITTED)
    assert status["accepted"] == status["delivered"] == status["restored"]
    return {"rounds": rounds, "sent": sent, "acked": len(acked), "lost": 0, "duplicates": duplicates,
            "ready_s": round(worst_ready_s, 3)}


# ---- power cuts --------------------------------------------------------------------------------------------------

def _work_on(net, medium, chain, seconds, delivers):
    """Calls and (if it `delivers`) deliveries on the medium for so long; the position of the medium before each call,
    after its ack, and after its delivery."""
    proxyd = net.proxyd(chain, daemon={"state_dir": str(medium.live)})
    put_at, acked_at, settled_at = {}, {}, {}
    waiting, number, deadline = 0, 0, time.monotonic() + seconds
    with net.context.socket(zmq.DEALER) as caller, net.context.socket(zmq.REP) as server:
        caller.linger = server.linger = 0
        caller.connect(chain.endpoint)
        server.bind(chain.to[0])
        poller = zmq.Poller()
        poller.register(caller, zmq.POLLIN)
        poller.register(server, zmq.POLLIN)
        while time.monotonic() < deadline or waiting:
            while waiting < 1 + number // 7 % 24 and time.monotonic() < deadline:
                put_at[number] = medium.position
                caller.send_multipart([b"%d" % number, b"", body_of(number, 8 + number % 97 * 9)])
                number += 1
                waiting += 1
            for socket, _ in poller.poll(100):
                if socket is caller:
                    tag, _, answer = caller.recv_multipart()
                    assert ACKED.fullmatch(answer), answer
                    acked_at[int(tag)] = medium.position
                    waiting -= 1
                elif delivers and number % 5 < 4:  # the rest of the time a backlog grows
                    delivered = number_of(server.recv())
                    settled_at.setdefault(delivered, medium.position)
                    server.send(b"ok")
    proxyd.stop()
    return put_at, acked_at, settled_at


def power_cuts(net, medium, make_chain, cuts, seconds=2.0, delivers=True):
    """Works on the medium, then cuts the power `cuts` times, half of them spread over its history and half at the very
    moment of an ack, with all that a cut may leave of the writes after the last sync, and starts a daemon on what is
    left. Figures; `lost` and `losing_cuts` say how many acked calls were gone, and at how many cuts: the caller judges
    them."""
    begin = medium.position
    put_at, acked_at, settled_at = _work_on(net, medium, make_chain(), seconds, delivers)
    end = medium.position
    medium.stop()
    boot_id = net.scratch / "boot_id"
    boot_id.write_text("11111111-2222-4333-8444-555555555555\n")
    chain = make_chain()
    proxyd = net.prepare(chain, daemon={"state_dir": str(medium.cut_at)}, env=worse(BOOT_ID=boot_id))
    sink = Sink(net.context, chain.to[0])
    figures = {"cuts": cuts, "calls": len(put_at), "operations": end - begin, "lost": 0, "losing_cuts": 0, "no_ext4": 0,
               "first_loss": None}
    acks = sorted(acked_at.values())
    positions = [begin + (end - begin) * number // (cuts // 2) for number in range(cuts // 2)]
    positions += [acks[len(acks) * number // (cuts - cuts // 2)] for number in range(cuts - cuts // 2)]
    for number, position in enumerate(sorted(positions)):
        kind = number // 2 % Medium.KINDS
        if not medium.cut(position, kind):
            figures["no_ext4"] += 1
            continue
        del sink.log[:]
        proxyd.start()
        proxyd.wait_for(chain, queued=0, inflight=0, seconds=20)
        proxyd.kill()
        medium.uncut()
        arrived = first_attempts(sink.log)
        assert arrived == sorted(arrived), f"cut {number}: out of order"
        assert all(put_at[each] <= position for each in arrived), f"cut {number}: a call from the future"
        never = float("inf")
        lost = [each for each, at in acked_at.items()
                if at <= position < settled_at.get(each, never) and each not in set(arrived)]
        figures["lost"] += len(lost)
        figures["losing_cuts"] += bool(lost)
        if lost and not figures["first_loss"]:
            figures["first_loss"] = f"{lost[:10]} at {position} of kind {kind}"
    sink.close()
    return figures


# ---- damage ------------------------------------------------------------------------------------------------------

def damage(path, dice):
    """One to four flipped bits, or the end cut off. Returns what was done."""
    size = path.stat().st_size
    if size == 0:
        return "nothing"
    if dice.random() < 0.25:
        keep = dice.randrange(size)
        os.truncate(path, keep)
        return f"{path.name} cut to {keep} of {size}"
    flips = [(dice.randrange(size), 1 << dice.randrange(8)) for _ in range(dice.randint(1, 4))]
    with open(path, "r+b") as file:
        for at, bit in flips:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ bit]))
    return f"{path.name} of {size}: flipped {flips}"


def damage_rounds(net, make_chain, make_proxyd, rounds, seed, count=150):
    """Fills a store, damages its database or its log between two runs, and counts what came through. Figures."""
    dice = random.Random(seed)
    figures = {"rounds": rounds, "messages": 0, "delivered": 0, "set_aside": 0, "untouched": 0}
    for number in range(rounds):
        chain = make_chain()
        proxyd = make_proxyd(chain)
        load = net.pipeline(chain)
        for each in range(count):
            load.send(body_of(each, 700 + each % 300))
        load.wait(seconds=20)
        state = proxyd.scratch / "state"
        if dice.random() < 0.5:
            proxyd.stop()
        else:
            proxyd.kill()
        files = [path for path in (state / "store.db", state / "store.db-wal") if path.exists() and path.stat().st_size]
        what = f"seed {seed}, round {number}: {damage(dice.choice(files), dice)}"
        sink = Sink(net.context, chain.to[0])
        proxyd.start()
        try:
            status = proxyd.wait_for(chain, queued=0, inflight=0, seconds=20)
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from None
        sink.close()
        arrived = set(sink.log)
        set_aside = status["dropped"].get("damaged", 0)
        assert len(arrived) + set_aside == count, f"{what}: {len(arrived)} arrived, {set_aside} set aside\n{proxyd.log}"
        assert first_attempts(sink.log) == sorted(arrived), what
        assert set_aside == 0 or any(proxyd.events(token) for token in ("store-damaged", "store-salvaged")), what
        proxyd.stop()
        figures["messages"] += count
        figures["delivered"] += len(arrived)
        figures["set_aside"] += set_aside
        figures["untouched"] += set_aside == 0
    return figures


# ---- a large backlog ---------------------------------------------------------------------------------------------

def backlog(net, chain, proxyd, count, size=256):
    """Queues `count` messages, kills the daemon, starts it, drains. Figures."""
    pipeline = net.context.socket(zmq.DEALER)
    pipeline.linger = 0
    pipeline.sndhwm = pipeline.rcvhwm = 0
    pipeline.connect(chain.endpoint)
    acked, began = 0, time.monotonic()
    for number in range(count):
        pipeline.send_multipart([b"", body_of(number, size)])
        while number - acked > 4000:
            assert ACKED.fullmatch(pipeline.recv_multipart()[1])
            acked += 1
    while acked < count:
        assert ACKED.fullmatch(pipeline.recv_multipart()[1])
        acked += 1
    fill_s = time.monotonic() - began
    state = proxyd.scratch / "state"
    full_bytes = disk_usage(state)
    proxyd.kill()
    pipeline.close(linger=0)
    began = time.monotonic()
    proxyd.start()
    ready_s = time.monotonic() - began
    assert proxyd.chain(chain)["restored"] == count
    sink = Sink(net.context, chain.to[0])
    began = time.monotonic()
    proxyd.wait_for(chain, queued=0, inflight=0, seconds=60 + count / 1000)
    drain_s = time.monotonic() - began
    peak = proxyd.rss_bytes(peak=True)
    sink.close()
    assert sink.log == list(range(count))
    eventually(lambda: disk_usage(state) < 8 << 20, 30 + count / 10000, "the disk space given back")
    return {"messages": count, "fill_per_s": round(count / fill_s), "ready_s": round(ready_s, 3),
            "drain_per_s": round(count / drain_s), "peak_rss_bytes": peak, "disk_full_bytes": full_bytes,
            "disk_empty_bytes": disk_usage(state)}
