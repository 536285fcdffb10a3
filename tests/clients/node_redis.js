// node-redis: HOST PORT, in RESP2 and RESP3, and its client-side cache.

'use strict';
const redis = require('redis');
const { Operations, sleep, between, place, COMPARE_AND_DELETE } = require('./operations.js');

const where = place();

async function connect(options = {}) {
  const client = redis.createClient({ socket: where, ...options });
  client.on('error', () => {});
  await client.connect();
  return client;
}

async function strings(o, r) {
  await o.equal(r.set('s', 'one'), 'OK');
  await o.equal(r.get('s'), 'one');
  await o.equal(r.get('none'), null);
  await o.equal(r.set('s', 'two', { condition: 'NX' }), null);
  await o.equal(r.set('s', 'two', { condition: 'XX' }), 'OK');
  await o.equal(r.set('s', 'three', { GET: true }), 'two');
  await o.equal(r.set('s', 'four', { expiration: { type: 'EX', value: 100 } }), 'OK');
  await o.equal(r.ttl('s'), between(98, 100));
  await o.equal(r.set('s', 'five', { expiration: 'KEEPTTL' }), 'OK');
  await o.equal(r.ttl('s'), between(98, 100));
  await o.equal(r.set('s', 'six', { expiration: { type: 'PX', value: 90000 } }), 'OK');
  await o.equal(r.pTTL('s'), between(88000, 90000));
  await o.equal(r.set('s', 'x', { expiration: { type: 'EXAT', value: Math.floor(Date.now() / 1000) + 50 } }), 'OK');
  await o.equal(r.ttl('s'), between(48, 50));
  await o.equal(r.setNX('s', 'x'), 0);
  await o.equal(r.setNX('snx', 'x'), 1);
  await o.equal(r.setEx('s', 60, 'y'), 'OK');
  await o.equal(r.pSetEx('s', 60000, 'z'), 'OK');
  await o.equal(r.getSet('s', 'w'), 'z');
  await o.equal(r.getDel('s'), 'w');
  await o.equal(r.set('s', 'hello'), 'OK');
  await o.equal(r.getEx('s', { type: 'EX', value: 70 }), 'hello');
  await o.equal(r.ttl('s'), between(68, 70));
  await o.equal(r.getEx('s', { type: 'PERSIST' }), 'hello');
  await o.equal(r.ttl('s'), -1);
  await o.equal(r.append('s', ' world'), 11);
  await o.equal(r.strLen('s'), 11);
  await o.equal(r.getRange('s', 6, -1), 'world');
  await o.equal(r.setRange('s', 6, 'there'), 11);
  await o.equal(r.get('s'), 'hello there');
  const every = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  const buffers = r.withTypeMapping({ [redis.RESP_TYPES.BLOB_STRING]: Buffer });
  await o.equal(r.set(every, every), 'OK');
  await o.equal(buffers.get(every), every);
  await o.equal(r.set('ключ', 'значение'), 'OK');
  await o.equal(r.get('ключ'), 'значение');
  await o.equal(r.set('large', 'v'.repeat(1000000)), 'OK');
  await o.equal(r.get('large').then((value) => value.length), 1000000);
  await o.refused(r.sendCommand(['SET', 's']), /^ERR /);
  await o.refused(r.sendCommand(['NO-SUCH-COMMAND']), /^ERR unknown command/);
}

async function numbers(o, r) {
  await o.equal(r.incr('n'), 1);
  await o.equal(r.incrBy('n', 41), 42);
  await o.equal(r.decr('n'), 41);
  await o.equal(r.decrBy('n', 11), 30);
  await o.equal(r.incrByFloat('n', 0.5), '30.5');
  await o.refused(r.incr('n'), /not an integer/);
}

