# SPDX-License-Identifier: MIT
"""The machine under a measurement: what it is, and how much of it somebody else was using meanwhile."""
import datetime
import os
import pathlib
import platform
import subprocess

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count()
FOREIGN_MAX = 0.05  # of all cores: more of it, and a measurement does not count
KERNEL_THREAD = 0x200000  # PF_KTHREAD


def describe(since=()):
    """(name, value) pairs for the head of a report; the date goes back to that of an earlier description."""
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
                 platform.machine())
    memory_kib = int(next(line.split()[1] for line in open("/proc/meminfo") if line.startswith("MemTotal")))
    zmq = subprocess.run(["pkg-config", "--modversion", "libzmq"], capture_output=True, text=True).stdout.strip()
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")
    began = dict(since).get("date", now)[:len(now)]
    day, time = now.split()
    date = began if began == now else f"{began} to {time if began.startswith(day) else now}"
    return [("date", f"{date} UTC"),
            ("machine", f"{CORES} x {model}, {memory_kib / 2**20:.1f} GiB"),
            ("kernel", f"{platform.system()} {platform.release()}"), ("libzmq", zmq)]


def load_average():
    return os.getloadavg()[0]


def _stat(pid):
    """(parent, CPU ticks of the process and of its children that have ended); None when it is gone, or one of the
    kernel's own: what those do, they do for somebody."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    if int(fields[6]) & KERNEL_THREAD:
        return None
    return int(fields[1]), sum(map(int, fields[11:15]))


def _processes():
    stats = {int(name): _stat(name) for name in os.listdir("/proc") if name.isdigit()}
    return {pid: stat for pid, stat in stats.items() if stat}


def _own(processes):
    """This process and all that descend from it."""
    own, found = {os.getpid()}, True
    while found:
        found = {pid for pid, (parent, _) in processes.items() if parent in own} - own
        own |= found
    return own


def _stolen_ticks():
    return int(open("/proc/stat").readline().split()[8])


class Watch:
    """Who else was there from its making until `share` is asked: the part of all cores' time that went to processes
    that this one did not start, or that the hypervisor kept. A foreign process that began and ended meanwhile is
    found in its parent's account."""

    def __init__(self):
        self._before, self._stolen, self._began = self._foreign(), _stolen_ticks(), os.times().elapsed

    @staticmethod
    def _foreign():
        processes = _processes()
        own = _own(processes)
        return sum(ticks for pid, (_, ticks) in processes.items() if pid not in own)

    def share(self):
        elapsed = os.times().elapsed - self._began
        ticks = max(self._foreign() - self._before, 0) + _stolen_ticks() - self._stolen
        return ticks / TICKS_PER_S / (elapsed * CORES)
