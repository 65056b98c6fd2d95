// How answers are drawn: the controls, what they send, and the flags that say the same on the command line. The server
// and the command line have defaults of their own, so what is in `otherwise` is always sent and always shown.
import { h, quote } from "./dom.js";
import { read, write } from "./store.js";
import { t } from "./words.js";

const NAME = "groundup.sampling";
const FIELDS = [
  { name: "temperature", min: 0, max: 2, step: 0.1, flag: "--temperature", otherwise: 0.7 },
  { name: "max_tokens", min: 1, max: 100000, step: 1, flag: "--max-tokens", otherwise: 512 },
  { name: "top_p", min: 0.01, max: 1, step: 0.01, flag: "--top-p", otherwise: 1, off: 1 },
  { name: "top_k", min: 0, max: 1000, step: 1, flag: "--top-k" },
  { name: "min_p", min: 0, max: 1, step: 0.01, flag: "--min-p" },
  { name: "repetition_penalty", min: 0.1, max: 5, step: 0.05, flag: "--repetition-penalty" },
  { name: "seed", min: 0, max: 2147483647, step: 1, flag: "--seed" },
];

const chosen = () => read(NAME, {}) ?? {};
const stops = (text) => (text ?? "").split("\n").filter(Boolean).slice(0, 4);

/** What a request says of sampling: what was chosen within its range, else the value of this page, if it has one. */
export const sampling = () => {
  const found = chosen(), said = {};
  for (const { name, min, max, otherwise } of FIELDS) {
    const usable = typeof found[name] === "number" && found[name] >= min && found[name] <= max;
    if (usable || otherwise !== undefined) said[name] = usable ? found[name] : otherwise;
  }
  if (stops(found.stop).length) said.stop = stops(found.stop);
  return said;
};

/** The same as flags of `groundup chat`; what is off there unless it is said is left out. */
export const flags = () => {
  const found = sampling();
  return [...FIELDS.filter(({ name, off }) => found[name] !== undefined && found[name] !== off).map(({ name, flag }) => `${flag} ${found[name]}`),
    ...(found.stop ? [`--stop ${found.stop.map(quote).join(" ")}`] : [])];
};

/** The controls; `changed` is called after each change. */
export const controls = (changed) => {
  const keep = (name, value) => {
    const found = chosen();
    if (value === "" || value === null) delete found[name];
    else found[name] = value;
    write(NAME, found);
    changed();
  };
  const found = chosen();
  const numbers = FIELDS.map(({ name, min, max, step, otherwise }) => {
    const control = h("input", { type: "number", min, max, step, value: found[name] ?? otherwise ?? "", placeholder: otherwise ?? t("default"), inputmode: "decimal", on: { input: () => {
      const usable = control.value === "" || (control.validity.valid || control.validity.stepMismatch);
      control.setAttribute("aria-invalid", String(!usable));
      if (usable) keep(name, control.value === "" ? "" : Number(control.value));
    } } });
    return h("label", { class: "field" }, h("span", { title: t(`help_${name}`) }, t(name)), control);
  });
  const stop = h("textarea", { rows: 2, value: found.stop ?? "", on: { input: () => keep("stop", stop.value) } });
  return h("div", { class: "controls" }, numbers, h("label", { class: "field all" }, t("stop_texts"), stop));
};
