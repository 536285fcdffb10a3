// The dashboard's life: what /events tells goes into bounded columns, and from there, as often as
// the screen is ready and only where somebody looks, into figures, charts and tables.
//
//   EventSource ── hello ──> seconds (1 s, last 10 min) ─┐
//               └─ tick ───> ticks (0.1 s, last minute) ─┴─> draw(): figures, charts, shards, tables
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
const SHRINK_AFTER_MS = 6000; // an axis grows at once and shrinks late, or it would never stand still
const OPERATIONS = ["get", "set", "delete", "increment", "touch", "other"];
const WINDOWS = { "1m": ["1 min", 60], "10m": ["10 min", 600] };
const LATENCY_EXTENT = [1000, 100000]; // ns, of an axis without values
const MEMORY_KINDS = ["payload", "structure", "fragmentation", "l0", "free"];

const $ = (selector, within = document) => within.querySelector(selector);
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");

// ---- Units -------------------------------------------------------------------------------------

const DASH = "–";
const NBSP = "\u00a0";

// Three significant digits, so that a figure keeps its width: 1.23, 12.3, 123.
function three(value) {
  const size = Math.abs(value);
  return value.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

// [digits, unit] of each kind of quantity; null is "nothing was measured".
function scaled(value, step, units, wholeFirst) {
  if (value === null || value === undefined || !Number.isFinite(value)) return [DASH, ""];
  let unit = 0;
  while (unit + 1 < units.length && Math.abs(value) >= step * 0.9995) {
    value /= step;
    unit += 1;
  }
  return [unit === 0 && wholeFirst ? String(Math.round(value)) : three(value), units[unit]];
}
const duration = (ns) => scaled(ns, 1000, ["ns", "µs", "ms", "s"], true);
const bytes = (value) => scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"], true);
const count = (value) => scaled(value, 1000, ["", "k", "M", "G"], true);
function rate(value) {
  const [digits, unit] = value > 0 && value < 9.95 ? [value.toFixed(1), ""] : count(value);
  return [digits, digits === DASH ? "" : unit === "" ? "/s" : `${unit}/s`];
}
function byteRate(value) {
  const [digits, unit] = bytes(value);
  return [digits, unit && `${unit}/s`];
}
function share(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return [DASH, ""];
  const percent = value * 100;
  // 99.97 % must not read as 100 %: what is missing is what matters.
  const decimals = (percent > 99 && percent < 100) || percent < 0.1 ? 2 : 1;
  const digits = percent.toFixed(decimals);
  return [percent < 100 && Number(digits) === 100 ? "99.99" : percent === 0 || percent === 100 ? String(percent) : digits, "%"];
}
function seconds(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return [DASH, ""];
  if (value < 1) return duration(value * 1e9);
  if (value < 120) return [three(value), "s"];
  if (value < 7200) return [three(value / 60), "min"];
  return value < 172800 ? [three(value / 3600), "h"] : [three(value / 86400), "d"];
}
// How long evicted entries had been idle is known to the octave: the end of it is told.
const atMost = (value) => (Number.isFinite(value) ? `≤${NBSP}${label(seconds(value))}` : DASH);
const joined = ([digits, unit]) => (unit ? digits + NBSP + unit : digits);
const grouped = (value) => Math.round(value).toLocaleString("en");
function uptime(value) {
  const days = Math.floor(value / 86400);
  const hours = Math.floor((value % 86400) / 3600);
  const minutes = Math.floor((value % 3600) / 60);
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min` : `${Math.floor(value)} s`;
}

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

// ---- Axes --------------------------------------------------------------------------------------

// The ends of a y axis. They lie on round numbers, move out at once and in late.
class Steady {
  constructor(round) {
    this.round = round;
    this.reset();
  }
  reset() {
    this.low = null;
    this.high = null;
    this.smallerSince = 0;
  }
  range(low, high) {
    const [wantLow, wantHigh] = this.round(low, high);
    const now = performance.now();
    if (this.low === null) {
      [this.low, this.high] = [wantLow, wantHigh];
    } else {
      const inside = wantLow > this.low || wantHigh < this.high;
      this.low = Math.min(this.low, wantLow);
      this.high = Math.max(this.high, wantHigh);
      if (!inside) this.smallerSince = now;
      else if (now - this.smallerSince > SHRINK_AFTER_MS) {
        [this.low, this.high] = [wantLow, wantHigh];
        this.smallerSince = now;
      }
    }
    return [this.low, this.high];
  }
}

// 1, 2, 5, 10, …: the smallest not below value. In binary units the same of a power of 1024.
function roundUp(value, base) {
  let unit = 1;
  if (base === 1024) while (value / unit >= 1024) unit *= 1024;
  const rest = value / unit;
  const power = 10 ** Math.floor(Math.log10(rest));
  const step = base === 1024 ? [1, 2, 4, 5, 8, 10] : [1, 1.5, 2, 3, 4, 5, 6, 8, 10];
  return unit * power * (step.find((one) => one * power >= rest * 0.9999) ?? 10);
}
const roundLinear = (least, base) => (low, high) => [0, roundUp(Math.max(high * 1.04, least), base)];
const roundLog = (low, high) => {
  const down = 10 ** Math.floor(Math.log10(low));
  const bottom = [5, 2, 1].map((step) => step * down).find((value) => value <= low * 1.0001) ?? down;
  const top = roundUp125(high);
  // At least a decade, or noise fills the chart.
  return top / bottom >= 10 ? [bottom, top] : [bottom, bottom * 10];
};
function roundUp125(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([1, 2, 5, 10].find((step) => step * power >= value * 0.9999) ?? 10);
}

function linearSplits(low, high, base, most) {
  if (base === 1024) {
    let unit = 1;
    while (high / unit >= 1024) unit *= 1024;
    return linearSplits(low / unit, high / unit, 10, most).map((value) => value * unit);
  }
  const rough = (high - low) / most;
  const step = roundUp125(rough);
  const splits = [];
  for (let i = 0; low + i * step <= high * 1.0001; i += 1) splits.push(low + i * step);
  return splits;
}
function logSplits(low, high, most) {
  const decades = Math.log10(high / low);
  const steps = decades * 3 <= most * 1.3 ? [1, 2, 5] : [1];
  const every = steps.length === 1 ? Math.max(1, Math.ceil(decades / most)) : 1;
  const splits = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += every) {
    for (const step of steps) {
      const value = step * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) splits.push(value);
    }
  }
  return splits;
}
// Digits of a label are all significant: 20 µs, where a legend says 20.0 µs.
const label = ([digits, unit]) => joined([digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits, unit]);

// On a linear axis every label has the unit of the largest: 0.5 M/s below 1 M/s.
function labelLike(unit, value, largest, base) {
  if (value === 0) return "0";
  const [, name] = unit(largest);
  if (name === "%") return label(unit(value));
  let power = 1;
  while (largest / power >= 1 && unit(largest / power)[1] !== unit(1)[1]) power *= base === 1024 ? 1024 : 1000;
  return label([three(value / power), name]);
}

// ---- Charts ------------------------------------------------------------------------------------

// A panel's chart with its legend. `of.columns(view)` gives uPlot's columns, `of.values(view, i)`
// what the legend says at row i (the last one where the pointer is elsewhere).
class Chart {
  constructor(id, of) {
    this.of = of;
    this.panel = $(`#${id}`);
    this.plot = $(".plot", this.panel);
    this.facts = $(".facts", this.panel);
    this.steady = new Steady(of.round);
    this.extent = of.log ? LATENCY_EXTENT : [0, 0];
    this.legend = $(".legend", this.panel);
    this.outputs = of.series.map(({ name, colour, dash, area }) => {
      const item = this.legend.appendChild(document.createElement("li"));
      const swatch = item.appendChild(document.createElement("span"));
      swatch.className = `swatch ${colour} d${dash ?? 0}${area ? " area" : ""}`;
      item.append(name);
      return item.appendChild(document.createElement("b"));
    });
    this.caption = $(".caption", this.panel);
    this.about = this.caption.textContent;
    this.nothing = this.plot.appendChild(document.createElement("p"));
    this.nothing.className = "nothing";
    this.visible = true;
    this.wanted = true;
    new IntersectionObserver(([entry]) => {
      this.visible = entry.isIntersecting;
      if (this.visible) this.wanted = state.dirty = true;
    }).observe(this.plot);
    new ResizeObserver(() => {
      if (this.chart && this.plot.clientWidth > 0) this.chart.setSize({ width: this.plot.clientWidth, height: this.plot.clientHeight });
    }).observe(this.plot);
    this.build();
  }

  build() {
    this.chart?.destroy();
    const { of } = this;
    const root = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const font = `${Math.round(root * 0.8)}px ${getComputedStyle(document.body).fontFamily}`;
    const grid = { stroke: palette["--grid"], width: 1 };
    const colour = (name) => palette[name === "free" ? "--free" : `--${name}`];
    const frame = { stroke: palette["--soft"], font, grid, ticks: { show: false }, gap: 6 };
    const rows = () => Math.max(3, Math.round(this.plot.clientHeight / (root * 2.4)));
    const y = { range: () => this.steady.range(...this.extent), distr: of.log ? 3 : 1 };
    if (of.log) y.log = 10;
    this.chart = new uPlot(
      {
        width: this.plot.clientWidth || 300,
        height: this.plot.clientHeight || 180,
        padding: [8, Math.round(root * 0.9), 0, 0],
        legend: { show: false },
        cursor: {
          y: false,
          drag: { x: false, y: false, setScale: false },
          points: { size: 7 },
          sync: of.time ? { key: "time", setSeries: false } : undefined,
        },
        scales: { x: { time: false, range: () => of.x().range }, y },
        axes: [
          { ...frame, gap: 8, size: Math.round(root * 1.85), splits: () => of.x().splits, values: (_, splits) => splits.map(of.x().label) },
          {
            ...frame,
            size: Math.round(root * 4.1),
            splits: (_, __, low, high) => (of.log ? logSplits(low, high, rows()) : linearSplits(low, high, of.base ?? 10, rows())),
            filter: (_, splits) => splits, // uPlot's own would drop labels of log scales
            values: (_, splits) => splits.map((value) => (of.log ? label(of.unit(value)) : labelLike(of.unit, value, splits[splits.length - 1], of.base ?? 10))),
          },
        ],
        series: [
          {},
          ...of.drawn().map((index) => {
            const { colour: name, dash, area } = of.series[index];
            return {
              scale: "y",
              stroke: colour(name),
              width: 1.6 * (root / 15),
              dash: [undefined, [7, 4], [2, 3]][dash ?? 0],
              fill: area === "stack" ? mixed(colour(name), palette["--paper"], 0.5) : area ? faint(colour(name), 0.16) : undefined,
              points: { show: false },
              spanGaps: false,
            };
          }),
        ],
        hooks: { setCursor: [() => this.showLegend()] },
      },
      [[], ...of.drawn().map(() => [])],
      this.plot,
    );
    // A screen reader is told by the legend; the canvas says what it is by its label.
    $("canvas", this.plot)?.setAttribute("aria-hidden", "true");
  }

  draw() {
    const view = this.of.view();
    this.view = view;
    const columns = this.of.columns(view);
    let [low, high] = [Infinity, -Infinity];
    for (let c = 1; c < columns.length; c += 1) {
      for (const value of columns[c]) {
        if (value === null) continue;
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    const some = high >= low;
    this.filled = some && state.tick !== null; // from then on it may wait until somebody looks
    this.extent = some ? [low, high] : this.of.log ? LATENCY_EXTENT : [0, 0];
    write(this.nothing, some ? "" : this.of.nothing());
    this.chart.setData(columns, false);
    // Both scales change with the data; in one batch the chart is painted once.
    this.chart.batch(() => {
      const { range } = this.of.x();
      this.chart.setScale("x", { min: range[0], max: range[1] });
    });
    this.showLegend();
    if (this.facts && this.of.facts) showFacts(this.facts, this.of.facts());
    this.of.also?.();
  }

  showLegend() {
    if (!this.view) return;
    const index = this.chart?.cursor.idx;
    const hovered = index !== null && index !== undefined && this.chart.cursor.left >= 0;
    const values = this.of.values(this.view, hovered ? index : null);
    for (const [i, output] of this.outputs.entries()) write(output, joined(values[i]));
    // The caption gives way to the moment the legend is of; a line of its own would push the chart about.
    write(this.caption, hovered ? `at ${this.of.moment(this.view, index)}` : this.about);
    this.panel.classList.toggle("hovered", hovered);
  }
}

function showFacts(list, facts) {
  while (list.children.length > facts.length) list.lastChild.remove();
  for (const [index, [name, value]] of facts.entries()) {
    let entry = list.children[index];
    if (!entry) {
      entry = list.appendChild(document.createElement("div"));
      entry.append(document.createElement("dt"), " ", document.createElement("dd"));
    }
    write(entry.firstChild, name);
    write(entry.lastChild, value);
  }
}

// What the time charts show: ticks where there are any, whole seconds before, between and instead.
// One view serves all charts of a draw.
let shared = null;
function timeView() {
  if (shared !== null) return shared;
  const { ticks, seconds: whole } = state;
  const span = WINDOWS[state.window][1];
  const now = state.tick?.unix_ms ?? whole.last("t") ?? 0;
  const rows = []; // [columns, index] in order of time; null where the line breaks
  const from = now - (span + 1) * 1000;
  let previous = null;
  const add = (columns, index, gap) => {
    const t = columns.t[index];
    if (previous !== null && t - previous > gap) rows.push([null, (t + previous) / 2]);
    rows.push([columns, index]);
    previous = t;
  };
  let second = whole.t.findIndex((t) => t >= from);
  if (second < 0) second = whole.length;
  if (span <= 60) {
    for (let i = 0; i < ticks.length; i += 1) {
      if (ticks.t[i] < from) continue;
      // Seconds fill what ticks leave open: before the page was opened, or while it was cut off.
      while (second < whole.length && whole.t[second] < ticks.t[i] - 100) {
        if (previous === null || (whole.t[second] > previous + 500 && ticks.t[i] - previous > 1500)) add(whole, second, 2500);
        second += 1;
      }
      add(ticks, i, 2500);
    }
  }
  if (span > 60 || rows.length === 0) for (; second < whole.length; second += 1) add(whole, second, 2500);
  const x = rows.map(([columns, index]) => ((columns === null ? index : columns.t[index]) - now) / 1000);
  const cache = new Map();
  const column = (name) => {
    if (!cache.has(name)) cache.set(name, rows.map(([columns, index]) => (columns === null ? null : columns[name][index])));
    return cache.get(name);
  };
  // Legends say the newest row even where the chart ends with a whole second.
  shared = { x, now, column, last: rows.length - 1, newest: state.newest, cache };
  return shared;
}

const timeAxis = {
  time: true,
  view: timeView,
  x() {
    const span = WINDOWS[state.window][1];
    const step = span <= 60 ? 15 : 120;
    const splits = [];
    for (let at = -span; at <= 0; at += step) splits.push(at);
    return { range: [-span, 0], splits, label: (at) => (at === 0 ? "now" : span <= 60 ? `−${-at}${NBSP}s` : `−${-at / 60}${NBSP}min`) };
  },
  moment: (view, index) => new Date(view.now + view.x[index] * 1000).toLocaleTimeString([], { hour12: false }),
};
const at = (view, name, index) => (index === null ? view.newest?.[name] : view.column(name)[index]) ?? null;
const straight = (series) => () => series.map((_, index) => index);
// A stacked chart is painted from the top down: each area covers the lower part of the one before.
const stackOrder = (series) => () => series.map((_, index) => series.length - 1 - index);
// Sums of the columns up to each one, in the order they are drawn.
function stacked(view, names, scale) {
  const columns = names.map((name) => view.column(name));
  const sums = names.map(() => []);
  for (let row = 0; row <= view.last; row += 1) {
    const present = columns.some((column) => column[row] !== null);
    const whole = scale ? columns.reduce((sum, column) => sum + (column[row] ?? 0), 0) : 1;
    let sum = 0;
    for (let i = 0; i < columns.length; i += 1) {
      sum += columns[i][row] ?? 0;
      sums[i].push(present && whole > 0 ? sum / whole : null);
    }
  }
  return [view.x, ...sums.reverse()];
}
const nothingYet = (what) => () => (state.hello === null ? "waiting for the server" : what);

function throughput() {
  const series = [
    { name: "all", colour: "c0", area: true, of: "requests" },
    { name: "get", colour: "c2", of: "get" },
    { name: "set", colour: "c1", of: "set" },
  ];
  return {
    ...timeAxis, series, drawn: straight(series), unit: rate, round: roundLinear(10, 10), nothing: nothingYet("no requests yet"),
    columns: (view) => [view.x, ...series.map(({ of }) => view.column(of))],
    values: (view, index) => series.map(({ of }) => rate(at(view, of, index))),
    facts: () => [["other", joined(rate(state.ticks.last("rest")))], ["in", joined(byteRate(state.ticks.last("received_bytes")))], ["out", joined(byteRate(state.ticks.last("sent_bytes")))],
      ["forwarded", joined(rate(state.ticks.last("forwarded")))]],
  };
}

function latency() {
  const series = [
    { name: "p50", colour: "c0", of: "p50" },
    { name: "p99", colour: "c1", of: "p99" },
    { name: "p99.9", colour: "c3", of: "p999" },
  ];
  const column = (of) => `${OPERATIONS.includes(state.operation) ? state.operation : "get"}_${of}`;
  return {
    ...timeAxis, series, drawn: straight(series), log: true, unit: duration, round: roundLog,
    nothing: nothingYet(`no latencies in this window`),
    columns: (view) => [view.x, ...series.map(({ of }) => positive(view, column(of)))],
    values: (view, index) => series.map(({ of }) => duration(at(view, column(of), index))),
    facts: () => {
      const measured = state.tick?.latency[state.operation];
      return [[`${state.operation}s in the last second`, measured ? grouped(measured.count) : "0"], ["slowest", joined(duration(measured ? measured.total[measured.total.length - 1] : null))]];
    },
  };
}
// A log scale has no place for 0.
function positive(view, name) {
  const key = `${name}+`;
  if (!view.cache.has(key)) view.cache.set(key, view.column(name).map((value) => (value === null || value > 0 ? value : 1)));
  return view.cache.get(key);
}

function hits() {
  const series = [
    { name: "L0", colour: "c2", area: "stack", of: "hits_l0" },
    { name: "L1", colour: "c0", area: "stack", of: "hits_l1" },
    { name: "miss", colour: "c1", area: "stack", of: "misses" },
  ];
  const names = series.map(({ of }) => of);
  return {
    ...timeAxis, series, drawn: stackOrder(series), unit: (value) => [String(Math.round(value * 100)), "%"], round: () => [0, 1], nothing: nothingYet("no reads in this window"),
    columns: (view) => stacked(view, names, true),
    values: (view, index) => {
      const values = names.map((name) => at(view, name, index));
      const reads = values.reduce((sum, value) => sum + (value ?? 0), 0);
      return values.map((value) => share(reads > 0 ? value / reads : null));
    },
    facts: () => {
      const totals = state.tick?.totals;
      const ratio = totals ? hitRate(totals.hits_l0, totals.hits_l1, totals.misses) : null;
      return [["hits", joined(rate(sumOf("hits_l0", "hits_l1")))], ["misses", joined(rate(sumOf("misses")))], ["hit rate since start", joined(share(ratio))]];
    },
  };
}
const sumOf = (...names) => {
  const values = names.map((name) => state.ticks.last(name));
  return values.includes(null) ? null : values.reduce((sum, value) => sum + value, 0);
};

// On a phone 0 gives way to 50.
const percentileLabel = (percentile) => (percentile === 100 ? "max" : percentile === 0 && innerWidth < 480 ? "" : String(percentile));
// "Nines": each further nine is as far as the one before, log10(1 / (1 - p)); the slowest of all
// stands a step behind the last.
function percentiles() {
  const series = [
    { name: "total", colour: "c0", of: "total" },
    { name: "service", colour: "c2", dash: 1, of: "service" },
    { name: "queue", colour: "c1", dash: 2, of: "queue" },
  ];
  const place = (percentile, all) => (percentile < 100 ? -Math.log10(1 - percentile / 100) : -Math.log10(1 - all[all.length - 2] / 100) + 1);
  const measured = () => state.tick?.latency[state.operation];
  return {
    series, drawn: straight(series), log: true, unit: duration, round: roundLog, nothing: nothingYet("no such request in the last second"),
    view: () => {
      const all = state.hello?.percentiles ?? [];
      return { all, x: all.map((percentile) => place(percentile, all)), of: measured() };
    },
    x: () => {
      const all = state.hello?.percentiles ?? [0, 50, 90, 99, 99.9, 99.99, 99.999, 100];
      const named = all.filter((percentile) => [0, 50, 90, 99, 99.9, 99.99, 99.999, 100].includes(percentile));
      const splits = named.map((percentile) => place(percentile, all));
      return { range: [0, splits[splits.length - 1]], splits, label: (x) => percentileLabel(named[splits.indexOf(x)]) };
    },
    columns: (view) => [view.x, ...series.map(({ of }) => view.x.map((_, index) => (view.of && view.of[of][index] > 0 ? view.of[of][index] : null)))],
    values: (view, index) => series.map(({ of }) => duration(view.of ? view.of[of][index ?? view.all.indexOf(99)] : null)),
    moment: (view, index) => (view.all[index] === 100 ? "slowest" : `p${view.all[index]}`),
    facts: () => [["values are of", "p99; point at the chart for others"]],
  };
}

function memory() {
  const colours = { payload: "c0", structure: "c3", fragmentation: "c1", l0: "c2", free: "free" };
  const series = MEMORY_KINDS.map((kind) => ({ name: kind === "l0" ? "L0" : kind, colour: colours[kind], area: "stack", of: kind }));
  const bar = $("#memory .stack");
  const parts = MEMORY_KINDS.map((kind) => {
    const part = bar.appendChild(document.createElement("i"));
    part.className = colours[kind];
    return part;
  });
  return {
    ...timeAxis, series, drawn: stackOrder(series), base: 1024, unit: bytes, round: roundLinear(1 << 20, 1024), nothing: nothingYet("nothing known yet"),
    columns: (view) => stacked(view, MEMORY_KINDS, false),
    values: (view, index) => MEMORY_KINDS.map((kind) => bytes(at(view, kind, index))),
    facts: () => {
      const now = state.tick?.memory;
      return [["entries", now ? joined(count(now.entries)) : DASH], ["structure per entry", now && now.entries > 0 ? `${now.overhead_per_entry.toFixed(1)}${NBSP}B` : DASH],
        ["resident", joined(bytes(now?.resident))]];
    },
    also: () => {
      const now = state.tick?.memory;
      if (!now) return;
      for (const [index, kind] of MEMORY_KINDS.entries()) {
        parts[index].style.width = `${(100 * (now[kind] ?? 0)) / Math.max(now.limit, 1)}%`;
        parts[index].title = `${series[index].name} ${joined(bytes(now[kind]))}`;
      }
    },
  };
}

function evictions() {
  const series = [
    { name: "evicted", colour: "c5", area: true, of: "evicted" },
    { name: "expired", colour: "c0", of: "expired" },
    { name: "ghost hits", colour: "c3", dash: 1, of: "ghost_hits" },
  ];
  return {
    ...timeAxis, series, drawn: straight(series), unit: rate, round: roundLinear(10, 10), nothing: nothingYet("nothing left yet"),
    columns: (view) => [view.x, ...series.map(({ of }) => view.column(of))],
    values: (view, index) => series.map(({ of }) => rate(at(view, of, index))),
    facts: () => {
      const idle = state.tick?.evictions;
      return [["idle before eviction: p50", atMost(idle?.idle_p50_s)], ["p90", atMost(idle?.idle_p90_s)]];
    },
  };
}

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
      ? [tenant.tenant, joined(rate(reads)), of(tenant.hits_l0 + tenant.hits_l1), of(tenant.hits_l0), of(tenant.hits_l1), joined(rate(tenant.changes ?? tenant.sets)), joined(duration(tenant.get_p99_ns)), grouped(tenant.l0_entries), joined(bytes(tenant.l0_bytes))]
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
