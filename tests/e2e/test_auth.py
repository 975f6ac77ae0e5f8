# SPDX-License-Identifier: MIT
"""Who may come in: passwords, keys, addresses and rates on every kind of side, people who lose their rights while
connected, crowds with bad passwords, and that no password is ever found where it does not belong."""
import os
import pathlib
import shutil
import subprocess
import time

import pytest
import zmq

from endure import worse
from harness import FACTOR, PROXYCTL, PROXYD, SANITIZED, eventually, holds, proxyctl
from peers import error_of, plain
from zmtp import command, dial, frame, greeting, ready

CANARY = "canary-7f3a-in-a-coal-mine"
QUICK = {"backoff": "20ms", "backoff_max": "100ms"}
HANDSHAKE_S = 5


def keygen(net, name):
    """(public key, path of the secret key) that proxyctl made; the line for a keys file goes into NAME.pub."""
    line = proxyctl("keygen", net.scratch / name, check=True).stdout
    assert line.startswith(f"{name}:")
    (net.scratch / f"{name}.pub").write_text(line)
    return line.strip().split(":", 1)[1], net.scratch / f"{name}.key"


def curve(net, name, server_key):
    public, path = (net.scratch / f"{name}.pub").read_text().strip().split(":", 1)[1], net.scratch / f"{name}.key"
    return {"curve_publickey": public.encode(), "curve_secretkey": path.read_text().strip().encode(),
            "curve_serverkey": server_key.encode()}


def protected(net, to=None, kind="rep-req", auth="plain", frontend=(), **options):
    return net.chain(kind, to=to or net.rep(), frontend={"auth": auth, **dict(frontend)}, **options)


def start(net, *chains, users=None, **options):
    daemon = {"users": str(users.path)} if users else {}
    return net.proxyd(*chains, daemon={**daemon, **options.pop("daemon", {})}, **options)


def verdicts(proxyd):
    return proxyd.control("status")["auth"]


def wait_verdict(proxyd, verdict, count=1, seconds=5.0):
    eventually(lambda: verdicts(proxyd).get(verdict, 0) >= count, seconds, f"{count} times {verdict}: {verdicts(proxyd)}")


def reload_users(proxyd):
    """SIGHUP, and the files are in force."""
    count = len(proxyd.events("users-reloaded"))
    proxyd.signal(1)
    eventually(lambda: len(proxyd.events("users-reloaded")) > count)


# ---- passwords -------------------------------------------------------------------------------------------------

def test_a_good_password_lets_in_and_is_audited(net, users):
    calls = protected(net)
    proxyd = start(net, calls, users=users)
    caller = net.caller(calls, **plain("anna"))
    assert caller.call(b"x") == [b"x"]
    (event,) = proxyd.logged("auth")
    assert event.items() >= {"chain": "rep-req", "user": "anna", "mechanism": "plain", "verdict": "accepted"}.items()
    assert event["address"].startswith("127.")
    assert verdicts(proxyd) == {"accepted": 1}
    assert "\nauth accepted 1\n" in ctl("-s", proxyd.control_endpoint, "status").stdout


@pytest.mark.parametrize("name,password", [("anna", "wrong"), ("nobody", "secret of anna"), ("anna", "secret of bert")])
def test_a_wrong_password_is_denied_and_said(net, users, name, password):
    calls = protected(net)
    proxyd = start(net, calls, users=users)
    caller = net.caller(calls, **plain(name, password))
    caller.knock(b"never")
    wait_verdict(proxyd, "denied")
    proxyd.logged("auth", user=name, verdict="denied", chain="rep-req")
    assert proxyd.chain(calls)["accepted"] == 0 and caller.poll(0.1) is None


def test_who_logs_in_anew_with_the_right_password_comes_in(net, users):
    """Late credentials: the user is made while the daemon runs."""
    calls = protected(net)
    proxyd = start(net, calls, users=users)
    net.caller(calls, **plain("carl")).knock(b"too early")
    wait_verdict(proxyd, "denied")
    users.set("carl", "secret of carl")
    reload_users(proxyd)
    assert net.caller(calls, **plain("carl")).call(b"now") == [b"now"]


