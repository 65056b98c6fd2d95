// Talking to the server that this page came from, and to nobody else: JSON, streams, and the key if it asks for one.
import { h } from "./dom.js";
import { t } from "./words.js";

const KEY = "groundup.key";
let asking = null;

export class Refusal extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const key = () => { try { return sessionStorage.getItem(KEY); } catch { return null; } };

/** Asks for the key once, however many requests wait for it; `wrong`: one was given, and the server would not have it. */
const askKey = (wrong) => {
  asking ??= new Promise((done) => {
    const dialog = document.getElementById("key");
    const input = h("input", { type: "password", autocomplete: "off", required: true, id: "key-input", "aria-invalid": wrong ? "true" : null, "aria-describedby": wrong ? "key-wrong" : null });
    const form = h("form", { method: "dialog" },
      h("h2", { id: "key-title" }, t("key_title")),
      wrong ? h("p", { class: "failure", role: "alert", id: "key-wrong" }, t("key_wrong")) : null,
      h("p", { class: "quiet small" }, t("key_text")),
      h("label", { class: "field" }, t("key_label"), input),
      h("div", { class: "row" }, h("button", { class: "primary" }, t("key_use"))));
    dialog.replaceChildren(form);
    dialog.addEventListener("close", () => {
      if (input.value) sessionStorage.setItem(KEY, input.value);
      asking = null;
      done(Boolean(input.value));
    }, { once: true });
    dialog.showModal();
  });
  return asking;
};

const refused = async (response) => {
  const text = await response.text();
  try {
    const said = JSON.parse(text);
    return new Refusal(said.error?.message ?? said.detail ?? text, response.status, said.error?.code);
  } catch {
    return new Refusal(text || response.statusText, response.status);
  }
};

const request = async (path, { body, signal } = {}) => {
  for (;;) {
    const used = key();
    const headers = { Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (used) headers.Authorization = `Bearer ${used}`;
    const response = await fetch(path, {
      method: body === undefined ? "GET" : "POST", headers, signal, cache: "no-store", credentials: "omit",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (response.status === 401 && (key() !== used || await askKey(used !== null))) continue;
    if (!response.ok) throw await refused(response);
    return response;
  }
};

/** Whether a key is in use, so that the browser alone cannot fetch what lies behind it. */
export const keyed = () => Boolean(key());

/** JSON from a path; with `body` it is posted. */
export const get = async (path, options) => (await request(path, options)).json();

export const text = async (path) => (await request(path)).text();

/** The objects of a stream of server-sent events, until [DONE]. */
export const stream = async function* (path, body, signal) {
  const response = await request(path, { body: { ...body, stream: true }, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += value ?? "";
      const blocks = rest.split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of done ? [...blocks, rest] : blocks) {
        const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
        if (data === "[DONE]") return;
        if (!data) continue;
        const found = JSON.parse(data);
        if (found.error) throw new Refusal(found.error.message, 0, found.error.code);
        yield found;
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
};

let served = null;

/** The models of the server, asked for once in a while. */
export const models = async (anew = false) => {
  if (anew || !served) served = get("/v1/models").then((found) => found.data ?? []).catch((fault) => { served = null; throw fault; });
  return served;
};

/** Whether a model can do something; of one that was never loaded nobody knows, so it may be tried. */
export const can = (model, ability) => (model.card?.abilities ?? [ability]).some((one) => one === ability || one.startsWith(`${ability}:`));

/** Calls `act` again and again while the page is seen, never twice at once; returns how to stop. */
export const repeat = (act, every) => {
  let timer = null, stopped = false;
  const again = async () => {
    if (!document.hidden && (await act()) === false) return;
    if (!stopped) timer = setTimeout(again, every);
  };
  again();
  return () => { stopped = true; clearTimeout(timer); };
};
