// The same as operations.py, for the clients of Node.

'use strict';
const { isDeepStrictEqual, inspect } = require('node:util');

class Operations {
  count = 0;
  failures = 0;

  async group(name, work) {
    const [count, failures] = [this.count, this.failures];
    this.name = name;
    try {
      await work(this);
    } catch (error) {
      this.count += 1;
      this.fail(`${error && error.stack || error}`.split('\n').slice(0, 2).join(' '));
    }
    const failed = this.failures - failures;
    console.log(`${name}: ${this.count - count} operations${failed ? `, ${failed} failed` : ''}`);
  }

  // `got` may be a promise; `wanted` is a value, or a function that says whether `got` will do.
  async equal(got, wanted) {
    const where = new Error();
    this.count += 1;
    try {
      got = await got;
    } catch (error) {
      got = error;
    }
    const fine = typeof wanted === 'function' ? wanted(got) : isDeepStrictEqual(got, wanted);
    if (!fine) this.fail(`${inspect(got)}, not ${typeof wanted === 'function' ? wanted : inspect(wanted)} ${line(where)}`);
  }

  async refused(promise, pattern = /./) {
    await this.equal(promise, (error) => error instanceof Error && pattern.test(error.message));
  }

  // What another connection brings about may take a moment.
  async eventually(ask, wanted, milliseconds = 3000) {
    const until = Date.now() + milliseconds;
    let got = await ask();
    while (!isDeepStrictEqual(got, wanted) && Date.now() < until) {
      await sleep(10);
      got = await ask();
    }
    await this.equal(got, wanted);
  }

  fail(text) {
    this.failures += 1;
    console.log(`FAILED ${this.name}: ${text}`);
  }

  end() {
    console.log(`${this.count} operations, ${this.failures} failed`);
    process.exit(this.failures ? 1 : 0);
  }
}

const line = (error) => '(line ' + (/:(\d+):\d+\)?$/m.exec(error.stack.split('\n').filter((at) => at.includes(process.argv[1])).join('\n')) || [])[1] + ')';
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const between = (low, high) => (got) => got >= low && got <= high;

// What the scripts of every client do with a lock.
const COMPARE_AND_DELETE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";

function place() {
  if (process.argv.length !== 4) {
    console.error(`usage: ${process.argv[1]} HOST PORT`);
    process.exit(2);
  }
  return { host: process.argv[2], port: Number(process.argv[3]) };
}

module.exports = { Operations, sleep, between, place, COMPARE_AND_DELETE };
