"use strict";
// What the page gains with a script: single values under the pointer or by arrow key, and a copy button.
// Everything else works without it.
const number = (value) => {
  if (value === null) return "–";
  const size = Math.abs(value);
  if (size >= 1e5) return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 }).format(value);
  return size && size < 1e-3 ? value.toExponential(2) : new Intl.NumberFormat("en", { maximumSignificantDigits: 4 }).format(value);
};
const bytes = (value) => {
  let unit = 0;
  while (value >= 1024 && unit < 4) { value /= 1024; unit += 1; }
  return `${value.toFixed(unit ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
};
const time = (value) => {
  if (value < 60) return `${value.toFixed(1)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
};
const across = { steps: (value) => `step ${number(value)}`, tokens: (value, unit) => `${number(value)} ${unit}`, time };
const down = { memory_bytes: bytes, ceiling_share: (value) => `${number(value * 100)} %` };

const nearest = (values, wanted) => {
  let best = -1;
  values.forEach((value, index) => {
    if (value !== null && (best < 0 || Math.abs(value - wanted) < Math.abs(values[best] - wanted))) best = index;
  });
  return best;
};

const attach = (chart, series) => {
  const { axis, unit, first, last } = chart.dataset;
  const [from, to] = [Number(first), Number(last)];
  const shape = down[chart.dataset.chart] || number;
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const reading = Object.assign(document.createElement("div"), { className: "reading", hidden: true });
  reading.setAttribute("role", "status");
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", "0");
  cursor.setAttribute("y2", "200");
  chart.parentElement.append(reading);
  chart.setAttribute("tabindex", "0");
  const main = series.find((one) => one.name !== "each record") || series[0];
  let index = -1;

  const show = (wanted) => {
    index = nearest(main[axis], wanted);
    if (index < 0) return;
    const x = main[axis][index];
    const share = (x - from) / (to - from);
    cursor.setAttribute("x1", `${share * 100}%`);
    cursor.setAttribute("x2", `${share * 100}%`);
    chart.append(cursor);
    reading.textContent = [across[axis](x, unit)].concat(series.map((one) => {
      const at = nearest(one[axis], x);
      const range = one.low && one.low[at] !== null ? ` (${shape(one.low[at])} to ${shape(one.high[at])})` : "";
      return `${one.name}  ${shape(one.y[at])}${range}`;
    })).join("\n");
    reading.hidden = false;
    const box = chart.getBoundingClientRect();
    const place = box.left - chart.parentElement.getBoundingClientRect().left + share * box.width;
    const room = chart.parentElement.clientWidth - reading.offsetWidth;
    reading.style.left = `${Math.max(0, Math.min(share > 0.5 ? place - reading.offsetWidth - 12 : place + 12, room))}px`;
  };
  const hide = () => { reading.hidden = true; cursor.remove(); };
  const point = (event) => {
    const box = chart.getBoundingClientRect();
    show(from + (to - from) * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
  };
  chart.addEventListener("pointermove", point);
  chart.addEventListener("pointerdown", point);
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("blur", hide);
  chart.addEventListener("keydown", (event) => {
    const count = main[axis].length;
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -count, End: count }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    show(main[axis][Math.min(count - 1, Math.max(0, index + step))]);
  });
};

const blocks = {};
for (const block of document.querySelectorAll('script[type="application/json"]')) blocks[block.id] = JSON.parse(block.textContent);
for (const chart of document.querySelectorAll("svg.chart")) attach(chart, blocks[chart.dataset.points][chart.dataset.key]);

for (const row of document.querySelectorAll(".command-row")) {
  const button = Object.assign(document.createElement("button"), { className: "copy", type: "button", textContent: "Copy" });
  button.addEventListener("click", async () => {
    const code = row.querySelector("pre");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2500);
  });
  row.append(button);
}
addEventListener("beforeprint", () => { for (const one of document.querySelectorAll("details")) one.open = true; });
