// The tab of conversations: the list, the messages, the composer. How answers come in is answer.js, how they are drawn
// from is sampling.js, what is kept is store.js.
import { can, models } from "./api.js";
import { ask } from "./answer.js";
import { conversationList } from "./conversations.js";
import { command, failure, field, h, number, quote, say, select } from "./dom.js";
import { controls, flags } from "./sampling.js";
import { conversations, fresh, keep, messages, read, write } from "./store.js";
import { tokenView } from "./tokens.js";
import { t } from "./words.js";

const TITLE = 48;
const state = { list: null, one: null, known: [], models: read("groundup.models", []), probabilities: read("groundup.probabilities", false), stopping: null, editing: null, draft: "" };

const busy = () => state.stopping !== null;
const model = (id) => state.known.find((one) => one.id === id);
/** Chosen models without a chat template: they go on with the text that they are given. */
const goOn = () => state.models.filter((id) => model(id) && !can(model(id), "chat"));
const onlyGoOn = () => state.models.length > 0 && goOn().length === state.models.length;

export const chat = (view) => {
  state.list ??= conversations();
  state.one ??= state.list[0] ?? fresh();
  const parts = { log: h("div", { class: "log", id: "log", role: "log", "aria-label": t("conversation") }), side: h("div"), compose: h("div"), settings: h("div"), note: h("p", { class: "note", role: "status", hidden: true }) };
  const draw = () => {
    log(parts.log, draw);
    compose(parts.compose, draw);
    conversationList(parts.side, state, { draw, save: () => save(parts.note), busy });
  };
  const narrow = matchMedia("(max-width: 1000px)").matches;
  view.append(h("div", { class: "chat" },
    h("details", { class: "side left", open: !narrow }, h("summary", {}, t("conversations")), parts.side),
    h("section", { class: "talk", "aria-label": t("conversation") }, h("h1", { class: "unseen", tabindex: "-1" }, t("tab_chat")), parts.note, parts.log, parts.compose),
    h("details", { class: "side right", open: !narrow }, h("summary", {}, t("settings")), parts.settings)));
  state.saved = () => save(parts.note);
  state.draw = draw;
  draw();
  models(true).then((found) => {
    state.known = found.filter((one) => can(one, "chat") || can(one, "complete"));
    state.models = state.models.filter((id) => state.known.some((one) => one.id === id)).slice(0, 2);
    if (!state.models.length && state.known.length) state.models = [state.known[0].id];
    settings(parts.settings, draw);
    draw();
    if (!state.known.length) parts.log.replaceChildren(h("p", { class: "empty" }, t("no_language")), command("groundup serve MODEL"));
  }).catch((fault) => parts.log.replaceChildren(failure(fault)));
  return () => { state.draw = () => {}; };
};

const save = (note) => {
  const { one } = state;
  one.updated = Date.now();
  if (!one.title && one.turns.length) one.title = one.turns[0].user.trim().split("\n")[0].slice(0, TITLE);
  state.list = [one, ...state.list.filter((other) => other.id !== one.id)];
  note.hidden = keep(state.list);
  note.textContent = t("not_kept");
};

const settings = (place, draw) => {
  const names = state.known.map((one) => [one.id, can(one, "chat") ? one.id : `${one.id} (${t("goes_on")})`]);
  const choose = (side) => (id) => {
    if (id) state.models[side] = id;
    else state.models.length = side;
    write("groundup.models", state.models);
    state.renew();
    draw();
  };
  const line = h("div");
  const same = () => line.replaceChildren(...state.models.map((id) => command(...asCommand(model(id) ?? { id }))));
  const system = h("textarea", { rows: 3, id: "system", value: state.one.system, on: { input: () => { state.one.system = system.value; same(); }, change: () => { if (state.one.turns.length) state.saved(); } } });
  place.replaceChildren(
    field(t("model"), select(names, state.models[0], choose(0), { id: "model" })),
    field(t("beside"), select([["", t("none")], ...names], state.models[1] ?? "", choose(1), { id: "beside" })),
    field(t("system"), system),
    h("label", { class: "tick" }, h("input", { type: "checkbox", id: "probabilities", checked: state.probabilities, on: { change: (event) => { state.probabilities = event.target.checked; write("groundup.probabilities", state.probabilities); draw(); } } }), t("show_probabilities")),
    h("details", { open: state.sampling, on: { toggle: (event) => { state.sampling = event.target.open; } } }, h("summary", {}, t("sampling")), controls(same)),
    h("p", { class: "quiet small same" }, t("by_command")), line);
  state.renew = () => {
    system.value = state.one.system;
    system.disabled = onlyGoOn();
    same();
  };
  state.renew();
};

/** What `groundup` is told to answer as the served model does: the words of the command line. */
const asCommand = ({ id, card = {} }) => {
  const path = quote(card.path ?? id), system = state.one.system.trim();
  const packed = card.form?.startsWith("compiled") && card.precision !== "float32" ? [`--precision ${card.precision}`] : [];
  return can({ card }, "chat")
    ? ["groundup chat", path, ...flags(), ...packed, ...(system ? [`--system ${quote(system)}`] : [])]
    : ["groundup generate", path, "--prompt TEXT", ...flags(), ...packed];
};

/** Asks every chosen model for its answer to the last turn. */
const answer = async (draw) => {
  const { one } = state, index = one.turns.length - 1, turn = one.turns[index];
  const stopping = new AbortController();
  state.stopping = stopping;
  turn.answers = state.models.map((id) => ({ model: id, text: "", tokens: [], busy: true }));
  draw();
  try {
    await Promise.all(turn.answers.map((reply, side) => ask(
      model(reply.model), [...messages(one, side, index), { role: "user", content: turn.user }], reply,
      { probabilities: state.probabilities, signal: stopping.signal, changed: () => stream(reply) })));
  } finally {
    state.stopping = null;
  }
  state.saved();
  state.draw();
  if ([document.body, null].includes(document.activeElement)) document.getElementById("message")?.focus({ preventScroll: true });
  say(t("answer_done", { text: turn.answers.map((reply) => reply.text).join("\n").slice(0, 4000) }));
};

