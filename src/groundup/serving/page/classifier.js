// A classifier's measurements: the confusion matrix and the curves that results.json holds, drawn as the report does.
import { square } from "./charts.js";
import { h, interval, number, s, table, words } from "./dom.js";
import { t } from "./words.js";

const SIZES = [[4, 84, 14], [8, 56, 13.5], [16, 36, 12.5], [30, 24, 11], [48, 16, 11], [120, 11, 9.5]];
const LONGEST = 24;
const WRITTEN = 24;
const STYLES = ["main", "held-0", "held-1", "held-2"];
const HEADLINE = ["accuracy", "balanced_accuracy", "f1_macro", "log_loss", "roc_area_macro"];
const ELSEWHERE = { log_loss: "label_loss" };
/** The least part of its size to which a matrix is shrunk; where that is still too wide, it scrolls. */
const LEAST = 0.8;

const short = (name) => (name.length > LONGEST ? `${name.slice(0, LONGEST - 1)}…` : name);
const wide = (text) => [...text].reduce((sum, letter) => sum + (letter.codePointAt(0) > 0x2e80 ? 1 : 0.58), 0);

/** The matrix of cells [truth, prediction, rows]; of more than 120 labels the first are drawn. */
export const matrix = (labels, cells) => {
  const names = labels.slice(0, SIZES[SIZES.length - 1][0]).map((one) => short(String(one)));
  const kept = cells.filter((one) => Array.isArray(one) && one.length === 3 && one[0] < names.length && one[1] < names.length && one[0] >= 0 && one[1] >= 0 && one[2] > 0);
  if (!names.length || !kept.length) return null;
  const [, side, size] = SIZES.find(([most]) => names.length <= most);
  const longest = Math.max(...names.map(wide)) * size;
  const upright = longest <= side - 6;
  const left = Math.ceil(longest) + 12, top = upright ? Math.ceil(size * 1.8) : Math.ceil(longest) + 12;
  const whole = side * names.length;
  const support = new Map();
  for (const [truth, , rows] of kept) support.set(truth, (support.get(truth) ?? 0) + rows);
  const marks = [s("rect", { x: left, y: top, width: whole, height: whole, class: "field" })];
  names.forEach((name, index) => {
    const centre = (index + 0.5) * side;
    marks.push(s("text", { x: left - 7, y: top + centre, dy: "0.34em", class: "end" }, name));
    marks.push(upright
      ? s("text", { x: left + centre, y: top - 8, class: "middle" }, name)
      : s("text", { transform: `translate(${left + centre} ${top - 7}) rotate(-90)`, dy: "0.34em", class: "start" }, name));
  });
  for (const [truth, predicted, rows] of kept) {
    const share = rows / support.get(truth), right = truth === predicted;
    const strength = right ? 0.08 + 0.92 * share : 0.14 + 0.86 * Math.sqrt(share);
    const gap = side >= WRITTEN ? 1 : 0.5;
    const x = left + predicted * side, y = top + truth * side;
    marks.push(s("g", {}, s("title", {}, t(right ? "cell_right" : "cell_wrong", { rows, truth: names[truth], predicted: names[predicted] })),
      s("rect", { x: x + gap, y: y + gap, width: side - 2 * gap, height: side - 2 * gap, class: right ? "right" : "wrong", opacity: strength.toFixed(2) }),
      side >= WRITTEN ? s("text", { x: x + side / 2, y: y + side / 2, dy: "0.34em", class: `middle ${strength > 0.55 ? "over" : "on"}` }, String(rows)) : null));
  }
  const total = kept.reduce((sum, one) => sum + one[2], 0);
  const right = kept.reduce((sum, one) => sum + (one[0] === one[1] ? one[2] : 0), 0);
  const width = left + whole + 2, height = top + whole + 2;
  const drawing = s("svg", { class: "heat", role: "img", "aria-label": `${t("confusion")}. ${t("on_diagonal", { right, total })}`, viewBox: `0 0 ${width} ${height}`, "font-size": size }, marks);
  drawing.style.maxWidth = `${width}px`;
  drawing.style.minWidth = `${LEAST * width}px`;
  return h("figure", { class: "confusion" },
    h("figcaption", {}, h("strong", {}, t("confusion")), " ", h("span", { class: "quiet" }, t("on_diagonal", { right, total }))),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("confusion") }, drawing),
    h("p", { class: "quiet small" }, t("confusion_reading")));
};

const usable = (one) => Array.isArray(one?.x) && Array.isArray(one?.y);

const curves = (found) => {
  const drawn = [];
  for (const [key, name, note] of [["roc", t("roc"), t("roc_note")], ["precision_recall", t("precision_recall"), t("precision_recall_note")]]) {
    const lines = (Array.isArray(found.curves?.[key]) ? found.curves[key] : []).filter(usable).slice(0, STYLES.length);
    if (lines.length) drawn.push(square(name, note, lines.map((one, index) => ({ name: `${one.name}: ${number(one.area)}`, style: STYLES[index], x: one.x, y: one.y }))));
  }
  const bins = (found.calibration?.after ?? found.calibration?.before)?.bins;
  if (Array.isArray(bins) && bins.length) {
    drawn.push(square(t("reliability"), t("reliability_note"), [
      { name: t("as_it_says"), style: "faint", x: [0, 1], y: [0, 1] },
      { name: t("accuracy"), style: "main", x: bins.map((one) => one.confidence), y: bins.map((one) => one.accuracy), points: true }]));
  }
  return drawn.length ? h("div", { class: "charts" }, drawn) : null;
};

/** The interval of a metric. One that stands among the run's results is taken from there: two bootstraps of the same
 * rows differ in the last digits, and a reader would ask which to believe. */
const bounds = (found, name, results) => {
  const { value, low, high } = found.headline[name];
  const same = results.findLast((row) => row.data === found.data && [name, ELSEWHERE[name]].includes(row.metric) && number(row.after) === number(value));
  return same ? interval(same.low, same.high) : interval(low, high);
};

/** Everything that is drawn of the measured sets of a classifier; empty without any. `results`: the run's evaluations. */
export const classifier = (sets, results = []) => {
  const parts = sets.map((found) => {
    const labels = Array.isArray(found.labels) ? found.labels.map(String) : [];
    const measured = HEADLINE.filter((name) => found.headline?.[name]).map((name) => {
      return [words(name), { number: true, text: h("b", {}, number(found.headline[name].value)) }, { number: true, text: bounds(found, name, results) }];
    });
    return [
      measured.length ? table([t("metric"), t("value"), t("interval")], measured, { caption: t("rows_measured", { number: found.rows ?? "–", data: words(found.data ?? "") }), kind: "" }) : null,
      matrix(labels, Array.isArray(found.confusion) ? found.confusion : []),
      curves(found),
    ];
  });
  return sets.length ? h("section", {}, h("h2", {}, t("classification")), parts) : h("section", { hidden: true });
};