async function many(o, r) {
  await o.equal(r.mSet({ m1: '1', m2: '2', m3: '3' }), 'OK');
  await o.equal(r.mSet([['m4', '4'], ['m5', '5']]), 'OK');
  await o.equal(r.mGet(['m1', 'm2', 'm5', 'none']), ['1', '2', '5', null]);
  await o.equal(r.mSetNX({ m1: 'x', new: 'x' }), 0);
  await o.equal(r.mSetNX({ new1: 'x', new2: 'x' }), 1);
  await o.equal(r.exists(['m1', 'm1', 'none']), 2);
  await o.equal(r.touch(['m1', 'none']), 1);
  await o.equal(r.del(['m1', 'm2', 'none']), 2);
  await o.equal(r.unlink('m3'), 1);
}

async function expiry(o, r) {
  await o.equal(r.ttl('none'), -2);
  await o.equal(r.set('e', 'x'), 'OK');
  await o.equal(r.ttl('e'), -1);
  await o.equal(r.expire('e', 100), 1);
  await o.equal(r.expire('e', 50, 'NX'), 0);
  await o.equal(r.pExpire('e', 90000), 1);
  await o.equal(r.pTTL('e'), between(88000, 90000));
  const then = Math.floor(Date.now() / 1000) + 1000;
  await o.equal(r.expireAt('e', then), 1);
  await o.equal(r.expireTime('e'), then);
  await o.equal(r.pExpireAt('e', then * 1000 + 1), 1);
  await o.equal(r.pExpireTime('e'), then * 1000 + 1);
  await o.equal(r.persist('e'), 1);
  await o.equal(r.persist('e'), 0);
  await o.equal(r.pSetEx('e', 60, 'x'), 'OK');
  await sleep(90);
  await o.equal(r.get('e'), null);
}

async function keys(o, r) {
  await r.flushDb();
  await r.mSet(Object.fromEntries(Array.from({ length: 300 }, (_, number) => [`user:${number}`, String(number)])));
  await o.equal(r.dbSize(), 300);
  const read = async (options) => {
    const found = new Set();
    for await (const part of r.scanIterator(options)) part.forEach((key) => found.add(key));
    return found.size;
  };
  await o.equal(read({ MATCH: 'user:*', COUNT: 20 }), 300);
  await o.equal(read({ MATCH: 'user:1?' }), 10);
  await o.equal(read({ TYPE: 'string' }), 300);
  await o.equal(r.keys('user:[12]').then((found) => found.sort()), ['user:1', 'user:2']);
  await o.equal(r.randomKey(), (key) => key.startsWith('user:'));
  await o.equal(r.type('user:1'), 'string');
  await o.equal(r.rename('user:1', 'renamed'), 'OK');
  await o.equal(r.renameNX('renamed', 'user:2'), 0);
  await o.equal(r.copy('renamed', 'copy'), 1);
  await o.equal(r.copy('user:2', 'copy', { REPLACE: true }), 1);
  await o.equal(r.get('copy'), '2');
  await o.equal(r.objectEncoding('copy'), (name) => ['int', 'embstr', 'raw'].includes(name));
  await o.equal(r.memoryUsage('copy'), (bytes) => bytes > 0);
  await o.equal(r.flushAll(), 'OK');
  await o.equal(r.dbSize(), 0);
}

async function server(o, r) {
  await o.equal(r.ping(), 'PONG');
  await o.equal(r.ping('hear'), 'hear');
  await o.equal(r.echo('hear'), 'hear');
  await o.equal(r.info(), (text) => /redis_version:\d/.test(text));
  await o.equal(r.time().then(([seconds]) => Math.abs(seconds - Date.now() / 1000) < 3), true);
  await o.equal(r.configGet('maxmemory').then(({ maxmemory }) => typeof maxmemory), 'string');
  await o.equal(r.clientSetName('tester'), 'OK');
  await o.equal(r.clientGetName(), 'tester');
  await o.equal(r.clientId(), (id) => id > 0);
  await o.equal(r.clientInfo().then(({ name }) => name), 'tester');
  await o.equal(r.clientList().then((list) => list.some(({ name }) => name === 'tester')), true);
  await o.equal(r.commandCount(), (count) => count > 50);
  await o.equal(r.commandInfo(['GET']).then(([get]) => get.arity), 2);
}

