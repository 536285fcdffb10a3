"""redis-py: HOST PORT. Everything it offers for a cache, in RESP2 and RESP3."""

import datetime
import time

import redis
from redis.cache import CacheConfig
from redis.exceptions import LockError, LockNotOwnedError, NoScriptError, ResponseError, WatchError

from operations import Operations, place

HOST, PORT = place()


def connect(protocol, **named):
    return redis.Redis(host=HOST, port=PORT, protocol=protocol, decode_responses=True, **named)


def strings(o, r):
    o.equal(r.set("s", "one"), True)
    o.equal(r.get("s"), "one")
    o.equal(r.get("none"), None)
    o.equal(r.set("s", "two", nx=True), None)
    o.equal(r.set("s2", "two", nx=True), True)
    o.equal(r.set("none", "x", xx=True), None)
    o.equal(r.set("s", "three", xx=True), True)
    o.equal(r.set("s", "four", get=True), "three")
    o.equal(r.set("fresh", "x", get=True), None)
    o.equal(r.set("s", "five", ex=100, keepttl=False), True)
    o.equal(r.ttl("s"), lambda ttl: 98 <= ttl <= 100)
    o.equal(r.set("s", "six", keepttl=True), True)
    o.equal(r.ttl("s"), lambda ttl: 98 <= ttl <= 100)
    o.equal(r.set("s", "seven"), True)
    o.equal(r.ttl("s"), -1)
    o.equal(r.set("s", "x", px=100_000), True)
    o.equal(r.pttl("s"), lambda ttl: 98_000 <= ttl <= 100_000)
    o.equal(r.set("s", "x", exat=int(time.time()) + 100), True)
    o.equal(r.ttl("s"), lambda ttl: 98 <= ttl <= 100)
    o.equal(r.set("s", "x", pxat=int(time.time() * 1000) + 100_000), True)
    o.equal(r.ttl("s"), lambda ttl: 98 <= ttl <= 100)
    o.equal(r.set("s", "x", ex=datetime.timedelta(minutes=1)), True)
    o.equal(r.ttl("s"), lambda ttl: 58 <= ttl <= 60)
    o.equal(r.setnx("s", "x"), False)
    o.equal(r.setnx("snx", "x"), True)
    o.equal(r.setex("s", 50, "y"), True)
    o.equal(r.ttl("s"), lambda ttl: 48 <= ttl <= 50)
    o.equal(r.psetex("s", 50_000, "z"), True)
    o.equal(r.ttl("s"), lambda ttl: 48 <= ttl <= 50)
    o.equal(r.getset("s", "w"), "z")
    o.equal(r.getdel("s"), "w")
    o.equal(r.getdel("s"), None)
    o.equal(r.set("s", "hello", ex=100), True)
    o.equal(r.getex("s", persist=True), "hello")
    o.equal(r.ttl("s"), -1)
    o.equal(r.getex("s", ex=70), "hello")
    o.equal(r.ttl("s"), lambda ttl: 68 <= ttl <= 70)
    o.equal(r.append("s", " world"), 11)
    o.equal(r.append("s-new", "abc"), 3)
    o.equal(r.strlen("s"), 11)
    o.equal(r.strlen("none"), 0)
    o.equal(r.getrange("s", 6, -1), "world")
    o.equal(r.getrange("s", -5, 7), "wo")
    o.equal(r.setrange("s", 6, "there"), 11)
    o.equal(r.get("s"), "hello there")
    o.equal(r.setrange("s-pad", 3, "x"), 4)
    o.equal(r.get("s-pad"), "\0\0\0x")
    o.equal(r.substr("s", 0, 4), "hello")
    o.raises(ResponseError, r.execute_command, "SET", "s")
    o.raises(ResponseError, r.set, "s", "x", ex=-1)
    o.raises(ResponseError, r.execute_command, "NO-SUCH-COMMAND", "s")


