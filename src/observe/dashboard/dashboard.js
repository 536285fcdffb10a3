// The dashboard's life: what /events tells goes into bounded columns, and from there, as often as
// the screen is ready and only where somebody looks, into figures, charts and tables.
//
//   EventSource ── hello ──> seconds (1 s, last 10 min) ─┐
//               └─ tick ───> ticks (0.1 s, last minute) ─┴─> draw(): figures, charts, shards, tables
//
// units.js writes quantities, charts.js draws; both are loaded before and share this page's scope.
//
// Memory is the same after a week as after ten minutes: every column has a cap. Text that comes from
// outside (keys, tenants, host) reaches the page as textContent only.
"use strict";

const TICKS_MAX = 620; // a minute of ticks and a little, so that the left edge of a chart is not bare
const SECONDS_MAX = 610;
const RATE_OVER_S = 1; // rates shown are those of a second: a tenth of one flickers too much to be read
const FIGURES_EVERY_MS = 250;
const SLOW_EVERY_MS = 1000; // tables, totals, trends
const STALE_AFTER_MS = 2500;
const OPERATIONS = ["get", "set", "delete", "increment", "touch", "other"];
const WINDOWS = { "1m": ["1 min", 60], "10m": ["10 min", 600] };
const MEMORY_KINDS = ["payload", "structure", "fragmentation", "l0", "free"];

const $ = (selector, within = document) => within.querySelector(selector);
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");

// ---- What is known -----------------------------------------------------------------------------

// Rows of named numbers, oldest first, at most `cap` of them.
class Columns {
  constructor(cap, names) {
    this.cap = cap;
    this.names = names;
    this.clear();
  }
  clear() {
    for (const name of this.names) this[name] = [];
  }
  push(row) {
    for (const name of this.names) {
      const column = this[name];
      const value = row[name];
      column.push(typeof value === "number" && Number.isFinite(value) ? value : null);
      if (column.length > this.cap) column.shift();
    }
  }
  get length() {
    return this.t.length;
  }
  last(name) {
    const column = this[name];
    return column.length > 0 ? column[column.length - 1] : null;
  }
}

const RATES = ["requests", "get", "set", "delete", "increment", "touch", "other", "hits_l0", "hits_l1", "misses", "evicted", "expired", "ghost_hits", "forwarded",
  "received_bytes", "sent_bytes", "refused"];
const LATENCIES = OPERATIONS.flatMap((operation) => ["p50", "p99", "p999"].map((percentile) => `${operation}_${percentile}`));
const COLUMNS = ["t", ...RATES, "rest", "hit_rate", ...LATENCIES, ...MEMORY_KINDS, "used", "connections"];

const state = {
  hello: null,
  tick: null,
  received: 0, // performance.now() of the last tick
  connected: false,
  ticks: new Columns(TICKS_MAX, COLUMNS),
  seconds: new Columns(SECONDS_MAX, COLUMNS),
  counters: [], // { uptime_s, totals } of the last second, oldest first: rates come from their differences
  newest: null, // the last row, kept until it is known whether it ends a second
  latencyAt: [],
  window: "1m",
  operation: "get",
  paused: false,
  dirty: false,
};

const hitRate = (l0, l1, misses) => (l0 + l1 + misses > 0 ? (l0 + l1) / (l0 + l1 + misses) : null);
// What the limit is spent on. Free segments are not: they are there for the next entries.
const used = (memory) => memory.payload + memory.structure + memory.fragmentation + (memory.l0 ?? 0);

