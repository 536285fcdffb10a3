// ioredis: HOST PORT, in RESP2 and RESP3.

'use strict';
const Redis = require('ioredis');
const { Operations, sleep, between, place, COMPARE_AND_DELETE } = require('./operations.js');

const where = place();
let protocol = 2;
const connect = (options = {}) => new Redis({ ...where, protocol, ...options });

async function strings(o, r) {
  await o.equal(r.set('s', 'one'), 'OK');
  await o.equal(r.get('s'), 'one');
  await o.equal(r.get('none'), null);
  await o.equal(r.set('s', 'two', 'NX'), null);
  await o.equal(r.set('s', 'two', 'XX'), 'OK');
  await o.equal(r.set('s', 'three', 'GET'), 'two');
  await o.equal(r.set('s', 'four', 'EX', 100), 'OK');
  await o.equal(r.ttl('s'), between(98, 100));
  await o.equal(r.set('s', 'five', 'KEEPTTL'), 'OK');
  await o.equal(r.ttl('s'), between(98, 100));
  await o.equal(r.set('s', 'six', 'PX', 100000, 'XX'), 'OK');
  await o.equal(r.pttl('s'), between(98000, 100000));
  await o.equal(r.set('s', 'x', 'EXAT', Math.floor(Date.now() / 1000) + 50), 'OK');
  await o.equal(r.ttl('s'), between(48, 50));
  await o.equal(r.setnx('s', 'x'), 0);
  await o.equal(r.setnx('snx', 'x'), 1);
  await o.equal(r.setex('s', 60, 'y'), 'OK');
  await o.equal(r.psetex('s', 60000, 'z'), 'OK');
  await o.equal(r.getset('s', 'w'), 'z');
  await o.equal(r.getdel('s'), 'w');
  await o.equal(r.set('s', 'hello'), 'OK');
  await o.equal(r.getex('s', 'EX', 70), 'hello');
  await o.equal(r.ttl('s'), between(68, 70));
  await o.equal(r.append('s', ' world'), 11);
  await o.equal(r.strlen('s'), 11);
  await o.equal(r.getrange('s', 6, -1), 'world');
  await o.equal(r.setrange('s', 6, 'there'), 11);
  await o.equal(r.get('s'), 'hello there');
  const every = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  await o.equal(r.set(every, every), 'OK');
  await o.equal(r.getBuffer(every), every);
  await o.equal(r.set('ключ', 'значение'), 'OK');
  await o.equal(r.get('ключ'), 'значение');
  await o.equal(r.set('large', 'v'.repeat(1000000)), 'OK');
  await o.equal(r.get('large').then((value) => value.length), 1000000);
  await o.refused(r.call('SET', 's'), /^ERR /);
  await o.refused(r.call('NO-SUCH-COMMAND'), /^ERR unknown command/);
}

async function numbers(o, r) {
  await o.equal(r.incr('n'), 1);
  await o.equal(r.incrby('n', 41), 42);
  await o.equal(r.decr('n'), 41);
  await o.equal(r.decrby('n', 11), 30);
  await o.equal(r.incrbyfloat('n', 0.5), '30.5');
  await o.refused(r.incr('n'), /not an integer/);
}

async function many(o, r) {
  await o.equal(r.mset('m1', '1', 'm2', '2'), 'OK');
  await o.equal(r.mset({ m3: '3', m4: '4' }), 'OK');
  await o.equal(r.mset(new Map([['m5', '5']])), 'OK');
  await o.equal(r.mget('m1', 'm2', 'm3', 'm4', 'm5', 'none'), ['1', '2', '3', '4', '5', null]);
  await o.equal(r.msetnx('m1', 'x', 'new', 'x'), 0);
  await o.equal(r.msetnx('new1', 'x', 'new2', 'x'), 1);
  await o.equal(r.exists('m1', 'm1', 'none'), 2);
  await o.equal(r.touch('m1', 'none'), 1);
  await o.equal(r.del('m1', 'm2', 'none'), 2);
  await o.equal(r.unlink(['m3', 'm4']), 2);
}

