#!/usr/bin/env python3
"""Runs the suites and clients of others against a server, and compares with what is expected of it.

Called by scripts/conformance, which has installed what this needs. A unit is one file of a suite: it gets a
server of its own, started before and stopped after, so that nothing one file leaves behind fails another.
A unit falls short where fewer of its tests pass than expected.txt says, where a test fails that
expected-failures/ does not name, or where the server is gone at its end.
"""

import argparse
import glob
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from sidebyside import ROOT, SPINETAIL, Server, free_port, machine

WORK = os.path.join(ROOT, "target/conformance")
EXPECTED = os.path.join(HERE, "expected.txt")
SUITES = ["redis", "memcached", "redis-py", "clients"]
PEERS = ["redis-server", "redis-subset", "memcached"]
SECONDS_MAX = {"redis": 240, "memcached": 60, "redis-py": 240, "clients": 120}


def main():
    arguments = parse()
    units = [unit for unit in expectations() if wanted(unit, arguments)]
    if not units:
        sys.exit("no such unit: " + " ".join(arguments.only or [arguments.suite]))
    if not arguments.against and not arguments.binary:
        subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "--bin", "spinetail"], cwd=ROOT, check=True)
    failures = expected_failures()
    results = []
    print(f"{'suite':<10} {'unit':<28} {'passed':>7} {'failed':>7} {'expected':>9} {'seconds':>8}")
    for unit in units:
        result = run(unit, arguments, failures)
        results.append(result)
        print(f"{result['suite']:<10} {result['unit']:<28} {result['passed']:>7} {result['failed']:>7}"
              f" {result['expected']:>9} {result['seconds']:>8.1f}  {'; '.join(result['short'])}".rstrip(), flush=True)
    finish(results, arguments)


def parse():
    parser = argparse.ArgumentParser(prog="scripts/conformance")
    parser.add_argument("suite", nargs="?", default="all", choices=["quick", "all", *SUITES])
    parser.add_argument("--against", choices=PEERS, help="a server of others instead of spinetail")
    parser.add_argument("--binary", help="the spinetail to start, instead of building this tree's")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--only", action="append", metavar="TEXT", help="units with this in their name; may be repeated")
    parser.add_argument("--accept", action="store_true", help="raise the counts of expected.txt to those of this run")
    return parser.parse_args()


def expectations():
    """The units there are, in order."""
    units = []
    for suite, unit, passed, *marks in rows(EXPECTED):
        units.append({"suite": suite, "unit": unit, "expected": int(passed), "quick": "quick" in marks})
    return units


def wanted(unit, arguments):
    if arguments.suite == "quick" and not unit["quick"] or arguments.suite in SUITES and unit["suite"] != arguments.suite:
        return False
    if arguments.against and arguments.against not in peers_of(unit):
        return False
    return not arguments.only or any(text in unit["unit"] for text in arguments.only)


def peers_of(unit):
    """Which servers of others speak what this unit speaks."""
    both = unit["suite"] == "memcached" or unit["suite"] == "clients" and "memcache" in unit["unit"]
    return ["memcached"] if both else ["redis-server", "redis-subset"]


def rows(path):
    if not os.path.exists(path):
        return []
    lines = open(path).read().split("\n")
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


def expected_failures():
    """(suite, unit, test) to the reason why it does not pass; for memcached (suite, file) to how many do not."""
    found = {}
    for suite in ("redis", "redis-py"):
        for unit, name, reason in rows(os.path.join(HERE, "expected-failures", suite + ".txt")):
            found[suite, unit, name] = reason
    for file, failed, _ in rows(os.path.join(HERE, "expected-failures/memcached.txt")):
        if failed != "not run":
            found["memcached", file] = int(failed)
    return found


# Servers


def start(arguments, unit):
    """A fresh server and the port at which it speaks the unit's protocol."""
    if not arguments.against:
        server = Server([arguments.binary or SPINETAIL, "serve", "--listen", "127.0.0.1:0", "--resp", "127.0.0.1:0", "--memcached",
                         "127.0.0.1:0", "--memory", "1GiB", "--shards", str(arguments.shards)], "ready")
        field = "memcached" if peers_of(unit) == ["memcached"] else "resp"
        return server, int(server.fields[field].rsplit(":", 1)[1])
    port = free_port()
    if arguments.against == "memcached":
        return Server(["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", str(port), "-U", "0"], port=port), port
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", WORK]
    if arguments.against == "redis-subset":
        # FUNCTION FLUSH is the suite's own way to begin. What this version does not know yet it would refuse to start with.
        known = [name for (name,) in rows(os.path.join(HERE, "commands.txt")) if name not in ("client|setinfo", "client|no-touch")]
        command += ["--user", "default", "on", "nopass", "~*", "&*", "-@all", "+function|flush", *("+" + name for name in known)]
    return Server(command, port=port), port


