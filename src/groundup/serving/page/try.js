// The tab to try out what judges: a text, an image, a drawn digit or a row goes in; labels with probabilities and what
// they rest on come out. Drawing and images are in picture.js.
import { get, models } from "./api.js";
import { command, commands, failure, field, h, number, percent, quote, say, select, title } from "./dom.js";
import { canvasInput } from "./picture.js";
import { t } from "./words.js";

const KINDS = ["text", "image", "table"];
const MOST_LABELS = 12;
const state = { model: null, inputs: {}, explain: true };

const kind = (model) => KINDS.find((one) => (model.card?.abilities ?? []).includes(`classify:${one}`));

export const tryOut = (view, [wanted]) => {
  const stopping = new AbortController();
  view.append(title(t("tab_try")), h("p", { class: "empty" }, t("loading")));
  const show = async () => {
    const fitting = (await models(true)).filter(kind);
    if (stopping.signal.aborted) return;
    if (!fitting.length) {
      view.replaceChildren(title(t("tab_try")), h("p", { class: "empty" }, t("no_classifier")), command("groundup serve MODEL"), commands(command("groundup predict MODEL --files FILE")));
      return;
    }
    const model = fitting.find((one) => one.id === (wanted ?? state.model)) ?? fitting[0];
    state.model = model.id;
    draw(view, fitting, model, stopping.signal);
  };
  show().catch((fault) => { if (!stopping.signal.aborted) view.replaceChildren(title(t("tab_try")), failure(fault)); });
  return () => stopping.abort();
};

const draw = (view, fitting, model, signal) => {
  const input = { text: textInput, image: canvasInput, table: rowInput }[kind(model)](model, state.inputs[model.id] ??= {});
  const found = h("div", { class: "verdict", "aria-live": "polite" }, h("p", { class: "quiet" }, t("nothing_asked")));
  const explain = h("input", { type: "checkbox", checked: state.explain, on: { change: (event) => { state.explain = event.target.checked; } } });
  const ask = h("button", { class: "primary" }, t("classify"));
  const chosen = h("div", { class: "row" }, field(t("model"), select(fitting.map((one) => [one.id, one.id]), model.id, (id) => {
    state.model = id;
    location.hash = `#/try/${encodeURIComponent(id)}`;
  })));
  const submit = async (event) => {
    event.preventDefault();
    const value = input.value();
    if (value === null) {
      found.replaceChildren(h("p", { class: "note" }, t("nothing_given")));
      return;
    }
    ask.disabled = true;
    found.setAttribute("aria-busy", "true");
    try {
      const said = await get("/v1/classify", { body: { model: model.id, input: value, explain: explain.checked }, signal });
      found.replaceChildren(...verdict(said.data[0], kind(model)));
      say(said.data[0].label ?? "");
    } catch (fault) {
      if (!signal.aborted) found.replaceChildren(failure(fault));
    }
    found.removeAttribute("aria-busy");
    ask.disabled = false;
  };
  const path = quote(model.card?.path ?? model.id);
  const same = { text: `groundup explain-prediction ${path} --text TEXT`, image: `groundup explain-prediction ${path} --image FILE`, table: `groundup explain-prediction ${path} --input FILE --row 1` };
  view.replaceChildren(title(t("tab_try")), chosen,
    h("form", { class: "halves", on: { submit } },
      h("section", { "aria-label": t("what_goes_in") }, input.node, h("div", { class: "row centre" }, ask, h("label", { class: "tick" }, explain, t("explain")))),
      h("section", { "aria-label": t("what_comes_out") }, found)),
    commands(command(`groundup predict ${path} --files FILE`), command(same[kind(model)])));
};

const textInput = (model, kept) => {
  const area = h("textarea", { rows: 6, maxlength: 100000, value: kept.text ?? "", on: { input: () => { kept.text = area.value; } } });
  return { node: field(t("text"), area), value: () => (area.value.trim() ? area.value : null) };
};

