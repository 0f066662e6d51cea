// Editing one caption: what will be saved is shown while it is typed; a conflict shows both versions.

import { button, element, later, say, warn } from "./dom.js";
import { differences } from "./differences.js";
import { post } from "./api.js";

const drafts = new Map(); // what was typed and not saved, by track and preset

export class Editor {
  // actions: saved(answer, preset, goOn), closed()
  constructor(track, caption, limits, actions) {
    this.track = track;
    this.caption = caption;
    this.limits = limits;
    this.actions = actions;
    this.base = caption.base;
    this.key = `${track.id}/${caption.preset}`;
    const label = `Caption ${caption.preset}`;
    this.text = element("textarea", {
      rows: 3,
      value: drafts.get(this.key) ?? caption.text,
      attributes: { "aria-label": label, "data-editor": "", spellcheck: "true" },
    });
    this.preview = element("p", { className: "preview", attributes: { "aria-live": "polite" } });
    this.conflict = element("div", { className: "conflict", hidden: true });
    this.panel = element(
      "div",
      { className: "editor" },
      this.text,
      this.preview,
      this.conflict,
      element("div", { className: "buttons" },
        button("Save (Enter)", () => this.save(false)),
        button("Save, approve, next (Ctrl+Enter)", () => this.save(true)),
        button("Cancel (Esc)", () => this.close())),
    );
    const normalize = later(() => this.normalize(), 150);
    this.text.addEventListener("input", () => {
      this.fit();
      drafts.set(this.key, this.text.value);
      normalize();
    });
    this.normalize();
  }

  focus() {
    this.fit();
    this.text.focus({ preventScroll: true });
    this.text.setSelectionRange(this.text.value.length, this.text.value.length);
    this.panel.scrollIntoView({ block: "nearest" });
  }

  // As high as its text, so that a caption of two hundred words is read without scrolling in a small field.
  fit() {
    this.text.style.height = "auto";
    this.text.style.height = `${this.text.scrollHeight + 2}px`;
  }

  get isChanged() {
    return this.text.value !== this.caption.text;
  }

  async normalize() {
    const typed = this.text.value;
    const found = await post("/api/normalize", { text: typed }).catch(() => null);
    if (!found || typed !== this.text.value) return;
    const beyond = Object.entries(this.limits).filter(([, limit]) => found.tokens > limit).map(([name]) => name);
    const note = beyond.length ? `, longer than ${beyond.join(" and ")} reads` : "";
    const count = element("span", { className: beyond.length ? "warn" : "", textContent: `${found.tokens} tokens${note}.` });
    const same = found.text === typed.trim();
    this.preview.replaceChildren(count, ...(same ? [] : [" Saved as: ", ...differences(typed, found.text, false)]));
  }

  async save(goOn) {
    if (this.isSaving) return;
    this.isSaving = true;
    try {
      const values = { preset: this.caption.preset, text: this.text.value, base: this.base };
      const answer = await post(`/api/tracks/${this.track.id}/edit`, values);
      drafts.delete(this.key);
      this.isOpen = false;
      await this.actions.saved(answer, this.caption.preset, goOn);
    } catch (error) {
      if (error.conflict) this.showConflict(error.conflict, goOn);
      else warn(error.message);
    } finally {
      this.isSaving = false;
    }
  }

  // Neither version is lost: mine stays in the editor until a person decides.
  showConflict(conflict, goOn) {
    const who = [conflict.made.edited_by, conflict.made.edited_at || conflict.made.time].filter(Boolean).join(", ");
    const keep = button("Replace it with mine", () => {
      this.base = conflict.base;
      this.save(goOn);
    });
    const take = button("Keep theirs", () => {
      drafts.delete(this.key);
      this.close();
      say("Kept the other version.");
    });
    this.conflict.replaceChildren(
      element("p", { textContent: `This caption was changed meanwhile${who ? ` (${who})` : ""}. It is now:` }),
      element("blockquote", { textContent: conflict.theirs || "(removed)" }),
      element("div", { className: "buttons" }, keep, take),
    );
    this.conflict.hidden = false;
    warn("The caption was changed meanwhile: choose which version stays.");
    keep.focus();
  }

  close() {
    if (this.isChanged && drafts.has(this.key)) say("Not saved; what you typed comes back with E.");
    this.actions.closed();
  }
}
