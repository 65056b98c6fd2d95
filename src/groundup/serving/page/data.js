// The tab of prepared data: the sets, and of one its card, its rows, and what was set aside. Rows are drawn in rows.js.
import { get } from "./api.js";
import { command, commands, count, failure, flat, h, pairs, quote, table, title, words } from "./dom.js";
import { rows } from "./rows.js";
import { quarantine } from "./quarantine.js";
import { t } from "./words.js";

const PARTS = { card, rows, quarantine };
const LEDGERS = ["ledger", "rows", "images"];

export const data = (view, [id, part]) => {
  view.append(h("p", { class: "empty" }, t("loading")));
  const stopping = new AbortController();
  (id ? one(view, id, PARTS[part] ? part : "card", stopping.signal) : list(view, stopping.signal)).catch((fault) => {
    if (!stopping.signal.aborted) view.replaceChildren(title(t("tab_data")), failure(fault), h("p", {}, h("a", { href: "#/data" }, t("all_data"))));
  });
  return () => stopping.abort();
};

const list = async (view, signal) => {
  const lines = await get("/api/data", { signal });
  const shown = lines.map((line) => [
    h("a", { href: `#/data/${line.id}` }, line.name), t(`kind_${line.kind}`),
    { number: true, text: count(line.kept) }, { number: true, text: line.set_aside ? h("a", { href: `#/data/${line.id}/quarantine` }, count(line.set_aside)) : count(line.set_aside) },
    Object.entries(line.parts).map(([name, value]) => `${words(name)} ${count(value)}`).join(", ") || "–",
  ]);
  view.replaceChildren(title(t("tab_data")), shown.length
    ? table([t("set"), t("kind"), t("kept"), t("set_aside"), t("parts")], shown, { caption: t("sets_found", { number: lines.length }), kind: "wide stack" })
    : h("p", { class: "empty" }, t("no_data")),
  commands(command("groundup data check FILE"), command("groundup prepare RECIPE --out DIR")));
};

const one = async (view, id, part, signal) => {
  const detail = await get(`/api/data/${id}`, { signal });
  const { line } = detail;
  const aside = Object.values(detail.reasons).reduce((sum, value) => sum + value, 0);
  const names = { card: t("card"), rows: t("rows"), quarantine: `${t("quarantine")} (${count(line.set_aside ?? aside)})` };
  const place = h("div");
  const show = quote(line.recipe ?? "RECIPE");
  view.replaceChildren(
    h("p", { class: "small" }, h("a", { href: "#/data" }, t("all_data"))), title(line.name, h("span", { class: "badge" }, t(`kind_${line.kind}`))),
    h("p", { class: "quiet" }, line.path, line.run ? [" · ", h("a", { href: `#/runs/${line.run}` }, t("its_run"))] : null),
    h("nav", { class: "parts", "aria-label": t("parts_of_set") }, h("ul", {}, Object.entries(names).map(([key, text]) =>
      h("li", {}, h("a", { href: `#/data/${id}/${key}`, "aria-current": key === part ? "page" : null }, text))))),
    place,
    commands(line.recipe ? command(`groundup data show ${show} --rows 3`) : null, command(`groundup verify ${quote(line.path)}`)));
  PARTS[part](place, detail, signal);
};

/** The ledger as a bar and a table, then everything else that the card says. */
function card(place, { line, card: found, reasons }) {
  const kept = line.kept ?? 0;
  const parts = [[t("kept"), kept], ...Object.entries(reasons)];
  const whole = parts.reduce((sum, [, value]) => sum + value, 0);
  const ledger = whole ? [
    h("h2", {}, t("ledger")),
    h("div", { class: "stack", role: "img", "aria-label": parts.map(([name, value]) => `${name} ${value}`).join(", ") }, parts.map(([, value], index) => {
      const piece = h("span", { class: `piece-${Math.min(index, 3)}` });
      piece.style.flexGrow = value / whole;
      return piece;
    })),
    table([t("what"), t("number"), t("share")], [...parts.map(([name, value], index) => [
      h("span", { class: `key piece-${Math.min(index, 3)}` }, words(name)), { number: true, text: count(value) }, { number: true, text: `${((100 * value) / whole).toFixed(1)} %` }]),
      [h("b", {}, t("read")), { number: true, text: h("b", {}, count(whole)) }, ""]], { kind: "" })] : [];
  const more = Object.entries(found).filter(([name]) => !LEDGERS.includes(name));
  const plain = more.filter(([, value]) => value === null || typeof value !== "object");
  place.replaceChildren(...ledger,
    ...(Object.keys(line.parts).length ? [h("h2", {}, t("parts")), table([t("part"), t("number")], Object.entries(line.parts).map(([name, value]) => [words(name), { number: true, text: count(value) }]), { kind: "" })] : []),
    ...(more.length ? [h("h2", {}, t("card"))] : []), pairs(plain.map(([name, value]) => [words(name), String(value ?? "–")])) ?? "",
    ...more.filter(([, value]) => value !== null && typeof value === "object" && Object.keys(value).length).map(([name, value]) =>
      h("details", {}, h("summary", {}, words(name)), pairs(flat(value)))));
}
