// An image to be judged: drawn with pointer or keys, or read from a file. What is sent is shown.
import { choice, h, say } from "./dom.js";
import { t } from "./words.js";

const SIDE = 280;
const SENT = 112;
const INK = 0.714;  // of the side: a digit of MNIST takes 20 of 28 pixels
const LARGEST = 8 << 20;
const PEN = 20;

/** The drawn strokes cut out, centred by their weight and scaled as the digits of MNIST are, on a canvas of their own;
 * null if nothing is drawn. */
const centred = (canvas, bright) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, SIDE, SIDE);
  let [left, top, right, bottom, mass, x, y] = [SIDE, SIDE, -1, -1, 0, 0, 0];
  for (let row = 0; row < SIDE; row += 1) {
    for (let column = 0; column < SIDE; column += 1) {
      const ink = data[4 * (row * SIDE + column) + 3];
      if (ink < 32) continue;
      [left, right, top, bottom] = [Math.min(left, column), Math.max(right, column), Math.min(top, row), Math.max(bottom, row)];
      mass += ink;
      x += ink * column;
      y += ink * row;
    }
  }
  if (right < 0) return null;
  const scale = (INK * SENT) / Math.max(right - left + 1, bottom - top + 1);
  const out = h("canvas", { width: SENT, height: SENT });
  const pen = out.getContext("2d");
  const strokes = h("canvas", { width: SIDE, height: SIDE });
  const tint = strokes.getContext("2d");
  tint.drawImage(canvas, 0, 0);
  tint.globalCompositeOperation = "source-in";
  tint.fillStyle = bright ? "#fff" : "#000";
  tint.fillRect(0, 0, SIDE, SIDE);
  pen.fillStyle = bright ? "#000" : "#fff";
  pen.fillRect(0, 0, SENT, SENT);
  pen.imageSmoothingQuality = "high";
  const fit = (weight, low, high) => Math.min(Math.max(SENT / 2 - scale * weight, 2 - scale * low), SENT - 2 - scale * (high + 1));
  pen.translate(fit(x / mass, left, right), fit(y / mass, top, bottom));
  pen.scale(scale, scale);
  pen.drawImage(strokes, 0, 0);
  return out;
};

const pad = (canvas, changed) => {
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(pen, { lineWidth: PEN, lineCap: "round", lineJoin: "round", strokeStyle: "#000", fillStyle: "#000" });
  let last = null, cursor = [SIDE / 2, SIDE / 2], down = false;
  const line = (to) => {
    pen.beginPath();
    pen.moveTo(...(last ?? to));
    pen.lineTo(to[0] + 0.01, to[1]);
    pen.stroke();
    last = to;
    changed();
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * SIDE) / box.width, ((event.clientY - box.top) * SIDE) / box.height];
  };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); last = null; line(place(event)); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons && last) line(place(event)); });
  canvas.addEventListener("pointerup", () => { last = null; });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === " ") {
      event.preventDefault();
      down = !down;
      last = null;
      if (down) line(cursor);
      say(t(down ? "pen_down" : "pen_up"));
    }
    if (!move) return;
    event.preventDefault();
    cursor = cursor.map((value, axis) => Math.min(SIDE - PEN / 2, Math.max(PEN / 2, value + 8 * move[axis])));
    if (down) { last ??= cursor; line(cursor); }
  });
  return { clear: () => { pen.clearRect(0, 0, SIDE, SIDE); last = null; down = false; cursor = [SIDE / 2, SIDE / 2]; } };
};

/** Draw or choose a file; `value()` is a data URL, or null while there is nothing. */
export const canvasInput = (model, kept) => {
  const canvas = h("canvas", { class: "pad", width: SIDE, height: SIDE, tabindex: "0", role: "img", "aria-label": t("pad") });
  const preview = h("canvas", { class: "preview", width: SENT, height: SENT, role: "img", "aria-label": t("what_is_sent") });
  const note = h("p", { class: "quiet small", role: "status" });
  let file = null;
  kept.bright ??= true;
  const show = (image) => {
    const pen = preview.getContext("2d");
    pen.clearRect(0, 0, SENT, SENT);
    if (!image) return;
    const scale = Math.min(SENT / image.width, SENT / image.height);
    pen.drawImage(image, (SENT - image.width * scale) / 2, (SENT - image.height * scale) / 2, image.width * scale, image.height * scale);
  };
  let waiting = false;  // a pointer may move many times between two frames
  const changed = () => {
    file = null;
    note.textContent = "";
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; if (!file) show(centred(canvas, kept.bright)); });
  };
  const drawing = pad(canvas, changed);
  const clear = () => { drawing.clear(); upload.value = ""; changed(); };
  const upload = h("input", { type: "file", accept: "image/*", "aria-label": t("image_file"), on: { change: async () => {
    const blob = upload.files[0];
    if (!blob) return;
    if (blob.size > LARGEST) { note.textContent = t("image_too_large"); return; }
    drawing.clear();
    file = { blob, address: await address(blob) };
    note.textContent = blob.name;
    createImageBitmap(blob).then((image) => { if (file?.blob === blob) show(image); }, () => { file = null; show(null); note.textContent = t("no_picture"); });
  } } });
  const ink = choice(t("ink"), "ink", [["bright", t("bright_ink")], ["dark", t("dark_ink")]], kept.bright ? "bright" : "dark", (name) => { kept.bright = name === "bright"; if (!file) changed(); });
  return {
    node: h("div", { class: "drawing" }, h("p", { class: "quiet small" }, t("draw_here")), canvas,
      h("div", {}, h("div", { class: "row centre" }, h("button", { type: "button", on: { click: clear } }, t("clear"))), ink,
        h("p", { class: "upload" }, h("span", { class: "quiet small" }, t("or_file")), upload), note,
        h("p", { class: "quiet small" }, t("what_is_sent")), preview)),
    value: () => file?.address ?? centred(canvas, kept.bright)?.toDataURL("image/png") ?? null,
  };
};

const address = (blob) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.addEventListener("load", () => done(reader.result));
  reader.addEventListener("error", () => failed(reader.error));
  reader.readAsDataURL(blob);
});