def test_clients_without_credentials_get_nowhere(net, users):
    """NULL, ZMTP 1 and ZMTP 2 at an endpoint that wants a password."""
    calls = protected(net)
    proxyd = start(net, calls, users=users)
    net.caller(calls).knock(b"null")
    null = dial(calls.endpoint)
    null.write(greeting() + ready(b"REQ") + frame(b"", 1) + frame(b"hand-made"))
    zmtp1 = dial(calls.endpoint)  # no signature: an anonymous identity, then at once a message
    zmtp1.write(b"\x01\x00" + b"\x01\x01" + b"\x04\x00one")
    zmtp2 = dial(calls.endpoint)
    zmtp2.write(b"\xff" + bytes(8) + b"\x7f\x01\x03" + b"\0\0" + b"\1\0" + b"\0\3two")
    good = net.caller(calls, **plain("anna"))
    assert good.call(b"x") == [b"x"]
    holds(lambda: proxyd.chain(calls)["accepted"] == 1, 0.3, "nobody else's message")
    for peer in (null, zmtp1, zmtp2):
        peer.close()


def test_names_with_odd_bytes_are_nobody(net, users):
    """`anna` and a NUL is not anna."""
    calls = protected(net)
    proxyd = start(net, calls, users=users)
    peer = dial(calls.endpoint)
    peer.write(greeting(b"PLAIN"))
    peer.read(64)
    name, password = b"anna\0evil", b"secret of anna"
    peer.write(command(b"HELLO", bytes([len(name)]) + name + bytes([len(password)]) + password))
    wait_verdict(proxyd, "malformed")
    peer.close()


# ---- rights ----------------------------------------------------------------------------------------------------

def test_patterns_of_a_frontend_decide_who_may_use_it(net, users):
    users.set("pi-1", "secret of pi-1")
    calls = protected(net, frontend={"users": ["pi-*", "bert"]})
    proxyd = start(net, calls, users=users)
    assert net.caller(calls, **plain("pi-1")).call(b"x") == [b"x"]
    assert net.caller(calls, **plain("bert")).call(b"x") == [b"x"]
    assert error_of(net.caller(calls, **plain("anna")).call(b"x")) == (403, "denied")
    assert proxyd.chain(calls)["failed"] == {"denied": 1}


def test_chains_in_the_users_file_decide_what_a_user_may_use(net, users):
    users.set("bert", None, "--chains", "calls-*,other")
    calls, orders = protected(net, name="calls-1"), protected(net, name="orders")
    start(net, calls, orders, users=users)
    assert net.caller(calls, **plain("bert")).call(b"x") == [b"x"]
    assert error_of(net.caller(orders, **plain("bert")).call(b"x")) == (403, "denied")
    assert net.caller(orders, **plain("anna")).call(b"x") == [b"x"]


def test_a_user_who_loses_rights_is_denied_at_the_next_message(net, users):
    """Removed, changed, and untouched users, all connected; then everybody logs in anew."""
    users.set("carl", "secret of carl")
    calls = protected(net)
    proxyd = start(net, calls, users=users)
    anna, bert, carl = (net.caller(calls, **plain(name)) for name in ("anna", "bert", "carl"))
    assert [each.call(b"x") for each in (anna, bert, carl)] == [[b"x"]] * 3
    users.delete("anna")
    users.set("bert", "another secret")
    reload_users(proxyd)
    assert error_of(anna.call(b"y")) == (403, "denied")
    assert error_of(bert.call(b"y")) == (403, "denied")
    assert carl.call(b"y") == [b"y"]
    assert net.caller(calls, **plain("bert", "another secret")).call(b"z") == [b"z"]
    denied = verdicts(proxyd).get("denied", 0)
    net.caller(calls, **plain("anna")).knock(b"z")
    wait_verdict(proxyd, "denied", denied + 1)
    assert proxyd.chain(calls)["failed"] == {"denied": 2}


def test_a_routing_id_is_the_users_who_came_with_it(net, users):
    """Who returns under its own name is served at once, whatever became of its old connection; another user
    is cut off, also when the owner has just gone. Both can be told from what they do, not only from silence."""
    calls = protected(net)
    proxyd = start(net, calls, users=users)
    owner = net.caller(calls, **plain("anna"), identity=b"fixed")
    assert owner.call(b"x") == [b"x"]
    thief = net.caller(calls, **plain("bert"), identity=b"fixed")
    thief.send(b"mine")
    (event,) = proxyd.logged("connection-cut")
    assert event["cause"] == "id-taken"
    assert owner.call(b"y") == [b"y"]

    returned = net.caller(calls, **plain("anna"), identity=b"fixed")
    assert returned.call(b"z") == [b"z"]
    owner.close()
    returned.close()
    assert thief.poll(0.3) is None
    assert net.caller(calls, **plain("anna"), identity=b"fixed").call(b"back") == [b"back"]
    assert net.caller(calls, **plain("bert"), identity=b"own").call(b"w") == [b"w"]


