// Rows as the model reads them: running text with what is learned marked, or token by token with ids.
import { get } from "./api.js";
import { choice, count, failure, field, h, pairs, select, table, words } from "./dom.js";
import { read, write } from "./store.js";
import { t } from "./words.js";

const COUNT = 10;

/** Spaces and line ends that would not be seen. */
export const visible = (text) => (text === "" ? "∅" : text.replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥"));

const running = (row) => {
  if (!row.ids.length) return h("blockquote", {}, row.text);
  const learned = row.learned.some(Boolean);
  // Characters may take several tokens, so runs of tokens cannot simply be joined; where they can, runs are marked.
  if (row.tokens.join("") !== row.text) return h("blockquote", {}, row.text);
  const spans = [];
  row.tokens.forEach((text, index) => {
    const last = spans[spans.length - 1];
    if (last && last.learned === row.learned[index]) last.text += text;
    else spans.push({ learned: row.learned[index], text });
  });
  return h("blockquote", {}, spans.map((one) => (one.learned ? h("mark", {}, one.text) : learned ? h("span", { class: "quiet" }, one.text) : one.text)));
};

const tokens = (row) => h("ol", { class: "tokens", "aria-label": t("tokens_of_row", { number: row.number }) }, row.tokens.map((text, index) =>
  h("li", { class: row.learned[index] ? "learned" : null }, h("span", {}, visible(text)), h("small", {}, String(row.ids[index])),
    row.learned[index] ? h("span", { class: "unseen" }, t("learned")) : null)));

const shown = (row, how) => {
  const learned = row.learned.filter(Boolean).length;
  const facts = row.ids.length ? t("tokens_learned", { tokens: count(row.ids.length), learned: count(learned) }) : "";
  const cells = row.cells.length ? h("details", {}, h("summary", {}, t("cells", { number: row.cells.length })), table(row.headers, row.cells, { kind: "" })) : null;
  return h("li", {}, h("p", { class: "small quiet" }, h("b", {}, t("row", { number: count(row.number) })), " ", facts, row.cut ? ` · ${t("more_tokens", { number: count(row.cut) })}` : "",
    row.place ? ` · ${row.place}` : "", row.answer ? [" → ", h("b", {}, row.answer)] : ""),
  row.ids.length && how === "tokens" ? tokens(row) : row.text ? running(row) : null, cells);
};

/** Which rows are shown, of how many; how many the search found, and how far it looked. */
const extent = ({ rows: found, total, within, found: fitting }) => {
  const ends = found.length ? { first: count(found[0].number), last: count(found[found.length - 1].number), total: count(total) } : null;
  return [
    ends && (total === null ? t("rows_of_many", ends) : t("rows_shown", ends)),
    fitting === null ? null : t("rows_found", { number: count(fitting) }),
    within === null ? null : t("rows_within", { number: count(within) }),
  ].filter(Boolean).join(" · ");
};

export const rows = (place, { line }, signal) => {
  const parts = Object.keys(line.parts);
  const state = { part: parts.includes("train") ? "train" : parts[0] ?? "", start: 0, search: "", before: [], how: read("groundup.rows", "text") };
  const found = h("div", { "aria-live": "polite" });
  const search = h("input", { type: "search", maxlength: 200 });
  const where = h("span", { class: "quiet small" });
  let page = null;

  const draw = () => {
    const more = page.next;
    where.textContent = extent(page);
    back.disabled = !state.before.length;
    on.disabled = more === null;
    found.replaceChildren(pairs(Object.entries(page.facts)) ?? "", page.rows.length
      ? h("ol", { class: "rows" }, page.rows.map((row) => shown(row, state.how)))
      : h("p", { class: "empty" }, more === null ? t("no_rows") : t("not_yet")));
  };
  const load = async () => {
    found.setAttribute("aria-busy", "true");
    if (!page) found.replaceChildren(h("p", { class: "empty" }, line.rows === "recipe" ? t("reading_again") : t("loading")));
    const asked = new URLSearchParams({ part: state.part, start: state.start, count: COUNT, search: state.search });
    try {
      page = await get(`/api/data/${line.id}/rows?${asked}`, { signal });
      draw();
    } catch (fault) {
      if (!signal.aborted) found.replaceChildren(failure(fault));
    }
    found.removeAttribute("aria-busy");
  };
  const back = h("button", { type: "button", disabled: true, on: { click: () => { state.start = state.before.pop() ?? 0; load(); } } }, t("previous"));
  const on = h("button", { type: "button", disabled: true, on: { click: () => { state.before.push(state.start); state.start = page.next; load(); } } }, t("next"));
  const anew = () => { state.start = 0; state.before = []; page = null; load(); };

  if (line.rows === "none") {
    place.append(h("p", { class: "empty" }, t("rows_not_kept")));
    return;
  }
  place.append(h("form", { class: "row", on: { submit: (event) => { event.preventDefault(); state.search = search.value; anew(); } } },
    line.rows === "stored" && parts.length > 1 ? field(t("part"), select(parts.map((name) => [name, words(name)]), state.part, (name) => { state.part = name; anew(); })) : null,
    field(t("search"), search), h("button", {}, t("find")),
    choice(t("show_as"), "how", [["text", t("as_text")], ["tokens", t("as_tokens")]], state.how, (how) => { state.how = how; write("groundup.rows", how); if (page) draw(); })),
  h("p", { class: "small quiet" }, h("mark", {}, t("learned")), " ", t("mask_reading")),
  found, h("div", { class: "row centre" }, back, on, where));
  load();
};