def binary(o, r, raw):
    every = bytes(range(256))
    o.equal(raw.set(every, every), True)
    o.equal(raw.get(every), every)
    # An empty key is one of the few things that Redis takes and the appliance does not.
    o.equal(raw.set(b"nothing", b""), True)
    o.equal(raw.get(b"nothing"), b"")
    o.equal(raw.strlen(b"nothing"), 0)
    o.equal(raw.exists(b"nothing"), 1)
    for size in (1, 1023, 1024, 65_536, 1_000_000):
        o.equal(raw.set("large", b"v" * size), True)
        o.equal(len(raw.get("large")), size)
    o.equal(r.set("ключ", "значение"), True)
    o.equal(r.get("ключ"), "значение")
    o.equal(raw.delete(every, b"nothing", "large"), 3)


def numbers(o, r):
    o.equal(r.incr("n"), 1)
    o.equal(r.incr("n", 41), 42)
    o.equal(r.incrby("n", -2), 40)
    o.equal(r.decr("n"), 39)
    o.equal(r.decrby("n", 9), 30)
    o.equal(r.get("n"), "30")
    o.equal(r.incrbyfloat("n", 0.5), 30.5)
    o.equal(r.get("n"), "30.5")
    o.raises(ResponseError, r.incr, "n")
    o.equal(r.set("n", 2**63 - 1), True)
    o.raises(ResponseError, r.incr, "n")
    o.equal(r.set("n", 7, ex=100), True)
    o.equal(r.incr("n"), 8)
    o.equal(r.ttl("n"), lambda ttl: 98 <= ttl <= 100)
    o.equal(r.set("n", "word"), True)
    o.raises(ResponseError, r.decr, "n")
    o.raises(ResponseError, r.incrbyfloat, "n", 1.0)


def many(o, r):
    o.equal(r.mset({f"m{number}": number for number in range(20)}), True)
    o.equal(r.mget([f"m{number}" for number in range(21)]), [str(number) for number in range(20)] + [None])
    o.equal(r.msetnx({"m0": "x", "new": "x"}), False)
    o.equal(r.get("new"), None)
    o.equal(r.msetnx({"new1": "x", "new2": "y"}), True)
    o.equal(r.exists("m0", "m1", "m1", "none"), 3)
    o.equal(r.touch("m0", "m1", "none"), 2)
    o.equal(r.delete("m0", "m1", "none"), 2)
    o.equal(r.unlink("m2", "m3", "none"), 2)
    o.equal(r.mget("m0", "m1", "m2", "m3", "m4"), [None, None, None, None, "4"])


def expiry(o, r):
    o.equal(r.set("e", "x"), True)
    o.equal(r.ttl("e"), -1)
    o.equal(r.ttl("none"), -2)
    o.equal(r.pttl("none"), -2)
    o.equal(r.expire("e", 100), True)
    o.equal(r.expire("none", 100), False)
    o.equal(r.ttl("e"), lambda ttl: 98 <= ttl <= 100)
    o.equal(r.expire("e", 50, nx=True), False)
    o.equal(r.expire("e", 50, gt=True), False)
    o.equal(r.expire("e", 200, gt=True), True)
    o.equal(r.expire("e", 300, lt=True), False)
    o.equal(r.expire("e", 100, xx=True), True)
    o.equal(r.pexpire("e", 90_000), True)
    o.equal(r.pttl("e"), lambda ttl: 88_000 <= ttl <= 90_000)
    then = int(time.time()) + 1000
    o.equal(r.expireat("e", then), True)
    o.equal(r.expiretime("e"), then)
    o.equal(r.pexpireat("e", then * 1000 + 1), True)
    o.equal(r.pexpiretime("e"), then * 1000 + 1)
    o.equal(r.expiretime("none"), -2)
    o.equal(r.persist("e"), True)
    o.equal(r.persist("e"), False)
    o.equal(r.expiretime("e"), -1)
    o.equal(r.expire("e", -1), True)
    o.equal(r.exists("e"), 0)
    o.equal(r.set("e", "x", px=60), True)
    o.equal(r.get("e"), "x")
    time.sleep(0.09)
    o.equal(r.get("e"), None)
    o.equal(r.ttl("e"), -2)
    o.equal(r.set("e", "x", nx=True), True)