def test_a_routing_id_is_not_taken_by_who_was_not_let_in(net, users):
    calls = protected(net)
    start(net, calls, users=users)
    stranger = dial(calls.endpoint)
    name = b"\x08Identity\x00\x00\x00\x05fixed"
    stranger.write(greeting(b"PLAIN") + command(b"HELLO", b"\x04evil\x01x") + command(b"INITIATE", name))
    with pytest.raises(EOFError):
        stranger.read(1000)
    assert net.caller(calls, **plain("anna"), identity=b"fixed").call(b"x") == [b"x"]


def test_a_bad_users_file_changes_nothing(net, users):
    calls = protected(net)
    proxyd = start(net, calls, users=users)
    anna = net.caller(calls, **plain("anna"))
    assert anna.call(b"x") == [b"x"]
    users.path.write_text(users.path.read_text() + "carl:no hash\n")
    proxyd.signal(1)
    (event,) = proxyd.logged("reload-failed")
    assert f"{users.path}:3: " in event["reason"]
    assert proxyd.events("users-reloaded") == []
    assert anna.call(b"y") == [b"y"]
    assert net.caller(calls, **plain("bert")).call(b"y") == [b"y"]


def test_tickets_belong_to_their_user(net, users):
    at = net.endpoint()
    calls = protected(net, kind="buffered-rep-req", frontend={"tickets": [at]})
    proxyd = start(net, calls, users=users)
    accepted, level, ticket = net.caller(calls, **plain("anna")).call(b"mine")[0].split()
    assert (accepted, level) == (b"accepted", b"synced")
    proxyd.wait_for(calls, delivered=1)
    anna, bert = net.caller(at, **plain("anna")), net.caller(at, **plain("bert"))
    eventually(lambda: anna.call(ticket) == [b"done", b"mine"])
    assert bert.call(ticket) == [b"unknown"]
    users.delete("anna")
    reload_users(proxyd)
    assert anna.call(ticket) == [b"unknown"]


def test_a_daemon_whose_door_nobody_keeps_ends(net, users):
    """Protected endpoints would let nobody in, for good, and the service manager would know of nothing."""
    calls = protected(net)
    fails = net.scratch / "fails"
    proxyd = start(net, calls, users=users, env=worse(ZAP_FAILS=fails))
    assert net.caller(calls, **plain("anna")).call(b"x") == [b"x"]
    fails.touch()
    net.caller(calls, **plain("bert"))
    assert proxyd.wait(10) == 1
    (event,) = proxyd.events("auth-ended")
    assert "Bad address" in event["reason"]


# ---- addresses and rates ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("auth", ["none", "plain"])
def test_addresses_are_allowed_and_denied(net, users, auth):
    """The whole of 127/8 is this machine; a client chooses its address there."""
    endpoint = net.endpoint()
    host = endpoint.removeprefix("tcp://").rsplit(":", 1)[0]
    frontend = {"allow": ["127.9.9.0/24", f"{host}/32", "::1"], "deny": ["127.9.9.66"]}
    calls = protected(net, at=endpoint, auth=auth, frontend=frontend)
    proxyd = start(net, calls, users=users)
    login = plain("anna") if auth == "plain" else {}

    def caller_from(address):
        return net.caller(endpoint.replace("tcp://", f"tcp://{address}:0;"), **login)
    assert caller_from("127.9.9.1").call(b"x") == [b"x"]
    for number, address in enumerate(("127.9.9.66", "127.8.8.8"), 1):
        caller_from(address).knock(b"never")
        wait_verdict(proxyd, "denied-address", number)
        proxyd.logged("auth", address=address, verdict="denied-address")
    assert proxyd.chain(calls)["accepted"] == 1


