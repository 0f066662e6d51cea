// Asking the model again: a form, the queue's state, and the new answer beside the old one.

import { button, element, say, warn } from "./dom.js";
import { post } from "./api.js";

const BUSY = ["waiting", "loading the model", "listening"];
export const isBusy = (ask) => BUSY.includes(ask.state);

export function askForm(track, caption, defaults, done) {
  const field = (label, properties) => {
    const input = element("input", properties);
    return [element("label", {}, `${label} `, input), input];
  };
  const [seedLabel, seed] = field("Seed", { type: "number", min: 0, value: defaults.seed + 1 });
  const [temperatureLabel, temperature] = field("Temperature", { type: "number", min: 0, max: 5, step: 0.1, value: defaults.temperature });
  const prompt = element("textarea", { rows: 3, value: defaults.prompts[caption.preset] || "", attributes: { "aria-label": "Prompt" } });
  const ask = async (event) => {
    event.preventDefault();
    try {
      const values = { preset: caption.preset, seed: Number(seed.value), temperature: Number(temperature.value), prompt: prompt.value };
      await post(`/api/tracks/${track.id}/ask`, values);
      say("The question is in the queue; the answer appears here.");
      done();
    } catch (error) {
      warn(error.message);
    }
  };
  const form = element("form", { className: "ask", onsubmit: ask, attributes: { "aria-label": `Ask ${caption.preset} again` } },
    element("div", { className: "fields" }, seedLabel, temperatureLabel), prompt,
    element("div", { className: "buttons" }, element("button", { textContent: "Ask (Enter)" }), button("Cancel (Esc)", done)));
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && event.target === prompt) ask(event);
  });
  return { form, focus: () => seed.focus() };
}

export function askPanel(ask, caption, actions) {
  const about = `seed ${ask.seed}, temperature ${ask.temperature}`;
  if (isBusy(ask)) {
    return element("div", { className: "ask" },
      element("p", { className: "soft", textContent: `${ask.state} (${about})` }),
      ask.text ? element("p", { textContent: ask.text }) : null,
      element("div", { className: "buttons" }, button("Stop", () => actions.drop(ask))));
  }
  if (ask.state === "failed") {
    return element("div", { className: "ask" }, element("p", { className: "flag", textContent: `No answer (${about}): ${ask.reason}` }),
      element("div", { className: "buttons" }, button("Close", () => actions.drop(ask))));
  }
  return element("div", { className: "ask" },
    element("div", { className: "versions" },
      element("div", {}, element("h4", { textContent: "Now" }), element("p", { textContent: caption.text || "No caption." })),
      element("div", {}, element("h4", { textContent: `New (${about})` }), element("p", { className: "answer", textContent: ask.text }))),
    element("div", { className: "buttons" },
      button("Take the new one (T)", () => actions.take(ask, caption)), button("Keep the old one (O)", () => actions.drop(ask))));
}
