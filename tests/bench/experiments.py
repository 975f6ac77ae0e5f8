# SPDX-License-Identifier: MIT
"""What is measured: each experiment sets up proxyd and its references side by side, and says which ratios of their
figures are claimed. One table (EXPERIMENTS), in the order of the report."""
import dataclasses
import typing

from peers import PASSWORD, Chain, free_endpoint, wait_until_empty

PIPELINED = 1000
STREAM_OUTSTANDING = 1000
DIALECTS = ("pyzmqrpc", "jsonrpc", "red", "zmqframework")
STREAM_HWM = 10000  # what proxyd holds for a subscriber: so much more that nothing is lost


@dataclasses.dataclass
class Variant:
    """One of the things compared. `pid` is whose CPU is counted; `settle` returns when it rests again."""
    load: typing.Any
    pid: int = 0
    settle: typing.Callable = None
    flood: typing.Any = None  # another load, at work beside the one that is measured

    def measure(self, seconds):
        if self.flood:
            self.flood.begin(seconds * 1.5)
        result = self.load.measure(seconds, self.pid)
        if self.flood:
            self.flood.end(seconds * 1.5)
        if self.settle:
            self.settle()
        return result


@dataclasses.dataclass
class Claim:
    """`figure` of proxyd to that of `reference`, at least (or at most) `reach`."""
    text: str
    reference: str
    reach: float
    aim: float = None
    figure: str = "rate"
    at_most: bool = False


@dataclasses.dataclass
class Experiment:
    name: str
    title: str
    set_up: typing.Callable  # stage -> {name: Variant}, "proxyd" among them
    claims: list
    quick: bool = True
    by_name: bool = False  # not part of a run that names nothing


# ---- the sides of a comparison ----

def calls_words(callers=1, size=32, outstanding=None, expect="echo", user=False):
    words = ["calls", "-c", callers, "-b", size, "-e", expect]
    words += ["-o", outstanding] if outstanding else []
    return words + (["-u", "bench", "-p", PASSWORD] if user else [])


def rep_req(upstream, name="calls", window=PIPELINED, frontend=(), **backend):
    return Chain("rep-req", to=upstream, name=name, frontend=frontend, backend={"window": window, **backend})


def proxyd_calls(stage, upstream, words, daemon=(), **chain):
    chain = rep_req(upstream, **chain)
    proxyd = stage.proxyd(chain, **dict(daemon))
    return Variant(stage.load(*words, chain.endpoint), proxyd.pid)


def zmq_proxy_calls(stage, upstream, words):
    frontend = free_endpoint()
    forward = stage.forward("rep-req", (frontend, upstream))
    return Variant(stage.load(*words, frontend), forward.pid)


def rep2req_calls(stage, upstream, **words):
    process, frontend = stage.rep2req(upstream)
    return Variant(stage.load(*calls_words(expect="any", **words), frontend), process.pid)


# ---- rep-req ----

def rep_req_experiment(name, title, claims, with_direct=True, with_rep2req=False, quick=True, **words):
    def set_up(stage):
        upstream, load = stage.echo(), calls_words(**words)
        variants = {"proxyd": proxyd_calls(stage, upstream, load), "zmq_proxy": zmq_proxy_calls(stage, upstream, load)}
        if with_direct:
            variants["direct"] = Variant(stage.load(*load, upstream))
        if with_rep2req:
            variants["pyzmqrpc3"] = rep2req_calls(stage, upstream, **words)
        return variants
    return Experiment(name, title, set_up, claims, quick)


def throughput(text, aim=1.3):
    return Claim(f"rep-req throughput, {text}", "zmq_proxy", 0.95, aim)


def cpu(text):
    return Claim(f"CPU per request, {text}", "zmq_proxy", 1.1, 0.5, "cpu_us", at_most=True)


