// Find and replace, and trigger words, over the listed or the selected tracks: nothing changes before a preview.

import { button, byId, element, say, warn } from "./dom.js";
import { post } from "./api.js";
import { differences } from "./differences.js";

const KINDS = [
  ["replace", "Find and replace"],
  ["add in front", "Add a trigger in front"],
  ["add at end", "Add a trigger at the end"],
  ["remove", "Remove a trigger"],
];

export function openReplace({ ids, selected, presets, kind = "replace", done }) {
  const dialog = byId("replace");
  const kinds = element("select", {}, ...KINDS.map(([value, label]) => element("option", { value, textContent: label })));
  const find = element("input", { type: "text", autocomplete: "off" });
  const replacement = element("input", { type: "text", autocomplete: "off" });
  const where = element("select", {},
    element("option", { value: "listed", textContent: `the ${ids.length} listed tracks` }),
    element("option", { value: "selected", textContent: `the ${selected.length} selected tracks`, disabled: !selected.length }));
  const preset = element("select", {}, element("option", { value: "", textContent: "all presets" }),
    ...presets.map((name) => element("option", { value: name, textContent: name })));
  const matchCase = element("input", { type: "checkbox" });
  const wholeWords = element("input", { type: "checkbox" });
  const items = element("ol", { tabIndex: 0, attributes: { "aria-label": "Changes" } });
  const summary = element("p", { attributes: { "aria-live": "polite" } });
  const labelled = (text, input) => element("label", {}, text, input);
  const replacementField = labelled("Replace with", replacement);
  const apply = button("Apply", () => change(), { disabled: true });
  let found = [];
  let asked = null;
  kinds.value = kind;
  if (selected.length) where.value = "selected";

  const values = () => ({
    kind: kinds.value, find: find.value, replacement: replacement.value, matchCase: matchCase.checked, wholeWords: wholeWords.checked,
    presets: preset.value ? [preset.value] : [],
  });

  function forget() {
    replacementField.hidden = kinds.value !== "replace";
    found = [];
    apply.disabled = true;
    items.replaceChildren();
    items.hidden = true;
    summary.textContent = "";
  }

  async function preview(event) {
    event?.preventDefault();
    forget();
    asked = values();
    summary.textContent = "Looking…";
    try {
      const answer = await post("/api/replace/preview", { ...asked, ids: where.value === "selected" ? selected : ids });
      found = answer.items.map((item) => ({ ...item, wanted: true }));
      const shown = found.filter((item) => "after" in item);
      const more = found.length - shown.length;
      const emptied = answer.emptied ? `; ${answer.emptied} left out, which would be empty` : "";
      summary.textContent = `${found.length} captions change${more > 0 ? `, ${shown.length} of them are shown` : ""}${emptied}.`;
      items.replaceChildren(...shown.map(row));
      items.hidden = !shown.length;
      apply.disabled = !found.length;
      if (found.length) apply.focus();
    } catch (error) {
      summary.textContent = "";
      warn(error.message);
    }
  }

  function row(item) {
    const tick = element("input", { type: "checkbox", checked: true, attributes: { "aria-label": `Change ${item.name}, ${item.preset}` } });
    tick.addEventListener("change", () => {
      item.wanted = tick.checked;
      const left = found.filter((each) => each.wanted).length;
      summary.textContent = `${left} of ${found.length} captions change.`;
      apply.disabled = !left;
    });
    const onclick = (event) => {
      if (event.target !== tick) tick.click();
    };
    return element("li", { onclick }, tick, element("div", {}, element("strong", { textContent: `${item.name}, ${item.preset}` }),
      element("p", {}, ...differences(item.before, item.after))));
  }

  async function change() {
    apply.disabled = true;
    try {
      const kept = found.filter((item) => item.wanted).map(({ id, preset: name, base }) => ({ id, preset: name, base }));
      const answer = await post("/api/replace", { ...asked, items: kept });
      dialog.close();
      const left = answer.conflicts.length ? `; ${answer.conflicts.length} had changed meanwhile, or cannot be written, and stayed as they are` : "";
      say(`Changed ${answer.changed.length} tracks${left}. Undo with Z.`);
      done(answer);
    } catch (error) {
      warn(error.message);
      apply.disabled = false;
    }
  }

  for (const input of [kinds, find, replacement, where, preset, matchCase, wholeWords]) input.addEventListener("input", forget);
  dialog.replaceChildren(
    element("h2", { id: "replace-title", textContent: "Find and replace, trigger words" }),
    element("form", { onsubmit: preview },
      element("div", { className: "fields" }, labelled("What", kinds), labelled("Text", find), replacementField,
        labelled("Where", where), labelled("Presets", preset)),
      element("p", { className: "line" }, element("label", {}, matchCase, " match case"), element("label", {}, wholeWords, " whole words")),
      summary, items,
      element("div", { className: "buttons" }, element("button", { textContent: "Preview (Enter)" }), apply,
        button("Close (Esc)", () => dialog.close()))));
  forget();
  dialog.showModal();
  find.focus();
}