@pytest.mark.parametrize("auth", ["none", "plain"])
def test_rates_are_each_users_own_or_each_addresses(net, users, auth):
    endpoint = net.endpoint()
    calls = protected(net, at=endpoint, auth=auth, frontend={"rate": 1, "burst": 5})
    proxyd = start(net, calls, users=users)
    if auth == "plain":
        greedy, modest = net.caller(calls, **plain("anna")), net.caller(calls, **plain("bert"))
    else:
        greedy, modest = (net.caller(endpoint.replace("tcp://", f"tcp://127.9.9.{n}:0;")) for n in (1, 2))
    answers = [greedy.call(b"x") for _ in range(8)]
    assert answers[:5] == [[b"x"]] * 5
    assert error_of(answers[-1]) == (429, "rate-limited")
    assert modest.call(b"y") == [b"y"]
    assert proxyd.chain(calls)["failed"]["rate-limited"] >= 2
    eventually(lambda: greedy.call(b"z") == [b"z"], 3, "a second to have passed")


# ---- publications ----------------------------------------------------------------------------------------------

def test_only_users_may_subscribe(net, users):
    samples = net.chain("rep-pub", backend={"auth": "plain", "users": ["anna"]})
    proxyd = start(net, samples, users=users)
    caller = net.caller(samples)
    stranger = net.subscriber(samples, **plain("bert"))
    outsider = net.subscriber(samples)
    anna = net.subscriber(samples, **plain("anna")).wait_joined(lambda: caller.call(b"probe"))
    wait_verdict(proxyd, "denied-chain")
    assert caller.call(b"news") == [b"accepted"]
    assert anna.receive() == [b"news"]
    assert stranger.poll(0.1) is None and outsider.poll(0) is None


@pytest.mark.parametrize("auth", ["plain", "curve"])
def test_a_subscriber_whose_user_is_removed_gets_nothing_more(net, users, auth):
    """The others miss nothing meanwhile."""
    if auth == "plain":
        samples = net.chain("rep-pub", backend={"auth": "plain"})
        logins = [plain("anna"), plain("bert")]
    else:
        key, file = keygen(net, "server")
        keys = net.scratch / "keys"
        for name in ("anna", "bert"):
            keygen(net, name)
        keys.write_text("".join((net.scratch / f"{name}.pub").read_text() for name in ("anna", "bert")))
        samples = net.chain("rep-pub", backend={"auth": "curve", "curve_keys": str(keys), "curve_secret_key_file": str(file)})
        logins = [curve(net, name, key) for name in ("anna", "bert")]
    proxyd = start(net, samples, users=users)
    caller = net.caller(samples)
    anna, bert = (net.subscriber(samples, **login).wait_joined(lambda: caller.call(b"probe")) for login in logins)
    while anna.poll(0.05):
        pass
    ended = anna.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    if auth == "plain":
        users.delete("anna")
    else:
        keys.write_text((net.scratch / "bert.pub").read_text())
    reload_users(proxyd)
    assert ended.poll(5000 * FACTOR), "nobody had to publish for that"
    for number in range(20):
        assert caller.call(b"%d" % number) == [b"accepted"]
    assert bert.take(20) == [[b"%d" % number] for number in range(20)]
    assert anna.poll(0.1) is None


def test_a_subscriber_of_ours_logs_in(net, users):
    """SUB with credentials towards a PUB with auth, both of them proxyd's."""
    source = net.chain("rep-pub", name="source", backend={"auth": "plain"})
    password = net.scratch / "pw"
    password.write_text("secret of anna\n")
    password.chmod(0o600)
    mirror = net.chain("sub-pub", name="mirror", at=source.published,
                       frontend={"username": "anna", "password_file": str(password), **QUICK})
    proxyd = start(net, source, mirror, users=users)
    proxyd.wait_for("mirror", state="up")
    caller = net.caller(source)
    subscriber = net.subscriber(mirror).wait_joined(lambda: caller.call(b"probe"))
    caller.call(b"news")
    assert subscriber.receive() == [b"news"]


# ---- keys ------------------------------------------------------------------------------------------------------