def run(unit, arguments, failures):
    server, port = start(arguments, unit)
    began = time.monotonic()
    try:
        passed, failed, note = RUNNERS[unit["suite"]](unit["unit"], port)
        # The process may have fallen only just now.
        time.sleep(0.05)
        died = server.process.poll() is not None
    finally:
        server.stop()
    result = {**unit, "passed": len(passed), "failed": len(failed), "seconds": round(time.monotonic() - began, 2),
              "failures": failed, "note": note, "died": died}
    allowed = [name for name in failed if reason_of(unit, name, failures)]
    unexpected = [name for name in failed if name not in allowed]
    if unit["suite"] == "memcached" and len(failed) <= failures.get(("memcached", unit["unit"]), 0):
        unexpected = []
    result["unexpected"] = unexpected
    result["now_passing"] = [name for name in passed if reason_of(unit, name, failures)]
    short = []
    if died:
        short.append("the server died")
    if note:
        short.append(note)
    if len(passed) < unit["expected"]:
        short.append(f"{unit['expected'] - len(passed)} short")
    if unexpected:
        short.append(f"{len(unexpected)} unexpected")
    result["short"] = short
    return result


def reason_of(unit, name, failures):
    return failures.get((unit["suite"], unit["unit"], name))


# Suites. Each runner gives the names that passed, the names that failed, and a note where it did not end by itself.


def contained(command, seconds, **options):
    """Runs a command in a process group of its own, which ends with it: its output, its status, whether it ended by itself."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               errors="replace", start_new_session=True, **options)
    try:
        out, _ = process.communicate(timeout=seconds)
        return out, process.returncode, True
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0], -9, False


def redis(unit, port):
    tags = "-needs:debug -needs:repl -needs:save -slow -large-memory"
    out, _, ended = contained(
        ["./runtest", "--durable", "--clients", "1", "--host", "127.0.0.1", "--port", str(port), "--singledb", "--ignore-encoding",
         "--ignore-digest", "--timeout", "60", "--baseport", str(baseport()), "--tags", tags, "--single", unit],
        SECONDS_MAX["redis"], cwd=source("redis"))
    keep(f"redis {unit}", out)
    out = re.sub(r"\x1b\[[0-9;]*m", "", out).split("\n                   The End")[0]
    passed = re.findall(r"^\[ok\]: (.*) \(\d+ ms\)$", out, re.M)
    # What fails outside of any test ends the block it stands in, and names nothing.
    failed = [re.sub(r" in tests/unit/\S+\.tcl$", "", line) for line in re.findall(r"^\[(?:err|exception)\]: (.*)$", out, re.M)]
    if not ended or re.search(r"^\[TIMEOUT\]", out, re.M):
        return passed, failed, "hung"
    return passed, failed, "" if passed or failed else "no test ran"


def baseport():
    """The suite's own two processes talk over a port near this one; its default may belong to another run of it."""
    while True:
        port = random.randrange(20_000, 30_000)
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port - 32))
            return port
        except OSError:
            pass


def memcached(unit, port):
    if unit == "memccapable":
        out, status, ended = contained(["memccapable", "-a", "-h", "127.0.0.1", "-p", str(port)], SECONDS_MAX["memcached"])
        keep("memcached memccapable", out)
        found = re.findall(r"^(.*?)\s+\[(pass|FAIL)\]", out, re.M)
        return [name for name, state in found if state == "pass"], [name for name, state in found if state == "FAIL"], "" if ended else "hung"
    folder = source("memcached")
    out, status, ended = contained(["perl", f"t/{unit}"], SECONDS_MAX["memcached"], cwd=folder,
                                   env={**os.environ, "T_MEMD_USE_DAEMON": f"127.0.0.1:{port}"})
    keep(f"memcached {unit}", out)
    # A check that is skipped or expected to fail proves nothing.
    checks = re.findall(r"^(not )?ok (\d+)(.*)$", out, re.M)
    passed = [number + name for bad, number, name in checks if not bad and not re.search(r"# *(skip|todo)", name, re.I)]
    failed = [number + name for bad, number, name in checks if bad]
    return passed, failed, "" if ended else "hung"


