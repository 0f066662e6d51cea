// One track: what is known of it, and its captions.

import { button, clock, element, keyed, percent } from "./dom.js";

// Folder and file, of which the file is what one looks for.
const named = (name) => [element("span", { className: "folder", textContent: name.slice(0, name.lastIndexOf("/") + 1) }),
  element("span", { textContent: name.slice(name.lastIndexOf("/") + 1) })];

const badge = (text, kind = "") => element("span", { className: `badge ${kind}`, textContent: text });

// A caption with the passages that are contradicted marked. Positions count characters, not UTF-16 units.
function marked(text, marks) {
  const characters = [...text];
  const parts = [];
  let from = 0;
  for (const [start, end, reason] of marks) {
    if (start < from) continue;
    parts.push(characters.slice(from, start).join(""));
    parts.push(element("mark", { textContent: characters.slice(start, end).join(""), title: reason },
      element("span", { className: "hidden", textContent: ` (${reason})` })));
    from = end;
  }
  parts.push(characters.slice(from).join(""));
  return element("p", { className: "text" }, ...parts);
}

function facts(track) {
  const rows = [];
  const claimed = (name) => track.captions.filter((each) => each[name]).map((each) => each[name]);
  const unique = (values) => [...new Set(values)];
  const tempi = unique(claimed("tempo"));
  const keys = unique(claimed("key"));
  const { tempo, key } = track.measured || {};
  const unsure = (found) => (found.sure ? "" : " (not sure)");
  const wrong = (field) => track.captions.some((each) => each.marks.some((mark) => mark[3] === field));
  if (tempi.length || tempo || track.known.bpm) {
    rows.push(["Tempo", wrong("tempo"), tempi.map((bpm) => `${bpm} BPM`).join(", "),
      tempo ? `${[tempo.bpm, ...tempo.alternatives].join(" or ")} BPM${unsure(tempo)}` : "",
      track.known.bpm ? `${track.known.bpm} BPM` : ""]);
  }
  if (keys.length || key || track.known.key) {
    rows.push(["Key", wrong("key"), keys.join(", "), key ? key.name + unsure(key) : "", track.known.key || ""]);
  }
  if (!rows.length) return null;
  const head = ["", "in captions", "measured", "other tools"].map((text) => element("th", { textContent: text, scope: "col" }));
  return element("div", {}, element("table", { className: "facts" },
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...rows.map(([name, isWrong, ...values]) => element("tr", {},
      element("th", { textContent: name, scope: "row" }),
      ...values.map((value, at) => element("td", { className: isWrong && at === 0 ? "wrong" : "", textContent: value || "–" })))))));
}

function provenance(caption, isOpen) {
  const entries = Object.entries(caption.provenance);
  if (!entries.length) return null;
  const list = element("dl", { className: "provenance" });
  for (const [key, value] of entries) list.append(element("dt", { textContent: key }), element("dd", { textContent: value }));
  return element("details", { open: isOpen }, element("summary", { textContent: `How ${caption.preset} was made` }), list);
}

export function captionCard(caption, index, state) {
  const { actions, readOnly, estimated } = state;
  const badges = [];
  if (caption.approved) badges.push(badge("approved"));
  if (caption.edited) badges.push(badge("edited"));
  if (caption.tiny) badges.push(badge("tiny model", "warn"));
  if (!caption.text) badges.push(badge("missing", "warn"));
  const tokens = caption.text ? `${caption.tokens} tokens${estimated ? " (estimated)" : ""}` : "";
  const buttons = readOnly ? [] : [
    button(caption.approved ? "Withdraw approval" : "Approve caption", () => actions.approveCaption(index),
      { disabled: !caption.text }),
    button("Edit", () => actions.edit(index)),
    state.canAsk ? button("Ask again", () => actions.ask(index)) : null,
  ].filter(Boolean);
  for (const each of buttons) each.setAttribute("aria-label", `${each.textContent}: ${caption.preset}`);
  return element(
    "article",
    { className: `caption ${index === state.at ? "current" : ""}`, attributes: { "data-index": String(index), "aria-label": caption.preset } },
    element("header", {},
      element("h3", { textContent: `${index + 1}. ${caption.preset}` }), ...badges,
      element("span", { className: "soft", textContent: tokens }),
      buttons.length ? element("div", { className: "buttons" }, ...buttons) : null),
    caption.text ? marked(caption.text, caption.marks) : element("p", { className: "soft", textContent: "No caption." }),
    element("div", { className: "place" }),
    provenance(caption, state.showsProvenance),
  );
}

export function trackView(track, state, player) {
  const { actions, readOnly } = state;
  const badges = [];
  if (track.approved) badges.push(badge("approved"));
  if (track.excluded) badges.push(badge("excluded from exports", "warn"));
  if (track.doubt !== null) badges.push(badge(`doubt ${percent(track.doubt)}`, track.doubt >= 0.5 ? "warn" : ""));
  badges.push(badge(clock(track.seconds)));
  const buttons = readOnly ? [] : [
    keyed("Approve", "Enter", () => actions.approve(), { className: "primary", title: "Approve the track and go on" }),
    keyed(track.excluded ? "Include" : "Exclude", "X", () => actions.exclude()),
    keyed("Note", "N", () => actions.note()),
  ];
  const correction = track.corrections.length && !readOnly
    ? keyed(`Correct ${track.corrections.join(", ").replaceAll("->", "→")}`, "C", () => actions.correct(), { className: "correct" }) : null;
  const problem = track.problem ? element("p", { className: "flag", textContent: track.problem }) : null;
  const note = track.note ? element("p", { textContent: `Note: ${track.note}` }) : null;
  const reasons = track.reasons.length
    ? element("ul", { className: "flag" }, ...track.reasons.map((text) => element("li", { textContent: text }))) : null;
  const steps = [["‹", "Previous track (K)", -1], ["›", "Next track (J)", 1]].map(([sign, label, by]) =>
    button(sign, () => actions.step(by), { title: label, attributes: { "aria-label": label } }));
  const about = [
    element("div", { className: "title" }, element("h2", { title: track.file }, ...named(track.name)),
      element("div", { className: "badges" }, ...badges, element("span", { id: "elsewhere", className: "flag" }))),
    problem,
    player.panel,
    element("div", { className: "actions" }, player.controls, ...steps, ...buttons),
    element("div", { id: "note-place" }, note),
    element("div", { className: "known" }, facts(track), correction, reasons),
  ];
  return [
    element("div", { className: "about" }, ...about),
    element("div", { className: "captions" }, ...track.captions.map((caption, index) => captionCard(caption, index, state))),
  ];
}
