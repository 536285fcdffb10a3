"""What the measuring scripts share: servers on one core, load on another, rounds by turns, medians.

A server that is not being measured is stopped (SIGSTOP), so that nobody spins on another's core.
Core time a request comes from the server's own books where it spins (`busy_ns`: turns that had work)
and from the scheduler's (/proc/PID/task/*/schedstat) where it sleeps; both are the thread's own
accounting, and a spinning server's idle turns are nobody's cost.
"""

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SPINETAIL = os.path.join(ROOT, "target/release/spinetail")
ALLOWED = os.sched_getaffinity(0)
ECHO = os.path.join(ROOT, "target/release/examples/echo")


def build():
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "--bins", "--example", "echo"], cwd=ROOT, check=True)


def need(*programs):
    """Installs Debian packages of the same name, where that is possible."""
    missing = [program for program in programs if not shutil.which(program)]
    if not missing:
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        subprocess.run(["apt-get", "install", "-y", "-qq", *missing], check=True, env=environment, stdout=subprocess.DEVNULL)
    else:
        sys.exit("install " + ", ".join(missing) + ", or run this as root on Debian")


def cores():
    """The server's core and the load's: the first two this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        sys.exit("two cores are needed: one for the server, one for the load")
    return allowed[0], allowed[1]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process that serves, and how its core time is read."""

    def __init__(self, command, pattern=None, port=None):
        pipe = subprocess.PIPE if pattern else subprocess.DEVNULL
        # Servers pin themselves, whatever core this script keeps to.
        # They die with it: one left spinning would spoil every figure after.
        def free():
            os.sched_setaffinity(0, ALLOWED)
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

        self.process = subprocess.Popen(command, stdout=pipe, stderr=subprocess.DEVNULL, text=True, preexec_fn=free)
        self.fields = {}
        if pattern:
            line = self.process.stdout.readline()
            if pattern not in line:
                sys.exit(f"{command[0]} did not start: {line!r}")
            self.fields = dict(word.split("=", 1) for word in line.split()[1:])
        else:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port), 0.1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            else:
                sys.exit(f"{command[0]} does not answer on port {port}")

    @property
    def pid(self):
        return self.process.pid

    def signal(self, number):
        os.kill(self.pid, number)

    def scheduled_ns(self):
        tasks = f"/proc/{self.pid}/task"
        return sum(int(open(f"{tasks}/{task}/schedstat").read().split()[0]) for task in os.listdir(tasks))

    def echo_busy_ns(self):
        self.signal(signal.SIGUSR1)
        return int(self.process.stdout.readline().strip().split("=")[1])

    def resident_kib(self):
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{self.pid}/status").read()).group(1))

    def counter(self, name):
        """A counter of Spinetail's; they are published four times a second."""
        time.sleep(0.3)
        text = subprocess.run([SPINETAIL, "stats", "--target", "native://" + self.fields["native"]], capture_output=True, text=True).stdout
        found = re.search(rf"^{name}\s+(\d+)", text, re.M)
        return int(found.group(1)) if found else 0

    def stop(self):
        for number in (signal.SIGCONT, signal.SIGTERM):
            try:
                self.signal(number)
            except ProcessLookupError:
                pass
        out = self.process.stdout.read() if self.process.stdout else ""
        self.process.wait(20)
        return out


def load(target, core, *arguments, seconds=2.0, check=True):
    """Runs the load generator; its JSON."""
    command = [SPINETAIL, "load", "--target", target, "--cores", str(core), "--duration", f"{seconds}s", "--json", "-", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if ended.returncode and check:
        sys.exit(f"{' '.join(command)}: {ended.stderr}")
    return json.loads(ended.stdout)


def machine():
    """What a reader of figures must know."""
    cpuinfo = open("/proc/cpuinfo").read()
    read = lambda path: open(path).read().strip() if os.path.exists(path) else "unknown"
    version = lambda command: subprocess.run(command, capture_output=True, text=True).stdout.split("\n")[0]
    return {
        "cpu": re.search(r"model name\s*:\s*(.*)", cpuinfo).group(1) if "model name" in cpuinfo else "unknown",
        "cores": os.cpu_count(),
        "virtual": "hypervisor" in cpuinfo,
        "kernel": os.uname().release,
        "congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "transparent_huge_pages": read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "load_average": read("/proc/loadavg").split(" ")[0],
        "revision": version(["git", "-C", ROOT, "describe", "--always", "--dirty"]),
        "redis": version(["redis-server", "--version"]) if shutil.which("redis-server") else None,
        "memcached": version(["memcached", "-V"]) if shutil.which("memcached") else None,
    }


def median(values):
    return statistics.median(values)


def spread(values):
    return f"{min(values):.3g}-{max(values):.3g}"
