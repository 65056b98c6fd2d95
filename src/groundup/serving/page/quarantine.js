// What preparation set aside, with the reason of each row.
import { get } from "./api.js";
import { count, failure, field, h, select, words } from "./dom.js";
import { t } from "./words.js";

const COUNT = 25;

const said = (row) => {
  if (typeof row.text === "string" && row.text) return row.text;
  if (Array.isArray(row.record?.messages)) return row.record.messages.map((one) => `${one?.role}: ${one?.content}`).join("\n");
  return row.record === undefined || row.record === null ? "" : typeof row.record === "string" ? row.record : JSON.stringify(row.record, null, 1);
};

const shown = (row) => h("li", {},
  h("p", { class: "small" }, h("span", { class: `badge ${row.malformed || String(row.reason).startsWith("malformed") ? "bad" : "fair"}` }, words(row.reason ?? t("no_reason"))), " ",
    h("span", { class: "quiet" }, [row.file, row.line !== undefined && `${t("line")} ${count(row.line)}`, row.field, row.detail].filter(Boolean).join(" · "))),
  h("blockquote", {}, said(row).slice(0, 4000)));

export const quarantine = (place, { line, reasons }, signal) => {
  const state = { after: 0, reason: "", search: "" };
  const found = h("ol", { class: "rows" });
  const search = h("input", { type: "search", maxlength: 200 });
  const end = h("p", { class: "quiet small", role: "status" });
  const load = async () => {
    const asked = new URLSearchParams({ after: state.after, count: COUNT, reason: state.reason, search: state.search });
    more.disabled = true;
    try {
      const page = await get(`/api/data/${line.id}/quarantine?${asked}`, { signal });
      found.append(...page.rows.map(shown));
      state.after = page.next;
      more.hidden = page.next === null;
      more.disabled = false;
      end.textContent = page.next === null ? (found.childElementCount ? t("all_shown", { number: count(found.childElementCount) }) : t("nothing_aside")) : "";
    } catch (fault) {
      if (!signal.aborted) end.replaceChildren(failure(fault));
    }
  };
  const anew = () => { state.after = 0; found.replaceChildren(); load(); };
  const more = h("button", { type: "button", on: { click: load } }, t("more"));
  const options = [["", t("every_reason")], ...Object.entries(reasons).map(([name, number]) => [name, `${words(name)} (${count(number)})`])];
  place.append(h("form", { class: "row", on: { submit: (event) => { event.preventDefault(); state.search = search.value; anew(); } } },
    field(t("reason"), select(options, "", (name) => { state.reason = name; anew(); })), field(t("search"), search), h("button", {}, t("find"))),
  found, h("div", { class: "row centre" }, more, end));
  load();
};