function takeHello(hello) {
  const before = state.hello;
  if (before === null || before.started_unix_ms !== hello.started_unix_ms || before.shards.length !== hello.shards.length) {
    // Another life of the server: its counters begin anew, and so do we.
    state.ticks.clear();
    state.seconds.clear();
    state.tick = null;
    state.counters = [];
    shards.reset(hello.shards);
  }
  state.hello = hello;
  state.newest = null;
  state.latencyAt = [50, 99, 99.9].map((percentile) => hello.percentiles.indexOf(percentile));
  const { columns, rows } = hello.history ?? { columns: [], rows: [] };
  const newest = state.seconds.last("t") ?? 0;
  for (const row of rows) {
    const named = Object.fromEntries(columns.map((name, index) => [name, row[index]]));
    if (!(named.unix_ms > newest)) continue;
    const all = { ...named, t: named.unix_ms, hit_rate: hitRate(named.hits_l0, named.hits_l1, named.misses), used: used(named) };
    for (const operation of ["get", "set"]) {
      for (const percentile of ["p50", "p99", "p999"]) all[`${operation}_${percentile}`] = named[`${operation}_${percentile}_ns`];
    }
    state.seconds.push(all);
  }
  showHello();
  state.dirty = true;
}

function takeTick(tick) {
  if (state.hello === null) return;
  state.received = performance.now();
  // After a reconnection the server may repeat what is known already.
  if (state.tick !== null && tick.uptime_s <= state.tick.uptime_s) return;
  if (state.tick !== null && tick.unix_ms <= state.tick.unix_ms) {
    // The host's clock was set back: times on the axis would run backwards.
    state.ticks.clear();
    state.seconds.clear();
  }
  const { latency, memory } = tick;
  const row = { t: tick.unix_ms, ...ratesOfSecond(tick) };
  row.rest = row.delete + row.increment + row.touch + row.other;
  row.hit_rate = hitRate(row.hits_l0, row.hits_l1, row.misses);
  for (const operation of OPERATIONS) {
    const total = latency[operation]?.total;
    if (total === undefined) continue;
    for (const [index, name] of ["p50", "p99", "p999"].entries()) row[`${operation}_${name}`] = total[state.latencyAt[index]];
  }
  for (const kind of MEMORY_KINDS) row[kind] = memory[kind];
  row.used = used(memory);
  row.connections = tick.connections.open;
  state.ticks.push(row);
  gatherSecond(row);
  shards.push(tick.shards);
  state.tick = tick;
  state.dirty = true;
}

// What was counted over the last second, exactly; before there is a second to look back on, what the tick says.
function ratesOfSecond({ uptime_s, totals, rates }) {
  const { counters } = state;
  if (counters.length > 0 && uptime_s - counters[counters.length - 1].uptime_s > 1.5 * RATE_OVER_S) counters.length = 0;
  while (counters.length > 1 && uptime_s - counters[0].uptime_s > RATE_OVER_S * 1.02) counters.shift();
  const before = counters[0];
  counters.push({ uptime_s, totals });
  if (before === undefined) return { ...rates };
  return Object.fromEntries(RATES.map((name) => [name, (totals[name] - before.totals[name]) / (uptime_s - before.uptime_s)]));
}

// The last row of a second tells of the whole second: its rates and its percentiles look back that far.
function gatherSecond(row) {
  const { newest } = state;
  const over = newest !== null && Math.floor(newest.t / 1000) !== Math.floor(row.t / 1000);
  if (over && newest.t > (state.seconds.last("t") ?? 0) + 500) state.seconds.push(newest);
  state.newest = row;
}

// ---- Figures -----------------------------------------------------------------------------------

const figures = Object.fromEntries(
  [...document.querySelectorAll("[data-figure]")].map((element) => [
    element.dataset.figure,
    { element, value: $("b", element), unit: $(".unit", element), aside: $(".aside", element), trend: $(".trend", element) },
  ]),
);
const TRENDS = { requests: ["requests", "--c0"], hit_rate: ["hit_rate", "--c2"], get_p50: ["get_p50", "--c0"], get_p99: ["get_p99", "--c1"],
  get_p999: ["get_p999", "--c3"], evicted: ["evicted", "--c5"], connections: ["connections", "--c4"] };

// Writes only what differs: text that stays costs no layout.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function showFigure(name, value, [digits, unit], aside) {
  const figure = figures[name];
  figure.element.dataset.value = value ?? "";
  write(figure.value, digits);
  write(figure.unit, unit);
  write(figure.aside, aside || NBSP);
}

