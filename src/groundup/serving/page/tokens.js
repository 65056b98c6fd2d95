// The tokens of an answer with their probabilities: shaded by how sure the model was, alternatives on hover or by key.
import { h, percent } from "./dom.js";
import { visible } from "./rows.js";
import { t } from "./words.js";

const tone = (logprob) => (logprob > -0.1 ? 0 : logprob > -0.7 ? 1 : logprob > -1.6 ? 2 : logprob > -3 ? 3 : 4);

/** A list of tokens {token, logprob, top_logprobs}; one tab stop, then arrow keys. */
export const tokenView = (tokens) => {
  const reading = h("div", { class: "reading", hidden: true });
  const list = h("div", { class: "sure", role: "listbox", tabindex: "0", "aria-label": t("tokens_help") });
  let at = -1;
  const show = (index) => {
    if (index < 0 || index >= tokens.length) return;
    list.children[at]?.classList.remove("at");
    at = index;
    const span = list.children[at], one = tokens[at];
    span.classList.add("at");
    list.setAttribute("aria-activedescendant", span.id);
    const others = (one.top_logprobs ?? []).map((other) =>
      h("li", { class: other.token === one.token ? "taken" : null }, h("code", {}, visible(other.token)), h("span", {}, percent(Math.exp(other.logprob)))));
    reading.replaceChildren(h("p", {}, h("code", {}, visible(one.token)), " ", h("b", {}, percent(Math.exp(one.logprob)))), others.length ? h("ol", {}, others) : "");
    reading.hidden = false;
    const box = span.getBoundingClientRect(), whole = node.getBoundingClientRect();
    reading.style.top = `${box.bottom - whole.top + 4}px`;
    reading.style.left = `${Math.max(0, Math.min(box.left - whole.left, whole.width - reading.offsetWidth))}px`;
  };
  const hide = () => {
    reading.hidden = true;
    list.children[at]?.classList.remove("at");
    list.removeAttribute("aria-activedescendant");
  };
  const prefix = `token-${Math.random().toString(36).slice(2)}`;
  const append = (one) => {
    const index = list.childElementCount;
    list.append(h("span", { class: `sure-${tone(one.logprob)}`, role: "option", id: `${prefix}-${index}`, "aria-selected": "false", "aria-label": `${visible(one.token)} ${percent(Math.exp(one.logprob))}` }, one.token));
  };
  tokens.forEach(append);
  list.addEventListener("pointerover", (event) => { const index = [...list.children].indexOf(event.target); if (index >= 0) show(index); });
  list.addEventListener("pointerleave", hide);
  list.addEventListener("blur", hide);
  list.addEventListener("focus", () => show(Math.max(at, 0)));
  list.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -tokens.length, End: tokens.length }[event.key];
    if (event.key === "Escape") hide();
    if (!move) return;
    event.preventDefault();
    show(Math.min(tokens.length - 1, Math.max(0, at + move)));
  });
  const node = h("div", { class: "token-view" }, list, reading);
  return node;
};
