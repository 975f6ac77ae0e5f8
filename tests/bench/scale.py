# SPDX-License-Identifier: MIT
"""The scale runs: many callers, many chains, a long queue. Each is a function that measures and yields lines of Markdown,
and Figures that something is claimed of."""
import dataclasses
import pathlib
import statistics
import subprocess
import time

import machine
import plots
from experiments import PIPELINED, calls_words, rep_req
from peers import Chain, Failed, NotAvailable, Stage, free_endpoint, harness

CALLERS = 10_000
LOADS = 2  # processes that play them, since each takes two descriptors for a caller
CHAINS = 1_000
DEPTHS = (1_000, 10_000, 100_000, 1_000_000)
IDLE_S = 10
ROUNDS, SLICE_S = 7, 0.5
MEASURED = 100  # calls in flight while the queue stands: far below the least depth, or they never reach it
PER_MESSAGE_BYTES = 32


@dataclasses.dataclass
class Figure:
    """A value, in `unit`, that shall be at most `reach`."""
    text: str
    value: float
    reach: float
    unit: str = ""


def usage(pid):
    """(CPU ns of all threads, context switches of all threads) so far."""
    cpu_ns = switches = 0
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        cpu_ns += int((thread / "schedstat").read_text().split()[0])
        switches += sum(int(line.split()[1]) for line in (thread / "status").read_text().splitlines()
                        if "ctxt_switches" in line)
    return cpu_ns, switches


def idle(proxyd, chains, reach_mib, reach_percent):
    """What a daemon without work costs."""
    cpu_ns, switches = usage(proxyd.pid)
    time.sleep(IDLE_S)
    cpu_after_ns, switches_after = usage(proxyd.pid)
    yield Figure(f"resident memory, {chains} idle chains", proxyd.rss_bytes() / 2**20, reach_mib, "MiB")
    yield Figure(f"CPU, {chains} idle chains", (cpu_after_ns - cpu_ns) / 1e7 / IDLE_S, reach_percent, "% of a core")
    yield f"- context switches: {(switches_after - switches) / IDLE_S:.1f} a second"


def rested(proxyd):
    """Resident memory once it stays the same for a second."""
    before = 0
    while before != (before := proxyd.rss_bytes()):
        time.sleep(1)
    return before


def resident_after(proxyd, seconds):
    time.sleep(seconds)
    return proxyd.rss_bytes()


