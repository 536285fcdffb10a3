// Looks at the dashboard as a person would: opens it, puts a load on the server, reads figures and totals, pauses,
// turns to phone and light, and at last takes the server away. Fails with what was expected and what was seen.
// tests/browser.rs starts it and says in the environment where everything is.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import net from "node:net";
import path from "node:path";

const { SPINETAIL, SPINETAIL_TARGET, SPINETAIL_ADMIN, SPINETAIL_PID, SPINETAIL_BROWSER, SPINETAIL_CHROMIUM } = process.env;
const { chromium } = createRequire(path.join(SPINETAIL_BROWSER, "here.js"))("playwright-core");
const PICTURE = process.env.SPINETAIL_UPDATE_SCREENSHOT === "1";
const PATIENCE_MS = 30000;
const HOSTILE = '<img src="x" onerror="document.title=1">&lt;b&gt;'; // short enough to be shown whole

const complaints = []; // whatever the browser did not like, and whatever it asked another host for
let expectTrouble = false;
async function open(options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const complain = (what) => expectTrouble || complaints.push(what);
  page.on("console", (message) => message.type() === "error" && complain(`console: ${message.text()}`));
  page.on("pageerror", (error) => complain(`error: ${error.stack}`));
  page.on("response", (response) => response.status() >= 400 && complain(`${response.status()} ${response.url()}`));
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "data:" && url.origin !== new URL(SPINETAIL_ADMIN).origin) complaints.push(`asked ${url}`);
  });
  await page.goto(SPINETAIL_ADMIN);
  await page.waitForSelector('#state[data-state="live"]');
  return page;
}
const figure = (page, name) => page.locator(`[data-figure="${name}"]`).getAttribute("data-value").then((value) => (value ? Number(value) : null));
const total = (page, name) => page.locator(`[data-total="${name}"]`).getAttribute("data-value").then(Number);
async function eventually(what, holds) {
  const until = Date.now() + PATIENCE_MS;
  let seen;
  while (Date.now() < until) {
    seen = await holds();
    if (seen === true) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail(`${what}: ${JSON.stringify(seen)}`);
}

// What Prometheus would be told, summed over shards.
async function metrics() {
  const text = await (await fetch(new URL("metrics", SPINETAIL_ADMIN))).text();
  const sum = (start) => {
    const lines = text.split("\n").filter((line) => line.startsWith(start.name) && (start.label === undefined || line.includes(start.label)));
    assert.ok(lines.length > 0, `${start.name} ${start.label ?? ""} is missing in /metrics`);
    return lines.reduce((all, line) => all + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
  };
  const operation = (name) => sum({ name: "spinetail_requests_total{", label: `operation="${name}"` });
  const told = Object.fromEntries(["get", "set", "delete", "increment", "touch", "other"].map((name) => [name, operation(name)]));
  told.hits_l0 = sum({ name: "spinetail_hits_total{", label: 'tier="l0"' });
  told.hits_l1 = sum({ name: "spinetail_hits_total{", label: 'tier="l1"' });
  told.misses = sum({ name: "spinetail_misses_total{" });
  told.requests = sum({ name: "spinetail_requests_total{" });
  return told;
}

// Reads a key forty times, more than a millisecond apart: a shard looks at one read a millisecond. The command line
// would not do: its greeting comes in the same millisecond as its request.
async function readOften(key) {
  const { hostname, port } = new URL(SPINETAIL_TARGET.replace("native:", "http:"));
  const socket = net.connect(Number(port), hostname);
  await new Promise((resolve, reject) => socket.on("connect", resolve).on("error", reject));
  socket.resume();
  const header = Buffer.alloc(24); // src/wire/native.md: magic, version, GET; length of the key at 4
  header.set([0x5b, 1, 0x10]);
  header.writeUInt16LE(Buffer.byteLength(key), 4);
  for (let i = 0; i < 40; i += 1) {
    socket.write(Buffer.concat([header, Buffer.from(key)]));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  socket.end();
}

// The server is told to send markup as text: the page must not take it for anything else.
async function hostileTextStaysText(page) {
  await readOften(HOSTILE);
  const keys = page.locator(".keys td.key span");
  await eventually("the key is shown as it is", async () => (await keys.allTextContents()).includes(HOSTILE) || (await keys.allTextContents()));
  assert.equal(await page.locator("img").count(), 0);
  assert.match(await page.title(), /· Spinetail$/);
}

async function movesUnderLoad(page) {
  // The picture for the documentation shows a minute of a cache that is full; a test need not wait for that.
  const shape = PICTURE ? ["--rate", "40000", "--duration", "80s", "--keys", "1000000", "--value-bytes", "400"] : ["--rate", "10000", "--duration", "8s", "--keys", "20000"];
  const arguments_ = ["load", "--target", SPINETAIL_TARGET, "--connections", "8", "--on-miss", "set", ...shape];
  const load = spawn(SPINETAIL, arguments_, { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  load.stdout.on("data", (data) => (said += data));
  load.stderr.on("data", (data) => (said += data));
  const ended = new Promise((resolve) => load.on("close", resolve));
  await eventually("requests a second rise", async () => (await figure(page, "requests")) > 500 || (await figure(page, "requests")));
  const before = await total(page, "get");
  await page.waitForTimeout(PICTURE ? 72000 : 4000);
  const after = await total(page, "get");
  assert.ok(after > before + 1000, `gets went from ${before} to ${after}`);
  // Together, so that all are of one tick.
  const names = ["get_p50", "get_p99", "get_p999"];
  const percentiles = await page.evaluate((names) => names.map((name) => Number(document.querySelector(`[data-figure="${name}"]`).dataset.value)), names);
  assert.ok(percentiles[0] > 0 && percentiles[0] <= percentiles[1] && percentiles[1] <= percentiles[2], `percentiles ${percentiles}`);
  const hits = await figure(page, "hit_rate");
  assert.ok(hits > 0 && hits <= 1, `hit rate ${hits}`);
  assert.ok((await figure(page, "memory")) > 0 && (await figure(page, "connections")) >= 8);
  for (const id of ["throughput", "latency", "hits", "percentiles", "memory", "evictions"]) {
    const colours = await page.locator(`#${id} .plot canvas`).first().evaluate((canvas) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return new Set(new Uint32Array(data.buffer)).size;
    });
    assert.ok(colours > 5, `the chart of ${id} is blank: ${colours} colours`);
    assert.doesNotMatch(await page.locator(`#${id} .legend li`).first().innerText(), /–/);
  }
  await page.screenshot({ path: path.join(SPINETAIL_BROWSER, "dashboard.png"), fullPage: true });
  assert.equal(await ended, 0, said);
}

async function totalsAreThoseOfMetrics(page) {
  let told;
  await eventually("totals equal /metrics", async () => {
    told = await metrics();
    const shown = Object.fromEntries(await Promise.all(Object.keys(told).map(async (name) => [name, await total(page, name)])));
    return JSON.stringify(shown) === JSON.stringify(told) || { shown, told };
  });
  assert.ok(told.get > 2000 && told.set > 200 && told.misses > 0 && told.hits_l1 > 0, JSON.stringify(told));
  await eventually("the figure falls to nothing", async () => (await figure(page, "requests")) === 0 || (await figure(page, "requests")));
}

async function controlsWork(page) {
  await page.click("#pause");
  await page.waitForSelector('#state[data-state="paused"]');
  await page.keyboard.press("Escape");
  await page.click("#pause");
  await page.waitForSelector('#state[data-state="live"]');
  await page.click('[data-option="10m"]');
  await eventually("the address remembers the window", async () => page.url().includes("window=10m"));
  await page.locator("#latency select").selectOption("set");
  assert.equal(await page.locator("#percentiles select").inputValue(), "set");
  const help = page.locator("#hits .help");
  await help.focus();
  await page.keyboard.press("Enter");
  assert.ok(await page.locator("#hits-help").isVisible());
  await page.keyboard.press("Escape");
  assert.ok(await page.locator("#hits-help").isHidden());
  await page.locator(".cell").first().focus();
  assert.match(await page.locator(".detail").innerText(), /shard 0[^]*busy/);
}

// Redness and so on of the page's ground, 0 to 255.
const ground = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number));

async function fits(page, what) {
  const { wide, room } = await page.evaluate(() => ({ wide: document.documentElement.scrollWidth, room: innerWidth }));
  assert.ok(wide <= room, `${what} scrolls sideways: ${wide} in ${room}`);
}

const browser = await chromium.launch({ executablePath: SPINETAIL_CHROMIUM, headless: true, args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });
try {
  const page = await open({ viewport: { width: 1440, height: 900 }, colorScheme: "dark" });
  await fits(page, "the page");
  assert.ok((await ground(page)).every((channel) => channel < 40), `dark is ${await ground(page)}`);
  await hostileTextStaysText(page);
  await movesUnderLoad(page);
  await totalsAreThoseOfMetrics(page);
  await controlsWork(page);
  await page.emulateMedia({ colorScheme: "light" });
  await eventually("light is light", async () => (await ground(page)).every((channel) => channel > 200) || (await ground(page)));

  const phone = await open({ viewport: { width: 390, height: 844 }, colorScheme: "dark", isMobile: true, hasTouch: true, deviceScaleFactor: 2 });
  await fits(phone, "the phone's page");
  for (const id of ["throughput", "shards", "tenants", "totals-title"]) {
    await phone.locator(`#${id}`).scrollIntoViewIfNeeded();
    await phone.waitForTimeout(200);
    await fits(phone, `the phone's page at ${id}`);
  }
  await phone.locator("#shards .help").tap();
  await fits(phone, "the phone's page with help open");
  await phone.screenshot({ path: path.join(SPINETAIL_BROWSER, "phone.png") });
  assert.deepEqual(complaints, []);

  expectTrouble = true; // a page that has lost its server is meant to complain
  process.kill(Number(SPINETAIL_PID), "SIGTERM");
  await page.waitForSelector('#state[data-state="reconnecting"]');
  await page.waitForSelector("body.old");
  assert.match(await page.locator("#state-age").innerText(), /last data .* ago/);
  assert.deepEqual(complaints, []);
  console.log("the dashboard was looked at, on a desk and on a phone, in dark and in light");
} finally {
  await browser.close();
}
