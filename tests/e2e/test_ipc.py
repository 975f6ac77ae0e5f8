# SPDX-License-Identifier: MIT
"""ipc endpoints: libzmq deletes whatever is at the path before it binds, a live socket and a regular file too.
proxyd replaces a stale socket and touches nothing else."""
import os
import socket
import stat

import pytest

from harness import host_port


def chain_at(net, side, endpoint):
    """A chain (or the control socket) that binds `endpoint`, and the daemon options for it."""
    if side == "rep":
        return net.chain("rep-req", at=endpoint, to=net.endpoint(), backend={"timeout": "100ms"}), {}
    if side == "pub":
        return net.chain("rep-pub", to=endpoint), {}
    return net.chain("rep-pub"), {"control": endpoint}


SIDES = pytest.mark.parametrize("side", ["rep", "pub", "control"])


def path_of(endpoint):
    return endpoint.removeprefix("ipc://")


def test_calls_over_ipc(net):
    upstream = net.rep(endpoint=net.ipc("upstream"))
    calls = net.chain("rep-req", at=net.ipc("front"), to=upstream,
                      backend={"backoff": "20ms", "backoff_max": "100ms"})
    proxyd = net.proxyd(calls)
    caller = net.caller(calls)
    assert caller.call(b"x") == [b"x"]
    upstream.stop()
    proxyd.wait_for(calls, state="down")
    upstream.start()
    proxyd.wait_for(calls, state="up", seconds=7)
    assert caller.call(b"y") == [b"y"]


@SIDES
def test_a_stale_socket_file_is_replaced(net, side):
    endpoint = net.ipc("stale")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path_of(endpoint))
    assert stat.S_ISSOCK(os.stat(path_of(endpoint)).st_mode)
    chain, daemon = chain_at(net, side, endpoint)
    assert net.proxyd(chain, daemon=daemon).chain(chain)["accepted"] == 0


@SIDES
def test_a_socket_left_by_a_killed_daemon_is_replaced(net, side):
    endpoint = net.ipc("left")
    chain, daemon = chain_at(net, side, endpoint)
    net.proxyd(chain, daemon=daemon).kill()
    assert os.path.exists(path_of(endpoint))
    net.proxyd(chain, daemon=daemon)


@SIDES
def test_a_live_socket_is_never_taken_over(net, side):
    endpoint = net.ipc("live")
    chain, daemon = chain_at(net, side, endpoint)
    first = net.proxyd(chain, daemon=daemon)
    inode = os.stat(path_of(endpoint)).st_ino
    other, daemon = chain_at(net, side, endpoint)
    second = net.prepare(other, daemon=daemon).start(ready=False)
    second.expect_exit(1)
    assert path_of(endpoint) in second.log
    assert os.stat(path_of(endpoint)).st_ino == inode
    first.chain(chain)
    if side == "rep":
        assert net.caller(endpoint).call(b"x") == [b"error 502 unavailable"]


@SIDES
def test_a_file_that_is_no_socket_is_never_deleted(net, side):
    endpoint = net.ipc("precious")
    with open(path_of(endpoint), "w") as file:
        file.write("precious")
    chain, daemon = chain_at(net, side, endpoint)
    proxyd = net.prepare(chain, daemon=daemon).start(ready=False)
    proxyd.expect_exit(1)
    assert open(path_of(endpoint)).read() == "precious"
    assert path_of(endpoint) in proxyd.log


def test_a_symbolic_link_is_not_followed_to_destruction(net):
    with open(net.scratch / "precious", "w") as file:
        file.write("precious")
    os.symlink(net.scratch / "precious", net.scratch / "link")
    proxyd = net.prepare(net.chain("rep-pub", to=net.ipc("link"))).start(ready=False)
    proxyd.expect_exit(1)
    assert (net.scratch / "precious").read_text() == "precious" and (net.scratch / "link").is_symlink()


def test_a_tcp_address_in_use_is_said(net):
    taken = net.rep()
    proxyd = net.prepare(net.chain("rep-pub", at=taken.endpoint)).start(ready=False)
    proxyd.expect_exit(1)
    assert str(host_port(taken.endpoint)[1]) in proxyd.log
    assert net.caller(taken.endpoint).call(b"untouched") == [b"untouched"]


@SIDES
def test_a_daemon_that_ends_takes_its_socket_file_with_it(net, side):
    endpoint = net.ipc("mine")
    chain, daemon = chain_at(net, side, endpoint)
    proxyd = net.proxyd(chain, daemon=daemon)
    assert stat.S_ISSOCK(os.stat(path_of(endpoint)).st_mode)
    proxyd.stop()
    assert not os.path.exists(path_of(endpoint))


@SIDES
def test_a_file_that_another_daemon_has_put_there_stays(net, side):
    endpoint = net.ipc("ours")
    chain, daemon = chain_at(net, side, endpoint)
    first = net.proxyd(chain, daemon=daemon)
    os.unlink(path_of(endpoint))
    other, daemon = chain_at(net, side, endpoint)
    second = net.proxyd(other, daemon=daemon)
    first.stop()
    assert stat.S_ISSOCK(os.stat(path_of(endpoint)).st_mode)
    second.chain(other)
    if side == "rep":
        assert net.caller(endpoint).call(b"x") == [b"error 502 unavailable"]
    second.stop()
    assert not os.path.exists(path_of(endpoint))
