// Elements, numbers and small parts that all tabs share. Data enters the page as text content only, never as markup.
import { t } from "./words.js";

const NAMES = { svg: "http://www.w3.org/2000/svg" };

const build = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (name === "value" || name === "checked" || name === "selected") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
};

/** An HTML element: h("p", {class: "quiet"}, "text", other). Strings become text nodes. */
export const h = (name, attributes = {}, ...children) => build(document.createElement(name), attributes, children);

/** An SVG element. */
export const s = (name, attributes = {}, ...children) =>
  build(document.createElementNS(NAMES.svg, name), attributes, children);

/** Says something to a screen reader without moving the focus. */
export const say = (text) => { document.getElementById("said").textContent = text; };

const format = (options) => new Intl.NumberFormat("en", options);
const short = format({ maximumSignificantDigits: 4 });
const compact = format({ notation: "compact", maximumFractionDigits: 2 });
export const MISSING = "–";

/** A measured number as a person reads it. */
export const number = (value) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return MISSING;
  const size = Math.abs(value);
  if (size >= 1e5) return compact.format(value);
  return size && size < 1e-4 ? value.toExponential(1) : short.format(value);
};
export const count = (value) =>
  value === null || value === undefined ? MISSING : Math.abs(value) < 1e6 ? format().format(value) : compact.format(value);
export const bytes = (value) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return MISSING;
  let unit = 0;
  while (value >= 1024 && unit < 4) { value /= 1024; unit += 1; }
  return `${value.toFixed(unit && value < 100 && value % 1 ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
};
export const duration = (value) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return MISSING;
  if (value < 60) return `${value < 10 && value % 1 ? value.toFixed(1) : Math.round(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
};
export const percent = (value) =>
  value === null || value === undefined ? MISSING : `${value >= 0.9995 ? "100" : (value * 100).toFixed(value < 0.1 ? 2 : 1)} %`;
export const moment = (text) => (text ? text.slice(0, 16).replace("T", " ") : MISSING);
/** What a run counts, in the language of the page. */
export const unitName = (unit) => t(`unit_${unit}`);
/** A field name as words: bits_per_byte → bits per byte. */
export const words = (name) => String(name ?? "").replaceAll("held_out", "held-out").replaceAll("_", " ");
export const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);
export const interval = (low, high) =>
  low === null || low === undefined || high === null || high === undefined ? "" : `${number(low)} – ${number(high)}`;

/** A word as a shell takes it. */
export const quote = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${String(word).replaceAll("'", "'\\''")}'`);

/** A command line that can be copied. */
export const command = (...parts) => {
  const code = h("code", {}, parts.join(" "));
  const button = h("button", { type: "button", "aria-label": t("copy_command"), on: { click: () => copy(code, button) } }, t("copy"));
  return h("div", { class: "command-row" }, h("pre", {}, code), button);
};

const copy = async (code, button) => {
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = t("copied");
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = t("selected");
  }
  say(button.textContent);
  setTimeout(() => { button.textContent = t("copy"); }, 2500);
};

/** The section at the end of a view: the same by command line. */
export const commands = (...lines) =>
  h("section", { class: "commands", "aria-label": t("by_command") }, h("p", {}, t("by_command")), lines);

/** A table; a cell is a text, a node, or {number: true, text} for one that is set to the right. */
export const table = (heads, rows, { caption, kind = "wide", first = true } = {}) => {
  const cell = (item, name, index) => {
    const plain = item === null || item === undefined || item instanceof Node || typeof item !== "object";
    const content = plain ? item : item.text;
    const set = { class: plain ? null : [item.number && "number", item.class].filter(Boolean).join(" ") || null };
    return index === 0 && first ? h("th", { scope: "row", ...set }, content) : h("td", { "data-label": name, ...set }, content);
  };
  const isNumber = heads.map((_, index) => rows.some((row) => row[index]?.number));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption || heads.filter(Boolean).join(", ") },
    h("table", { class: kind },
      caption ? h("caption", {}, caption) : null,
      h("thead", {}, h("tr", {}, heads.map((name, index) =>
        h("th", { scope: "col", class: isNumber[index] ? "number" : null }, name || h("span", { class: "unseen" }, t("choose")))))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((item, index) => cell(item, heads[index], index)))))));
};

/** Names and values as a table of two columns; empty values are left out. */
export const pairs = (entries) => {
  const rows = entries.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return rows.length
    ? h("table", { class: "pairs wide" }, h("tbody", {}, rows.map(([name, value]) =>
      h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value)))))
    : null;
};

/** A nested value as pairs under dotted names, bounded. */
export const flat = (value, prefix = "", depth = 0, found = []) => {
  if (found.length > 400) return found;
  if (value !== null && typeof value === "object" && depth < 8 && !(Array.isArray(value) && value.every((one) => typeof one !== "object"))) {
    for (const [name, item] of Object.entries(value)) flat(item, prefix ? `${prefix}.${name}` : name, depth + 1, found);
    return found;
  }
  const text = Array.isArray(value) ? value.join(", ") : typeof value === "object" ? JSON.stringify(value) : value;
  found.push([words(prefix), typeof text === "number" ? count(text) : String(text ?? MISSING).slice(0, 2000)]);
  return found;
};

/** A set of radio buttons drawn as one switch. */
export const choice = (legend, name, options, value, act) =>
  h("fieldset", { class: "switch" }, h("legend", {}, legend), options.map(([key, text]) =>
    h("label", {}, h("input", { type: "radio", name, value: key, checked: key === value, on: { change: () => act(key) } }), h("span", {}, text))));

/** A labelled control. */
export const field = (text, control) => h("label", { class: "field" }, text, control);

export const select = (options, value, act, attributes = {}) =>
  h("select", { ...attributes, on: { change: (event) => act(event.target.value) } },
    options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));

export const failure = (fault) => h("p", { class: "failure", role: "alert" }, fault?.message ?? String(fault));

/** The heading of a view, which takes the focus when the view is entered. */
export const title = (text, ...more) => h("h1", { tabindex: "-1" }, h("span", {}, text), more);

const OUTCOMES = { finished: "good", early_stopped: "good", failed: "bad", unfinished: "fair", stopped: "fair", live: "live" };
export const outcome = (line) => {
  const name = line.live ? "live" : line.outcome;
  return h("span", { class: `badge ${OUTCOMES[name] ?? ""}` }, t(`outcome_${name}`));
};