def test_curve_in_both_directions(net):
    """Callers with keys come in at a proxyd that shows a key of its own to the next proxyd."""
    (inner_key, inner_file), (outer_key, outer_file) = keygen(net, "inner"), keygen(net, "outer")
    for name in ("caller", "stranger"):
        keygen(net, name)
    inner = protected(net, auth="curve", name="inner", frontend={
        "curve_secret_key_file": str(inner_file), "curve_keys": str(net.scratch / "outer.pub")})
    outer = protected(net, to=inner.endpoint, auth="curve", name="outer", frontend={
        "curve_secret_key_file": str(outer_file), "curve_keys": str(net.scratch / "caller.pub")},
        backend={"curve_server_key": inner_key, "curve_secret_key_file": str(outer_file), **QUICK})
    proxyd = start(net, inner, outer)
    assert net.caller(outer, **curve(net, "caller", outer_key)).call(b"x") == [b"x"]
    proxyd.logged("auth", user="outer", chain="inner", mechanism="curve", verdict="accepted")
    net.caller(outer, **curve(net, "stranger", outer_key)).knock(b"never")
    wait_verdict(proxyd, "denied")
    net.caller(outer, **plain("anna")).knock(b"never")
    net.caller(outer).knock(b"never")
    holds(lambda: proxyd.chain(outer)["accepted"] == 1, 0.2)
    keys = [path.read_text().strip() for path in net.scratch.glob("*.key")]
    assert len(keys) == 4 and not any(key in proxyd.log for key in keys)
    shown = str(proxyd.control("show", "outer"))
    assert inner_key in shown and not any(key in shown for key in keys)


@pytest.mark.parametrize("auth", ["none", "plain", "curve"])
def test_a_small_max_message_keeps_nobody_out(net, users, auth):
    """A handshake has larger frames than what it is for."""
    server, key = keygen(net, "server")
    keygen(net, "pi")
    keys = {"curve_secret_key_file": str(key), "curve_keys": str(net.scratch / "pi.pub")} if auth == "curve" else {}
    calls = protected(net, auth=auth, frontend={"max_message": "10B", **keys})
    start(net, calls, users=users)
    login = {"none": {}, "plain": plain("anna"), "curve": curve(net, "pi", server)}[auth]
    assert net.caller(calls, **login, identity=b"a name of its own " * 10).call(b"x" * 7) == [b"x" * 7]
    if auth != "curve":  # which adds 33 bytes to a frame
        assert error_of(net.caller(calls, **login).call(b"x" * 11)) == (413, "too-large")


def test_curve_publications_both_ways(net):
    (key, file), (_, ours) = keygen(net, "source"), keygen(net, "mirror")
    source = net.chain("rep-pub", name="source", backend={
        "auth": "curve", "curve_secret_key_file": str(file), "curve_keys": str(net.scratch / "mirror.pub")})
    mirror = net.chain("sub-pub", name="mirror", at=source.published, frontend={
        "curve_server_key": key, "curve_secret_key_file": str(ours), **QUICK})
    proxyd = start(net, source, mirror)
    proxyd.wait_for("mirror", state="up")
    caller = net.caller(source)
    subscriber = net.subscriber(mirror).wait_joined(lambda: caller.call(b"probe"))
    caller.call(b"news")
    assert subscriber.receive() == [b"news"]


def test_keys_that_become_known_are_enough(net):
    """As a client with a key that the server first refuses; and a removed key is refused at the next message."""
    (server_key, server_file), (_, our_file) = keygen(net, "server"), keygen(net, "client")
    known = net.scratch / "known"
    known.write_text("# nobody yet\n")
    server = protected(net, auth="curve", name="server", frontend={
        "curve_secret_key_file": str(server_file), "curve_keys": str(known)})
    client = net.chain("rep-req", name="client", to=server.endpoint, backend={
        "curve_server_key": server_key, "curve_secret_key_file": str(our_file), "timeout": "300ms", **QUICK})
    there = start(net, server)
    here = net.proxyd(client)
    here.wait_for(client, state="down")
    eventually(lambda: here.chain(client)["upstreams"][0]["cause"] == "auth-denied")
    known.write_text((net.scratch / "client.pub").read_text())
    reload_users(there)
    here.wait_for(client, state="up", seconds=3)
    caller = net.caller(client)
    assert caller.call(b"x") == [b"x"]
    known.write_text("")
    reload_users(there)
    assert caller.call(b"y") == [b"error 403 denied"]


# ---- crowds ----------------------------------------------------------------------------------------------------