function showFigures() {
  const { tick, ticks } = state;
  if (tick === null) return;
  const now = (name) => ticks.last(name);
  const requests = now("requests");
  showFigure("requests", requests, rate(requests), `get ${joined(count(now("get")))} · set ${joined(count(now("set")))}`);
  const [l0, l1, misses] = [now("hits_l0"), now("hits_l1"), now("misses")];
  const hits = hitRate(l0, l1, misses);
  const reads = l0 + l1 + misses;
  showFigure("hit_rate", hits, share(hits), hits === null ? "no reads" : `L0 ${joined(share(l0 / reads))} · L1 ${joined(share(l1 / reads))}`);
  const get = tick.latency.get;
  for (const [index, name] of ["get_p50", "get_p99", "get_p999"].entries()) {
    const at = state.latencyAt[index];
    const total = get?.total[at] ?? null;
    showFigure(name, total, duration(total), get === undefined ? "no GETs" : `service ${joined(duration(get.service[at]))}`);
  }
  const limit = tick.memory.limit;
  const taken = used(tick.memory);
  const [digits, unit] = bytes(taken);
  showFigure("memory", taken, [digits, unit], `${joined(share(taken / limit))} of ${joined(bytes(limit))}`);
  $(".gauge i", figures.memory.element).style.width = `${Math.min(100, (100 * taken) / limit)}%`;
  const evicted = now("evicted");
  const idle = tick.evictions?.idle_p50_s;
  showFigure("evicted", evicted, rate(evicted), Number.isFinite(idle) ? `idle p50 ${atMost(idle)}` : "");
  const { open, l0_readers: readers, near_caches: near } = tick.connections;
  showFigure("connections", open, count(open), `${count(readers)[0]} L0 · ${count(near)[0]} near`);
}

function showTrends() {
  for (const [name, [column, colour]] of Object.entries(TRENDS)) drawTrend(figures[name].trend, state.seconds[column].slice(-60), palette[colour], name.startsWith("get_"));
}

// A line without axes: whether it is calm or wild, rises or falls; what it is worth stands above.
function drawTrend(canvas, values, colour, log) {
  const [width, height] = fitCanvas(canvas);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  const at = (value) => (log ? Math.log(Math.max(value, 1)) : value);
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value === null) continue;
    low = Math.min(low, at(value));
    high = Math.max(high, at(value));
  }
  if (!(high >= low)) return;
  // Noise of a few percent must not look like an earthquake.
  const room = Math.max(high - low, Math.abs(high) * (log ? 0.08 : 0.25), 1e-9);
  const middle = (high + low) / 2;
  const ratio = devicePixelRatio;
  const x = (i) => width - ((values.length - 1 - i) * width) / 59;
  const y = (value) => height / 2 - ((at(value) - middle) / room) * (height - 8 * ratio);
  const segments = [];
  for (const [i, value] of values.entries()) {
    if (value === null) continue;
    if (i === 0 || values[i - 1] === null) segments.push([]);
    segments[segments.length - 1].push([x(i), y(value)]);
  }
  context.lineWidth = 1.5 * ratio;
  context.lineJoin = "round";
  for (const points of segments) {
    context.beginPath();
    for (const [px, py] of points) context.lineTo(px, py);
    context.strokeStyle = colour;
    context.stroke();
    context.lineTo(points[points.length - 1][0], height);
    context.lineTo(points[0][0], height);
    context.fillStyle = faint(colour, 0.14);
    context.fill();
  }
}

// A canvas has as many pixels as the screen has for it.
function fitCanvas(canvas, rows) {
  const width = Math.round(canvas.clientWidth * devicePixelRatio);
  const height = rows ?? Math.round(canvas.clientHeight * devicePixelRatio);
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  return [width, height];
}

// ---- Colours -----------------------------------------------------------------------------------

