"""pymemcache (memcached's text protocol): HOST PORT. Client, PooledClient and HashClient."""

import time

from pymemcache import serde
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.exceptions import MemcacheClientError, MemcacheIllegalInputError, MemcacheUnknownCommandError

from operations import Operations, place

HOST, PORT = place()


def storing(o, c):
    o.equal(c.set("a", "one", noreply=False), True)
    o.equal(c.get("a"), b"one")
    o.equal(c.get("none"), None)
    o.equal(c.get("none", "otherwise"), "otherwise")
    o.equal(c.add("a", "two", noreply=False), False)
    o.equal(c.add("a-new", "two", noreply=False), True)
    o.equal(c.replace("a", "three", noreply=False), True)
    o.equal(c.replace("none", "x", noreply=False), False)
    o.equal(c.append("a", "!", noreply=False), True)
    o.equal(c.prepend("a", "<", noreply=False), True)
    o.equal(c.get("a"), b"<three!")
    o.equal(c.append("none", "x", noreply=False), False)
    o.equal(c.prepend("none", "x", noreply=False), False)
    o.equal(c.set("empty", b"", noreply=False), True)
    o.equal(c.get("empty"), b"")
    every = bytes(range(256))
    o.equal(c.set("every", every + b"\r\nEND\r\n", noreply=False), True)
    o.equal(c.get("every"), every + b"\r\nEND\r\n")
    for size in (1, 1023, 1024, 65_536, 1_000_000):
        o.equal(c.set("large", b"v" * size, noreply=False), True)
        o.equal(len(c.get("large")), size)
    o.equal(c.set("k" * 250, "longest", noreply=False), True)
    o.equal(c.get("k" * 250), b"longest")
    o.raises(MemcacheIllegalInputError, c.get, "k" * 251)
    o.raises(MemcacheIllegalInputError, c.get, "with space")
    o.equal(c.delete("a", noreply=False), True)
    o.equal(c.delete("a", noreply=False), False)
    o.equal(c.get("a"), None)


def versions(o, c):
    o.equal(c.set("v", "one", noreply=False), True)
    value, version = c.gets("v")
    o.equal(value, b"one")
    o.equal(c.cas("v", "two", version, noreply=False), True)
    o.equal(c.cas("v", "three", version, noreply=False), False)
    o.equal(c.cas("none", "x", version, noreply=False), None)
    o.equal(c.get("v"), b"two")
    o.equal(c.gets("none"), (None, None))
    found = c.gets_many(["v", "none"])
    o.equal(list(found), ["v"])
    o.equal(found["v"][0], b"two")
    o.equal(c.cas("v", "four", found["v"][1], noreply=False), True)
    second = c.gets("v")[1]
    c.touch("v", 100, noreply=False)
    o.equal(c.set("v", "four", noreply=False), True)
    o.equal(c.gets("v")[1] != second, True)


def numbers(o, c):
    o.equal(c.set("n", "10", noreply=False), True)
    o.equal(c.incr("n", 5), 15)
    o.equal(c.decr("n", 3), 12)
    o.equal(c.decr("n", 100), 0)
    o.equal(c.incr("none", 1), None)
    o.equal(c.decr("none", 1), None)
    o.equal(c.set("n", str(2**64 - 1), noreply=False), True)
    o.equal(c.incr("n", 2), 1)
    o.equal(c.set("n", "word", noreply=False), True)
    o.raises(MemcacheClientError, c.incr, "n", 1)
    o.equal(c.set("n", "100", noreply=False), True)
    o.equal(c.decr("n", 1), 99)
    o.equal(c.get("n").strip(), b"99")


def expiry(o, c):
    o.equal(c.set("e", "x", expire=1, noreply=False), True)
    o.equal(c.set("at", "x", expire=int(time.time()) + 100, noreply=False), True)
    o.equal(c.set("past", "x", expire=int(time.time()) - 100, noreply=False), True)
    o.equal(c.set("gone", "x", expire=-1, noreply=False), True)
    o.equal(c.set("touched", "x", expire=1, noreply=False), True)
    o.equal(c.touch("touched", 100, noreply=False), True)
    o.equal(c.touch("none", 100, noreply=False), False)
    o.equal(c.get("e"), b"x")
    o.equal(c.get("at"), b"x")
    o.equal(c.get("past"), None)
    o.equal(c.get("gone"), None)
    time.sleep(2.1)
    o.equal(c.get("e"), None)
    o.equal(c.get("touched"), b"x")
    o.equal(c.add("e", "again", noreply=False), True)


def many(o, c):
    values = {f"m{number}": str(number).encode() for number in range(100)}
    o.equal(c.set_many(values, noreply=False), [])
    o.equal(c.get_many(list(values) + ["none"]), values)
    o.equal(c.get_multi(["m1", "m2"]), {"m1": b"1", "m2": b"2"})
    o.equal(c.get_many([]), {})
    o.equal(c.set_multi({"m1": "x"}, noreply=False), [])
    o.equal(c.delete_many(["m1", "m2", "none"], noreply=False), True)
    o.equal(c.get_many(["m1", "m2", "m3"]), {"m3": b"3"})
    o.equal(c.delete_multi(["m3"], noreply=False), True)
    o.equal(c.get("m3"), None)