def redis_py(unit, port):
    file, protocol = unit.split()
    names = [name for name, *only in rows(os.path.join(HERE, "redis-py.txt")) if name.startswith(file + "::") and (not only or protocol in only)]
    folder = source("redis-py")
    report = os.path.join(WORK, "redis-py.xml")
    if os.path.exists(report):
        os.remove(report)
    out, status, ended = contained(
        [venv("pytest"), "-q", "--tb=short", "-p", "no:cacheprovider", "-W", "ignore", "--redis-url", f"redis://127.0.0.1:{port}/0",
         "--protocol", protocol[-1], "-o", "junit_family=xunit1", "--junitxml", report, *(f"tests/{name}" for name in names)],
        SECONDS_MAX["redis-py"], cwd=folder)
    keep(f"redis-py {unit}", out)
    if not os.path.exists(report):
        return [], names, "hung" if not ended else "pytest made no report"
    passed, failed = set(), set()
    for case in re.findall(r"<testcase (.*?)(?:/>|>(.*?)</testcase>)", open(report).read(), re.S):
        name = re.search(r'classname="tests\.\w+\.(\w+)"', case[0]).group(1) + "::" + re.search(r' name="([^"]*)"', case[0]).group(1)
        if re.search("<(failure|error)", case[1]):
            failed.add(name)
        elif "<skipped" not in case[1]:
            passed.add(name)
    return sorted(passed - failed), sorted(failed), ""


def clients(unit, port):
    script = os.path.join(ROOT, "tests/clients", unit.split()[0])
    command = ["node", script] if ".js" in unit else [venv("python"), script]
    out, status, ended = contained([*command, "127.0.0.1", str(port)], SECONDS_MAX["clients"],
                                   env={**os.environ, "NODE_PATH": os.path.join(WORK, "node/node_modules"), "PYTHONDONTWRITEBYTECODE": "1"})
    keep(f"clients {unit}", out)
    done = re.search(r"^(\d+) operations, (\d+) failed$", out, re.M)
    if not ended or not done or bool(status) != bool(int(done.group(2))):
        return [], [], "hung" if not ended else "did not end well"
    failed = re.findall(r"^FAILED (.*)$", out, re.M)
    return list(range(int(done.group(1)) - int(done.group(2)))), failed, ""


RUNNERS = {"redis": redis, "memcached": memcached, "redis-py": redis_py, "clients": clients}


def source(name):
    found = sorted(glob.glob(os.path.join(WORK, name, "*/")))
    if not found:
        sys.exit(f"nothing in {os.path.join(WORK, name)}: remove target/conformance and run scripts/conformance again")
    return found[0]


def venv(program):
    return os.path.join(WORK, "venv/bin", program)


def keep(name, text):
    folder = os.path.join(WORK, "logs")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, re.sub(r"[^\w.-]+", "-", name) + ".log"), "w") as file:
        file.write(text)


# The end


def finish(results, arguments):
    for suite in SUITES:
        mine = [result for result in results if result["suite"] == suite]
        if mine:
            total = lambda key: sum(result[key] for result in mine)
            print(f"{suite:<10} {'all':<28} {total('passed'):>7} {total('failed'):>7} {total('expected'):>9} {total('seconds'):>8.1f}")
    for result in results:
        for name in result["unexpected"]:
            print(f"  failed: {result['suite']} {result['unit']}: {name}")
    for result in [] if arguments.against else results:
        for name in result["now_passing"]:
            print(f"  passes now, though expected to fail: {result['suite']} {result['unit']}: {name}")
    subject = arguments.against or "spinetail"
    path = os.path.join(WORK, "results.json" if subject == "spinetail" else f"results-{subject}.json")
    report = {"subject": subject, "shards": arguments.shards, "machine": machine(), "units": earlier(path, results, arguments) + results}
    with open(path, "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    print(os.path.relpath(path, ROOT) + "; what each unit printed: target/conformance/logs/")
    if arguments.accept:
        accept(results)
    short = [result for result in results if result["short"]]
    if short:
        print(f"conformance: {len(short)} of {len(results)} units fall short")
        sys.exit(1)
    print(f"conformance: {len(results)} units, all as expected")


def earlier(path, results, arguments):
    """What runs before this one found of units that this one left out: docs/compatibility.md is made of all."""
    if not os.path.exists(path):
        return []
    before = json.load(open(path))
    known = {(unit["suite"], unit["unit"]) for unit in expectations()} - {(unit["suite"], unit["unit"]) for unit in results}
    return [unit for unit in before["units"] if (unit["suite"], unit["unit"]) in known] if before["shards"] == arguments.shards else []


def accept(results):
    """Counts only rise by themselves: one that falls is somebody's decision."""
    passed = {(result["suite"], result["unit"]): result["passed"] for result in results}
    lines = []
    for line in open(EXPECTED).read().split("\n"):
        fields = line.split("\t")
        if tuple(fields[:2]) in passed:
            fields[2] = str(max(int(fields[2]), passed[tuple(fields[:2])]))
        lines.append("\t".join(fields))
    with open(EXPECTED, "w") as file:
        file.write("\n".join(lines))


if __name__ == "__main__":
    main()