def rep_req_experiments():
    yield rep_req_experiment(
        "calls-1", "1 caller, 32 B",
        [throughput("1 caller, 32 B", 1.1),
         Claim("rep-req round trip of one caller, median", "zmq_proxy", 1.1, 0.7, "p50_us", at_most=True),
         cpu("1 caller, 32 B"), Claim("rep-req, 1 caller", "pyzmqrpc3", 1.3)], with_rep2req=True, callers=1)
    yield rep_req_experiment(
        "calls-16", "16 callers, 32 B",
        [throughput("16 callers, 32 B"), cpu("16 callers, 32 B"), Claim("rep-req, 16 callers", "pyzmqrpc3", 6)],
        with_rep2req=True, callers=16)
    for callers in 64, 256:
        text = f"{callers} callers, 32 B"
        yield rep_req_experiment(f"calls-{callers}", text, [throughput(text), cpu(text)], callers=callers)
    for callers in 1, 16, 64, 256:
        text = f"{callers} caller{'s' * (callers > 1)}, 1 KiB"
        yield rep_req_experiment(f"calls-{callers}-1k", text, [throughput(text, 1.1 if callers == 1 else 1.3)],
                                 with_direct=False, quick=callers == 16, callers=callers, size=1024)
    yield rep_req_experiment("calls-16-64k", "16 callers, 64 KiB", [throughput("16 callers, 64 KiB", None)],
                             quick=False, callers=16, size=65536)
    for size, text in (32, "32 B"), (1024, "1 KiB"):
        claims = [Claim(f"rep-req pipelined, {PIPELINED} outstanding, {text}", "zmq_proxy", 0.95, 1.5),
                  cpu(f"pipelined, {text}")]
        yield rep_req_experiment(f"pipelined-{size}", f"pipelined, {PIPELINED} outstanding, {text}", claims,
                                 outstanding=PIPELINED, size=size)


def pipelined_100(stage):
    upstream = stage.echo()
    words = {"outstanding": 100}
    return {"proxyd": proxyd_calls(stage, upstream, calls_words(**words)),
            "pyzmqrpc3": rep2req_calls(stage, upstream, **words)}


def lockstep(stage):
    upstream, load = stage.echo(), calls_words(callers=64)
    return {"proxyd": proxyd_calls(stage, upstream, load, window=64, correlation="lockstep"),
            "zmq_proxy": zmq_proxy_calls(stage, upstream, load)}


def slow_upstream(callers):
    def set_up(stage):
        upstream = stage.slow_echo(5)
        return {"proxyd": proxyd_calls(stage, upstream, calls_words(callers=callers), window=64),
                "pyzmqrpc3": rep2req_calls(stage, upstream, callers=callers)}
    return set_up


def five_chains(stage):
    upstreams = [stage.echo() for _ in range(5)]
    load = calls_words(callers=5 * 16)
    chains = [rep_req(upstream, name=f"calls{i}") for i, upstream in enumerate(upstreams)]
    proxyd = stage.proxyd(*chains)
    pairs = [(free_endpoint(), upstream) for upstream in upstreams]
    forward = stage.forward("rep-req", *pairs)
    return {"proxyd": Variant(stage.load(*load, *(chain.endpoint for chain in chains)), proxyd.pid),
            "zmq_proxy": Variant(stage.load(*load, *(frontend for frontend, _ in pairs)), forward.pid)}


def beside_a_flood(stage):
    quiet, flooded = stage.echo(), stage.echo()
    load, flood = calls_words(callers=16), calls_words(outstanding=PIPELINED)
    chains = [rep_req(quiet, name="quiet"), rep_req(flooded, name="flooded")]
    proxyd = stage.proxyd(*chains)
    pairs = [(free_endpoint(), quiet), (free_endpoint(), flooded)]
    forward = stage.forward("rep-req", *pairs)
    return {"proxyd": Variant(stage.load(*load, chains[0].endpoint), proxyd.pid,
                              flood=stage.load(*flood, chains[1].endpoint)),
            "zmq_proxy": Variant(stage.load(*load, pairs[0][0]), forward.pid, flood=stage.load(*flood, pairs[1][0]))}


# ---- sub-pub ----

def stream(size):
    def set_up(stage):
        words = ["stream", "-b", size, "-o", STREAM_OUTSTANDING]
        published = [free_endpoint() for _ in range(3)]
        chain = Chain("sub-pub", at=published[0], name="stream", backend={"hwm": STREAM_HWM})
        proxyd = stage.proxyd(chain)
        forwarded = free_endpoint()
        forward = stage.forward("sub-pub", (published[1], forwarded))
        return {"proxyd": Variant(stage.load(*words, published[0], chain.published), proxyd.pid),
                "zmq_proxy": Variant(stage.load(*words, published[1], forwarded), forward.pid),
                "direct": Variant(stage.load(*words, published[2], published[2]))}
    return set_up


# ---- buffered ----

def buffered_calls(stage, callers):
    chain = Chain("buffered-rep-req", to=stage.echo(), name="buffered", backend={"window": PIPELINED})
    proxyd = stage.proxyd(chain)
    return Variant(stage.load(*calls_words(callers=callers, expect="accepted"), chain.endpoint), proxyd.pid,
                   settle=lambda: wait_until_empty(proxyd))


def buffered(callers):
    def set_up(stage):
        return {"proxyd": buffered_calls(stage, callers),
                "disk": Variant(stage.load("sync", stage.scratch / "synced"))}
    return set_up


