// Lines against steps, tokens or time as SVG, in the manner of the report (report/charts.py): labels keep their size,
// paths stretch, single values are read under the pointer or by arrow key. Nothing about a run is known here.
import { h, number, s } from "./dom.js";

const HEIGHT = 200;
const WIDE = 1000;
const POINTS = 480;
const STEPS = [1, 2, 2.5, 5, 10];
const BINARY = Array.from({ length: 60 }, (_, power) => 2 ** power);
const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

const finite = (value) => typeof value === "number" && Number.isFinite(value);

/** Which points to draw: of each run of points the lowest and the highest, so that no spike is lost. */
export const thin = (x, y, limit = POINTS) => {
  const usable = [];
  for (let index = 0; index < y.length; index += 1) if (finite(y[index]) && finite(x[index])) usable.push(index);
  if (usable.length <= limit) return usable;
  const kept = new Set([usable[0], usable[usable.length - 1]]);
  const runs = Math.floor(limit / 2);
  for (let run = 0; run < runs; run += 1) {
    let low = -1, high = -1;
    for (let at = Math.floor((run * usable.length) / runs); at < Math.floor(((run + 1) * usable.length) / runs); at += 1) {
      const index = usable[at];
      if (low < 0 || y[index] < y[low]) low = index;
      if (high < 0 || y[index] > y[high]) high = index;
    }
    kept.add(low).add(high);
  }
  return [...kept].sort((a, b) => a - b);
};

/** The mean over about `span` values around each value, twice, so that near values count more. */
export const smooth = (values, span) => centred(centred(values, Math.floor(span / 2)), Math.floor(span / 2));

const centred = (values, span) => {
  const sums = [0], counts = [0];
  for (const value of values) {
    sums.push(sums[sums.length - 1] + (finite(value) ? value : 0));
    counts.push(counts[counts.length - 1] + (finite(value) ? 1 : 0));
  }
  return values.map((value, place) => {
    if (!finite(value)) return null;
    const reach = Math.min(Math.floor(span / 2), place, values.length - 1 - place);
    return (sums[place + reach + 1] - sums[place - reach]) / Math.max(counts[place + reach + 1] - counts[place - reach], 1);
  });
};

/** The range to draw: all values, unless the highest would flatten the rest into a line. */
const frame = (values) => {
  const sorted = values.filter(finite).sort((a, b) => a - b);
  if (!sorted.length) return [0, 1];
  const [low, high] = [sorted[0], sorted[sorted.length - 1]];
  const usual = sorted[Math.floor(0.95 * (sorted.length - 1))];
  const ceiling = usual + 1.2 * (usual - low);
  return [low, sorted.length >= 50 && high > ceiling && ceiling > low ? ceiling : high];
};

const widened = (low, high) => {
  if (high - low > Math.max(Math.abs(low), Math.abs(high)) * 1e-12) return [low, high];
  const reach = Math.abs(low) * 0.05 || 1;
  return [low - reach, low + reach];
};

const spaced = (low, high, most, steps) => {
  const rough = (high - low) / Math.max(most - 1, 1);
  let step = steps?.find((one) => one >= rough);
  if (!step) {
    const power = 10 ** Math.floor(Math.log10(rough));
    step = STEPS.find((factor) => factor * power >= rough * 0.999) * power;
  }
  const ticks = [];
  for (let index = Math.ceil(low / step - 1e-9); index <= Math.floor(high / step + 1e-9); index += 1) ticks.push(index * step + 0);  // + 0: never -0
  return ticks;
};

const path = (one, across, down) => {
  let text = "", pen = false, drawn = 0;
  for (let index = 0; index < one.y.length; index += 1) {
    if (!finite(one.x[index]) || !finite(one.y[index])) { pen = false; continue; }
    const height = Math.max(Math.min(down(one.y[index]), HEIGHT * 3), -HEIGHT * 3);
    text += `${pen ? "L" : "M"}${((across(one.x[index]) * WIDE) / 100).toFixed(1)} ${height.toFixed(1)}`;
    pen = true;
    drawn += 1;
  }
  return drawn === 1 ? `${text}h0.1` : text;
};

const points = (one, across, down, first, last) => {
  const marks = [];
  one.y.forEach((y, index) => {
    if (!finite(y) || !finite(one.x[index]) || y < first || y > last) return;
    const at = `${across(one.x[index]).toFixed(2)}%`;
    const [low, high] = [one.low?.[index], one.high?.[index]];
    if (finite(low) && finite(high)) {
      marks.push(s("line", { x1: at, x2: at, y1: down(low).toFixed(1), y2: down(high).toFixed(1), class: `whisker ${one.style}` }));
    }
    marks.push(s("circle", { cx: at, cy: down(y).toFixed(1), r: 2.6, class: `dot ${one.style}` }));
  });
  return marks;
};

const nearest = (values, wanted) => {
  let best = -1;
  values.forEach((value, index) => {
    if (finite(value) && (best < 0 || Math.abs(value - wanted) < Math.abs(values[best] - wanted))) best = index;
  });
  return best;
};

/** A chart; its `draw(series, look)` draws it anew.
 *
 * series: [{name, style, x, y, low?, high?, points?}]; look: {x, y: formats, tick: that of the x axis, time, binary, zero,
 * from, to: the range of y}.
 */
export class Chart {
  constructor(name, note) {
    this.name = name;
    this.legend = h("div", { class: "legend" });
    this.svg = s("svg", { class: "chart", width: "100%", height: HEIGHT + 24, role: "img", tabindex: "0" });
    this.reading = h("div", { class: "reading", hidden: true });
    this.cursor = s("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.plot = h("div", { class: "plot" }, this.svg, this.reading);
    this.node = h("figure", {}, h("figcaption", {}, h("strong", {}, name), " ", h("span", { class: "quiet" }, note)), this.legend, this.plot);
    this.series = [];
    this.at = -1;
    this.shown = false;
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.hide());
    this.svg.addEventListener("blur", () => this.hide());
    this.svg.addEventListener("keydown", (event) => this.press(event));
  }

