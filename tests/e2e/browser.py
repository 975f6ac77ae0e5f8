# SPDX-License-Identifier: MIT
"""A headless Chromium, driven over chromedriver's own protocol (W3C WebDriver) with nothing but the standard library."""
import base64
import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request

from harness import FACTOR, eventually, free_endpoint, host_port, set_parent_death_signal

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
             "--hide-scrollbars"]
PROGRAMS = ("chromium", "chromedriver")


def is_here():
    return all(map(shutil.which, PROGRAMS))


class Browser:
    def __init__(self):
        self._profile = tempfile.TemporaryDirectory(prefix="proxyd-browser-", ignore_cleanup_errors=True)
        port = host_port(free_endpoint())[1]
        self._at = f"http://127.0.0.1:{port}"
        self._driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, preexec_fn=set_parent_death_signal)
        eventually(self._is_ready, 20, "chromedriver")
        options = {"args": [*ARGUMENTS, f"--user-data-dir={self._profile.name}"], "binary": shutil.which("chromium")}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._at += f"/session/{session['sessionId']}"

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._at + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60 * FACTOR) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {json.load(error)['value']['message']}") from None

    def _is_ready(self):
        try:
            return self._call("GET", "/status")["ready"]
        except OSError:
            return False

    def open(self, url):
        self._call("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """The value of a JavaScript function's body."""
        return self._call("POST", "/execute/sync", {"script": script, "args": arguments})

    def text(self, selector):
        """What a person reads in the first element that matches; "" when there is none."""
        return self.run("return (document.querySelector(arguments[0]) || {}).innerText || ''", selector)

    def command(self, name, **parameters):
        """A command of the DevTools protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def resize(self, width, height, is_phone=False):
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, mobile=is_phone,
                     deviceScaleFactor=1)

    def prefer(self, scheme):
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def console(self):
        """What the page and the browser have said there since the last call."""
        return self._call("POST", "/se/log", {"type": "browser"})

    def screenshot(self):
        return base64.b64decode(self._call("GET", "/screenshot"))

    def close(self):
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait()
            self._profile.cleanup()