def buffered_and_mosquitto(stage):
    proxyd = buffered_calls(stage, 64)
    pid, host, port = stage.mosquitto()
    return {"proxyd": proxyd, "mosquitto": Variant(stage.load("mqtt", "-c", 64, host, port), pid)}


# ---- dialects ----

def dialects(kind, size, upstream=None, **options):
    """The same chain in each dialect, raw first, beside JSON-RPC callers."""
    def set_up(stage):
        to, variants = upstream and upstream(stage), {}
        for dialect in "raw", *DIALECTS:
            chain = Chain(kind, to=to, dialect=dialect, **options)
            proxyd = stage.proxyd(chain)
            load = stage.load(*calls_words(outstanding=PIPELINED, size=size, expect="any"), "-j", chain.endpoint)
            variants["proxyd" if dialect == "raw" else dialect] = Variant(load, proxyd.pid)
        return variants
    return set_up


def dialect_experiments():
    def claims(what, reach):
        return [Claim(f"{what}, raw against a dialect", dialect, reach, at_most=True) for dialect in DIALECTS]
    for size in 128, 8192:
        yield Experiment(f"dialects-pass-{size}", f"calls that pass, {size} B of JSON, pipelined",
                         dialects("rep-req", size, lambda stage: stage.echo(), backend={"window": PIPELINED}),
                         claims(f"calls that pass, {size} B", 1.1), by_name=True)
        yield Experiment(f"dialects-ack-{size}", f"acks of rep-pub, {size} B of JSON, pipelined", dialects("rep-pub", size),
                         claims(f"acks, {size} B", 1.5), by_name=True)
        yield Experiment(f"dialects-error-{size}", f"errors (rate-limited), {size} B of JSON, pipelined",
                         dialects("rep-req", size, frontend={"rate": 1}), claims(f"errors, {size} B", 1.5), by_name=True)


# ---- auth ----

def auth(**words):
    def set_up(stage):
        upstream = stage.echo()
        users = stage.users_file()
        return {"proxyd": proxyd_calls(stage, upstream, calls_words(user=True, **words), daemon={"users": users},
                                       frontend={"auth": "plain"}),
                "without auth": proxyd_calls(stage, upstream, calls_words(**words))}
    return set_up


def experiments():
    yield from rep_req_experiments()
    yield Experiment("pipelined-100", "pipelined, 100 outstanding, 32 B", pipelined_100,
                     [Claim("rep-req, pipelined 100", "pyzmqrpc3", 30)])
    yield Experiment("chains-5", "5 chains at once, 16 callers each", five_chains,
                     [Claim("5 chains active, total throughput", "zmq_proxy", 1.0, 1.15)])
    yield Experiment("flooded", "16 callers beside a flooded chain", beside_a_flood,
                     [Claim("a chain beside one that is flooded", "zmq_proxy", 0.9, 1.3)])
    yield Experiment("lockstep-64", "lock-step, 64 callers", lockstep,
                     [Claim("rep-req lock-step, 64 callers", "zmq_proxy", 0.6, 0.9)])
    for callers, reach in (16, 13), (64, 50):
        text = f"upstream that takes 5 ms, {callers} callers"
        yield Experiment(f"slow-{callers}", text, slow_upstream(callers),
                         [Claim(f"rep-req, {text}", "pyzmqrpc3", reach)])
    for size, text in (32, "32 B"), (1024, "1 KiB"):
        yield Experiment(f"stream-{size}", f"sub-pub, {text}", stream(size),
                         [Claim(f"sub-pub, messages/s with nothing lost, {text}", "zmq_proxy", 0.95, 1.3)])
    for callers, reach, aim in (1, 0.35, 0.5), (16, 3, 4), (256, 15, 20):
        text = f"buffered acks/s, {callers} caller{'s' * (callers > 1)}"
        yield Experiment(f"buffered-{callers}", text, buffered(callers), [Claim(text, "disk", reach, aim)],
                         quick=callers != 1)
    text = "buffered acks/s, 64 callers waiting for their acks"
    yield Experiment("mosquitto-64", text, buffered_and_mosquitto, [Claim(text, "mosquitto", 1.0, 2)])
    yield from dialect_experiments()
    for name, text, words in (("auth-16", "16 callers", {"callers": 16}),
                              ("auth-pipelined", "pipelined", {"outstanding": PIPELINED})):
        yield Experiment(name, f"auth plain, {text}, 32 B", auth(**words),
                         [Claim(f"auth plain on, {text}", "without auth", 0.97, 1)], quick=name == "auth-16")


EXPERIMENTS = list(experiments())