def keys(o, r):
    r.flushdb()
    o.equal(r.dbsize(), 0)
    o.equal(r.randomkey(), None)
    o.equal(r.mset({f"user:{number}": number for number in range(300)} | {"other": 1}), True)
    o.equal(r.dbsize(), 301)
    o.equal(sorted(r.scan_iter(match="user:*", count=50)), sorted(f"user:{number}" for number in range(300)))
    o.equal(len(set(r.scan_iter())), 301)
    o.equal(set(r.scan_iter(match="user:1?")), {f"user:{number}" for number in range(10, 20)})
    o.equal(set(r.scan_iter(_type="string")), lambda found: len(found) == 301)
    o.equal(set(r.scan_iter(_type="hash")), set())
    o.equal(sorted(r.keys("user:[12]")), ["user:1", "user:2"])
    o.equal(len(r.keys()), 301)
    o.equal(r.randomkey(), lambda key: key == "other" or key.startswith("user:"))
    o.equal(r.type("other"), "string")
    o.equal(r.type("none"), "none")
    o.equal(r.rename("other", "another"), True)
    o.raises(ResponseError, r.rename, "other", "x")
    o.equal(r.renamenx("another", "user:1"), False)
    o.equal(r.renamenx("another", "other"), True)
    o.equal(r.copy("other", "copy"), True)
    o.equal(r.copy("user:5", "copy"), False)
    o.equal(r.copy("user:5", "copy", replace=True), True)
    o.equal(r.get("copy"), "5")
    o.equal(r.object("encoding", "copy"), lambda name: name in ("int", "embstr", "raw"))
    o.equal(r.object("refcount", "copy"), lambda number: number >= 1)
    o.equal(r.memory_usage("copy"), lambda number: number > 0)
    o.equal(r.flushall(), True)
    o.equal(r.dbsize(), 0)


def server(o, r):
    o.equal(r.ping(), True)
    o.equal(r.echo("hear"), "hear")
    o.equal(abs(r.time()[0] - time.time()) < 3, True)
    info = r.info()
    o.equal(info["redis_version"], lambda version: version[0].isdigit())
    o.equal("used_memory" in info, True)
    o.equal(info["connected_clients"] >= 1, True)
    o.equal(r.info("memory")["maxmemory"] >= 0, True)
    o.equal("maxmemory" in r.config_get("maxmemory*"), True)
    o.equal(r.client_setname("tester"), True)
    o.equal(r.client_id() > 0, True)
    o.equal(r.client_info()["id"] > 0, True)
    o.equal(any(client["name"] == "tester" for client in r.client_list()), lambda found: isinstance(found, bool))
    o.equal(r.command_count() > 50, True)
    o.equal(r.command()["get"]["arity"], 2)


def pipelines(o, r):
    with r.pipeline(transaction=False) as pipe:
        for number in range(500):
            pipe.set(f"p{number}", number)
        o.equal(pipe.execute(), [True] * 500)
        for number in range(500):
            pipe.get(f"p{number}")
        o.equal(pipe.execute(), [str(number) for number in range(500)])
        pipe.set("word", "x").incr("word").get("word")
        answers = pipe.execute(raise_on_error=False)
        o.equal(answers[0], True)
        o.equal(isinstance(answers[1], ResponseError), True)
        o.equal(answers[2], "x")


def transactions(o, r, other):
    with r.pipeline() as pipe:
        pipe.set("t1", 1).incr("t1").get("t1").mget("t1", "none")
        o.equal(pipe.execute(), [True, 2, "2", ["2", None]])
        pipe.watch("t1")
        pipe.multi()
        pipe.incr("t1")
        o.equal(pipe.execute(), [3])
        pipe.watch("t1")
        other.set("t1", 10)
        pipe.multi()
        pipe.incr("t1")
        o.raises(WatchError, pipe.execute)
        o.equal(r.get("t1"), "10")
        pipe.watch("t-new")
        other.set("t-new", 1)
        pipe.multi()
        pipe.get("t-new")
        o.raises(WatchError, pipe.execute)
        pipe.watch("t1")
        pipe.unwatch()
        other.incr("t1")
        pipe.multi()
        pipe.get("t1")
        o.equal(pipe.execute(), ["11"])
        pipe.set("t2", "word").incr("t2").set("t3", "after")
        o.raises(ResponseError, pipe.execute)
        o.equal(r.get("t3"), "after")

    def double(pipe):
        value = int(pipe.get("t1"))
        pipe.multi()
        pipe.set("t1", value * 2)

    o.equal(r.transaction(double, "t1"), [True])
    o.equal(r.get("t1"), "22")