  draw(series, look) {
    this.series = series.map((one) => {
      const kept = thin(one.x, one.y);
      const pick = (values) => values && kept.map((index) => values[index]);
      return { ...one, x: pick(one.x), y: pick(one.y), low: pick(one.low), high: pick(one.high) };
    });
    this.look = look;
    const all = this.series.flatMap((one) => [...one.y, ...(one.low ?? []), ...(one.high ?? [])]);
    let [low, high] = look.from === undefined ? frame(all) : [look.from, look.to];
    if (look.zero) low = Math.min(low, 0);
    [low, high] = widened(low, high);
    const room = look.from === undefined ? (high - low) * 0.06 : 0;
    [low, high] = [look.zero ? low : low - room, high + room];
    const xs = this.series.flatMap((one) => one.x).filter(finite);
    const [first, last] = widened(Math.min(0, ...xs), Math.max(0, ...xs));
    this.range = [first, last];
    const across = (value) => (100 * (value - first)) / (last - first);
    const down = (value) => HEIGHT - 0.5 - ((HEIGHT - 1) * (value - low)) / (high - low);
    const marks = [];
    for (const value of spaced(low, high, 6, look.binary ? BINARY : undefined)) {
      marks.push(s("line", { x1: 0, x2: "100%", y1: down(value).toFixed(1), y2: down(value).toFixed(1), class: "grid" }),
        s("text", { x: -8, y: down(value).toFixed(1), dy: "0.32em", class: "label end" }, look.y(value)));
    }
    for (const value of spaced(first, last, 5, look.time ? TIMES : undefined)) {
      const at = across(value);
      marks.push(s("text", { x: `${at.toFixed(2)}%`, y: HEIGHT + 18, class: `label ${at < 3 ? "start" : at > 95 ? "end" : "middle"}` }, (look.tick ?? look.x)(value)));
    }
    marks.push(s("line", { x1: 0, x2: "100%", y1: HEIGHT, y2: HEIGHT, class: "base" }));
    const lines = s("svg", { viewBox: `0 0 ${WIDE} ${HEIGHT}`, preserveAspectRatio: "none", width: "100%", height: HEIGHT, class: "paths" },
      this.series.map((one) => s("path", { d: path(one, across, down), class: `line ${one.style}`, "vector-effect": "non-scaling-stroke" })));
    this.svg.replaceChildren(s("title", {}, this.name), ...marks, lines,
      ...this.series.filter((one) => one.points).flatMap((one) => points(one, across, down, low, high)), this.cursor);
    this.svg.setAttribute("aria-label", `${this.name}. ${this.said()}`);
    const named = this.series.filter((one) => one.name);
    this.legend.replaceChildren(...(named.length > 1 || series.length > 1 ? named : []).map((one) => h("span", { class: `key ${one.style}` }, one.name)));
    if (this.shown && this.at >= 0) this.show(this.at);
  }

  /** The chart in words: from where to where each line goes. */
  said() {
    return this.series.filter((one) => one.y.length && !one.style.includes("faint")).map((one) => {
      const values = one.y.filter(finite);
      return `${one.name || this.name}: ${this.look.y(values[0])} → ${this.look.y(values[values.length - 1])}`;
    }).join("; ");
  }

  show(x) {
    const main = this.series.find((one) => !one.style.includes("faint")) ?? this.series[0];
    if (!main?.x.length) return;
    const index = nearest(main.x, x);
    this.at = main.x[index];
    this.shown = true;
    const share = (this.at - this.range[0]) / (this.range[1] - this.range[0]);
    for (const end of ["x1", "x2"]) this.cursor.setAttribute(end, `${share * 100}%`);
    this.cursor.setAttribute("visibility", "visible");
    this.reading.textContent = [this.look.x(this.at)].concat(this.series.filter((one) => one.x.length).map((one) => {
      const at = nearest(one.x, this.at);
      const range = finite(one.low?.[at]) ? ` (${this.look.y(one.low[at])} – ${this.look.y(one.high[at])})` : "";
      return `${one.name ? `${one.name}  ` : ""}${this.look.y(one.y[at])}${range}`;
    })).join("\n");
    this.reading.hidden = false;
    const box = this.svg.getBoundingClientRect();
    const place = box.left - this.plot.getBoundingClientRect().left + share * box.width;
    const room = this.plot.clientWidth - this.reading.offsetWidth;
    this.reading.style.left = `${Math.max(0, Math.min(share > 0.5 ? place - this.reading.offsetWidth - 12 : place + 12, room))}px`;
  }

  hide() {
    this.shown = false;
    this.reading.hidden = true;
    this.cursor.setAttribute("visibility", "hidden");
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    this.show(this.range[0] + (this.range[1] - this.range[0]) * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
  }

  press(event) {
    if (event.key === "Escape") this.hide();
    const main = this.series.find((one) => !one.style.includes("faint")) ?? this.series[0];
    if (!main?.x.length) return;
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -main.x.length, End: main.x.length }[event.key];
    if (!step) return;
    event.preventDefault();
    const index = this.at < 0 ? -1 : nearest(main.x, this.at);
    this.show(main.x[Math.min(main.x.length - 1, Math.max(0, index + step))]);
  }
}

/** A chart of shares against shares, such as a ROC curve. */
export const square = (name, note, series) => {
  const chart = new Chart(name, note);
  chart.draw(series, { x: number, y: number, from: 0, to: 1 });
  return chart.node;
};
