// The list of tracks: only the rows in view exist, so that a hundred thousand are as fast as ten.

import { byId, element, percent } from "./dom.js";
import { get } from "./api.js";

const HEIGHT = 48; // pixels of a row, as in review.css
const NEAR = 3; // rows kept in view on both sides of the chosen one
const BEYOND = 8; // rows drawn above and below those in view

export class List {
  constructor(onChosen) {
    this.ids = [];
    this.rows = new Map();
    this.selected = new Set();
    this.current = -1;
    this.missing = new Set();
    this.box = byId("list");
    this.inner = element("div", { attributes: { role: "presentation" } });
    this.box.append(this.inner);
    this.box.addEventListener("scroll", () => this.draw(), { passive: true });
    this.box.addEventListener("click", (event) => {
      const row = event.target.closest("[role=option]");
      if (row) onChosen(Number(row.dataset.id));
    });
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  // Takes a new order. Rows that are known stay.
  order(ids) {
    this.ids = ids;
    this.places = new Map(ids.map((id, place) => [id, place]));
    this.inner.style.height = `${ids.length * HEIGHT}px`;
    byId("empty").hidden = ids.length > 0;
    this.draw();
  }

  update(rows) {
    for (const row of rows) this.rows.set(row.id, row);
    if (rows.length) this.draw();
  }

  place(id) {
    return this.places?.get(id) ?? -1;
  }

  choose(id) {
    this.current = id;
    const top = this.place(id) * HEIGHT;
    const beside = Math.min(NEAR * HEIGHT, this.box.clientHeight / 3); // what comes next is in view
    if (top - beside < this.box.scrollTop) this.box.scrollTop = top - beside;
    else if (top + HEIGHT + beside > this.box.scrollTop + this.box.clientHeight) {
      this.box.scrollTop = top + HEIGHT + beside - this.box.clientHeight;
    }
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / HEIGHT) - BEYOND);
    const last = Math.min(this.ids.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / HEIGHT) + BEYOND);
    const shown = [];
    const unknown = [];
    for (let place = first; place < last; place++) {
      const id = this.ids[place];
      if (!this.rows.has(id)) unknown.push(id);
      shown.push(this.row(id, place));
    }
    this.inner.replaceChildren(...shown);
    const active = this.place(this.current);
    if (active >= first && active < last) this.box.setAttribute("aria-activedescendant", `row-${this.current}`);
    else this.box.removeAttribute("aria-activedescendant");
    this.fetch(unknown);
  }

  async fetch(ids) {
    const wanted = ids.filter((id) => !this.missing.has(id)).slice(0, 200);
    if (!wanted.length) return;
    for (const id of wanted) this.missing.add(id);
    try {
      this.update((await get("/api/rows", { ids: wanted.join(",") })).rows);
    } finally {
      for (const id of wanted) this.missing.delete(id);
    }
  }

  row(id, place) {
    const row = this.rows.get(id);
    const flags = new Set(row ? row.flags : []);
    const marks = [];
    if (flags.has("failed")) marks.push(["failed", "!"]);
    if (flags.has("doubtful")) marks.push([`doubt ${percent(row.doubt)}`, percent(row.doubt)]);
    if (flags.has("missing")) marks.push([`${row.missing} missing`, `−${row.missing}`]);
    if (flags.has("edited")) marks.push(["edited", "✎"]);
    if (flags.has("noted")) marks.push(["with a note", "¶"]);
    if (flags.has("excluded")) marks.push(["excluded", "✕"]);
    if (flags.has("approved")) marks.push(["approved", "✓"]);
    const name = row ? row.name : "…";
    const state = flags.has("excluded") ? "excluded" : flags.has("approved") ? "approved" : "";
    const is_selected = this.selected.has(id);
    const label = [name, ...marks.map(([text]) => text), is_selected ? "selected" : ""].filter(Boolean).join(", ");
    const made = element(
      "div",
      {
        id: `row-${id}`,
        className: `row ${state} ${is_selected ? "selected" : ""}`,
        attributes: {
          role: "option",
          "aria-label": label,
          "aria-selected": String(id === this.current),
          "aria-setsize": String(this.ids.length),
          "aria-posinset": String(place + 1),
          "data-id": String(id),
        },
      },
      element("span", { className: "tick", textContent: is_selected ? "●" : "" }),
      element("span", { className: "name", title: name },
        element("span", { textContent: name.slice(name.lastIndexOf("/") + 1) }),
        element("small", { textContent: name.slice(0, Math.max(0, name.lastIndexOf("/"))) })),
      element("span", { className: "marks", title: marks.map(([text]) => text).join(", "), textContent: marks.map(([, sign]) => sign).join(" ") }),
    );
    made.style.top = `${place * HEIGHT}px`;
    return made;
  }
}