def publications(o, r, other):
    sub = r.pubsub(ignore_subscribe_messages=False)
    sub.subscribe("news")
    o.equal(sub.get_message(timeout=2), {"type": "subscribe", "pattern": None, "channel": "news", "data": 1})
    sub.psubscribe("ne?s*")
    o.equal(sub.get_message(timeout=2), {"type": "psubscribe", "pattern": None, "channel": "ne?s*", "data": 2})
    o.equal(other.publish("news", "hello"), 2)
    o.equal(sub.get_message(timeout=2), {"type": "message", "pattern": None, "channel": "news", "data": "hello"})
    o.equal(sub.get_message(timeout=2), {"type": "pmessage", "pattern": "ne?s*", "channel": "news", "data": "hello"})
    o.equal(other.publish("nobody", "hello"), 0)
    o.equal(other.pubsub_channels(), ["news"])
    o.equal(other.pubsub_numsub("news", "nobody"), [("news", 1), ("nobody", 0)])
    o.equal(other.pubsub_numpat(), 1)
    sub.unsubscribe("news")
    o.equal(sub.get_message(timeout=2), {"type": "unsubscribe", "pattern": None, "channel": "news", "data": 1})
    o.equal(other.publish("news", "again"), 1)
    o.equal(sub.get_message(timeout=2)["data"], "again")
    sub.punsubscribe()
    o.equal(sub.get_message(timeout=2)["type"], "punsubscribe")
    o.equal(sub.get_message(timeout=0.05), None)
    heard = []
    sub.subscribe(**{"handled": heard.append})
    thread = sub.run_in_thread(sleep_time=0.01)
    o.eventually(lambda: other.publish("handled", "x") and len(heard) > 0, True)
    thread.stop()
    thread.join()
    sub.close()
    o.eventually(lambda: other.publish("handled", "x"), 0)


def locks(o, r, other):
    lock = r.lock("lock", timeout=10)
    o.equal(lock.acquire(), True)
    o.equal(lock.owned(), True)
    o.equal(lock.locked(), True)
    rival = other.lock("lock", timeout=10, blocking_timeout=0.2, sleep=0.02)
    o.equal(rival.acquire(), False)
    o.equal(rival.acquire(blocking=False), False)
    o.equal(r.pttl("lock"), lambda ttl: 9_000 < ttl <= 10_000)
    o.equal(lock.extend(10), True)
    o.equal(r.pttl("lock"), lambda ttl: 19_000 < ttl <= 20_000)
    o.equal(lock.extend(5, replace_ttl=True), True)
    o.equal(r.pttl("lock"), lambda ttl: 4_000 < ttl <= 5_000)
    o.equal(lock.reacquire(), True)
    o.equal(r.pttl("lock"), lambda ttl: 9_000 < ttl <= 10_000)
    lock.release()
    o.equal(lock.locked(), False)
    o.raises(LockError, lock.release)
    o.equal(rival.acquire(), True)
    other.set("lock", "somebody else")
    o.raises(LockNotOwnedError, rival.release)
    o.equal(other.get("lock"), "somebody else")
    other.delete("lock")


def lock_tail(o, r, other):
    """A block whose lock ran out says so at its end, and leaves alone whoever has it by then."""
    def block():
        with r.lock("brief", timeout=0.05):
            time.sleep(0.1)
            o.equal(other.set("brief", "another's", nx=True), True)

    o.raises(LockError, block)
    o.equal(r.get("brief"), "another's")
    other.delete("brief")


def scripts(o, r):
    compare_and_delete = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"
    r.set("owned", "me")
    o.equal(r.eval(compare_and_delete, 1, "owned", "you"), 0)
    o.equal(r.get("owned"), "me")
    script = r.register_script(compare_and_delete)
    o.equal(script(keys=["owned"], args=["me"]), 1)
    o.equal(r.get("owned"), None)
    sha = r.script_load(compare_and_delete)
    o.equal(len(sha), 40)
    o.equal(r.script_exists(sha, "0" * 40), [True, False])
    r.set("owned", "me")
    o.equal(r.evalsha(sha, 1, "owned", "me"), 1)
    o.raises(NoScriptError, r.evalsha, "0" * 40, 0)


