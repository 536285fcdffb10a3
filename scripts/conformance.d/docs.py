#!/usr/bin/env python3
"""Writes docs/compatibility.md: what the server says of itself, the notes beside, and what the suites found.

RESP commands come from the server's own COMMAND; memcached's, which has no such thing, from asking for each. The
counts are those of target/conformance/results.json. Called by scripts/conformance --write-docs.
"""

import argparse
import json
import os
import socket
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import run

# One harmless request of each kind: who answers ERROR does not know it.
MEMCACHED = {
    "retrieval": [("get", b"get x"), ("gets", b"gets x"), ("gat", b"gat 1 x"), ("gats", b"gats 1 x")],
    "storage": [(name, f"{name} x 0 1 0\r\n".encode()) for name in ("set", "add", "replace", "append", "prepend")]
    + [("cas", b"cas x 0 1 0 1\r\n")],
    "numbers, times, removal": [("incr", b"incr x 1"), ("decr", b"decr x 1"), ("touch", b"touch x 1"), ("delete", b"delete x"), ("flush_all", b"flush_all")],
    "meta": [("mn", b"mn"), ("mg", b"mg x v"), ("ms", b"ms x 0\r\n"), ("md", b"md x"), ("ma", b"ma x"), ("me", b"me x")],
    "the server": [("version", b"version"), ("stats", b"stats"), ("stats reset", b"stats reset"), ("stats settings", b"stats settings"),
                   ("stats items", b"stats items"), ("stats slabs", b"stats slabs"), ("stats sizes", b"stats sizes"),
                   ("stats conns", b"stats conns"), ("stats detail", b"stats detail off"), ("verbosity", b"verbosity 0"),
                   ("cache_memlimit", b"cache_memlimit 256"), ("lru", b"lru mode flat"), ("lru_crawler", b"lru_crawler disable"),
                   ("slabs", b"slabs automove 0"), ("watch", b"watch evictions"), ("shutdown", None), ("quit", None)],
}


def main():
    parser = argparse.ArgumentParser(prog="scripts/conformance --write-docs")
    parser.add_argument("--binary", help="the spinetail to ask")
    parser.add_argument("--against", choices=run.PEERS, help="describe a server of others, to compare")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--out", default=os.path.join(run.ROOT, "docs/compatibility.md"))
    arguments = parser.parse_args()
    notes = {name.lower(): (state, note) for name, state, note in run.rows(os.path.join(HERE, "notes.txt"))}
    text = [head(arguments), *suites(arguments), *resp(arguments, notes), *memcached(arguments, notes)]
    with open(arguments.out, "w") as file:
        file.write("\n".join(text).rstrip() + "\n")
    print(os.path.relpath(arguments.out, run.ROOT))


def head(arguments):
    return f"""# Compatibility

Written by `scripts/conformance --write-docs`; do not edit. What {arguments.against or 'Spinetail'} serves of
the protocols of Redis (`--resp`, RESP2 and RESP3) and memcached (`--memcached`), and how it fares in the suites their
authors judge them by: unchanged, each file against a server started for it by `scripts/conformance`.
"""


def suites(arguments):
    name = f"results-{arguments.against}.json" if arguments.against else "results.json"
    path = os.path.join(run.WORK, name)
    if not os.path.exists(path):
        sys.exit(f"no {os.path.relpath(path, run.ROOT)}: run scripts/conformance all first")
    report = json.load(open(path))
    found = {(unit["suite"], unit["unit"]): unit for unit in report["units"]}
    missing = [unit for unit in run.expectations() if (unit["suite"], unit["unit"]) not in found and (
        not arguments.against or arguments.against in run.peers_of(unit))]
    if missing:
        sys.exit("the last run left out " + ", ".join(unit["unit"] for unit in missing) + ": run scripts/conformance all first")
    titles = {
        "redis": ("Redis 7.0's own suite", "Per file, against an outside server (`--singledb`), without what needs replication, saving, DEBUG or minutes."),
        "memcached": ("memcached 1.6's own tests", "Per file, against an outside server; `memccapable` is libmemcached's, its text half."),
        "redis-py": ("redis-py 8.1's own tests", "Those that talk to the server and need no commands but the ones a cache serves."),
        "clients": ("Clients", "Operations they offer for a cache, each compared with what its documentation promises (`tests/clients`)."),
    }
    text = ["## Suites", ""]
    if not arguments.against:
        text += [f"With {report['shards']} shard(s).", ""]
    for suite, (title, what) in titles.items():
        mine = [unit for unit in found.values() if unit["suite"] == suite]
        if not mine:
            continue
        passed, failed = sum(unit["passed"] for unit in mine), sum(unit["failed"] for unit in mine)
        text += [f"### {title}: {passed:,} of {passed + failed:,}", "", what, "", "| | pass | do not |", "|---|---|---|"]
        text += [f"| {unit['unit']} | {unit['passed']:,} | {unit['failed'] or '–'} |" for unit in mine]
        why = reasons(suite, mine)
        text += ["", *why, ""] if why else [""]
    return text