let palette = {};
const HEAT_AT = [0, 0.2, 0.45, 0.65, 0.85, 1]; // the stops of the scale in dashboard.css
let heat = []; // 256 colours, idle to busy
function readPalette() {
  const style = getComputedStyle(document.documentElement);
  palette = {};
  for (const name of ["--paper", "--ink", "--soft", "--rule", "--grid", "--c0", "--c1", "--c2", "--c3", "--c4", "--c5", "--free"]) palette[name] = style.getPropertyValue(name).trim();
  const stops = HEAT_AT.map((_, stop) => rgb(style.getPropertyValue(`--heat-${stop}`).trim()));
  heat = Array.from({ length: 256 }, (_, index) => {
    const value = index / 255;
    let stop = 0;
    while (stop < HEAT_AT.length - 2 && value > HEAT_AT[stop + 1]) stop += 1;
    const part = (value - HEAT_AT[stop]) / (HEAT_AT[stop + 1] - HEAT_AT[stop]);
    return stops[stop].map((channel, i) => Math.round(channel + part * (stops[stop + 1][i] - channel)));
  });
}
const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const faint = (hex, alpha) => `rgb(${rgb(hex).join(" ")} / ${alpha})`;
const mixed = (over, under, part) => `rgb(${rgb(over).map((channel, i) => Math.round(channel * part + rgb(under)[i] * (1 - part))).join(" ")})`;
const luminance = (colour) => {
  const [r, g, b] = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};

// ---- Shards ------------------------------------------------------------------------------------