def test_a_known_user_connects_while_200_attackers_try(net, users):
    """(F39) Within a second, and those who are connected notice nothing."""
    calls = protected(net)
    proxyd = start(net, calls, users=users)
    steady = net.caller(calls, **plain("anna"))
    assert steady.call(b"x") == [b"x"]
    attackers = [net.caller(calls, **plain("anna", f"guess {number}")) for number in range(200)]
    for attacker in attackers:
        attacker.knock(b"never")
    wait_verdict(proxyd, "denied", 5)
    for _ in range(5):
        began = time.monotonic()
        fresh = net.caller(calls, **plain("anna"))
        assert fresh.call(b"y") == [b"y"]
        assert time.monotonic() - began < 1.0 * FACTOR
        began = time.monotonic()
        assert steady.call(b"x") == [b"x"]
        assert time.monotonic() - began < 0.5 * FACTOR
    assert proxyd.chain(calls)["accepted"] == 11


def test_a_flood_of_denials_is_a_few_lines_and_a_count(net):
    endpoint = net.endpoint()
    calls = protected(net, at=endpoint, auth="none", frontend={"deny": ["127.9.0.0/16"]})
    proxyd = start(net, calls)
    for count in (100, 101):
        address = f"127.9.9.{count}"
        for _ in range(count - verdicts(proxyd).get("denied-address", 0)):
            net.caller(endpoint.replace("tcp://", f"tcp://{address}:0;")).knock(b"never")
        wait_verdict(proxyd, "denied-address", count)
    proxyd.stop()
    lines = proxyd.events("auth", verdict="denied-address")
    assert len(lines) <= 30 * FACTOR
    assert sum(int(line.get("unsaid", 0)) + int(line.get("repeats", 1)) for line in lines) == 101
    assert "unsaid" not in lines[0] and "repeats" not in lines[0]
    assert any(line["address"] == "127.9.9.101" for line in lines)


# ---- secrets ---------------------------------------------------------------------------------------------------

