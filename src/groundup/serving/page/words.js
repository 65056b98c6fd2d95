// Every text of the page in the chosen language. The tables are in en.js and zh.js, with equal keys.
import { en } from "./en.js";
import { zh } from "./zh.js";

const TABLES = { en, zh };
let chosen = document.documentElement.lang.startsWith("zh") ? "zh" : "en";

export const language = () => chosen;

export const setLanguage = (name) => {
  chosen = name;
  try { localStorage.setItem("groundup.language", name); } catch { /* only this page then */ }
};

/** The text of a name, with {values} put in. A name made of data that no table has, such as kind_new, is its last part. */
export const t = (name, values = {}) => {
  const text = TABLES[chosen][name] ?? en[name] ?? name.slice(name.indexOf("_") + 1).replaceAll("_", " ");
  return text.replace(/\{(\w+)\}/g, (whole, key) => String(values[key] ?? whole));
};