// Cells say now, the map below says the last minute: one pixel a tick and shard, written into a ring
// and shown as two pieces, so that a tick costs one column however many shards there are.
const shards = {
  cells: [],
  chosen: null, // what the pointer or the keyboard chose; else the busiest is shown
  box: $(".cells"),
  detail: $(".detail"),
  map: $(".heat canvas"),
  ring: document.createElement("canvas"),
  busy: [], // per column of the ring: how busy each shard was, 0 to 255; null before the first tick
  next: 0,
  seen: 0, // the last chosen default, kept until another is clearly busier

  reset(all) {
    this.busy = Array.from({ length: 600 }, () => null);
    this.next = 0;
    this.chosen = null;
    this.ring.width = 600;
    this.ring.height = Math.max(1, all.length);
    this.box.replaceChildren();
    this.few = all.length <= 8;
    this.box.classList.toggle("few", this.few);
    this.cells = all.map(({ shard }, index) => {
      const cell = this.box.appendChild(document.createElement("button"));
      cell.type = "button";
      cell.className = "cell";
      cell.tabIndex = index === 0 ? 0 : -1;
      const name = cell.appendChild(document.createElement("small"));
      name.textContent = this.few ? `shard ${shard}` : String(shard);
      const busy = cell.appendChild(document.createElement("b"));
      const more = [0, 1].map(() => {
        const line = cell.appendChild(document.createElement("span"));
        line.className = "more";
        return line;
      });
      cell.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && this.choose(index));
      cell.addEventListener("click", () => this.choose(index));
      cell.addEventListener("focus", () => this.choose(index));
      return { cell, busy, more };
    });
    this.lay();
    // The map is as high as its rows need to be told apart, and no higher than the page bears.
    this.map.style.height = `${Math.min(12, Math.max(3.2, all.length * 0.4))}rem`;
  },
  // As few rows as fit, and each as long as the others.
  lay() {
    const root = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const least = (this.few ? 10.2 : 2.6) * root;
    const fit = Math.max(1, Math.floor(this.box.clientWidth / least));
    const rows = Math.ceil(this.cells.length / fit);
    this.across = Math.max(1, Math.ceil(this.cells.length / rows));
    this.box.style.gridTemplateColumns = `repeat(${this.across}, minmax(0, ${this.few ? "18rem" : "1fr"}))`;
  },
  choose(index) {
    this.chosen = index;
    this.show();
  },
  push(all) {
    const column = new Uint8Array(this.cells.length);
    for (const [index, { busy }] of all.entries()) column[index] = Math.round(255 * Math.min(1, Math.max(0, busy)));
    this.busy[this.next % 600] = column;
    this.paint(this.next % 600);
    this.next += 1;
  },
  // Of the last second, by shard, 0 to 255.
  busyNow() {
    const last = Array.from({ length: 10 }, (_, back) => this.busy[(this.next - 1 - back + 600) % 600]).filter((column) => column !== null);
    return this.cells.map((_, index) => Math.round(last.reduce((sum, column) => sum + column[index], 0) / Math.max(1, last.length)));
  },
  paint(x) {
    const context = this.ring.getContext("2d");
    const column = this.busy[x];
    context.clearRect(x, 0, 1, this.ring.height);
    if (column === null) return;
    for (let y = 0; y < column.length; y += 1) {
      context.fillStyle = `rgb(${heat[column[y]].join(" ")})`;
      context.fillRect(x, y, 1, 1);
    }
  },
  repaint() {
    for (let x = 0; x < this.busy.length; x += 1) this.paint(x);
  },
  drawMap() {
    const [width, height] = fitCanvas(this.map);
    const context = this.map.getContext("2d");
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    const at = this.next % 600;
    const rows = this.ring.height;
    // The oldest column is the one that will be written next.
    const left = Math.round((width * (600 - at)) / 600);
    if (at < 600) context.drawImage(this.ring, at, 0, 600 - at, rows, 0, 0, left, height);
    if (at > 0) context.drawImage(this.ring, 0, 0, at, rows, left, 0, width - left, height);
    if (rows > 1 && height / rows >= 6 * devicePixelRatio) {
      context.fillStyle = palette["--paper"];
      for (let row = 1; row < rows; row += 1) context.fillRect(0, Math.round((row * height) / rows), width, devicePixelRatio);
    }
  },
  show() {
    const all = state.tick?.shards;
    if (!all) return;
    const busy = this.busyNow();
    const percent = (index) => Math.round((100 * busy[index]) / 255);
    for (const [index, one] of all.entries()) {
      const cell = this.cells[index];
      if (!cell) continue;
      const colour = heat[busy[index]];
      cell.cell.style.background = `rgb(${colour.join(" ")})`;
      cell.cell.style.color = luminance(colour) > 0.2 ? "#0b0e12" : "#f4f7fa";
      // Another program had the core: the one thing here that is never the cache's own doing.
      cell.cell.classList.toggle("disturbed", one.steal > 0.01 || one.switches > 20);
      write(cell.busy, `${percent(index)}${this.few ? NBSP : ""}%`);
      cell.cell.setAttribute("aria-label", `shard ${one.shard}, ${percent(index)} % busy`);
      if (this.few) {
        write(cell.more[0], `${joined(rate(one.requests))} · p99 ${joined(duration(one.p99_ns))}`);
        write(cell.more[1], `core ${one.core} · ${grouped(one.connections)} connections`);
      }
      cell.cell.setAttribute("aria-current", String(index === this.chosen));
    }
    let index = this.chosen;
    if (index === null) {
      // Stays with its choice until another shard is clearly busier, or the line would never stand still.
      const busiest = busy.reduce((best, value, i) => (value > busy[best] ? i : best), 0);
      if (!(busy[busiest] < busy[this.seen] + 8)) this.seen = busiest;
      index = this.seen;
    }
    const one = all[index];
    if (!one) return;
    const name = `${this.chosen === null && all.length > 1 ? "busiest: " : ""}shard ${one.shard}`;
    showFacts(this.detail, [[name, `core ${one.core}`], ["busy", `${percent(index)}${NBSP}%`], ["requests", joined(rate(one.requests))], ["p99", joined(duration(one.p99_ns))],
      ["entries", grouped(one.entries)], ["connections", grouped(one.connections)], ["steal", joined(share(one.steal))], ["switches", joined(rate(one.switches))],
      ["mailbox", grouped(one.mailbox)], ["buffers exhausted", joined(rate(one.buffers_exhausted))]]);
  },
};
new ResizeObserver(() => shards.lay()).observe(shards.box);
shards.box.addEventListener("pointerleave", (event) => {
  if (event.pointerType === "mouse" && !shards.box.contains(document.activeElement)) shards.choose(null);
});
shards.box.addEventListener("focusout", (event) => {
  if (!shards.box.contains(event.relatedTarget)) shards.choose(null);
});
shards.box.addEventListener("keydown", (event) => {
  const from = shards.cells.findIndex(({ cell }) => cell === document.activeElement);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: shards.across, ArrowUp: -shards.across, Home: -from, End: shards.cells.length - 1 - from }[event.key];
  if (event.key === "Escape") document.activeElement.blur();
  if (step === undefined || from < 0) return;
  event.preventDefault();
  const to = shards.cells[from + step];
  if (!to) return;
  shards.cells[from].cell.tabIndex = -1;
  to.cell.tabIndex = 0;
  to.cell.focus();
});

