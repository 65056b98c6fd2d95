// The tab of models: what is on disk, what is served, and where each comes from.
import { get, models as served } from "./api.js";
import { bytes, command, commands, count, failure, h, pairs, quote, title } from "./dom.js";
import { t } from "./words.js";

const precision = (types) => Object.entries(types ?? {}).map(([name, number]) => `${name} × ${count(number)}`).join(", ");

/** Models on disk and served ones as one list: a served one is that of the same path or digest. */
const joined = (disk, running) => {
  const list = disk.map((one) => ({ ...one, served: [] }));
  for (const model of running) {
    const card = model.card ?? {};
    const same = list.find((one) => (card.path && [one.path, `${one.path}/model`].includes(card.path)) || (card.digest && one.digest && one.digest.startsWith(card.digest)));
    if (same) same.served.push(model);
    else {
      list.push({
        id: `served-${model.id}`, name: model.id, path: card.path ?? "", family: card.family ?? "", kind: card.format ?? "", parameters: card.parameters ?? null, bytes: card.bytes ?? null,
        digest: card.digest ?? null, lineage: card.lineage ?? {}, labels: card.labels ?? [], options: {}, types: {}, fault: "", served: [model],
      });
    }
  }
  return list.sort((a, b) => b.served.length - a.served.length || a.name.localeCompare(b.name));
};

const lineage = (model) => {
  const from = model.lineage ?? {};
  const run = from.run_id ? h("a", { href: `#/runs/${from.run_id}` }, from.run ?? from.run_id) : from.run;
  const said = Array.isArray(from.data) ? from.data.join(", ") : from.data;
  return pairs([[t("lineage_run"), run], [t("lineage_data"), said], [t("lineage_base"), from.base], [t("steps_axis"), from.steps ? count(from.steps) : null], [t("recipe"), from.recipe_digest ? h("code", {}, from.recipe_digest.slice(0, 16)) : null]]);
};

const lines = (model) => {
  const path = quote(model.path || model.name);
  const can = model.served.flatMap((one) => one.card?.abilities ?? []);
  const use = can.includes("chat") ? `groundup chat ${path}` : can.includes("complete") ? `groundup generate ${path} --prompt TEXT` : null;
  return h("div", {}, use ? command(use) : null, command(`groundup inspect ${path}`), command(`groundup serve ${path}`));
};

const card = (model, wanted) => h("details", { class: "model", id: `model-${model.id}`, open: model.id === wanted },
  h("summary", {}, h("span", { class: "name" }, model.name), model.served.map((one) => h("span", { class: "badge good" }, one.id === model.name ? t("served") : t("served_as", { name: one.id }))),
    h("span", { class: "quiet" }, [model.family, model.parameters ? t("parameters", { number: count(model.parameters) }) : "", model.bytes ? bytes(model.bytes) : "", t(`format_${model.kind}`)].filter(Boolean).join(" · "))),
  model.fault ? h("p", { class: "failure" }, model.fault) : null,
  h("div", { class: "halves" },
    h("section", {}, h("h3", {}, t("what_it_is")), pairs([
      [t("path"), model.path], [t("family"), model.family], [t("format"), t(`format_${model.kind}`)], [t("weights"), precision(model.types)], [t("size"), model.bytes ? bytes(model.bytes) : ""],
      [t("digest"), model.digest ? h("code", {}, model.digest) : ""], [t("labels"), model.labels?.length ? model.labels.slice(0, 40).join(", ") : ""],
      [t("abilities"), model.served.map((one) => `${one.id}: ${(one.card?.abilities ?? []).join(", ")}`).join("; ")],
      ...model.served.flatMap((one) => [[t("precision"), one.card?.precision], [t("context"), one.card?.context ? count(one.card.context) : ""]])])),
    h("section", {}, h("h3", {}, t("lineage")), lineage(model) ?? h("p", { class: "quiet" }, t("lineage_unknown")))),
  Object.keys(model.options).length ? h("details", {}, h("summary", {}, t("sizes")), pairs(Object.entries(model.options).slice(0, 60))) : null,
  lines(model));

export const models = (view, [wanted]) => {
  const stopping = new AbortController();
  const load = async () => {
    const [disk, running] = await Promise.allSettled([get("/api/models", { signal: stopping.signal }), served(true)]);
    if (stopping.signal.aborted) return;
    const list = joined(disk.value ?? [], running.value ?? []);
    const faults = [disk, running].filter((one) => one.status === "rejected").map((one) => failure(one.reason));
    view.replaceChildren(title(t("tab_models")), ...faults, h("p", { class: "quiet" }, t("models_found", { number: list.length, served: list.filter((one) => one.served.length).length })),
      ...list.map((model) => card(model, wanted)), ...(list.length ? [] : [h("p", { class: "empty" }, t("no_models"))]),
      commands(command("groundup import MODEL --out DIR"), command("groundup export MODEL --to gguf --out FILE")));
    if (wanted) document.getElementById(`model-${wanted}`)?.scrollIntoView({ block: "start" });
  };
  view.append(title(t("tab_models")), h("p", { class: "empty" }, t("loading")));
  load();
  return () => stopping.abort();
};