const rowInput = (model, kept) => {
  const columns = model.card?.columns ?? [];
  kept.row ??= {};
  const numeric = (text) => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text);
  if (!columns.length) {
    const area = h("textarea", { rows: 10, class: "mono", placeholder: "{\"column\": 1.5}", value: kept.text ?? "", on: { input: () => { kept.text = area.value; } } });
    return { node: field(t("row_as_json"), area), value: () => { try { return JSON.parse(area.value); } catch { return null; } } };
  }
  const fields = columns.map((name) => {
    const control = h("input", { value: kept.row[name] ?? "", inputmode: "text", on: { input: () => { kept.row[name] = control.value; } } });
    return field(name, control);
  });
  return {
    node: h("div", { class: "columns" }, fields),
    value: () => (columns.some((name) => (kept.row[name] ?? "") !== "") ? Object.fromEntries(columns.map((name) => [name, numeric(kept.row[name] ?? "")])) : null),
  };
};

const verdict = (said, how) => {
  const probabilities = Object.entries(said.probabilities ?? {}).sort((a, b) => b[1] - a[1]);
  const bars = probabilities.slice(0, MOST_LABELS).map(([name, value], index) => {
    const bar = h("span", { class: "bar" });
    bar.style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
    return h("li", { class: index ? null : "first" }, h("span", { class: "name" }, name), h("span", { class: "track" }, bar), h("span", { class: "number" }, percent(value)));
  });
  const rest = probabilities.length - bars.length;
  return [
    h("p", { class: "answer" }, said.label ?? number(said.value)),
    bars.length ? h("ol", { class: "bars", "aria-label": t("probabilities") }, bars) : "",
    rest > 0 ? h("p", { class: "quiet small" }, t("more_labels", { number: rest })) : "",
    ...(said.explanation ? explanation(said.explanation, how) : []),
  ];
};

const explanation = (said, how) => {
  const head = h("h3", {}, t("rests_on", { target: said.target ?? "" }));
  const method = h("p", { class: "quiet small" }, t("method", { method: String(said.method ?? "").replaceAll("_", " ") }));
  if (said.picture) {
    const canvas = h("canvas", { class: "picture", role: "img", "aria-label": t("picture_of", { target: said.target ?? "" }) });
    paint(canvas, said.picture).catch(() => canvas.replaceWith(h("p", { class: "failure" }, t("no_picture"))));
    return [head, canvas, method];
  }
  const pieces = (said.pieces ?? []).filter((one) => typeof one.weight === "number");
  const strongest = Math.max(...pieces.map((one) => Math.abs(one.weight)), 1e-12);
  const tone = (weight) => `${weight < 0 ? "against" : "for"}-${Math.min(4, Math.round((4 * Math.abs(weight)) / strongest))}`;
  if (how === "table") {
    const sorted = [...pieces].sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight)).slice(0, 20);
    return [head, h("ol", { class: "bars weights" }, sorted.map((one) => {
      const bar = h("span", { class: `bar ${one.weight < 0 ? "against" : "for"}` });
      bar.style.width = `${(50 * Math.abs(one.weight)) / strongest}%`;
      return h("li", {}, h("span", { class: "name", title: one.text }, one.text), h("span", { class: "track middle" }, bar), h("span", { class: "number" }, number(one.weight)));
    })), method];
  }
  return [head, h("p", { class: "attributed" }, pieces.map((one) => h("span", { class: tone(one.weight), title: number(one.weight) }, one.text))),
    h("p", { class: "legend small" }, h("span", { class: "for-3" }, t("speaks_for")), " ", h("span", { class: "against-3" }, t("speaks_against"))), method];
};

/** A PNG in a data URL onto a canvas; nothing else is taken. */
const paint = async (canvas, address) => {
  const [head, body] = address.split(",", 2);
  if (head !== "data:image/png;base64") throw new Error("no PNG");
  const content = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
  const image = await createImageBitmap(new Blob([content], { type: "image/png" }));
  Object.assign(canvas, { width: image.width, height: image.height });
  canvas.getContext("2d").drawImage(image, 0, 0);
};