// ---- Tables and totals -------------------------------------------------------------------------

const keyRows = Array.from({ length: 10 }, (_, index) => {
  const row = $(".keys tbody").appendChild(document.createElement("tr"));
  const [rank, key, part] = [0, 1, 2].map(() => row.appendChild(document.createElement("td")));
  rank.className = "rank";
  rank.textContent = String(index + 1);
  key.className = "key";
  part.className = "number";
  const bar = key.appendChild(document.createElement("i"));
  return { key: key.appendChild(document.createElement("span")), bar, part };
});
function showKeys() {
  const keys = state.tick?.hot_keys ?? [];
  const most = Math.max(0.0001, ...keys.map((key) => key.share));
  for (const [index, row] of keyRows.entries()) {
    const key = keys[index];
    write(row.key, key ? key.key : index === 0 ? "no reads sampled" : NBSP);
    row.key.title = key ? key.key : "";
    row.bar.style.width = key ? `calc(${(100 * key.share) / most}% - 0.5rem)` : "0";
    write(row.part, key ? joined(share(key.share)) : "");
  }
}

const tenantBody = $(".tenants tbody");
const TENANTS_MAX = 100; // as many as a person reads; a server may have more
function showTenants() {
  const tenants = (state.tick?.tenants ?? []).slice(0, TENANTS_MAX);
  const rows = Math.max(1, tenants.length);
  while (tenantBody.children.length > rows) tenantBody.lastChild.remove();
  while (tenantBody.children.length < rows) {
    const row = tenantBody.appendChild(document.createElement("tr"));
    row.appendChild(document.createElement("th")).scope = "row";
    for (let i = 0; i < 8; i += 1) row.appendChild(document.createElement("td")).className = "number";
  }
  for (let index = 0; index < rows; index += 1) {
    const tenant = tenants[index];
    const cells = tenantBody.children[index].children;
    const reads = tenant ? tenant.hits_l0 + tenant.hits_l1 + tenant.misses : 0;
    const of = (value) => joined(share(reads > 0 ? value / reads : null));
    const texts = tenant
      ? [tenant.tenant, joined(rate(reads)), of(tenant.hits_l0 + tenant.hits_l1), of(tenant.hits_l0), of(tenant.hits_l1), joined(rate(tenant.changes)), joined(duration(tenant.get_p99_ns)), grouped(tenant.l0_entries), joined(bytes(tenant.l0_bytes))]
      : ["no tenant has come yet", "", "", "", "", "", "", "", ""];
    cells[0].classList.toggle("none", !tenant);
    cells[0].title = tenant ? tenant.tenant : "";
    for (const [i, text] of texts.entries()) write(cells[i], text);
  }
}

const TOTALS = [["requests", "requests"], ...OPERATIONS.map((name) => [name, name]), ["hits_l0", "L0 hits"], ["hits_l1", "L1 hits"], ["misses", "misses"], ["evicted", "evicted"],
  ["expired", "expired"], ["ghost_hits", "ghost hits"], ["forwarded", "forwarded"], ["connections_opened", "connections opened"], ["refused", "refused"]];
const totalOutputs = TOTALS.map(([name, title]) => {
  const entry = $("#totals").appendChild(document.createElement("div"));
  entry.appendChild(document.createElement("dt")).textContent = title;
  entry.append(" ");
  const output = entry.appendChild(document.createElement("dd"));
  output.dataset.total = name;
  output.textContent = DASH;
  return output;
});
function showTotals() {
  const totals = state.tick?.totals;
  if (!totals) return;
  for (const output of totalOutputs) {
    const value = totals[output.dataset.total];
    output.dataset.value = value ?? "";
    write(output, value === undefined ? DASH : grouped(value));
  }
}

