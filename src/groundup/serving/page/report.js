// A run's report inside the page: a document of an origin of its own, which cannot reach this page or the server.
import { keyed, text } from "./api.js";
import { failure, h } from "./dom.js";
import { t } from "./words.js";

/** A part that opens the report when it is asked for. */
export const reportFrame = (id, name) => {
  const address = `/api/runs/${id}/report`;
  const place = h("div");
  const open = async () => {
    try {
      place.replaceChildren(keyed() ? await still(await text(address), name) : frame(name, { sandbox: "allow-scripts", src: address }));
    } catch (fault) {
      place.replaceChildren(failure(fault));
    }
  };
  return h("div", {},
    h("details", { on: { toggle: (event) => { if (event.target.open) open(); else place.replaceChildren(); } } }, h("summary", {}, t("show_report")), place),
    keyed() ? null : h("p", {}, h("a", { href: address, target: "_blank", rel: "noreferrer" }, t("report_alone"))));
};

const frame = (name, attributes) =>
  h("iframe", { class: "report", title: t("report_of", { name }), referrerpolicy: "no-referrer", ...attributes });

/** The report without its script. A frame cannot send the key, so what was fetched is written into one in which no
 * script can run; its style is attached from here, since the policy of the page allows none inline. */
const still = async (content, name) => {
  const [before, rest] = content.split("<style>", 2), [style, after] = (rest ?? "</style>").split("</style>", 2);
  const found = new DOMParser().parseFromString(before + after, "text/html");
  for (const one of found.querySelectorAll("style, script, meta, link, base")) one.remove();
  const node = frame(name, { sandbox: "allow-same-origin", srcdoc: `<!doctype html>${found.documentElement.outerHTML}` });
  node.addEventListener("load", () => {
    const inner = node.contentDocument, sheet = new node.contentWindow.CSSStyleSheet();
    sheet.replaceSync(style);
    inner.adoptedStyleSheets = [sheet];
    inner.addEventListener("click", (event) => {
      const link = event.target.closest?.("a[href]");
      if (!link) return;
      event.preventDefault();
      inner.getElementById(link.getAttribute("href").replace(/^#/, ""))?.scrollIntoView();
    });
  });
  return node;
};