def reasons(suite, units):
    """Why what does not pass does not, by reason."""
    by_reason = {}
    if suite == "memcached":
        for file, failed, reason in run.rows(os.path.join(HERE, "expected-failures/memcached.txt")):
            by_reason.setdefault((failed == "not run", reason), []).append(file)
        return ["Checks that fail, and files that are not run:", ""] + [
            f"- {reason}: {', '.join(files)}" + (" (not run)" if skipped else "") for (skipped, reason), files in sorted(by_reason.items())]
    known = run.expected_failures()
    for unit in units:
        for name in unit["failures"]:
            by_reason.setdefault(known.get((suite, unit["unit"], name), "not explained"), []).append(name)
    if not by_reason:
        return []
    lines = [f"- {reason}: {len(names)}" for reason, names in sorted(by_reason.items(), key=lambda item: -len(item[1]))]
    listed = " Each by name: `scripts/conformance.d/expected-failures`." if suite == "redis" else ""
    return [f"Why they do not pass:{listed}", "", *lines]


# Redis's commands


def resp(arguments, notes):
    if arguments.against == "memcached":
        return []
    server, port = run.start(arguments, {"suite": "redis", "unit": ""})
    try:
        from redis.connection import Connection

        connection = Connection(host="127.0.0.1", port=port, protocol=2, encoding_errors="replace", decode_responses=True)
        connection.send_command("COMMAND")
        commands = {row[0].lower(): row for row in connection.read_response()}
        connection.send_command("COMMAND", "DOCS")
        docs = connection.read_response()
    finally:
        server.stop()
    docs = {docs[at].lower(): dict(zip(docs[at + 1][::2], docs[at + 1][1::2])) for at in range(0, len(docs), 2)}
    wanted = [name for (name,) in run.rows(os.path.join(HERE, "commands.txt"))]
    groups = {}
    for name, row in commands.items():
        inner = [sub[0].lower() for sub in row[9]] if len(row) > 9 else []
        about = docs.get(name, {})
        groups.setdefault(about.get("group", "others"), []).append((name, inner, about.get("summary", "")))
    text = ["## Redis commands", "", f"{len(commands)} commands, as the server lists them itself (`COMMAND`).", ""]
    for group in sorted(groups):
        text += [f"### {group.capitalize()}", "", "| command | state | |", "|---|---|---|"]
        for name, inner, summary in sorted(groups[group]):
            state, note = notes.get(name, ("served", ""))
            text.append(f"| {name.upper()} | {state} | {note or summary} |")
            for sub in sorted(inner):
                sub = sub.replace("|", " ")
                state, note = notes.get(sub, ("served", ""))
                text.append(f"| {sub.upper()} | {state} | {note} |")
        text.append("")
    served = set(commands) | {sub[0].lower() for row in commands.values() if len(row) > 9 for sub in row[9]}
    # Where the server lists no subcommands, the command stands for them.
    absent = [name for name in wanted if name not in served and ("|" not in name or name.split("|")[0] not in commands or has_subcommands(commands, name))]
    if absent:
        text += ["Not yet: " + ", ".join(name.replace("|", " ").upper() for name in absent) + ".", ""]
    return text


def has_subcommands(commands, name):
    row = commands[name.split("|")[0]]
    return len(row) > 9 and bool(row[9])


# memcached's


def memcached(arguments, notes):
    if arguments.against in ("redis-server", "redis-subset"):
        return []
    server, port = run.start(arguments, {"suite": "memcached", "unit": ""})
    text = ["## memcached commands", "", "As the server answers them.", ""]
    try:
        for group, probes in MEMCACHED.items():
            text += [f"### {group.capitalize()}", "", "| command | state | |", "|---|---|---|"]
            for name, request in probes:
                state, note = notes.get("memcached " + name, ("served", ""))
                if request and (answer := ask(port, request)).split(b"\r\n")[0] in (b"ERROR", b""):
                    state, note = "not served", note
                text.append(f"| {name} | {state} | {note} |")
            text.append("")
        binary = ask(port, struct.pack(">BBHBBHIIQ", 0x80, 0x0B, 0, 0, 0, 0, 0, 0, 0), line=False)
        text += [f"The binary protocol: {'served' if binary[:1] == bytes([0x81]) else 'not served'}.", ""]
    finally:
        server.stop()
    return text


def ask(port, request, line=True):
    """The beginning of the answer, on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), 2) as connection:
        connection.settimeout(1)
        connection.sendall(request + b"\r\n" if line else request)
        try:
            return connection.recv(4096)
        except TimeoutError:
            return b""


if __name__ == "__main__":
    main()
