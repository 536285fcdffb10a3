// How quantities are written: with their unit always, and three significant digits, so that a figure
// keeps its width while it changes.
"use strict";

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
