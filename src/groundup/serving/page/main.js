// The frame of the page: which tab is shown, in which language and colours. What a tab does is in its own file.
import { chat } from "./chat.js";
import { data } from "./data.js";
import { failure, h, say, title } from "./dom.js";
import { models } from "./models.js";
import { runs } from "./runs.js";
import { tryOut } from "./try.js";
import { language, setLanguage, t } from "./words.js";

const TABS = { chat, runs, data, try: tryOut, models };
const view = document.getElementById("view");
let leave = () => {};
let shown = null;

const place = () => {
  const [tab, ...rest] = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean);
  return TABS[tab] ? [tab, rest] : ["chat", []];
};

/** Shows what the address says. Each tab gets the element to fill and returns what to do when it is left. */
const route = () => {
  const [tab, rest] = place();
  const moved = shown !== null && shown !== location.hash;
  leave();
  shown = location.hash;
  view.className = tab === "chat" ? "full" : "";
  view.replaceChildren();
  document.title = `${t(`tab_${tab}`)} · groundup`;
  for (const link of document.querySelectorAll("#tabs a")) {
    if (link.dataset.tab === tab) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    leave = TABS[tab](view, rest) ?? (() => {});
  } catch (fault) {
    leave = () => {};
    view.replaceChildren(title(t(`tab_${tab}`)), failure(fault));
  }
  if (moved) {
    scrollTo(0, 0);
    (view.querySelector("h1") ?? view).focus({ preventScroll: true });
  }
};

const dark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

const setTheme = (name) => {
  document.documentElement.dataset.theme = name;
  try { localStorage.setItem("groundup.theme", name); } catch { /* only this page then */ }
  frame();
  document.getElementById("theme").focus();
};

/** The parts around the view. */
const frame = () => {
  document.documentElement.lang = language() === "zh" ? "zh-CN" : "en";
  document.getElementById("skip").textContent = t("skip");
  const tabs = document.getElementById("tabs");
  tabs.setAttribute("aria-label", t("sections"));
  tabs.replaceChildren(h("ul", {}, Object.keys(TABS).map((name) =>
    h("li", {}, h("a", { href: `#/${name}`, "data-tab": name, "aria-current": place()[0] === name ? "page" : null }, t(`tab_${name}`))))));
  const other = language() === "zh" ? "en" : "zh";
  document.getElementById("settings").replaceChildren(
    h("button", { type: "button", class: "bare", id: "language", lang: other === "zh" ? "zh-CN" : "en", on: { click: () => {
      setLanguage(other);
      frame();
      route();
      document.getElementById("language").focus();
      say(t("language_changed"));
    } } }, other === "zh" ? "中文" : "English"),
    h("button", { type: "button", class: "bare", id: "theme", on: { click: () => setTheme(dark() ? "light" : "dark") } }, dark() ? t("light") : t("dark")));
};

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  view.focus();
});
addEventListener("hashchange", route);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", frame);
frame();
route();