def client_cache(o):
    near = connect(3, cache_config=CacheConfig(max_size=100))
    writer = connect(3)
    writer.mset({"c1": "one", "c2": "two", "c3": "three"})
    cache = near.get_cache()
    o.equal(near.get("c1"), "one")
    o.equal(cache.size, 1)
    o.equal(near.get("c1"), "one")
    o.equal(near.mget("c2", "c3"), ["two", "three"])
    o.equal(near.mget("c2", "c3"), ["two", "three"])
    o.equal(cache.size, 2)
    writer.set("c1", "ONE")
    o.eventually(lambda: near.get("c1"), "ONE")
    writer.mset({"c2": "TWO", "c3": "THREE"})
    o.eventually(lambda: near.mget("c2", "c3"), ["TWO", "THREE"])
    writer.delete("c1")
    o.eventually(lambda: near.get("c1"), None)
    writer.set("c1", "1")
    o.eventually(lambda: near.get("c1"), "1")
    writer.incr("c1")
    o.eventually(lambda: near.get("c1"), "2")
    writer.set("c1", "brief", px=120)
    o.eventually(lambda: near.get("c1"), "brief")
    o.eventually(lambda: near.get("c1"), None)
    writer.set("c4", "x")
    o.equal(near.get("c4"), "x")
    writer.flushdb()
    o.eventually(lambda: near.get("c4"), None)
    near.set("c5", "mine")
    o.equal(near.get("c5"), "mine")
    near.set("c5", "mine too")
    o.eventually(lambda: near.get("c5"), "mine too")
    near.close()


def connections(o):
    pool = redis.BlockingConnectionPool(host=HOST, port=PORT, max_connections=4, timeout=5)
    from concurrent.futures import ThreadPoolExecutor

    def work(number):
        r = redis.Redis(connection_pool=pool)
        for _ in range(50):
            r.incr("together")
        return r.get(f"none{number}")

    redis.Redis(connection_pool=pool).delete("together")
    with ThreadPoolExecutor(16) as threads:
        o.equal(list(threads.map(work, range(16))), [None] * 16)
    o.equal(redis.Redis(connection_pool=pool).get("together"), b"800")
    o.equal(redis.from_url(f"redis://{HOST}:{PORT}/0").ping(), True)
    o.equal(redis.from_url(f"redis://{HOST}:{PORT}/0?protocol=3", client_name="named").client_getname(), b"named")
    single = redis.Redis(host=HOST, port=PORT, single_connection_client=True, health_check_interval=1)
    o.equal(single.ping(), True)
    single.connection.disconnect()
    o.equal(single.ping(), True)


def main():
    o = Operations()
    for protocol in (2, 3):
        r, other = connect(protocol), connect(protocol)
        raw = redis.Redis(host=HOST, port=PORT, protocol=protocol)
        r.flushall()
        name = f"RESP{protocol} "
        o.group(name + "strings", strings, r)
        o.group(name + "binary and large", binary, r, raw)
        o.group(name + "numbers", numbers, r)
        o.group(name + "many keys", many, r)
        o.group(name + "expiry", expiry, r)
        o.group(name + "keys", keys, r)
        o.group(name + "server", server, r)
        o.group(name + "pipelines", pipelines, r)
        o.group(name + "transactions", transactions, r, other)
        o.group(name + "publications", publications, r, other)
        o.group(name + "locks", locks, r, other)
        o.group(name + "locks that run out", lock_tail, r, other)
        o.group(name + "scripts", scripts, r)
    # redis-py offers it from the version on that its makers support; older ones of Redis could do it as well.
    version = tuple(map(int, connect(3).info("server")["redis_version"].split(".")[:2]))
    if version >= (7, 4):
        o.group("client-side cache", client_cache)
    else:
        print("client-side cache: not offered to a server before 7.4")
    o.group("connections", connections)
    connect(3).flushall()
    o.end()


main()
