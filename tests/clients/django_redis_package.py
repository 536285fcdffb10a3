"""django-redis, the package: HOST PORT."""

import datetime
import time

import django
from django.conf import settings
from django.core.cache import caches

from operations import Operations, place

HOST, PORT = place()


def storing(o, c):
    o.equal(c.set("a", "one"), True)
    o.equal(c.get("a"), "one")
    o.equal(c.get("none", "otherwise"), "otherwise")
    o.equal(c.set("a", "two", nx=True), lambda answer: not answer)
    o.equal(c.get("a"), "one")
    o.equal(c.set("new", "two", nx=True, timeout=100), True)
    o.equal(c.set("none", "x", xx=True), lambda answer: not answer)
    o.equal(c.set("a", "three", xx=True), True)
    o.equal(c.get("a"), "three")
    o.equal(c.add("a", "x"), lambda answer: not answer)
    o.equal(c.add("added", "x"), True)
    for value in ("text", b"bytes", 42, 4.5, {"a": [1, (2, 3)]}, None, True, "ключ", b"\x00\xff" * 5000):
        c.set("object", value)
        o.equal(c.get("object", "missing"), value)
    o.equal("a" in c, True)
    o.equal(c.has_key("none"), False)
    o.equal(c.delete("a"), lambda answer: bool(answer))
    o.equal(c.delete("a"), lambda answer: not answer)
    o.equal(c.get_or_set("made", lambda: 7, timeout=10), 7)
    o.equal(c.get_or_set("made", 8), 7)


def numbers(o, c):
    c.set("n", 10)
    o.equal(c.incr("n"), 11)
    o.equal(c.incr("n", 9), 20)
    o.equal(c.decr("n", 5), 15)
    o.raises(ValueError, c.incr, "none")
    # Counters it can start itself, and the ones whose time to live stays as it is.
    o.equal(c.incr("fresh", ignore_key_check=True), 1)
    c.set("n", 1, timeout=100)
    o.equal(c.incr("n"), 2)
    o.equal(c.ttl("n"), lambda ttl: 98 <= ttl <= 100)
    c.set("huge", 2**63)
    o.equal(c.incr("huge"), 2**63 + 1)


def times(o, c):
    c.set("t", "x", timeout=100)
    o.equal(c.ttl("t"), lambda ttl: 98 <= ttl <= 100)
    o.equal(c.pttl("t"), lambda ttl: 98_000 <= ttl <= 100_000)
    o.equal(c.ttl("none"), 0)
    o.equal(c.pttl("none"), 0)
    o.equal(c.persist("t"), True)
    o.equal(c.ttl("t"), None)
    o.equal(c.persist("none"), False)
    o.equal(c.expire("t", 50), True)
    o.equal(c.ttl("t"), lambda ttl: 48 <= ttl <= 50)
    o.equal(c.expire("none", 50), False)
    o.equal(c.pexpire("t", 20_500), True)
    o.equal(c.pttl("t"), lambda ttl: 19_000 <= ttl <= 20_500)
    o.equal(c.expire_at("t", datetime.datetime.now() + datetime.timedelta(hours=1)), True)
    o.equal(c.ttl("t"), lambda ttl: 3590 <= ttl <= 3600)
    o.equal(c.pexpire_at("t", datetime.datetime.now() + datetime.timedelta(hours=2)), True)
    o.equal(c.ttl("t"), lambda ttl: 7190 <= ttl <= 7200)
    o.equal(c.touch("t", 30), True)
    o.equal(c.ttl("t"), lambda ttl: 28 <= ttl <= 30)
    c.set("t", "x", timeout=None)
    o.equal(c.ttl("t"), None)
    c.set("t", "x", timeout=0.06)
    time.sleep(0.1)
    o.equal(c.get("t"), None)
    c.set("t", "x", timeout=0)
    o.equal(c.get("t"), None)


def many(o, c):
    values = {f"m{number}": {"number": number} for number in range(50)}
    c.set_many(values, timeout=100)
    o.equal(dict(c.get_many([*values, "none"])), values)
    o.equal(c.ttl("m7"), lambda ttl: 98 <= ttl <= 100)
    o.equal(c.delete_many(["m0", "m1", "none"]), 2)
    o.equal(dict(c.get_many(["m0", "m1", "m2"])), {"m2": {"number": 2}})


def keys(o, c, other):
    c.clear()
    c.set_many({f"user:{number}": number for number in range(120)})
    c.set("other", "x")
    other.set("user:1", "the other's")
    o.equal(sorted(c.keys("user:1?")), sorted(f"user:{number}" for number in range(10, 20)))
    o.equal(len(c.keys("*")), 121)
    o.equal(len(set(c.iter_keys("user:*", itersize=10))), 120)
    o.equal(c.delete_pattern("user:1*", itersize=10), 31)
    o.equal(c.keys("user:1*"), [])
    o.equal(len(c.keys("user:*")), 89)
    o.equal(c.delete_pattern("nobody*"), 0)
    o.equal(other.get("user:1"), "the other's")
    c.clear()
    o.equal(c.keys("*"), [])


def versions(o, c):
    c.set("v", "first", version=1)
    o.equal(c.incr_version("v"), 2)
    o.equal(c.get("v"), None)
    o.equal(c.get("v", version=2), "first")


def locks(o, c):
    with c.lock("job", timeout=10):
        second = c.lock("job", timeout=10, blocking_timeout=0.1)
        o.equal(second.acquire(), False)
    o.equal(second.acquire(), True)
    o.equal(second.extend(5), True)
    o.equal(second.reacquire(), True)
    second.release()
    o.equal(second.locked(), False)


def raw(o, c):
    from django_redis import get_redis_connection

    connection = get_redis_connection("default")
    client = c.client.get_client(write=True)
    o.equal(connection.set("raw", b"bytes"), True)
    o.equal(client.get("raw"), b"bytes")
    with connection.pipeline() as pipe:
        pipe.incr("raw-n").expire("raw-n", 100)
        o.equal(pipe.execute(), [1, True])
    o.equal(client.ttl("raw-n"), lambda ttl: 98 <= ttl <= 100)
    o.equal(client.delete("raw", "raw-n"), 2)


def main():
    cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"redis://{HOST}:{PORT}/0",
             "OPTIONS": {"CLIENT_CLASS": "django_redis.client.DefaultClient"}}
    squeezed = {**cache, "KEY_PREFIX": "squeezed", "OPTIONS": {**cache["OPTIONS"], "COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor",
                                                               "SERIALIZER": "django_redis.serializers.json.JSONSerializer"}}
    settings.configure(CACHES={"default": cache, "other": {**cache, "KEY_PREFIX": "other"}, "squeezed": squeezed}, USE_TZ=False)
    django.setup()
    o, c, other = Operations(), caches["default"], caches["other"]
    c.clear()
    o.group("storing", storing, c)
    o.group("numbers", numbers, c)
    o.group("times", times, c)
    o.group("many keys", many, c)
    o.group("keys", keys, c, other)
    o.group("versions", versions, c)
    o.group("locks", locks, c)
    o.group("compressed", many, caches["squeezed"])
    o.group("the client below", raw, c)
    c.clear()
    o.end()


main()