def callers(stage, _):
    """10,000 connected callers, 16 calls at a time"""
    chain = rep_req(stage.echo())
    limits = {"max_connections": 2 * CALLERS, "max_connections_per_address": 2 * CALLERS}
    proxyd = stage.proxyd(chain, **limits)
    empty = rested(proxyd)
    crowd = [stage.load(*calls_words(callers=CALLERS // LOADS), "-a", 16, chain.endpoint) for _ in range(LOADS)]
    full = rested(proxyd)
    few = stage.load(*calls_words(callers=16), chain.endpoint)
    slices = [(crowd[0].measure(SLICE_S, proxyd.pid), few.measure(SLICE_S, proxyd.pid)) for _ in range(ROUNDS)]
    yield f"- memory per caller: {(full - empty) / CALLERS / 1024:.1f} KiB ({empty / 2**20:.1f} -> {full / 2**20:.1f} MiB)"
    for text, index in ("another 16 of them at a time, in turn", 0), ("always the same 16 beside them", 1):
        p50, p99, rate = (statistics.median(pair[index][figure] for pair in slices)
                          for figure in ("p50_us", "p99_us", "rate"))
        yield f"- {text}: p50 {p50:,.0f} us, p99 {p99:,.0f} us, {rate:,.0f} calls/s"
    for load in [*crowd, few]:
        load.stop()
    yield Figure(f"resident memory {IDLE_S} s after {CALLERS:,} callers left", resident_after(proxyd, IDLE_S) / 2**20,
                 32, "MiB")


def small(stage, _):
    """5 chains, idle"""
    upstream = stage.echo()
    yield from idle(stage.proxyd(*(rep_req(upstream, name=f"calls{i}", window=16) for i in range(5))), 5, 8, 0.5)
    stripped = stage.scratch / "proxyd.stripped"
    subprocess.run(["strip", "-o", str(stripped), str(harness.PROXYD)], check=True)
    yield Figure("size of the daemon, stripped", stripped.stat().st_size / 2**20, 1, "MiB")


def chains(stage, _):
    """1,000 chains, idle"""
    upstream = stage.echo()
    began = time.monotonic()
    proxyd = stage.proxyd(*(rep_req(upstream, name=f"calls{i}", window=16) for i in range(CHAINS)))
    yield f"- start: {time.monotonic() - began:.1f} s"

    def is_up():
        return all(chain["state"] == "up" for chain in proxyd.status()["chains"].values())
    harness.eventually(is_up, 60, "every chain up")
    yield from idle(proxyd, f"{CHAINS:,}", None, None)


class Backlog:
    """A chain whose queue stands at `depth`: its upstream is away, and each message that comes in drops the oldest."""

    def __init__(self, stage, store, depth):
        queue = {"store": store, "max_messages": depth, "max_bytes": "4GiB", "when_full": "drop-oldest"}
        self.depth, self.upstream = depth, free_endpoint()
        chain = Chain("buffered-rep-req", to=self.upstream, name="backlog", queue=queue,
                      backend={"window": PIPELINED})
        self._stage, self._proxyd = stage, stage.proxyd(chain)
        self._empty = rested(self._proxyd)
        self._fill = stage.load(*calls_words(outstanding=PIPELINED, expect="accepted"), chain.endpoint)
        self._load = stage.load(*calls_words(outstanding=MEASURED, expect="accepted"), chain.endpoint)

    def queued(self):
        return self._proxyd.status()["chains"]["backlog"]["queued"]

    def fill(self):
        while self.queued() < self.depth * 0.99:
            self._fill.measure(SLICE_S)
        self.kib_each = (rested(self._proxyd) - self._empty) / self.depth / 1024

    def measure(self):
        return self._load.measure(SLICE_S, self._proxyd.pid)

    def drain(self):
        """Messages a second when the upstream is back; 0 when it was over before it could be seen."""
        self._stage.role("echo", self.upstream)
        harness.eventually(lambda: self.queued() < self.depth, 30, "the first delivery")
        began, first = time.monotonic(), self.queued()
        harness.eventually(lambda: self.queued() == 0, 600, "an empty queue")
        return first / (time.monotonic() - began) if first > 0 else 0


def queue(store):
    def run(stage, out):
        backlogs = [Backlog(stage, store, depth) for depth in DEPTHS]
        for backlog in backlogs:
            backlog.fill()
        rounds = [[backlog.measure() for backlog in backlogs] for _ in range(ROUNDS)]
        yield "| queued | acks/s | CPU us a message | CPU : that at 1,000 | resident KiB a message | drained, messages/s |"
        yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
        data = []
        for index, backlog in enumerate(backlogs):
            rate = statistics.median(each[index]["rate"] for each in rounds)
            cpu_us = statistics.median(each[index]["cpu_us"] for each in rounds)
            ratio = statistics.median(each[index]["cpu_us"] / each[0]["cpu_us"] for each in rounds)
            yield (f"| {backlog.depth:,} | {rate:,.0f} | {cpu_us:.2f} | {ratio:.2f} | {backlog.kib_each:.2f} | "
                   f"{backlog.drain():,.0f} |")
            data.append(f"{backlog.depth} {cpu_us}")
        yield Figure(f"CPU a message with {DEPTHS[-1]:,} queued, to that with {DEPTHS[0]:,} ({store})", ratio, 1.2)
        plots.plot(out, f"queue-{store}", data, f"""
set title "What a message costs, by how many are queued ({store})"
set logscale x 10
set xrange [{DEPTHS[0]}:{DEPTHS[-1]}]
set yrange [0:*]
set xlabel "queued messages"
set ylabel "CPU, microseconds a message"
set grid
unset key
plot data using 1:2 with linespoints lw 2 pt 7
""")
    run.__doc__ = f"1,000,000 queued messages of {PER_MESSAGE_BYTES} B, {store}"
    return run


RUNS = {"callers": callers, "small": small, "chains": chains, "queue-memory": queue("memory"),
        "queue-disk": queue("disk")}


def verdict_on(figure, foreign):
    if foreign > machine.FOREIGN_MAX:
        return "not claimed: foreign load"
    return "reached" if figure.value <= figure.reach else "missed"


def run(name, measure, scratch, out):
    """What `measure` found, with a claim for each Figure that has a reach."""
    folder, watch, found, failure = pathlib.Path(scratch) / name, machine.Watch(), [], None
    folder.mkdir()
    try:
        with Stage(folder) as stage:
            for each in measure(stage, out):
                found.append(each)
    except (NotAvailable, Failed, AssertionError, OSError) as error:
        failure = f"- failed: {error}"
    foreign = watch.share()
    figures = [each for each in found if isinstance(each, Figure)]
    lines = [f"- {each.text}: {each.value:.2f} {each.unit}".rstrip() if isinstance(each, Figure) else each
             for each in found]
    claims = [{"text": figure.text, "value": figure.value, "unit": figure.unit, "reach": figure.reach,
               "verdict": verdict_on(figure, foreign)} for figure in figures if figure.reach is not None]
    return {"name": name, "title": measure.__doc__, "lines": lines + ([failure] if failure else []), "claims": claims,
            "foreign": foreign}