async function expiry(o, r) {
  await o.equal(r.ttl('none'), -2);
  await o.equal(r.set('e', 'x'), 'OK');
  await o.equal(r.ttl('e'), -1);
  await o.equal(r.expire('e', 100), 1);
  await o.equal(r.expire('e', 50, 'GT'), 0);
  await o.equal(r.pexpire('e', 90000), 1);
  await o.equal(r.pttl('e'), between(88000, 90000));
  const then = Math.floor(Date.now() / 1000) + 1000;
  await o.equal(r.expireat('e', then), 1);
  await o.equal(r.expiretime('e'), then);
  await o.equal(r.pexpireat('e', then * 1000 + 1), 1);
  await o.equal(r.pexpiretime('e'), then * 1000 + 1);
  await o.equal(r.persist('e'), 1);
  await o.equal(r.persist('e'), 0);
  await o.equal(r.set('e', 'x', 'PX', 60), 'OK');
  await sleep(90);
  await o.equal(r.get('e'), null);
}

async function keys(o, r) {
  await r.flushdb();
  await r.mset(Object.fromEntries(Array.from({ length: 300 }, (_, number) => [`user:${number}`, number])));
  await o.equal(r.dbsize(), 300);
  const read = async (options) => {
    const found = new Set();
    for await (const part of r.scanStream(options)) part.forEach((key) => found.add(key));
    return found.size;
  };
  await o.equal(read({ match: 'user:*', count: 20 }), 300);
  await o.equal(read({ match: 'user:1?' }), 10);
  await o.equal(read({ match: 'nobody*' }), 0);
  await o.equal(read({ type: 'string' }), 300);
  await o.equal(r.keys('user:[12]').then((found) => found.sort()), ['user:1', 'user:2']);
  await o.equal(r.randomkey(), (key) => key.startsWith('user:'));
  await o.equal(r.type('user:1'), 'string');
  await o.equal(r.rename('user:1', 'renamed'), 'OK');
  await o.equal(r.renamenx('renamed', 'user:2'), 0);
  await o.equal(r.copy('renamed', 'copy'), 1);
  await o.equal(r.copy('user:2', 'copy', 'REPLACE'), 1);
  await o.equal(r.get('copy'), '2');
  await o.equal(r.object('ENCODING', 'copy'), (name) => ['int', 'embstr', 'raw'].includes(name));
  await o.equal(r.flushall(), 'OK');
  await o.equal(r.dbsize(), 0);
}

async function server(o, r) {
  await o.equal(r.ping(), 'PONG');
  await o.equal(r.ping('hear'), 'hear');
  await o.equal(r.echo('hear'), 'hear');
  await o.equal(r.info(), (text) => /redis_version:\d/.test(text));
  await o.equal(r.time().then(([seconds]) => Math.abs(seconds - Date.now() / 1000) < 3), true);
  await o.equal(r.config('GET', 'maxmemory'), (found) => found.length === 2 && found[0] === 'maxmemory');
  await o.equal(r.client('SETNAME', 'tester'), 'OK');
  await o.equal(r.client('GETNAME'), 'tester');
  await o.equal(r.client('ID'), (id) => id > 0);
  await o.equal(r.select(0), 'OK');
}

async function pipelines(o, r) {
  const pipeline = r.pipeline();
  for (let number = 0; number < 500; number += 1) pipeline.set(`p${number}`, number);
  for (let number = 0; number < 500; number += 1) pipeline.get(`p${number}`);
  const answers = await pipeline.exec();
  await o.equal(answers.length, 1000);
  await o.equal(answers.slice(0, 500).every(([error, answer]) => error === null && answer === 'OK'), true);
  await o.equal(answers.slice(500).every(([error, answer], number) => error === null && answer === String(number)), true);
  const mixed = await r.pipeline([['set', 'word', 'x'], ['incr', 'word'], ['get', 'word']]).exec();
  await o.equal(mixed[1][0] instanceof Error, true);
  await o.equal(mixed[2], [null, 'x']);
  const auto = connect({ enableAutoPipelining: true });
  await o.equal(Promise.all(Array.from({ length: 200 }, (_, number) => auto.get(`p${number}`))), Array.from({ length: 200 }, (_, number) => String(number)));
  auto.disconnect();
}

async function transactions(o, r, other) {
  await o.equal(r.multi().set('t', 1).incr('t').get('t').exec(), [[null, 'OK'], [null, 2], [null, '2']]);
  await r.watch('t');
  await other.set('t', 10);
  await o.equal(r.multi().incr('t').exec(), null);
  await o.equal(r.get('t'), '10');
  await r.watch('t');
  await o.equal(r.multi().incr('t').exec(), [[null, 11]]);
  await r.watch('t');
  await r.unwatch();
  await other.incr('t');
  await o.equal(r.multi().incr('t').exec(), [[null, 13]]);
  await r.multi({ pipeline: false });
  await o.equal(r.set('t', 'x'), 'QUEUED');
  await o.equal(r.discard(), 'OK');
  await o.equal(r.get('t'), '13');
  await o.equal(r.multi().set('w', 'x').incr('w').set('after', 'y').exec().then((answers) => answers[1][0] instanceof Error), true);
  await o.equal(r.get('after'), 'y');
  await o.refused(r.multi().set('w').exec(), /EXECABORT/);
}