async function pipelines(o, r) {
  const names = Array.from({ length: 500 }, (_, number) => `p${number}`);
  await o.equal(Promise.all(names.map((name) => r.set(name, name))), names.map(() => 'OK'));
  await o.equal(Promise.all(names.map((name) => r.get(name))), names);
  await o.equal(r.multi().set('p', 'x').get('p').execAsPipeline(), ['OK', 'x']);
}

async function transactions(o, r, other) {
  await o.equal(r.multi().set('t', '1').incr('t').get('t').exec(), ['OK', 2, '2']);
  await r.watch('t');
  await other.set('t', '10');
  await o.equal(r.multi().incr('t').exec(), (error) => error instanceof redis.WatchError);
  await o.equal(r.get('t'), '10');
  await r.watch(['t', 'none']);
  await o.equal(r.multi().incr('t').exec(), [11]);
  await r.watch('t');
  await r.unwatch();
  await other.incr('t');
  await o.equal(r.multi().incr('t').exec(), [13]);
  await o.equal(r.multi().set('w', 'x').incr('w').set('after', 'y').exec(), (error) => error instanceof redis.MultiErrorReply);
  await o.equal(r.get('after'), 'y');
  await o.equal(r.multi().addCommand(['SET', 'w']).exec(), (error) => error instanceof Error);
}

async function publications(o, r, RESP) {
  const sub = await connect({ RESP });
  const heard = [];
  await sub.subscribe('news', (message, channel) => heard.push([channel, message]));
  await sub.pSubscribe('ne*', (message, channel) => heard.push(['ne*', channel, message]));
  await o.equal(r.publish('news', 'hello'), 2);
  await o.eventually(() => heard, [['news', 'hello'], ['ne*', 'news', 'hello']]);
  await o.equal(r.pubSubChannels(), ['news']);
  await o.equal(r.pubSubNumSub(['news', 'nobody']).then((found) => ({ ...found })), { news: 1, nobody: 0 });
  await o.equal(r.pubSubNumPat(), 1);
  await sub.unsubscribe('news');
  await o.equal(r.publish('news', 'again'), 1);
  await sub.pUnsubscribe();
  await o.equal(r.publish('news', 'again'), 0);
  await o.equal(sub.get('none'), null);
  sub.destroy();
}

async function scripts(o, RESP) {
  const r = await connect({
    RESP,
    scripts: {
      compareAndDelete: redis.defineScript({
        SCRIPT: COMPARE_AND_DELETE,
        NUMBER_OF_KEYS: 1,
        parseCommand: (parser, key, owner) => {
          parser.pushKey(key);
          parser.push(owner);
        },
        transformReply: (reply) => reply,
      }),
    },
  });
  await o.equal(r.set('lock', 'me', { condition: 'NX', expiration: { type: 'PX', value: 10000 } }), 'OK');
  await o.equal(r.set('lock', 'you', { condition: 'NX', expiration: { type: 'PX', value: 10000 } }), null);
  await o.equal(r.compareAndDelete('lock', 'you'), 0);
  await o.equal(r.compareAndDelete('lock', 'me'), 1);
  await o.equal(r.compareAndDelete('lock', 'me'), 0);
  await o.equal(r.eval(COMPARE_AND_DELETE, { keys: ['lock'], arguments: ['me'] }), 0);
  const sha = await r.scriptLoad(COMPARE_AND_DELETE);
  await o.equal(r.evalSha(sha, { keys: ['lock'], arguments: ['me'] }), 0);
  await o.equal(r.scriptExists([sha, '0'.repeat(40)]), (found) => found.map(Number).join() === '1,0');
  await o.equal(r.scriptFlush(), 'OK');
  await o.equal(r.compareAndDelete('lock', 'me'), 0);
  await o.refused(r.evalSha('0'.repeat(40)), /NOSCRIPT/);
  r.destroy();
}