const send = (text, draw) => {
  if (!text.trim() || busy() || !state.models.length || !state.models.every(model)) return;  // models not yet known
  state.one.turns.push({ user: text, answers: [] });
  state.draft = "";
  state.saved();
  answer(draw);
};

/** Puts new pieces of an answer where it is shown, without drawing the rest anew. */
const stream = (reply) => {
  const place = document.querySelector("[data-streaming]")?.closest(".log")?.querySelectorAll("[data-streaming]") ?? [];
  for (const node of place) {
    if (node.reply !== reply) continue;
    const log = node.closest(".log");
    const low = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    node.textContent = reply.text;
    if (low) log.scrollTop = log.scrollHeight;
  }
};

const log = (place, draw) => {
  const { one } = state;
  if (!one.turns.length) {
    place.replaceChildren(h("div", { class: "welcome" }, h("p", { class: "lead" }, onlyGoOn() ? t("welcome_go_on") : t("welcome")), h("p", { class: "quiet" }, t("welcome_more"))));
    return;
  }
  const low = place.scrollHeight - place.scrollTop - place.clientHeight < 80;
  place.replaceChildren(...one.turns.map((turn, index) => h("article", { class: "turn" }, user(turn, index, draw), answers(turn, index, draw))));
  if (low) place.scrollTop = place.scrollHeight;
};

const user = (turn, index, draw) => {
  if (state.editing === index) {
    const area = h("textarea", { rows: 4, "aria-label": t("edit"), value: turn.user });
    const done = (text) => {
      state.editing = null;
      if (text === null) { draw(); return; }
      state.one.turns.length = index;
      send(text, draw);
    };
    area.addEventListener("keydown", (event) => { if (event.key === "Escape") done(null); });
    queueMicrotask(() => area.focus());
    return h("div", { class: "said-by user editing" }, area, h("div", { class: "row" },
      h("button", { type: "button", class: "primary", on: { click: () => done(area.value) } }, t("send_again")), h("button", { type: "button", on: { click: () => done(null) } }, t("cancel"))));
  }
  return h("div", { class: "said-by user" }, h("h2", { class: "unseen" }, t("you")), h("div", { class: "text" }, turn.user),
    h("div", { class: "acts" }, h("button", { type: "button", class: "bare", disabled: busy(), on: { click: () => { state.editing = index; draw(); } } }, t("edit"))));
};

const facts = (reply) => [
  reply.finish === "length" ? t("finish_length") : reply.finish === "stopped" ? t("finish_stopped") : "",
  reply.count && reply.seconds ? t("speed", { tokens: reply.count, speed: number(reply.count / reply.seconds) }) : "",
].filter(Boolean).join(" · ");

const answers = (turn, index, draw) => {
  const last = index === state.one.turns.length - 1;
  return h("div", { class: turn.answers.length > 1 ? "answers two" : "answers" }, turn.answers.map((reply) => {
    const body = h("div", { class: "text" }, reply.text);
    if (reply.busy) {
      body.setAttribute("data-streaming", "");
      body.reply = reply;
    }
    const shown = state.probabilities && !reply.busy && reply.tokens?.length ? tokenView(reply.tokens) : body;
    return h("div", { class: `said-by model${reply.busy ? " busy" : ""}` }, h("h2", { class: "who" }, reply.model), shown,
      reply.fault ? h("p", { class: "failure", role: "alert" }, reply.fault) : null,
      h("div", { class: "acts" }, h("span", { class: "quiet small" }, facts(reply)),
        last && !busy() ? h("button", { type: "button", class: "bare", on: { click: () => answer(draw) } }, t("regenerate")) : null,
        reply.busy ? null : h("button", { type: "button", class: "bare", on: { click: () => navigator.clipboard?.writeText(reply.text).then(() => say(t("copied"))) } }, t("copy"))));
  }));
};

const compose = (place, draw) => {
  if (!place.querySelector("form")) composer(place, draw);
  place.querySelector("#send").hidden = busy();
  place.querySelector("#stop").hidden = !busy();
  place.querySelector("#send").disabled = !state.models.length;
  const area = place.querySelector("#message"), note = place.querySelector("#goes-on");
  area.placeholder = onlyGoOn() ? t("message_go_on") : t("message");
  note.hidden = !goOn().length;
  note.textContent = onlyGoOn() ? t("continues") : t("continues_of", { models: goOn().join(", ") });
};

const composer = (place, draw) => {
  const area = h("textarea", { id: "message", rows: 2, "aria-label": t("message"), "aria-describedby": "goes-on", value: state.draft, on: {
    input: () => { state.draft = area.value; },
    keydown: (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      }
    },
  } });
  const form = h("form", { class: "compose", on: { submit: (event) => {
    event.preventDefault();
    const text = area.value;
    if (busy() || !text.trim()) return;
    area.value = "";
    send(text, draw);
  } } }, h("p", { class: "quiet small", id: "goes-on", hidden: true }), area, h("div", { class: "row centre" }, h("span", { class: "quiet small hint" }, t("compose_help")),
    h("button", { class: "primary push", id: "send" }, t("send")),
    h("button", { type: "button", class: "push", id: "stop", on: { click: () => state.stopping?.abort() } }, t("stop"))));
  place.replaceChildren(form);
};