def without_replies(o, c):
    # One connection takes them in order: what is read after a silent write sees it.
    for number in range(200):
        c.set("quiet", str(number), noreply=True)
    o.equal(c.get("quiet"), b"199")
    c.add("quiet", "x", noreply=True)
    o.equal(c.get("quiet"), b"199")
    c.replace("quiet", "7", noreply=True)
    c.append("quiet", "0", noreply=True)
    c.prepend("quiet", "1", noreply=True)
    o.equal(c.get("quiet"), b"170")
    o.equal(c.incr("quiet", 5, noreply=True), None)
    o.equal(c.decr("quiet", 1, noreply=True), None)
    o.equal(c.get("quiet"), b"174")
    c.touch("quiet", 100, noreply=True)
    version = c.gets("quiet")[1]
    c.cas("quiet", "swapped", version, noreply=True)
    o.equal(c.get("quiet"), b"swapped")
    c.set_many({"q1": "1", "q2": "2"}, noreply=True)
    o.equal(c.get_many(["q1", "q2"]), {"q1": b"1", "q2": b"2"})
    c.delete_many(["q1"], noreply=True)
    c.delete("q2", noreply=True)
    o.equal(c.get_many(["q1", "q2"]), {})


def objects(o, make):
    c = make(serde=serde.pickle_serde)
    # The flags of an entry say how its value was made into bytes.
    for value in ("text", b"bytes", 42, 4.5, {"a": [1, 2]}, None, True, 10**30):
        o.equal(c.set("object", value, noreply=False), True)
        o.equal(c.get("object", "missing"), value)
    o.equal(c.set_many({"o1": 1, "o2": [2]}, noreply=False), [])
    o.equal(c.get_many(["o1", "o2"]), {"o1": 1, "o2": [2]})
    prefixed = make(key_prefix=b"app:")
    o.equal(prefixed.set("x", "1", noreply=False), True)
    o.equal(prefixed.get("x"), b"1")
    o.equal(make().get("app:x"), b"1")


def server(o, c):
    o.equal(c.version(), lambda version: version[:1].isdigit())
    stats = c.stats()
    for name in (b"pid", b"uptime", b"curr_connections", b"cmd_get", b"get_hits", b"get_misses", b"bytes", b"limit_maxbytes", b"curr_items"):
        o.equal(name in stats, True, name.decode())
    before = stats[b"get_hits"]
    c.set("hit", "x", noreply=False)
    c.get("hit")
    o.eventually(lambda: int(c.stats()[b"get_hits"]) > int(before), True)
    o.equal(c.flush_all(noreply=False), True)
    o.equal(c.get("hit"), None)
    o.equal(c.set("hit", "x", noreply=False), True)
    o.equal(c.get("hit"), b"x")


def raw(o, c):
    """What pymemcache has no name for: get-and-touch, and the meta commands."""
    line = lambda command: c.raw_command(command)
    c.set("r", "value", noreply=False)
    o.equal(c.raw_command("gat 100 r none", b"END\r\n"), b"VALUE r 0 5\r\nvalue\r\n")
    o.equal(c.raw_command("gats 100 r", b"END\r\n"), lambda text: text.startswith(b"VALUE r 0 5 ") and text.endswith(b"\r\nvalue\r\n"))
    o.equal(c.raw_command("gat 100 none", b"END\r\n"), b"")
    o.equal(line("mn"), b"MN")
    o.equal(line("mg none v"), b"EN")
    o.equal(line("mg r s"), b"HD s5")
    o.equal(line("mg r t"), lambda text: text.startswith(b"HD t") and 98 <= int(text[4:]) <= 100)
    o.equal(c.raw_command("mg r v", b"value\r\n"), b"VA 5\r\n")
    o.equal(c.raw_command("ms r 3\r\nnew"), b"HD")
    o.equal(c.get("r"), b"new")
    o.equal(line("md r"), b"HD")
    o.equal(line("md r"), b"NF")
    o.equal(line("ma number N0 J5 v"), b"VA 1")
    o.raises(MemcacheUnknownCommandError, line, "no-such-command")


def hashed(o):
    c = HashClient([(HOST, PORT)], use_pooling=True, max_pool_size=4)
    o.equal(c.set("h", "x", noreply=False), True)
    o.equal(c.get("h"), b"x")
    o.equal(c.set_many({f"h{number}": "x" for number in range(50)}, noreply=False), [])
    o.equal(len(c.get_many([f"h{number}" for number in range(60)])), 50)
    value, version = c.gets("h")
    o.equal(value, b"x")
    o.equal(c.cas("h", "y", version, noreply=False), True)
    o.equal(c.add("h", "z", noreply=False), False)
    o.equal(c.replace("h", "1", noreply=False), True)
    o.equal(c.incr("h", 1, noreply=False), 2)
    o.equal(c.decr("h", 1, noreply=False), 1)
    o.equal(c.append("h", "2", noreply=False), True)
    o.equal(c.prepend("h", "0", noreply=False), True)
    o.equal(c.get("h"), b"012")
    o.equal(c.touch("h", 100, noreply=False), True)
    o.equal(c.delete_many(["h0", "h1"], noreply=False), True)
    o.equal(c.delete("h", noreply=False), True)
    o.equal(c.get("h"), None)


def main():
    o = Operations()
    for kind in (Client, PooledClient):
        make = lambda **named: kind((HOST, PORT), timeout=10, **named)
        c = make()
        c.flush_all(noreply=False)
        name = kind.__name__ + " "
        o.group(name + "storing", storing, c)
        o.group(name + "versions", versions, c)
        o.group(name + "numbers", numbers, c)
        o.group(name + "expiry", expiry, c)
        o.group(name + "many keys", many, c)
        o.group(name + "without replies", without_replies, c)
        o.group(name + "objects", objects, make)
        o.group(name + "server", server, c)
        o.group(name + "get-and-touch, meta", raw, c)
        c.quit() if kind is Client else c.close()
    o.group("HashClient", hashed)
    o.end()


main()
