// One answer as it comes in: asks a model, takes the pieces, can be stopped. Nothing is drawn here.
import { can, stream } from "./api.js";
import { sampling } from "./sampling.js";
import { t } from "./words.js";

/** Streams the answer of a model into `answer` {model, text, tokens, finish, fault}, calling `changed` after each piece.
 *
 * A model without a chat template goes on from the last message alone.
 */
export const ask = async (model, said, answer, { probabilities, changed, signal }) => {
  const chats = can(model, "chat");
  const body = { model: model.id, ...sampling() };
  const began = performance.now();
  if (chats) Object.assign(body, { messages: said, ...(probabilities ? { logprobs: true, top_logprobs: 5 } : {}) });
  else Object.assign(body, { prompt: said[said.length - 1].content, ...(probabilities ? { logprobs: 5 } : {}) });
  body.stream_options = { include_usage: true };
  Object.assign(answer, { text: "", tokens: [], finish: null, fault: null, seconds: null, speed: null, busy: true });
  try {
    for await (const piece of stream(chats ? "/v1/chat/completions" : "/v1/completions", body, signal)) {
      const choice = piece.choices?.[0];
      if (piece.usage?.completion_tokens) answer.count = piece.usage.completion_tokens;
      if (!choice) continue;
      answer.text += (chats ? choice.delta?.content : choice.text) ?? "";
      take(answer, choice.logprobs);
      if (choice.finish_reason) answer.finish = choice.finish_reason;
      changed();
    }
    if (answer.finish === null) answer.fault = t("cut_off");
  } catch (fault) {
    if (signal.aborted) answer.finish = "stopped";
    else answer.fault = fault.message;
  }
  answer.seconds = (performance.now() - began) / 1000;
  answer.busy = false;
  changed();
};

const take = (answer, logprobs) => {
  if (Array.isArray(logprobs?.content)) answer.tokens.push(...logprobs.content);
  else if (Array.isArray(logprobs?.tokens)) {
    logprobs.tokens.forEach((token, index) => answer.tokens.push({
      token, logprob: logprobs.token_logprobs?.[index] ?? 0,
      top_logprobs: Object.entries(logprobs.top_logprobs?.[index] ?? {}).map(([other, logprob]) => ({ token: other, logprob })),
    }));
  }
};