def memory_of(pid):
    """Every readable byte of a process."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            if "r" not in rights or "[v" in line:
                continue
            begin, end = (int(part, 16) for part in span.split("-"))
            memory.seek(begin)
            try:
                yield memory.read(end - begin)
            except OSError:
                pass


def test_a_password_is_found_nowhere(net, users):
    """(F42) Not in the log, status, arguments, store or files; and the daemon leaves no core. Right and wrong ones."""
    users.set("anna", CANARY)
    calls = protected(net, kind="buffered-rep-req")
    proxyd = start(net, calls, users=users, daemon={"log_level": "debug"})
    caller = net.caller(calls, **plain("anna", CANARY))
    assert caller.call(b"x")[0].startswith(b"accepted")
    wrong = net.caller(calls, **plain("bert", CANARY))
    wrong.knock(b"never")
    wait_verdict(proxyd, "denied")
    proxyd.wait_for(calls, delivered=1)
    shown = str(proxyd.control("status")) + str(proxyd.control("show", calls.name)) + proxyd.log
    shown += pathlib.Path(f"/proc/{proxyd.pid}/cmdline").read_text()
    assert CANARY not in shown and "secret of bert" not in shown
    for path in net.scratch.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path
    limits = pathlib.Path(f"/proc/{proxyd.pid}/limits").read_text()
    assert any(line.split()[:5] == ["Max", "core", "file", "size", "0"] for line in limits.splitlines())
    if os.geteuid() == 0 and not SANITIZED:
        caller.close()  # until then it is in libzmq's own buffers
        wrong.close()
        eventually(lambda: not any(CANARY.encode() in part for part in memory_of(proxyd.pid)), 5,
                   "the password to be wiped from memory")


def test_nobody_hears_what_another_peer_has_said(net, users):
    """libzmq answers a PING without its two bytes of TTL with what stood in that memory before: the HELLO of whoever
    left last, to anybody. The long routing id keeps READY out of the way, the short password in it."""
    calls, public = protected(net), net.chain("rep-req", to=net.rep(), name="public")
    users.set("anna", "sesame")
    start(net, calls, public, users=users)
    for _ in range(5):
        caller = net.caller(calls, **plain("anna", "sesame"))
        assert caller.call(b"x") == [b"x"]
        caller.close()
        for _ in range(3):
            stranger = dial(public.endpoint).handshake(b"REQ", b"a routing id of more than 33 bytes")
            stranger.write(command(b"PING"))
            _, pong = stranger.read_frame()
            stranger.close()
            assert pong.startswith(b"\4PONG") and b"sesame" not in pong


def test_nobody_else_of_its_user_can_look_into_it(net):
    """Neither by a debugger nor through /proc/PID/mem, which the kernel then gives to root."""
    somebody = ["setpriv", "--reuid=65534", "--clear-groups"]
    if os.geteuid() != 0 or not shutil.which("setpriv") or subprocess.run([*somebody, PROXYD, "-V"]).returncode != 0:
        pytest.skip("needs root, setpriv and a build that everybody may execute")
    proxyd = net.prepare(net.chain("rep-pub"), prefix=somebody)
    net.scratch.chmod(0o711)
    proxyd.scratch.chmod(0o777)
    umask = os.umask(0)
    proxyd.start()
    os.umask(umask)
    assert os.stat(f"/proc/{proxyd.pid}/mem").st_uid == 0


def test_passwords_for_upstreams_are_shown_nowhere(net):
    password = net.scratch / "pw"
    password.write_text(CANARY)
    password.chmod(0o600)
    calls = net.chain("rep-req", to=net.rep(), backend={"username": "site-7", "password_file": str(password)})
    proxyd = net.proxyd(calls, daemon={"log_level": "debug"})
    proxyd.logged("upstream-down")
    assert CANARY not in str(proxyd.control("show", "rep-req")) + str(proxyd.control("status")) + proxyd.log


# ---- start -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("auth,warnings", [("none", 1), ("plain", 1), ("curve", 0)])
def test_an_endpoint_open_to_the_network_is_warned_of_once(net, users, auth, warnings):
    _, file = keygen(net, "own")
    keys = {"curve_secret_key_file": str(file), "curve_keys": str(net.scratch / "own.pub")} if auth == "curve" else {}
    proxyd = start(net, protected(net, at="tcp://*:0", auth=auth, frontend=keys), users=users)
    proxyd.logged("ready")
    events = proxyd.events("open-endpoint")
    assert len(events) == warnings and all(event["auth"] == auth for event in events)


def test_a_start_without_its_users_file_is_refused_with_the_reason(net):
    proxyd = net.prepare(protected(net), daemon={"users": f"{net.scratch}/nowhere"})
    proxyd.start(ready=False).expect_exit(2)
    assert f"daemon: users: {net.scratch}/nowhere: No such file or directory" in proxyd.log


# ---- proxyctl --------------------------------------------------------------------------------------------------

def ctl(*arguments, text=None):
    """Without a terminal to ask on."""
    return proxyctl(*arguments, input=text, start_new_session=True)


def test_call_logs_in(net, users):
    calls = protected(net)
    start(net, calls, users=users)
    password = net.scratch / "pw"
    password.write_text("secret of anna\n")
    password.chmod(0o600)
    done = ctl("call", "--user", "anna", "--password-file", password, calls.endpoint, "x")
    assert (done.returncode, done.stdout) == (0, "x\n"), done.stderr
    password.chmod(0o644)
    done = ctl("call", "--user", "anna", "--password-file", password, calls.endpoint, "x")
    assert done.returncode == 2 and "chmod" in done.stderr
    password.chmod(0o600)
    password.write_text("wrong")
    done = ctl("call", "--timeout", "500ms", "--user", "anna", "--password-file", password, calls.endpoint, "x")
    assert done.returncode == 1 and "auth-denied" in done.stderr


def test_passwd_keeps_what_it_does_not_change(net, users):
    users.path.write_text("# ours\n" + users.path.read_text())
    before = users.path.read_text().splitlines()
    assert users.path.stat().st_mode & 0o777 == 0o600
    users.set("bert", None, "--chains", "calls")
    assert users.path.read_text().splitlines() == before[:2] + [before[2] + ":calls"]
    users.delete("anna")
    assert users.path.read_text().splitlines() == [before[0], before[2] + ":calls"]
    refused = {
        ("anna", "--delete"): (1, "there is no such user"),
        ("bert", "--delete", "--chains", "x"): (2, "goes alone"),
        ("a:b", "--stdin"): (1, "a name is"),
        ("carl",): (1, "there is no terminal"),
        ("carl", "--chains", "x"): (1, "there is no terminal"),
        ("carl", "--chains", "x,,y", "--stdin"): (1, "chains are"),
    }
    kept = users.path.read_text()
    for words, (status, reason) in refused.items():
        done = ctl("passwd", users.path, *words, text="pw\n")
        assert done.returncode == status and reason in done.stderr, (words, done.stderr)
    assert ctl("passwd", users.path, "carl", "--stdin", text="").returncode == 1
    assert users.path.read_text() == kept


def test_passwd_asks_twice_without_echo(net, users):
    def answer(*lines):
        pid, terminal = os.forkpty()
        if pid == 0:
            os.execv(PROXYCTL, [str(PROXYCTL), "passwd", str(users.path), "carl"])
        shown = b""
        for question, line in zip((b"Password for carl: ", b"Once more for carl: "), lines):
            while not shown.endswith(question):
                shown += os.read(terminal, 100)
            os.write(terminal, line)
        try:
            while piece := os.read(terminal, 1000):
                shown += piece
        except OSError:  # EIO: the other end is closed
            pass
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()
    status, shown = answer(b"sesame\n", b"seasme\n")
    assert status == 1 and "not the same" in shown and "carl" not in users.path.read_text()
    status, shown = answer(b"sesame\n", b"sesame\n")
    assert status == 0 and "sesame" not in shown and "carl:$argon2id$" in users.path.read_text()
    status, shown = answer(b"other\3")
    assert status == 1 and "nothing" not in shown


def test_keygen_never_overwrites_a_key(net):
    _, path = keygen(net, "site")
    key = path.read_text()
    assert len(key) == 41 and path.stat().st_mode & 0o777 == 0o600
    done = ctl("keygen", net.scratch / "site")
    assert done.returncode == 1 and "exists" in done.stderr and done.stdout == "" and path.read_text() == key


# ---- a network that is not loopback ----------------------------------------------------------------------------

class Network:
    """Two network namespaces with a cable between them."""

    def __init__(self):
        self.names = [f"proxyd-{os.getpid()}-{side}" for side in "ab"]
        self.addresses = ["10.213.77.1", "10.213.77.2"]

    def _ip(self, *words):
        return subprocess.run(["ip", *words], capture_output=True, text=True)

    def open(self):
        if os.geteuid() != 0 or not shutil.which("ip"):
            return "needs root and iproute2"
        for name in self.names:
            if (done := self._ip("netns", "add", name)).returncode != 0:
                return done.stderr
        done = self._ip("link", "add", "cable", "netns", self.names[0], "type", "veth", "peer", "name", "cable", "netns",
                        self.names[1])
        if done.returncode != 0:
            return done.stderr
        for name, address in zip(self.names, self.addresses):
            self._ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            self._ip("-n", name, "link", "set", "cable", "up")
            self._ip("-n", name, "link", "set", "lo", "up")
        return None

    def close(self):
        for name in self.names:
            self._ip("netns", "del", name)

    def inside(self, side):
        return ["ip", "netns", "exec", self.names[side]]


@pytest.fixture
def network(net):
    network = net._add(Network())
    if reason := network.open():
        pytest.skip(f"no network namespaces: {reason}")
    return network


def test_password_at_the_door_over_a_real_network(net, users, network):
    calls = protected(net, at=f"tcp://{network.addresses[0]}:5555", to="tcp://127.0.0.1:6000",
                      frontend={"allow": ["10.213.77.0/24"]})
    server = subprocess.Popen([*network.inside(0), PROXYCTL, "serve", "tcp://127.0.0.1:6000"], stdout=subprocess.DEVNULL)
    proxyd = start(net, calls, users=users, prefix=network.inside(0))
    password = net.scratch / "pw"
    password.write_text("secret of anna")
    password.chmod(0o600)

    def call(user):
        return subprocess.run([*network.inside(1), PROXYCTL, "call", "--timeout", "5s", "--user", user, "--password-file",
                               password, calls.endpoint, "over the wire"], capture_output=True, text=True)
    try:
        proxyd.wait_for(calls, state="up")
        assert call("anna").stdout == "over the wire\n"
        proxyd.logged("auth", address=network.addresses[1], user="anna", verdict="accepted")
        proxyd.logged("open-endpoint", auth="plain")
        denied = call("bert")
        assert denied.returncode == 1 and "auth-denied" in denied.stderr
    finally:
        server.terminate()
        server.wait()