async function clientCache(o) {
  const cache = new redis.BasicClientSideCache({ ttl: 0, maxEntries: 100, evictPolicy: 'LRU' });
  const near = await connect({ RESP: 3, clientSideCache: cache });
  const writer = await connect({ RESP: 3 });
  await writer.mSet({ c1: 'one', c2: 'two' });
  await o.equal(near.get('c1'), 'one');
  await o.equal(near.get('c1'), 'one');
  await o.equal(cache.stats().hitCount, 1);
  await o.equal(cache.stats().missCount, 1);
  await o.equal(near.mGet(['c1', 'c2']), ['one', 'two']);
  await writer.set('c1', 'ONE');
  await o.eventually(() => near.get('c1'), 'ONE');
  await o.eventually(() => near.mGet(['c1', 'c2']), ['ONE', 'two']);
  await writer.del('c1');
  await o.eventually(() => near.get('c1'), null);
  await writer.set('c1', '1');
  await o.eventually(() => near.get('c1'), '1');
  await writer.incr('c1');
  await o.eventually(() => near.get('c1'), '2');
  await writer.set('c1', 'brief', { expiration: { type: 'PX', value: 120 } });
  await o.eventually(() => near.get('c1'), 'brief');
  await o.eventually(() => near.get('c1'), null);
  await writer.set('c3', 'x');
  await o.equal(near.get('c3'), 'x');
  await writer.flushDb();
  await o.eventually(() => near.get('c3'), null);
  await near.set('c4', 'mine');
  await o.equal(near.get('c4'), 'mine');
  await near.set('c4', 'mine too');
  await o.eventually(() => near.get('c4'), 'mine too');
  near.destroy();
  writer.destroy();
}

async function connections(o) {
  const pool = redis.createClientPool({ socket: where }, { minimum: 2, maximum: 4 });
  pool.on('error', () => {});
  await pool.connect();
  await pool.del('together');
  await Promise.all(Array.from({ length: 400 }, () => pool.incr('together')));
  await o.equal(pool.get('together'), '400');
  pool.destroy();
  const named = await redis.createClient({ url: `redis://${where.host}:${where.port}/0`, name: 'named' }).on('error', () => {}).connect();
  await o.equal(named.clientGetName(), 'named');
  const plain = await connect();
  const id = await named.clientId();
  await o.equal(plain.clientKill({ filter: 'ID', id }), 1);
  // It connects again and goes on.
  await o.eventually(() => named.clientGetName().catch(() => 'not yet'), 'named');
  await named.close();
  plain.destroy();
}

async function main() {
  const o = new Operations();
  for (const RESP of [2, 3]) {
    const r = await connect({ RESP });
    const other = await connect({ RESP });
    const name = `RESP${RESP} `;
    await r.flushAll();
    await o.group(name + 'strings', () => strings(o, r));
    await o.group(name + 'numbers', () => numbers(o, r));
    await o.group(name + 'many keys', () => many(o, r));
    await o.group(name + 'expiry', () => expiry(o, r));
    await o.group(name + 'keys', () => keys(o, r));
    await o.group(name + 'server', () => server(o, r));
    await o.group(name + 'pipelines', () => pipelines(o, r));
    await o.group(name + 'transactions', () => transactions(o, r, other));
    await o.group(name + 'publications', () => publications(o, r, RESP));
    await o.group(name + 'scripts', () => scripts(o, RESP));
    await r.flushAll();
    r.destroy();
    other.destroy();
  }
  await o.group('client-side cache', () => clientCache(o));
  await o.group('connections', () => connections(o));
  o.end();
}

main();
