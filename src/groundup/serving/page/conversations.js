// The list of kept conversations: choose, rename, delete, export.
import { command, h, say } from "./dom.js";
import { download, fresh, keep, lines } from "./store.js";
import { t } from "./words.js";

/** Draws the list into `place`; `state` has `list` and `one`, `act` what the conversation tab can do. */
export const conversationList = (place, state, { draw, busy }) => {
  const open = (one) => {
    if (busy()) return;
    state.one = one;
    state.editing = null;
    state.renew?.();
    draw();
  };
  const remove = (one) => {
    if (!confirm(t("delete_sure", { title: one.title }))) return;
    state.list = state.list.filter((other) => other.id !== one.id);
    keep(state.list);
    say(t("deleted"));
    open(state.one.id === one.id ? state.list[0] ?? fresh() : state.one);
  };
  const rename = (one) => {
    const said = prompt(t("rename"), one.title);
    if (!said?.trim()) return;
    one.title = said.trim().slice(0, 200);
    keep(state.list);
    draw();
  };
  const save = (name, list) => {
    const text = lines(list);
    if (text) download(name, text);
    else say(t("nothing_to_export"));
  };
  const item = (one) => {
    const now = one.id === state.one.id;
    return h("li", { class: now ? "now" : null },
      h("button", { type: "button", class: "bare title", "aria-current": now ? "true" : null, disabled: busy() && !now, on: { click: () => open(one) } }, one.title || t("untitled")),
      now ? h("div", { class: "acts" },
        h("button", { type: "button", class: "bare", on: { click: () => rename(one) } }, t("rename")),
        h("button", { type: "button", class: "bare", on: { click: () => save("conversation.jsonl", [one]) } }, t("export")),
        h("button", { type: "button", class: "bare", disabled: busy(), on: { click: () => remove(one) } }, t("delete"))) : null);
  };
  place.replaceChildren(
    h("button", { type: "button", disabled: busy() || !state.one.turns.length, on: { click: () => { open(fresh()); document.getElementById("message")?.focus(); } } }, t("new_conversation")),
    h("ul", { class: "kept" }, state.list.map(item)),
    ...(state.list.length ? [
      h("button", { type: "button", class: "bare", on: { click: () => save("conversations.jsonl", state.list) } }, t("export_all")),
      h("p", { class: "quiet small" }, t("export_help")), command("groundup train RECIPE data.files=[conversations.jsonl]")] : []));
};
