# SPDX-License-Identifier: MIT
"""The status page in a real browser: it shows what happens, as it happens, and nothing goes wrong in it."""
import re

import pytest

import browser
from harness import eventually
from test_http import Web

pytestmark = pytest.mark.skipif(not browser.is_here(), reason="needs " + " and ".join(browser.PROGRAMS))


def state_of(page, name):
    """(the word, its colour) that the page shows for a chain."""
    return page.run("""
        const row = [...document.querySelectorAll("tbody")].find(row => row.querySelector(".name").textContent === arguments[0]);
        const word = row && row.querySelector(".state");
        return word ? [word.textContent, getComputedStyle(word).color] : ["", ""];""", name)


def is_red(colour):
    red, green, blue = map(int, re.findall(r"\d+", colour)[:3])
    return red > 150 and red > 1.5 * green and red > 1.5 * blue


def overflow(page):
    return page.run("return document.documentElement.scrollWidth - innerWidth")


@pytest.fixture
def page():
    chromium = browser.Browser()
    yield chromium
    chromium.close()


def test_the_page_shows_what_happens(net, page):
    upstream, odd = net.rep(), net.ipc('<img,src=x,onerror=alert(1)>&amp;')
    calls = net.chain("rep-req", to=upstream, name="calls")
    orders = net.chain("buffered-rep-req", to=[odd, odd + "x" * 20], name="orders-" + "x" * 57)
    web = Web(net, calls, orders)
    web.proxyd.wait_for(calls, state="up")
    page.resize(1280, 900)
    page.open(f"http://127.0.0.1:{web.port}/")

    eventually(lambda: state_of(page, "calls")[0] == "up", 10)
    assert not is_red(state_of(page, "calls")[1])
    assert is_red(eventually(lambda: state_of(page, orders.name) if "down" in state_of(page, orders.name) else None)[1])
    assert page.text("#verdict") == f"{orders.name} down"
    assert odd in page.text("#chains") and page.run("return document.querySelectorAll('#chains img, [onerror]').length") == 0

    # Numbers move, without a reload.
    page.run("window.is_the_same_page = true")
    caller = net.caller(calls)
    for _ in range(7):
        assert caller.call(b"x") == [b"x"]
    eventually(lambda: "\n7" in page.text("tbody td[data-label=Delivered]"), 10)
    page.run("document.querySelector('.name').click()")
    eventually(lambda: page.text(".ledger").startswith("7 accepted = 7 delivered + 0 failed"))
    assert page.run("return document.querySelector('.name').getAttribute('aria-expanded')") == "true"

    # A chain that goes down turns red, is announced, and comes back.
    upstream.stop()
    assert is_red(eventually(lambda: state_of(page, "calls") if "down" in state_of(page, "calls") else None, 10)[1])
    assert page.text("#news") == "calls is down" and page.text("#verdict").startswith("calls and orders-")
    assert "refused: it refuses the connection" in page.text(".rest")
    upstream.start()
    eventually(lambda: state_of(page, "calls")[0] == "up", 15)

    # Nobody must scroll sideways, whatever the width, names and colours; filters hide the rest.
    for scheme, background in (("dark", "15"), ("light", "250")):
        page.prefer(scheme)
        assert page.run("return getComputedStyle(document.body).backgroundColor").startswith(f"rgb({background}, ")
        for width, is_phone in ((1280, False), (800, False), (360, True)):
            page.resize(width, 900, is_phone)
            assert overflow(page) <= 0, f"{width} wide"
    page.run("""const filter = document.getElementById("filter"); filter.value = "CALL";
                filter.dispatchEvent(new Event("input"))""")
    assert page.run("return [...document.querySelectorAll('tbody')].filter(row => !row.hidden).length") == 1

    assert page.run("return window.is_the_same_page && performance.getEntriesByType('resource').every("
                    "entry => new URL(entry.name).origin === location.origin)")
    assert page.console() == []

    # It says so when the daemon is gone, and when it is back.
    web.proxyd.stop()
    eventually(lambda: "proxyd does not answer since" in page.text("#gone"), 15)
    assert page.text("#verdict") == "No answer"
    web.proxyd.start()
    eventually(lambda: page.text("#pulse") == "live" and "down" in page.text("#verdict"), 15)
