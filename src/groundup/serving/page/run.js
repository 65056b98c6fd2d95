// One run: what it reached, its curves while they grow, samples, events, hardware, a classifier's matrix, the report.
import { get, repeat } from "./api.js";
import { Chart } from "./charts.js";
import { classifier } from "./classifier.js";
import { bytes, capital, choice, command, commands, count, duration, failure, flat, h, interval, moment, number, outcome, pairs, quote, table, title, unitName, words } from "./dom.js";
import { reportFrame } from "./report.js";
import { AXES, Record } from "./record.js";
import { t } from "./words.js";

const EVERY = 1000;
const LOOK_AGAIN = 10;

/** How places on an axis are read, and how its ticks are labelled. */
export const places = (axis, unit) => ({
  steps: { x: (value) => `${t("step")} ${number(value)}`, tick: number }, tokens: { x: (value) => `${number(value)} ${unit}`, tick: number },
  time: { x: duration, tick: duration, time: true },
}[axis]);

/** The switch of what curves are drawn against. */
export const axisSwitch = (axis, unit, act) =>
  choice(t("against"), "axis", [["steps", t("steps_axis")], ["tokens", unit], ["time", t("time")]], axis, act);

export const run = (view, id) => {
  const record = new Record(id);
  const stopping = new AbortController();
  const parts = Object.fromEntries(["head", "tiles", "charts", "results", "classes", "samples", "events", "about", "report", "same"].map((name) => [name, h("div", { id: `run-${name}` })]));
  let detail = null, axis = "steps", rounds = 0, charts = new Map(), chosen = null;

  view.append(parts.head, h("p", { class: "empty" }, t("loading")));

  const tiles = () => {
    const { line, summary } = detail;
    const steps = record.last("step") ?? line.steps;
    const planned = record.start.steps ?? line.steps_planned;
    const left = line.live && planned && steps ? ((record.last("seconds") ?? 0) / steps) * (planned - steps) : null;
    const held = line.metric ? [capital(words(line.metric)), number(line.value), interval(line.low, line.high)] : null;
    const facts = [
      [t("steps_axis"), count(steps), planned && planned !== steps ? t("of", { whole: count(planned) }) : left ? t("left", { time: duration(left) }) : ""],
      [t("training_loss"), number(record.last("loss")), ""],
      held,
      [t("trained"), count(record.last("tokens") ?? line.tokens), unitName(line.unit)],
      [t("throughput"), number(record.last("tokens_per_second")), t("unit_a_second", { unit: unitName(line.unit) })],
      [t("memory"), bytes(record.last("memory_bytes") ?? summary.measured?.memory_bytes), ""],
      [t("time"), duration(record.last("seconds") ?? line.seconds), left ? t("left", { time: duration(left) }) : ""],
    ].filter((one) => one && one[1] !== "–");
    parts.tiles.replaceChildren(h("dl", { class: "tiles" }, facts.map(([name, value, more]) =>
      h("div", {}, h("dt", {}, name), h("dd", {}, h("b", {}, value), more ? h("span", {}, more) : null)))));
  };

  const draw = () => {
    const found = record.charts();
    if (parts.charts.childElementCount === 0 || found.some((chart) => !charts.has(chart.key))) {
      charts = new Map(found.map((chart) => [chart.key, new Chart(chart.title, chart.note ?? "")]));
      parts.charts.replaceChildren(h("h2", {}, t("curves")), found.length
        ? axisSwitch(axis, unitName(detail.line.unit), (name) => { axis = name; draw(); })
        : h("p", { class: "quiet" }, t("no_steps")), h("div", { class: "charts" }, [...charts.values()].map((chart) => chart.node)));
    }
    for (const chart of found) {
      charts.get(chart.key).draw(record.lines(chart, axis), { ...places(axis, unitName(detail.line.unit)), y: chart.y, zero: chart.zero, binary: chart.binary });
    }
  };

  const samples = () => {
    if (!record.samples.length) return;
    const index = chosen === null ? record.samples.length - 1 : Math.min(chosen, record.samples.length - 1);
    const shown = record.samples[index];
    if (!parts.samples.childElementCount) {
      const slide = h("input", { type: "range", id: "sample-step", min: 0, "aria-label": t("sample_step"), on: { input: (event) => {
        chosen = Number(event.target.value) === record.samples.length - 1 ? null : Number(event.target.value);
        samples();
      } } });
      parts.samples.append(h("h2", {}, t("samples")), h("div", { class: "row centre" }, slide, h("output", { for: "sample-step", class: "quiet" })), h("ol", { class: "samples" }));
    }
    const slide = parts.samples.querySelector("input");
    slide.max = record.samples.length - 1;
    slide.value = index;
    slide.setAttribute("aria-valuetext", `${t("step")} ${shown.step}`);
    parts.samples.querySelector("output").textContent = t("sample_at", { step: count(shown.step), index: index + 1, all: record.samples.length });
    parts.samples.querySelector("ol").replaceChildren(...(Array.isArray(shown.samples) ? shown.samples : []).map((one) =>
      h("li", {}, h("blockquote", {}, h("span", { class: "quiet" }, one.prompt ?? ""), one.text ?? ""))));
  };

  const incidents = () => {
    const rows = record.incidents.slice(-100).reverse().map(({ event, step, clock, ...rest }) => [
      count(step), words(event), h("span", { class: "said" }, Object.entries(rest).filter(([, value]) => value !== "").map(([name, value]) =>
        `${words(name)}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(" · ").slice(0, 1000)), moment(clock?.time)]);
    if (record.unreadable) rows.unshift(["–", t("warning"), t("unreadable_lines", { number: record.unreadable }), ""]);
    const open = parts.events.querySelector("details")?.open ?? false;
    parts.events.replaceChildren(h("h2", {}, t("events")), rows.length
      ? h("details", { open }, h("summary", {}, t("events_found", { number: record.incidents.length })), table([t("step"), t("event"), t("what"), t("when")], rows, { kind: "wide" }))
      : h("p", { class: "quiet" }, t("no_events")));
  };

  const about = () => {
    const { line, summary } = detail;
    const evaluations = (summary.evaluations ?? []).map((row) => [
      `${words(row.data)} ${words(row.metric)}`, { number: true, text: number(row.before) }, { number: true, text: h("b", {}, number(row.after)) },
      { number: true, text: interval(row.low, row.high) }, row.verdict ? h("span", { class: `badge ${{ better: "good", worse: "bad", "within noise": "fair" }[row.verdict] ?? ""}` }, t(`verdict_${row.verdict.replaceAll(" ", "_")}`)) : ""]);
    parts.results.replaceChildren(...(evaluations.length
      ? [h("h2", {}, t("results")), table([t("metric"), t("before"), t("after"), t("interval"), t("verdict")], evaluations, { kind: "wide stack" })] : []));
    parts.about.replaceChildren(
      ...[h("h2", {}, t("machine_recipe")),
        Object.keys(summary.hardware ?? {}).length ? h("details", {}, h("summary", {}, t("hardware")), pairs(flat(summary.hardware))) : [],
        detail.recipe ? h("details", {}, h("summary", {}, t("recipe")), h("pre", { tabindex: "0" }, h("code", {}, detail.recipe))) : [],
        h("p", { class: "row" }, detail.data.map((one) => h("a", { href: `#/data/${one}` }, t("its_data"))), detail.model ? h("a", { href: `#/models/${detail.model}` }, t("its_model")) : null),
      ].flat());
    parts.report.replaceChildren(h("h2", {}, t("report")), reportFrame(id, line.name));
    const path = quote(line.path);
    parts.same.replaceChildren(commands(
      summary.command ? command(summary.command) : null, command(`groundup report ${path}`), command("groundup runs"), command(`groundup verify ${path}`)));
  };

  const head = () => {
    const { line, summary } = detail;
    const failed = summary.reason && line.outcome !== "finished";
    parts.head.replaceChildren(h("p", { class: "small" }, h("a", { href: "#/runs" }, t("all_runs"))), title(line.name, outcome(line)),
      h("p", { class: "quiet" }, line.path), ...(failed ? [h("p", { class: line.outcome === "failed" ? "failure" : "note" }, summary.reason)] : []));
  };

  const load = async () => {
    detail = await get(`/api/runs/${id}`, { signal: stopping.signal });
    head();
    about();
    parts.classes.replaceChildren(classifier(detail.classification, detail.summary.evaluations));
  };

  const update = async () => {
    try {
      if (detail === null) {
        await load();
        view.replaceChildren(parts.head, parts.tiles, parts.charts, parts.results, parts.classes, parts.samples, parts.events, parts.about, parts.report, parts.same);
      }
      rounds += 1;
      const any = await record.update((share) => { if (share < 1) view.setAttribute("aria-busy", "true"); }, stopping.signal);
      view.removeAttribute("aria-busy");
      if (any || rounds === 1) {
        tiles();
        draw();
        samples();
        incidents();
      }
      if (record.end && detail.line.live || rounds % LOOK_AGAIN === 0) {
        const line = JSON.stringify(detail.line);
        const fresh = await get(`/api/runs/${id}`, { signal: stopping.signal });
        if (JSON.stringify(fresh.line) !== line) {
          const focus = document.activeElement?.tagName === "H1";
          detail = fresh;
          head();
          if (!fresh.line.live) { about(); parts.classes.replaceChildren(classifier(detail.classification, detail.summary.evaluations)); }
          if (focus) view.querySelector("h1").focus();
        }
      }
      return true;
    } catch (fault) {
      if (stopping.signal.aborted) return false;
      view.replaceChildren(title(t("run")), failure(fault), h("p", {}, h("a", { href: "#/runs" }, t("all_runs"))));
      return false;
    }
  };

  const stop = repeat(update, EVERY);
  return () => { stopping.abort(); stop(); };
};
