// The tab of runs: the list, and which of its views is shown. One run is in run.js, several together in compare.js.
import { get, repeat } from "./api.js";
import { compare } from "./compare.js";
import { command, commands, count, duration, failure, h, interval, moment, number, outcome, quote, say, table, title, unitName, words } from "./dom.js";
import { run } from "./run.js";
import { t } from "./words.js";

const EVERY = 2000;
const MOST = 4;

export const runs = (view, [first, second]) => {
  if (first === "compare" && second) return compare(view, second.split(",").slice(0, MOST));
  return first ? run(view, first) : list(view);
};

const progress = (line) => {
  if (!line.steps_planned || !line.live) return count(line.steps);
  return `${count(line.steps)} / ${count(line.steps_planned)} (${Math.round((100 * line.steps) / line.steps_planned)} %)`;
};

const list = (view) => {
  const chosen = new Set();
  const place = h("div", {}, h("p", { class: "empty" }, t("loading")));
  const together = h("a", { class: "button", "aria-disabled": "true", role: "link" }, t("compare"));
  const note = h("span", { class: "quiet small" }, t("compare_hint"));
  const choosing = h("div", { class: "row centre", hidden: true }, together, note);
  const same = h("div");
  let before = "", known = [], home = null;

  const mark = () => {
    const ready = chosen.size > 1;
    if (ready) together.href = `#/runs/compare/${[...chosen].join(",")}`;
    else together.removeAttribute("href");
    together.setAttribute("aria-disabled", String(!ready));
    const folder = known.length && known[0].path.endsWith(`/${known[0].name}`) ? known[0].path.slice(0, -known[0].name.length - 1) : home?.path;
    const pair = known.filter((line) => chosen.has(line.id)).slice(0, 2).map((line) => quote(line.path));
    choosing.hidden = known.length < 2;
    same.replaceChildren(commands(command(`groundup runs ${quote(folder || ".")}`), ...(choosing.hidden ? [] : [command(`groundup runs --compare ${pair[0] ?? "RUN"} ${pair[1] ?? "RUN"}`)])));
    same.hidden = home !== null && !home.exists;
    note.textContent = chosen.size ? t("chosen", { number: chosen.size }) : t("compare_hint");
  };
  const pick = (line) => h("input", { type: "checkbox", "data-key": `pick-${line.id}`, "aria-label": t("choose_run", { name: line.name }), checked: chosen.has(line.id), on: { change: (event) => {
    if (event.target.checked && chosen.size >= MOST) {
      event.target.checked = false;
      say(t("at_most", { number: MOST }));
      return;
    }
    chosen[event.target.checked ? "add" : "delete"](line.id);
    mark();
  } } });

  const update = async () => {
    let lines;
    try {
      lines = await get("/api/runs");
      home = lines.length ? null : await get("/api/folder");
    } catch (fault) {
      place.replaceChildren(failure(fault));
      return true;
    }
    const now = JSON.stringify([lines, home]);
    if (now === before) return true;
    before = now;
    known = lines;
    mark();
    const focus = place.contains(document.activeElement) ? document.activeElement.getAttribute("data-key") : null;
    if (!lines.length) {
      place.replaceChildren(...(home.exists
        ? [h("p", { class: "empty" }, t("no_runs", { folder: home.path }))]
        : [h("p", { class: "note", role: "status" }, t("no_folder", { folder: home.path })), command("groundup serve --runs DIR")]),
      h("p", { class: "quiet" }, t("first_run")), command(`groundup quickstart --out ${quote(`${home.path}/quickstart`)}`));
      return true;
    }
    const rows = lines.map((line) => [
      h("a", { href: `#/runs/${line.id}`, "data-key": line.id }, line.name),
      outcome(line),
      { number: true, text: progress(line) },
      { number: true, text: `${count(line.tokens)} ${line.tokens === null ? "" : unitName(line.unit)}` },
      h("span", {}, words(line.metric ?? (line.value === null ? "" : t("training_loss"))), " ", h("b", {}, number(line.value)), " ",
        h("span", { class: "quiet small" }, interval(line.low, line.high))),
      { number: true, text: duration(line.seconds) },
      moment(line.started),
      { class: "pick", text: pick(line) },
    ]);
    place.replaceChildren(table(
      [t("run"), t("outcome"), t("steps"), t("trained"), t("metric"), t("time"), t("started"), ""], rows, { caption: t("runs_found", { number: lines.length }), kind: "wide stack" }));
    if (focus) place.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus();
    return true;
  };

  view.append(title(t("tab_runs")), choosing, place, same);
  mark();
  return repeat(update, EVERY);
};
