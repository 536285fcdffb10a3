"""What both of Django's own cache backends promise: run by django_redis_backend.py and django_memcached_backend.py."""

import sys
import time

import django
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheKey

from operations import Operations


def storing(o, c):
    o.equal(c.set("a", "one"), None)
    o.equal(c.get("a"), "one")
    o.equal(c.get("none"), None)
    o.equal(c.get("none", "otherwise"), "otherwise")
    o.equal(c.add("a", "two"), False)
    o.equal(c.add("b", "two"), True)
    o.equal(c.has_key("a"), True)
    o.equal("none" in c, False)
    for value in ("text", b"bytes", 42, -7, 4.5, {"a": [1, (2, 3)]}, True, 10**30, "ключ", "", b"\x00\xff" * 5000):
        c.set("object", value)
        o.equal(c.get("object", "missing"), value)
    c.set("nothing", None)
    o.equal(c.get("nothing", "missing"), None)
    o.equal(c.delete("a"), True)
    o.equal(c.delete("a"), False)
    o.equal(c.get("a"), None)
    o.equal(c.get_or_set("made", lambda: "by me"), "by me")
    o.equal(c.get_or_set("made", "not again"), "by me")


def numbers(o, c):
    c.set("n", 10)
    o.equal(c.incr("n"), 11)
    o.equal(c.incr("n", 9), 20)
    o.equal(c.decr("n", 5), 15)
    o.equal(c.get("n"), 15)
    o.raises(ValueError, c.incr, "none")
    o.raises(ValueError, c.decr, "none")


def many(o, c):
    values = {f"m{number}": {"number": number} for number in range(50)}
    o.equal(c.set_many(values), [])
    o.equal(c.get_many([*values, "none"]), values)
    o.equal(c.delete_many(["m0", "m1", "none"]), None)
    o.equal(c.get_many(["m0", "m1", "m2"]), {"m2": {"number": 2}})
    o.equal(c.set_many({"brief1": 1, "brief2": 2}, timeout=1), [])
    o.equal(c.get_many(["brief1", "brief2"]), {"brief1": 1, "brief2": 2})
    time.sleep(2.1)
    o.equal(c.get_many(["brief1", "brief2"]), {})


def timeouts(o, c):
    c.set("brief", "x", 1)
    c.set("long", "x", timeout=100)
    c.set("forever", "x", timeout=None)
    c.set("never", "x", timeout=0)
    c.set("stretched", "x", 1)
    c.set("shortened", "x", 100)
    o.equal(c.touch("stretched", 100), True)
    o.equal(c.touch("shortened", 1), True)
    o.equal(c.touch("none", 100), False)
    o.equal(c.get("never"), None)
    o.equal(c.get("brief"), "x")
    time.sleep(2.1)
    o.equal(c.get("brief"), None)
    o.equal(c.get("long"), "x")
    o.equal(c.get("forever"), "x")
    o.equal(c.get("stretched"), "x")
    o.equal(c.get("shortened"), None)
    o.equal(c.touch("long", timeout=None), True)
    o.equal(c.add("brief", "again", 100), True)


def versions(o, c):
    c.set("v", "first")
    c.set("v", "second", version=2)
    o.equal(c.get("v"), "first")
    o.equal(c.get("v", version=2), "second")
    o.equal(c.delete("v"), True)
    o.equal(c.incr_version("v", version=2), 3)
    o.equal(c.get("v", version=2), None)
    o.equal(c.get("v", version=3), "second")
    o.equal(c.decr_version("v", version=3), 2)
    o.equal(c.get("v", version=2), "second")
    o.raises(ValueError, c.incr_version, "none")


def clear(o, c, other):
    c.set("x", 1)
    other.set("x", "the other's")
    o.equal(c.get("x"), 1)
    o.equal(other.get("x"), "the other's")
    c.clear()
    o.equal(c.get("x"), None)
    c.set("x", 2)
    o.equal(c.get("x"), 2)


def asynchronous(o, c):
    from asgiref.sync import async_to_sync

    async def go():
        await c.aset("as", 1)
        return [await c.aget("as"), await c.aincr("as"), await c.aadd("as", 5), await c.aget_many(["as", "none"]), await c.adelete("as")]

    o.equal(async_to_sync(go)(), [1, 2, False, {"as": 2}, True])


def long_keys(o, c):
    o.raises(InvalidCacheKey, c.set, "k" * 300, "x")
    o.raises(InvalidCacheKey, c.get, "with space")


def main(backend, memcached=False):
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} HOST PORT")
    place = f"{sys.argv[1]}:{sys.argv[2]}"
    location = place if memcached else "redis://" + place
    settings.configure(CACHES={
        "default": {"BACKEND": backend, "LOCATION": location, "TIMEOUT": 300},
        "other": {"BACKEND": backend, "LOCATION": location, "KEY_PREFIX": "other"},
    })
    django.setup()
    o, c, other = Operations(), caches["default"], caches["other"]
    c.clear()
    o.group("storing", storing, c)
    o.group("numbers", numbers, c)
    o.group("many keys", many, c)
    o.group("timeouts", timeouts, c)
    o.group("versions", versions, c)
    o.group("clear", clear, c, other)
    o.group("asynchronous", asynchronous, c)
    if memcached:
        o.group("keys memcached has no room for", long_keys, c)
    o.end()
