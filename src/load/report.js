// Shows the values under the pointer. The page is complete without it.
"use strict";
for (const figure of document.querySelectorAll("figure[data-x]")) {
  const plots = [...figure.querySelectorAll(".plot")].map((plot) => {
    const [low, high] = plot.dataset.x.split(" ").map(Number);
    const curves = [...plot.querySelectorAll("path[data-points]")].map((path) => {
      const numbers = path.dataset.points.split(" ").filter(Boolean).map(Number);
      const points = [];
      for (let i = 0; i + 1 < numbers.length; i += 2) points.push([numbers[i], numbers[i + 1]]);
      return { name: path.dataset.name, points };
    });
    const hair = plot.appendChild(document.createElement("div"));
    hair.className = "hair";
    return { plot, low, high, curves, hair, show: plot.dataset.what === "latency" ? duration : rate };
  });
  const tip = figure.appendChild(document.createElement("div"));
  tip.className = "tip";
  const hide = () => [tip, ...plots.map((p) => p.hair)].forEach((element) => (element.hidden = true));
  hide();

  const grain = Number(figure.dataset.grain);
  const move = (event, { plot, low, high }) => {
    const box = plot.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const x = low + share * (high - low);
    const second = figure.dataset.x === "second";
    tip.replaceChildren(row(second ? "second" : "percentile", second ? Math.min(Math.floor(x), high - 1) : percentile(x)));
    for (const { curves, show, hair } of plots) {
      hair.hidden = false;
      hair.style.left = `${share * 100}%`;
      for (const { name, points } of curves) {
        const value = valueAt(points, x, grain);
        tip.append(row(name, value === null ? "–" : show(value)));
      }
    }
    tip.hidden = false;
    const outer = figure.getBoundingClientRect();
    const left = event.clientX - outer.left;
    // Above the plot, where it hides no curve.
    tip.style.top = `${plots[0].plot.getBoundingClientRect().top - outer.top - tip.offsetHeight - 6}px`;
    tip.style.left = `${Math.max(0, Math.min(left - tip.offsetWidth / 2, outer.width - tip.offsetWidth))}px`;
  };
  for (const entry of plots) {
    entry.plot.addEventListener("pointermove", (event) => move(event, entry));
    entry.plot.addEventListener("pointerdown", (event) => move(event, entry));
  }
  figure.addEventListener("pointerleave", hide);
}

// The value at the point nearest to x, or null: past the end of a percentile curve there are no
// requests, and a point farther away than half a `grain` tells of another second.
function valueAt(points, x, grain) {
  if (points.length === 0) return null;
  let low = 0;
  let high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= x) low = middle;
    else high = middle;
  }
  const near = Math.abs(points[high][0] - x) < Math.abs(points[low][0] - x) ? points[high] : points[low];
  if (grain > 0) return Math.abs(near[0] - x) <= grain / 2 + 1e-3 ? near[1] : null;
  return x > points[points.length - 1][0] + 0.05 ? null : near[1];
}

function percentile(x) {
  return `${(100 * (1 - 10 ** -x)).toFixed(Math.max(0, Math.ceil(x) - 1))} %`;
}

function duration(ns) {
  let value = ns;
  let unit = "ns";
  for (const larger of ["µs", "ms", "s"]) {
    if (value < 999.5) break;
    value /= 1000;
    unit = larger;
  }
  const decimals = unit === "ns" ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return `${value.toFixed(decimals)} ${unit}`;
}

function rate(value) {
  return Math.round(value).toLocaleString("en");
}

function row(name, value) {
  const line = document.createElement("div");
  line.append(name, " ");
  line.appendChild(document.createElement("b")).textContent = value;
  return line;
}
