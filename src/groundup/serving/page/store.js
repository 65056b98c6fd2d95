// What the browser remembers: conversations and choices. A full or forbidden storage is said, and never ends the page.
const CHATS = "groundup.conversations";

export const read = (name, otherwise) => {
  try {
    const text = localStorage.getItem(name);
    return text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
};

/** Keeps a value; false if the browser would not. */
export const write = (name, value) => {
  try {
    localStorage.setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
};

const whole = (one) => one && typeof one.id === "string" && Array.isArray(one.turns);

export const conversations = () => {
  const found = read(CHATS, []);
  return (Array.isArray(found) ? found : []).filter(whole);
};

/** Keeps the conversations without the probabilities of their tokens, which are large and easily made again. */
export const keep = (list) => write(CHATS, list.map((one) => ({
  ...one,
  turns: one.turns.map((turn) => ({ ...turn, answers: turn.answers.map(({ tokens, ...answer }) => answer) })),
})));

export const fresh = () => ({
  id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, title: "", system: "", turns: [], updated: Date.now(),
});

/** The messages of one side of a conversation up to a turn: what a model is asked with, and what is trained on. */
export const messages = (one, side, until = one.turns.length) => {
  const said = one.system.trim() ? [{ role: "system", content: one.system.trim() }] : [];
  for (const turn of one.turns.slice(0, until)) {
    said.push({ role: "user", content: turn.user });
    const answer = turn.answers[side] ?? turn.answers[0];
    if (answer) said.push({ role: "assistant", content: answer.text });
  }
  return said;
};

/** Conversations as lines that `groundup train` reads: one for each side, whole turns only. */
export const lines = (list) => {
  const found = [];
  for (const one of list) {
    const sides = Math.max(1, ...one.turns.map((turn) => turn.answers.length));
    for (let side = 0; side < sides; side += 1) {
      const turns = one.turns.filter((turn) => turn.user && turn.answers[side]?.text);
      if (turns.length) found.push(JSON.stringify({ messages: messages({ ...one, turns }, side) }));
    }
  }
  return found.length ? `${found.join("\n")}\n` : "";
};

export const download = (name, text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
