# SPDX-License-Identifier: MIT
"""What a reader tries first: the demo, the README's example, and every configuration in etc/. They use fixed
addresses, so one run at a time does."""
import contextlib
import fcntl
import json
import os
import pathlib
import re
import subprocess
import tempfile

import pytest
import zmq

from harness import BUILD, FACTOR, PROXYCTL, PROXYD, ROOT, Users, eventually, proxyctl, set_parent_death_signal
from peers import echo


@pytest.fixture(autouse=True)
def alone():
    """Waits for another run on this machine that uses the same addresses."""
    with open(f"{tempfile.gettempdir()}/proxyd-examples.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def running(path):
    """A daemon on that configuration, which passes its check, becomes ready, says no error and ends well."""
    check = subprocess.run([PROXYD, "-t", "-c", path], capture_output=True, text=True, timeout=10 * FACTOR)
    assert (check.returncode, check.stderr) == (0, "")
    process = subprocess.Popen([PROXYD, "-c", path], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               preexec_fn=set_parent_death_signal)
    lines = []
    for line in process.stderr:
        lines.append(line)
        if " ready " in line:
            break
    try:
        yield process
    finally:
        process.terminate()
        rest = process.communicate(timeout=10 * FACTOR)[1]
    assert process.returncode == 0 and " ready " in lines[-1], "".join(lines) + rest
    assert " error " not in "".join(lines) + rest


NEED_FILES = {"secure.conf", "curve.conf", "pyzmqrpc.conf", "red.conf"}  # of users and keys; each has a test of its own


@pytest.mark.parametrize("path", sorted(path for path in (ROOT / "etc").glob("*.conf") if path.name not in NEED_FILES),
                         ids=lambda path: path.name)
def test_configuration_in_etc_starts_and_stops(path, tmp_path):
    with running(place(path.name, tmp_path)):
        pass


def place(name, directory, **replaced):
    """The example with everything that it names in `directory`."""
    text = (ROOT / "etc" / name).read_text()
    for folder in ("/etc/proxyd", "/run/proxyd", "/var/lib/proxyd"):
        text = text.replace(folder, str(directory))
    for old, new in replaced.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = directory / name
    path.write_text(text)
    return path


@pytest.fixture
def server():
    """The echoing one that both examples have beside them."""
    process = subprocess.Popen([PROXYCTL, "serve", "tcp://127.0.0.1:6000"], stdout=subprocess.DEVNULL,
                               preexec_fn=set_parent_death_signal)
    yield process
    process.terminate()
    process.wait()


def wait_up(path, chain):
    def is_up():
        chains = json.loads(proxyctl("-c", path, "--json", "status").stdout)["chains"]
        return all(each["state"] == "up" for each in chains if each["name"] == chain)
    eventually(is_up)


def test_secure_example_asks_for_passwords(tmp_path, server):
    users, password = tmp_path / "users", tmp_path / "pi-1.pw"
    password.touch(0o600)
    password.write_text("open sesame\n")
    assert proxyctl("passwd", users, "pi-1", "--stdin", input="open sesame\n").returncode == 0
    assert proxyctl("passwd", users, "dashboard", "--chains", "samples", "--stdin", input="open sesame\n").returncode == 0
    path = place("secure.conf", tmp_path)
    with running(path):
        wait_up(path, "pi")
        assert proxyctl("call", "tcp://127.0.0.1:5558", "hello").stdout == "hello\n"
        calls = ["call", "--password-file", password, "--user"]
        assert proxyctl(*calls, "pi-1", "tcp://127.0.0.1:5555", "hello").stdout == "hello\n"
        assert proxyctl(*calls, "dashboard", "tcp://127.0.0.1:5555", "hello").stdout == "error 403 denied\n"
        done = proxyctl("call", "--timeout", "300ms", "tcp://127.0.0.1:5555", "hello")
        assert (done.returncode, done.stdout) == (1, "")


def test_curve_example_joins_two_ends_by_keys(tmp_path, server):
    office = proxyctl("keygen", tmp_path / "office").stdout.strip().split(":", 1)[1]
    (tmp_path / "sites.keys").write_text(proxyctl("keygen", tmp_path / "site-7").stdout)
    path = place("curve.conf", tmp_path, **{"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7": office})
    with running(path):
        wait_up(path, "site")
        assert proxyctl("call", "tcp://127.0.0.1:5555", "hello").stdout == "hello\n"


def test_zmqframework_example_serves_its_workers(tmp_path):
    path = place("zmqframework.conf", tmp_path)
    context = zmq.Context()
    with running(path):
        work, beats = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
        for socket, port in (work, 5556), (beats, 5557):
            socket.setsockopt(zmq.IDENTITY, b"node_session")
            socket.connect(f"tcp://127.0.0.1:{port}")
        beats.send_multipart([b"", b"heartbeat", b'{"node_id":"node","session_id":"session","node_type":"worker"}'])
        wait_up(path, "calls")
        assert "worker node_session  live, heard " in proxyctl("-c", path, "show", "calls").stdout
        caller = subprocess.Popen([PROXYCTL, "call", "tcp://127.0.0.1:5555", "MESSAGE", "{}"], stdout=subprocess.PIPE,
                                  text=True, preexec_fn=set_parent_death_signal)
        assert work.poll(10000 * FACTOR)
        work.send_multipart(work.recv_multipart()[:3] + [b'"done"'])
        assert caller.communicate(timeout=10 * FACTOR)[0] == 'MESSAGE\n"done"\n'
        context.destroy(linger=0)


def test_sessions_example_passes_known_sessions_only(tmp_path):
    path = place("sessions.conf", tmp_path)
    context = zmq.Context()
    publisher, server, subscriber = (context.socket(kind) for kind in (zmq.XPUB, zmq.REP, zmq.SUB))
    publisher.bind("tcp://127.0.0.1:6000")
    server.bind("tcp://127.0.0.1:6900")
    with running(path):
        wait_up(path, "samples")
        subscriber.connect("tcp://127.0.0.1:6001")
        subscriber.subscribe("hello")
        assert publisher.poll(10000 * FACTOR) and publisher.recv() == b"\1hello"
        for session in "stolen", "known":
            publisher.send_multipart([b"hello", json.dumps({"data": "SGk=", "session_id": session}).encode(), b"None"])
            assert server.poll(10000 * FACTOR)
            call = json.loads(server.recv())
            server.send_json({"jsonrpc": "2.0", "id": call["id"], "result": call["params"] == "known"})
        eventually(lambda: "dropped: unverified 1" in proxyctl("-c", path, "status").stdout)
    context.destroy(linger=0)


def test_buffered_example_takes_calls_while_the_centre_is_away(tmp_path):
    path = place("buffered.conf", tmp_path)
    with running(path):
        level, ticket = proxyctl("call", "tcp://127.0.0.1:5555", "hello").stdout.removeprefix("accepted ").split()
        assert level == "synced"
        assert proxyctl("call", "tcp://127.0.0.1:5556", ticket).stdout == "pending\n"
    with running(path):
        assert proxyctl("-c", path, "queue", "calls", "peek", "281474976710657").stdout == "hello\n"


def test_collecting_example_shows_and_archives_what_sensors_publish(tmp_path, server):
    path = place("collect.conf", tmp_path)
    with running(path):
        wait_up(path, "archive")
        screen = subprocess.Popen([PROXYCTL, "subscribe", "--count", "1", "tcp://127.0.0.1:5570"], text=True,
                                  stdout=subprocess.PIPE, preexec_fn=set_parent_death_signal)
        samples = ["temperature sensor-1 21.5", "temperature sensor-2 19.0"]

        def all_shown():  # a sensor that connects may publish before it is subscribed to, and before the screen is there
            for sample in samples:
                assert proxyctl("publish", ">tcp://127.0.0.1:5560", sample).returncode == 0
            return screen.poll() is not None
        eventually(all_shown, 10)
        assert screen.stdout.read() in [f"{sample}\n" for sample in samples]
        screen.stdout.close()

        def archived():
            chains = {chain["name"]: chain for chain in json.loads(proxyctl("-c", path, "--json", "status").stdout)["chains"]}
            return chains["archive"]["delivered"] == chains["intake"]["delivered"] >= 2
        eventually(archived)


def call_as(path, user, password, endpoint, request):
    """What `user` hears; the password is in a file beside the configuration, as proxyctl wants it."""
    file = path.parent / f"{user}.pw"
    file.touch(0o600)
    file.write_text(password)
    return proxyctl("call", "--user", user, "--password-file", file, endpoint, request).stdout.rstrip("\n")


def test_pyzmqrpc_example_stands_in_for_its_proxies(net, tmp_path):
    Users(tmp_path, username="password")
    for name, password in (("server", "password2"), ("events", "password")):
        (tmp_path / f"{name}.pw").touch(0o600)
        (tmp_path / f"{name}.pw").write_text(password)
    server = net.plain_server("tcp://127.0.0.1:30000", "username2", "password2")
    sender = net.publisher("tcp://127.0.0.1:30005")
    path = place("pyzmqrpc.conf", tmp_path)
    with running(path):
        for chain in ("calls", "samples"):
            wait_up(path, chain)
        assert call_as(path, "username", "password", "tcp://127.0.0.1:30001", "one") == "one"
        ack = json.loads(call_as(path, "username", "password", "tcp://127.0.0.1:30002", "two"))
        assert ack.pop("ticket") and ack == {"status_code": 200, "status_message": "OK", "ack": "synced"}
        receiver = net.subscriber("tcp://127.0.0.1:30004").wait_joined(lambda: sender.publish(b"probe"))
        sender.publish(b"test")
        assert receiver.receive() == [b"test"]
        eventually(lambda: server.bodies == [b"one", b"two"])


def test_jsonrpc_example_takes_jobs_while_the_server_is_away(tmp_path):
    with running(place("jsonrpc.conf", tmp_path)):
        job = proxyctl("call", "tcp://127.0.0.1:6902", '{"jsonrpc":"2.0","method":"verify","params":"4a50","id":"1"}').stdout
    assert job.startswith('{"jsonrpc":"2.0","id":"1","result":{"accepted":true,"ack":"synced","ticket":"')


def test_websocket_example_joins_callers_and_subscribers_to_one_server(net, tmp_path):
    server = net.web(endpoint="tcp://127.0.0.1:6133")
    path = place("websocket.conf", tmp_path)
    with running(path):
        wait_up(path, "rpc")
        wait_up(path, "events")
        answer = proxyctl("call", "tcp://127.0.0.1:6135", '{"jsonrpc":"2.0","id":"x","method":"GET_METHODS","params":[]}').stdout
        assert json.loads(answer) == {"jsonrpc": "2.0", "id": "x", "result": []}
        job = proxyctl("call", "tcp://127.0.0.1:6136", '{"jsonrpc":"2.0","id":7,"method":"CORE__LOAD","params":[{}]}').stdout
        assert json.loads(job)["result"]["ack"] == "synced"
        subscriber = net.subscriber("tcp://127.0.0.1:6138", b"on_cog_add")
        subscriber.wait_joined(lambda: server.notify("on_cog_add", ["cog"]))
        eventually(lambda: server.log[-1]["method"] == "CORE__LOAD")
    assert sorted(server.closes) == [1000] * 3


def test_red_example_asks_for_a_password(net, tmp_path):
    Users(tmp_path, dashboard="password", visitor="password")
    net.router(echo, "tcp://127.0.0.1:6133")
    path = place("red.conf", tmp_path)
    with running(path):
        wait_up(path, "bot")
        request = '{"requester":"x","cog":"ZMQExample","method":"say_hello","id":[1.0],"kwargs":{}}'
        assert call_as(path, "dashboard", "password", "tcp://127.0.0.1:6134", request) == request
        denied = call_as(path, "visitor", "password", "tcp://127.0.0.1:6134", request)
        assert denied.startswith('{"id":[1.0],"status":403,')


def test_demo_shows_a_time_out_a_failure_and_the_recovery():
    result = subprocess.run([ROOT / "etc" / "demo.sh", BUILD], capture_output=True, text=True, timeout=60 * FACTOR,
                            stdin=subprocess.DEVNULL, env={**os.environ, "DEMO_ONCE": "1"}, cwd="/")
    assert result.returncode == 0, result.stdout + result.stderr
    shown = result.stdout
    answers = [line.strip() for line in shown.splitlines() if line.startswith("    ")]
    steps = ["hello", "two frames,", "both come back", "error 504 timeout", "error 502 unavailable", "pending",
             "welcome back", "done", "two loaves of bread", "accepted", "alarm: door open", "temperature: 21.5"]
    found = iter(answers)
    assert all(step in found for step in steps), shown  # in this order
    readme = (ROOT / "README.md").read_text().split("`make run` prints")[1].split("```")[1]
    for line in readme.splitlines():
        assert not line.startswith(("#", "$")) or line in shown.splitlines(), f"README shows {line}"
    served = shown.split("# What the server got")[1].split("\n#")[0]
    assert "there?" not in served and "anybody?" not in served and "welcome back" in served
    table = shown.split("# What became of every message")[1]
    for chain in ("calls", "orders", "events", "samples", "mirror"):
        assert re.search(rf"^    {chain} +\S+ +up ", table, re.MULTILINE), table


def session_members(session):
    """The command lines of the processes in a session."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[3]) == session:
                found.append((process / "cmdline").read_text())
        except OSError:  # gone meanwhile
            pass
    return found


def test_demo_leaves_nothing_behind():
    process = subprocess.Popen([ROOT / "etc" / "demo.sh", BUILD], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, start_new_session=True)
    for line in process.stdout:
        if "goes on until Ctrl-C" in line:
            break
    process.terminate()
    assert process.wait(10 * FACTOR) == 0
    process.stdout.close()
    assert session_members(process.pid) == []


def test_chains_in_the_readme_are_valid(tmp_path):
    blocks = re.findall(r"```\n(chains = .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    (tmp_path / "users").touch(0o600)
    for block in blocks:
        (tmp_path / "readme.conf").write_text(f'daemon = {{ state_dir = "{tmp_path}"; users = "{tmp_path}/users"; }};\n{block}')
        check = subprocess.run([PROXYD, "-t", "-c", tmp_path / "readme.conf"], capture_output=True, text=True)
        assert (check.returncode, check.stderr) == (0, ""), block


def test_readme_example_works_when_pasted(tmp_path):
    readme = (ROOT / "README.md").read_text().split("## A first configuration")[1]
    config, script = re.findall(r"```\n(.*?)```", readme, re.DOTALL)[:2]
    (tmp_path / "first.conf").write_text(config)
    (tmp_path / "build").symlink_to(BUILD)
    # As a person would: the next line is typed when the last one has shown its effect.
    waits = "until build/proxyctl -c first.conf status 2>/dev/null | grep -q 6000.*up; do sleep 0.05; done\n"
    script = script.replace("build/proxyctl call", waits + "build/proxyctl call")
    result = subprocess.run(["bash", "-c", script + "\nkill %1 %2; wait"], cwd=tmp_path, capture_output=True, text=True,
                            timeout=20 * FACTOR)
    lines = result.stdout.splitlines()
    assert lines[0] == "first.conf: OK (1 chain)", result.stdout + result.stderr
    assert "hello" in lines
    assert re.search(r"^calls +rep-req +degraded +1 +1 ", result.stdout, re.MULTILINE), result.stdout
