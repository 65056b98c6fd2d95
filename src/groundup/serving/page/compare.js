// Several runs on the same axes, and of two of them what differs.
import { get, repeat } from "./api.js";
import { Chart, smooth } from "./charts.js";
import { command, commands, failure, h, interval, number, outcome, quote, table, title, unitName, words } from "./dom.js";
import { AXES, Record } from "./record.js";
import { axisSwitch, places } from "./run.js";
import { t } from "./words.js";

const STYLES = ["main", "held-0", "held-1", "held-2"];
const EVERY = 2000;

export const compare = (view, ids) => {
  const stopping = new AbortController();
  const records = ids.map((id) => new Record(id));
  const place = h("div"), head = h("div"), differences = h("div");
  let details = null, axis = "steps", charts = new Map();

  const lines = (chart) => records.flatMap((record, index) => {
    const name = details[index].line.name, style = STYLES[index];
    const x = record.columns[AXES[axis]] ?? [], y = record.columns[chart.column] ?? [];
    if (y.some((value) => value !== null)) {
      const span = chart.smoothed && y.length >= 60 ? Math.max(5, Math.floor(y.length / 50) | 1) : 0;
      return [{ name, style, x, y: span ? smooth(y, span) : y }];
    }
    return chart.metric ? record.evaluated(chart.metric, axis).slice(0, 1).map((line) => ({ ...line, name, style })) : [];
  });

  const draw = () => {
    const found = new Map(records.flatMap((record) => record.charts()).map((chart) => [chart.key, chart]));
    if (!charts.size || [...found.keys()].some((key) => !charts.has(key))) {
      charts = new Map([...found].map(([key, chart]) => [key, new Chart(chart.title, chart.note ?? "")]));
      const units = new Set(details.map((one) => one.line.unit));
      place.replaceChildren(axisSwitch(axis, units.size === 1 ? unitName([...units][0]) : t("units"), (name) => { axis = name; draw(); }),
        h("div", { class: "charts" }, [...charts.values()].map((chart) => chart.node)));
    }
    for (const [key, chart] of found) charts.get(key).draw(lines(chart), { ...places(axis, t("units")), y: chart.y, zero: chart.zero, binary: chart.binary });
  };

  const heading = () => {
    head.replaceChildren(h("p", { class: "small" }, h("a", { href: "#/runs" }, t("all_runs"))), title(t("comparison")),
      h("ul", { class: "compared" }, details.map((one, index) => h("li", {}, h("span", { class: `key ${STYLES[index]}` }), h("a", { href: `#/runs/${one.line.id}` }, one.line.name), " ", outcome(one.line)))));
  };

  const pairwise = async () => {
    if (ids.length !== 2) return;
    const found = await get(`/api/compare?first=${ids[0]}&second=${ids[1]}`, { signal: stopping.signal });
    const names = details.map((one) => one.line.name);
    const metrics = found.metrics.map((row) => [`${words(row.data)} ${words(row.metric)}`,
      { number: true, text: `${number(row.first)} ${interval(row.first_low, row.first_high) && `(${interval(row.first_low, row.first_high)})`}` },
      { number: true, text: `${number(row.second)} ${interval(row.second_low, row.second_high) && `(${interval(row.second_low, row.second_high)})`}` },
      row.verdict ? h("span", { class: `badge ${{ better: "good", worse: "bad", "within noise": "fair" }[row.verdict] ?? ""}` }, t(`verdict_${row.verdict.replaceAll(" ", "_")}`)) : ""]);
    const recipe = found.recipe.filter((row) => (row.first || "–") !== (row.second || "–")).map((row) => [h("code", {}, row.field), row.first || "–", row.second || "–"]);
    differences.replaceChildren(
      h("h2", {}, t("results")), metrics.length ? table([t("metric"), ...names, t("second_is")], metrics, { kind: "wide stack" }) : h("p", { class: "quiet" }, t("no_common")),
      ...found.notes.map((note) => h("p", { class: "note" }, note)),
      h("h2", {}, t("recipe_differences")), recipe.length ? table([t("field"), ...names], recipe, { kind: "wide stack" }) : h("p", { class: "quiet" }, t("recipes_equal")));
  };

  const update = async () => {
    try {
      if (details === null) {
        details = await Promise.all(ids.map((id) => get(`/api/runs/${id}`, { signal: stopping.signal })));
        const paths = details.slice(0, 2).map((one) => quote(one.line.path)).join(" ");
        view.replaceChildren(head, place, differences, commands(command(`groundup runs --compare ${paths}`)));
        heading();
        await pairwise();
      }
      const news = await Promise.all(records.map((record) => record.update(() => {}, stopping.signal)));
      if (news.some(Boolean) || !charts.size) draw();
      return details.some((one) => one.line.live);
    } catch (fault) {
      if (!stopping.signal.aborted) view.replaceChildren(title(t("comparison")), failure(fault), h("p", {}, h("a", { href: "#/runs" }, t("all_runs"))));
      return false;
    }
  };

  view.append(h("p", { class: "empty" }, t("loading")));
  const stop = repeat(update, EVERY);
  return () => { stopping.abort(); stop(); };
};
