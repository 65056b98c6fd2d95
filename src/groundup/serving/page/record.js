// What a page knows of a run's events, gathered piece by piece: columns of the steps, evaluations, samples, incidents.
// Nothing is drawn here.
import { get } from "./api.js";
import { smooth } from "./charts.js";
import { bytes, capital, number, words } from "./dom.js";
import { t } from "./words.js";

const INCIDENTS = 300;
const SMOOTHED = 60;
const SETS = ["held-0", "held-1", "held-2"];
const METRICS = 12;
export const AXES = { steps: "step", tokens: "tokens", time: "seconds" };

export class Record {
  constructor(id) {
    this.id = id;
    this.clear();
  }

  clear() {
    Object.assign(this, { next: 0, size: 0, mark: "", columns: {}, evaluations: [], samples: [], incidents: [], start: {}, end: null, unreadable: 0, thinned: false });
  }

  /** Asks for what is new; true if there was any. Goes on until the end of the file, telling how far it is. */
  async update(progress = () => {}, signal) {
    let any = false;
    for (;;) {
      const piece = await get(`/api/runs/${this.id}/events?after=${this.next}&mark=${this.mark}`, { signal });
      if (piece.reset) this.clear();
      any = any || piece.reset || piece.next > this.next;
      const stuck = piece.next <= this.next;
      this.take(piece);
      progress(this.size ? this.next / this.size : 1);
      if (stuck || this.next >= this.size) return any;
    }
  }

  take(piece) {
    Object.assign(this, { next: piece.next, size: piece.size, mark: piece.mark });
    this.unreadable += piece.unreadable;
    this.thinned = this.thinned || piece.thinned;
    const steps = piece.steps.step ?? [];
    for (let index = 0; index < steps.length; index += 1) {
      const known = this.columns.step;
      while (known?.length && steps[index] <= known[known.length - 1]) {  // done again after a resume: the later counts
        for (const values of Object.values(this.columns)) values.pop();
      }
      for (const [name, values] of Object.entries(piece.steps)) (this.columns[name] ??= []).push(values[index]);
    }
    for (const event of piece.events) {
      if (event.event === "evaluate") this.evaluations.push(event);
      else if (event.event === "sample") this.samples.push(event);
      else if (event.event === "start") this.start = event;
      else {
        if (event.event === "end") this.end = event;
        this.incidents.push(event);
        if (this.incidents.length > INCIDENTS) this.incidents.splice(INCIDENTS / 2, 1);
      }
    }
  }

  last(name) {
    const values = this.columns[name] ?? [];
    for (let index = values.length - 1; index >= 0; index -= 1) if (values[index] !== null) return values[index];
    return null;
  }

  /** A growing column at a step, interpolated. */
  at(column, step) {
    const steps = this.columns.step ?? [], values = this.columns[column] ?? [];
    if (column === "step" || !steps.length) return column === "step" ? step : null;
    let right = steps.findIndex((one) => one >= step);
    if (right < 0) right = steps.length - 1;
    if (right === 0) return values[0];
    const share = Math.min(1, (step - steps[right - 1]) / (steps[right] - steps[right - 1] || 1));
    return values[right - 1] + (values[right] - values[right - 1]) * share;
  }

  /** The points of one metric of each evaluated set, against an axis. */
  evaluated(metric, axis, prefix = "") {
    const found = new Map();
    for (const event of this.evaluations) {
      const value = event.metrics?.[metric];
      if (typeof value !== "number") continue;
      const name = words(event.data || "held_out");
      if (!found.has(name)) found.set(name, { name: prefix + name, x: [], y: [], low: [], high: [], points: true });
      const line = found.get(name);
      const [low, high] = event.intervals?.[metric] ?? [null, null];
      line.x.push(this.at(AXES[axis], event.step));
      line.y.push(value);
      line.low.push(low);
      line.high.push(high);
    }
    return [...found.values()].slice(0, SETS.length).map((line, index) => ({ ...line, style: SETS[index] }));
  }

  /** The lines of one chart: each record faintly and their average, or the records alone, then the evaluations. */
  lines(chart, axis) {
    const x = this.columns[AXES[axis]] ?? [], y = this.columns[chart.column] ?? [];
    const lines = [];
    if (y.some((value) => value !== null)) {
      if (chart.smoothed && y.length >= SMOOTHED) {
        const span = Math.max(5, Math.floor(y.length / 50) | 1);
        lines.push({ name: t("each_record"), style: "faint", x, y }, { name: t("average_of", { span }), style: "main", x, y: smooth(y, span) });
      } else lines.push({ name: chart.metric ? t("training") : "", style: "main", x, y });
    }
    return chart.metric ? [...lines, ...this.evaluated(chart.metric, axis)] : lines;
  }

  /** The charts that this run has something for. */
  charts() {
    const names = new Set(this.evaluations.flatMap((event) => Object.keys(event.metrics ?? {})));
    const evaluated = [...names].filter((name) => !["loss", "bits_per_byte", "perplexity"].includes(name)).slice(0, METRICS)
      .map((name) => ({ key: `metric-${name}`, title: capital(words(name)), metric: name, y: number }));
    const all = names.has("return") ? [...evaluated, ...recorded()] : [...recorded().slice(0, 2), ...evaluated, ...recorded().slice(2)];
    return all.filter((chart) => this.lines(chart, "steps").some((line) => line.y.some((value) => typeof value === "number" && (chart.key !== "ceiling_share" || value > 0))));
  }
}

const share = (value) => `${number(value * 100)} %`;

const recorded = () => [
  { key: "loss", column: "loss", metric: "loss", title: t("loss"), y: number, smoothed: true },
  { key: "bits_per_byte", column: "bits_per_byte", metric: "bits_per_byte", title: t("bits_per_byte"), y: number, smoothed: true },
  { key: "learning_rate", column: "learning_rate", title: t("learning_rate"), y: number, zero: true },
  { key: "gradient_norm", column: "gradient_norm", title: t("gradient_norm"), y: number, zero: true, smoothed: true },
  { key: "tokens_per_second", column: "tokens_per_second", title: t("throughput"), note: t("a_second"), y: number, zero: true, smoothed: true },
  { key: "ceiling_share", column: "ceiling_share", title: t("ceiling_share"), y: share, zero: true, smoothed: true },
  { key: "memory_bytes", column: "memory_bytes", title: t("memory"), y: bytes, zero: true, binary: true },
];