function showHello() {
  const { hello } = state;
  write($("#host"), hello.host);
  document.title = `${hello.host} · Spinetail`;
  showAbout();
}
function showAbout() {
  const { hello, tick } = state;
  if (hello === null) return;
  const many = hello.shards.length;
  const parts = [`version ${hello.version}`, `${many} ${many === 1 ? "shard" : "shards"}`, `poll ${hello.poll}`, hello.io, `profile ${hello.profile}`];
  if (tick !== null) parts.push(`up ${uptime(tick.uptime_s)}`);
  write($("#about"), parts.join(" · "));
}

// ---- Choices -----------------------------------------------------------------------------------

// A choice stands in the address, so that a wall's bookmark keeps it.
function remember() {
  history.replaceState(null, "", `#window=${state.window}&operation=${state.operation}`);
}
function recall() {
  const said = new URLSearchParams(location.hash.slice(1));
  if (said.get("window") in WINDOWS) state.window = said.get("window");
  if (OPERATIONS.includes(said.get("operation"))) state.operation = said.get("operation");
}

class Choice {
  constructor(box, options, chosen, choose) {
    this.box = box;
    this.buttons = options.map(([value, text]) => {
      const button = box.appendChild(document.createElement("button"));
      button.type = "button";
      button.setAttribute("role", "radio");
      button.dataset.option = value;
      button.textContent = text;
      button.addEventListener("click", () => choose(value));
      return button;
    });
    box.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const to = this.buttons[(this.buttons.indexOf(document.activeElement) + step + this.buttons.length) % this.buttons.length];
      to.focus();
      to.click();
    });
    this.mark(chosen);
  }
  mark(chosen) {
    for (const button of this.buttons) {
      const is = button.dataset.option === chosen;
      button.setAttribute("aria-checked", String(is));
      button.tabIndex = is ? 0 : -1;
    }
  }
}

// get and set always; what else there is, once it has been asked for.
function offerOperations() {
  for (const select of operationSelects) {
    for (const option of select.options) {
      const name = option.value;
      option.hidden = option.disabled = !(name === "get" || name === "set" || name === state.operation || (state.tick?.totals[name] ?? 0) > 0);
    }
  }
}

function redraw() {
  state.dirty = true;
  for (const chart of charts) chart.wanted = true;
  if (state.paused) drawCharts();
}

// ---- Drawing -----------------------------------------------------------------------------------

let figuresAt = -Infinity;
let slowAt = -Infinity;
let chartsAt = -Infinity;

function drawCharts() {
  shared = null;
  for (const chart of charts) {
    if (chart.visible || !chart.filled) chart.draw();
  }
  shared = null;
}

function frame(now) {
  requestAnimationFrame(frame); // the browser stops calling while nobody looks
  if (!state.dirty || state.paused) return;
  state.dirty = false;
  if (now - figuresAt >= FIGURES_EVERY_MS - 20) {
    figuresAt = now;
    showFigures();
    shards.show();
    showTotals();
  }
  // Who asked for less motion gets a picture a second.
  if (now - chartsAt >= (reducedMotion.matches ? 1000 : state.window === "1m" ? 0 : 500)) {
    chartsAt = now;
    drawCharts();
    shards.drawMap();
  } else if (charts.some((chart) => chart.wanted && chart.visible)) {
    drawCharts();
  }
  for (const chart of charts) chart.wanted &&= !chart.visible;
  if (now - slowAt >= SLOW_EVERY_MS - 20) {
    slowAt = now;
    showTrends();
    showKeys();
    showTenants();
    showAbout();
    offerOperations();
  }
}

// ---- The connection ----------------------------------------------------------------------------