async function publications(o, r) {
  const sub = connect();
  const heard = [];
  sub.on('message', (channel, message) => heard.push([channel, message]));
  sub.on('pmessage', (pattern, channel, message) => heard.push([pattern, channel, message]));
  await o.equal(sub.subscribe('news', 'weather'), 2);
  await o.equal(sub.psubscribe('ne*'), 3);
  await o.equal(r.publish('news', 'hello'), 2);
  await o.equal(r.publish('weather', 'rain'), 1);
  await o.eventually(() => heard, [['news', 'hello'], ['ne*', 'news', 'hello'], ['weather', 'rain']]);
  await o.equal(r.pubsub('CHANNELS').then((found) => found.sort()), ['news', 'weather']);
  await o.equal(r.pubsub('NUMSUB', 'news', 'nobody'), ['news', 1, 'nobody', 0]);
  await o.equal(r.pubsub('NUMPAT'), 1);
  await o.equal(sub.unsubscribe('news'), 2);
  await o.equal(sub.punsubscribe('ne*'), 1);
  await o.equal(r.publish('news', 'again'), 0);
  await o.equal(sub.unsubscribe(), 0);
  await o.equal(sub.get('none'), null);
  sub.disconnect();
}

async function scripts(o, r) {
  r.defineCommand('compareAndDelete', { numberOfKeys: 1, lua: COMPARE_AND_DELETE });
  await o.equal(r.set('lock', 'me', 'PX', 10000, 'NX'), 'OK');
  await o.equal(r.set('lock', 'you', 'PX', 10000, 'NX'), null);
  await o.equal(r.compareAndDelete('lock', 'you'), 0);
  await o.equal(r.compareAndDelete('lock', 'me'), 1);
  await o.equal(r.compareAndDelete('lock', 'me'), 0);
  await o.equal(r.set('lock', 'you', 'PX', 10000, 'NX'), 'OK');
  await o.equal(r.pipeline().compareAndDelete('lock', 'me').compareAndDelete('lock', 'you').exec(), [[null, 0], [null, 1]]);
  // After SCRIPT FLUSH the client sends the text again, by itself.
  await o.equal(r.script('FLUSH'), 'OK');
  await o.equal(r.compareAndDelete('lock', 'me'), 0);
  await o.equal(r.eval(COMPARE_AND_DELETE, 1, 'lock', 'me'), 0);
  await o.refused(r.evalsha('0'.repeat(40), 0), /NOSCRIPT/);
}

async function connections(o) {
  const named = connect({ connectionName: 'named', keyPrefix: 'app:' });
  await o.equal(named.client('GETNAME'), 'named');
  await o.equal(named.set('x', '1'), 'OK');
  await o.equal(named.mget('x', 'y'), ['1', null]);
  const plain = connect();
  await o.equal(plain.get('app:x'), '1');
  const id = await named.client('ID');
  await o.equal(plain.client('KILL', 'ID', id), 1);
  // It connects again and goes on.
  await o.equal(named.get('x'), '1');
  await o.equal(named.quit(), 'OK');
  plain.disconnect();
}

async function main() {
  const o = new Operations();
  for (protocol of [2, 3]) {
    const r = connect();
    const other = connect();
    const name = `RESP${protocol} `;
    await r.flushall();
    await o.group(name + 'strings', () => strings(o, r));
    await o.group(name + 'numbers', () => numbers(o, r));
    await o.group(name + 'many keys', () => many(o, r));
    await o.group(name + 'expiry', () => expiry(o, r));
    await o.group(name + 'keys', () => keys(o, r));
    await o.group(name + 'server', () => server(o, r));
    await o.group(name + 'pipelines', () => pipelines(o, r));
    await o.group(name + 'transactions', () => transactions(o, r, other));
    await o.group(name + 'publications', () => publications(o, r));
    await o.group(name + 'scripts', () => scripts(o, r));
    await o.group(name + 'connections', () => connections(o));
    await r.flushall();
    r.disconnect();
    other.disconnect();
  }
  o.end();
}

main();
