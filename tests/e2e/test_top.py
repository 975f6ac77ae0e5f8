# SPDX-License-Identifier: MIT
"""proxyctl top, on a terminal and on a pipe."""
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios

import pytest

from harness import FACTOR, PROXYCTL, eventually, proxyctl, set_parent_death_signal

ENTER, LEAVE = b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l"
COLOUR = re.compile(rb"\x1b\[\d+m")


class Terminal:
    """A program on a pseudo-terminal, and everything that it has written there."""

    def __init__(self, *command, rows=24, columns=100, **environment):
        self.master, self._slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.resize(rows, columns)
        self.found = termios.tcgetattr(self._slave)
        self.written = b""
        self.process = subprocess.Popen(list(map(str, command)), stdin=self._slave, stdout=self._slave, stderr=self._slave,
                                        env={**os.environ, **environment}, preexec_fn=set_parent_death_signal)

    def resize(self, rows, columns):
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self):
        try:
            while more := os.read(self.master, 65536):
                self.written += more
        except BlockingIOError:
            pass
        return self.written

    @property
    def pages(self):
        """The pages so far as lists of lines, without colours; the last may not be complete."""
        text = COLOUR.sub(b"", self.read()).replace(b"\x1b[K", b"").replace(b"\r", b"").decode()
        return [page.split("\x1b[J")[0].split("\n") for page in text.split("\x1b[H")[1:]]

    def wait_page(self, predicate):
        """Waits for a new complete page of which that is true; a call that met a daemon on its end takes 5 s."""
        seen = len(self.pages)
        return eventually(lambda: next((page for page in self.pages[seen:-1] if predicate("\n".join(page))), None), 15)

    def end(self):
        """The exit status, with the terminal as it was found."""
        status = self.process.wait(5 * FACTOR)
        assert self.read().count(ENTER) == self.written.count(LEAVE) > 0
        assert self.written.endswith(LEAVE)
        assert termios.tcgetattr(self._slave) == self.found
        return status

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self._slave)


@pytest.fixture
def terminal():
    opened = []

    def open_terminal(proxyd, *options, **more):
        opened.append(Terminal(PROXYCTL, "-c", proxyd.config_path, "top", "-n", "100ms", *options, **more))
        return opened[-1]
    yield open_terminal
    for each in opened:
        each.close()


def test_shows_rates_troubled_chains_first_and_survives_a_restart(net, terminal):
    good, bad = net.chain("rep-req", to=net.rep(), name="good"), net.chain("rep-req", name="bad")
    proxyd = net.proxyd(good, bad)
    proxyd.wait_for(bad, state="down")
    proxyd.wait_for(good, state="up")
    top = terminal(proxyd, columns=160)  # room for a whole reason
    page = top.wait_page(lambda page: "1 of 2 chains up" in page)
    rows = [line.split()[0] for line in page if line.startswith(("CHAIN", "good", "bad", "  tcp"))]
    assert rows == ["CHAIN", "bad", bad.to[0], "good"]
    assert "down, refused" in "\n".join(page)

    caller = net.caller(good)
    for _ in range(5):
        caller.call(b"hello")
    top.wait_page(lambda page: re.search(r"^good .* up +[1-9][0-9.]* +[1-9][0-9.]* +0 ", page, re.MULTILINE))

    proxyd.stop()
    page = top.wait_page(lambda page: page.startswith("no answer for ") and "is proxyd running?" in page)
    assert any(line.startswith("good ") for line in page)
    proxyd.start()
    top.wait_page(lambda page: page.startswith("proxyd 0.1.0, up "))
    os.write(top.master, b"q")
    assert top.end() == 0


def test_fits_the_window_as_it_changes(net, terminal):
    proxyd = net.proxyd(*(net.chain("rep-pub", name=f"chain{n}") for n in range(9)))
    top = terminal(proxyd, "-n", "1h", rows=30, columns=120)  # what is drawn anew is drawn for the window's sake
    page = eventually(lambda: next((page for page in top.pages if any("chain8" in line for line in page)), None))
    assert len(page) <= 30
    for rows, columns in ((6, 40), (1, 1), (5, 200)):
        top.resize(rows, columns)
        top.process.send_signal(signal.SIGWINCH)
        page = eventually(lambda: next((page for page in top.pages[1:] if len(page) == rows), None))
        assert max(map(len, page)) <= columns
        assert columns < 20 or page[-1].startswith("... ") and page[-1].endswith(" more lines")
    top.process.send_signal(signal.SIGTERM)
    assert top.end() == 0


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_signal_gives_the_terminal_back(net, terminal, end):
    top = terminal(net.proxyd(net.chain("rep-pub")))
    top.wait_page(lambda page: "1 of 1 chains up" in page)
    top.process.send_signal(end)
    assert top.end() == 0


def test_suspended_it_leaves_the_terminal_to_others(net, terminal):
    top = terminal(net.proxyd(net.chain("rep-pub")))
    top.wait_page(lambda page: "1 of 1 chains up" in page)
    top.process.send_signal(signal.SIGTSTP)
    eventually(lambda: top.read().endswith(LEAVE))
    eventually(lambda: open(f"/proc/{top.process.pid}/stat").read().rsplit(")", 1)[1].split()[0] == "T")
    assert termios.tcgetattr(top._slave) == top.found
    top.process.send_signal(signal.SIGCONT)
    top.wait_page(lambda page: "1 of 1 chains up" in page)
    os.write(top.master, b"q")
    assert top.end() == 0


def test_colours_are_for_terminals_that_want_them(net, terminal):
    proxyd = net.proxyd(net.chain("rep-pub"))
    for environment, has_colour in (({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False)):
        top = terminal(proxyd, "--count", "1", **environment)
        assert top.end() == 0
        assert bool(COLOUR.search(top.written)) == has_colour


def test_pipe_gets_plain_pages(net):
    proxyd = net.proxyd(net.chain("rep-pub", name="events"))
    command = [PROXYCTL, "-c", proxyd.config_path, "top", "-n", "100ms", "--count", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10 * FACTOR)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(re.findall(r"^proxyd .*, 1 of 1 chains up$", done.stdout, re.MULTILINE)) == 2
    assert re.findall(r"^events  rep-pub  up +(\S+)", done.stdout, re.MULTILINE) == ["-", "0"]
    assert "\x1b" not in done.stdout
    proxyd.stop()
    done = subprocess.run(command, capture_output=True, text=True, timeout=10 * FACTOR)
    assert done.returncode == 1
    assert done.stdout.count("no answer: ") == 2


def test_reader_who_leaves_ends_it(net):
    proxyd = net.proxyd(net.chain("rep-pub"))
    process = subprocess.Popen([PROXYCTL, "-c", proxyd.config_path, "top", "-n", "100ms"], stdout=subprocess.PIPE,
                               preexec_fn=set_parent_death_signal)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(5 * FACTOR) != 0


@pytest.mark.parametrize("interval", ["0", "99ms", "soon", "10000d"])
def test_interval_out_of_range_is_bad_usage(interval):
    done = proxyctl("top", "-n", interval)
    assert done.returncode == 2 and interval in done.stderr
