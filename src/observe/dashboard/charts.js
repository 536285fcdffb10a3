// The charts: axes that stand still, lines and stacks drawn by uPlot, legends that carry the values.
//
//   state (dashboard.js) ──> a view: rows in order of time ──> columns for uPlot, values for the legend
//
// Each of the six is an object of what it shows and how (throughput() and the others below); Chart
// does what they have in common.
"use strict";

const SHRINK_AFTER_MS = 6000; // an axis grows at once and shrinks late, or it would never stand still
const LATENCY_EXTENT = [1000, 100000]; // ns, of an axis without values

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