let source = null;
function connect() {
  // Reconnects by itself and tells the last id it saw; the server then sends what was missed.
  source = new EventSource("events");
  source.addEventListener("open", () => (state.connected = true));
  source.addEventListener("hello", (event) => takeHello(JSON.parse(event.data)));
  source.addEventListener("tick", (event) => takeTick(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    state.connected = false;
    // After an answer other than 200 (a token that is no longer good, a proxy in between) the browser gives up; we do not.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
    showState();
  });
}

function showState() {
  const age = state.received > 0 ? performance.now() - state.received : 0;
  const old = state.received > 0 && age > STALE_AFTER_MS;
  let word = "connecting";
  if (!state.connected && state.received > 0) word = "reconnecting";
  else if (old) word = "stale";
  else if (state.paused) word = "paused";
  else if (state.received > 0) word = "live";
  else if (state.connected) word = "waiting";
  $("#state").dataset.state = word;
  write($("#state-word"), word);
  // Outside the live region: a count that is read aloud every second helps nobody.
  write($("#state-age"), old ? `last data ${joined(seconds(Math.floor(age / 1000)))} ago`.replace(".00", "").replace(".0", "") : "");
  document.body.classList.toggle("old", old);
}

// ---- Start -------------------------------------------------------------------------------------

recall();
readPalette();
const charts = [
  new Chart("throughput", throughput()),
  new Chart("latency", latency()),
  new Chart("hits", hits()),
  new Chart("percentiles", percentiles()),
  new Chart("memory", memory()),
  new Chart("evictions", evictions()),
];
const operationSelects = [...document.querySelectorAll("select.operation")];
for (const select of operationSelects) {
  for (const name of OPERATIONS) select.add(new Option(name, name));
  select.value = state.operation;
  select.addEventListener("change", () => {
    state.operation = select.value;
    for (const other of operationSelects) other.value = state.operation;
    for (const chart of charts) if (chart.of.log) chart.steady.reset();
    remember();
    redraw();
  });
}
offerOperations();
const windowChoice = new Choice($('[data-choice="window"]'), Object.entries(WINDOWS).map(([value, [text]]) => [value, text]), state.window, (value) => {
  state.window = value;
  windowChoice.mark(value);
  for (const chart of charts) chart.steady.reset();
  remember();
  redraw();
});

const pause = $("#pause");
function togglePause() {
  state.paused = !state.paused;
  pause.setAttribute("aria-pressed", String(state.paused));
  write(pause, state.paused ? "Resume" : "Pause");
  figuresAt = slowAt = chartsAt = -Infinity;
  state.dirty = true;
  showState();
}
pause.addEventListener("click", togglePause);
document.addEventListener("keydown", (event) => {
  if (event.key === " " && (event.target === document.body || event.target === document.documentElement)) {
    event.preventDefault();
    togglePause();
  }
  if (event.key === "Escape") closeHelp(null);
});

function closeHelp(but) {
  for (const button of document.querySelectorAll('.help[aria-expanded="true"]')) {
    if (button === but) continue;
    button.setAttribute("aria-expanded", "false");
    $(`#${button.getAttribute("aria-controls")}`).hidden = true;
  }
}
for (const button of document.querySelectorAll(".help")) {
  button.addEventListener("click", () => {
    closeHelp(button);
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    $(`#${button.getAttribute("aria-controls")}`).hidden = !open;
  });
}

// Canvases know neither style sheets nor font sizes: they are built anew when those change.
let rootSize = "";
function rebuild() {
  readPalette();
  for (const chart of charts) chart.build();
  shards.repaint();
  slowAt = figuresAt = chartsAt = -Infinity;
  redraw();
}
dark.addEventListener("change", rebuild);
addEventListener("beforeprint", () => charts.forEach((chart) => chart.draw()));
addEventListener("resize", () => {
  const size = getComputedStyle(document.documentElement).fontSize;
  if (size !== rootSize) rebuild();
  rootSize = size;
  slowAt = chartsAt = -Infinity;
  state.dirty = true;
});
rootSize = getComputedStyle(document.documentElement).fontSize;

showKeys();
showTenants();
showState();
setInterval(showState, 500);
connect();
requestAnimationFrame(frame);
