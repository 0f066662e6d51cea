// One track: what is known of it, and its captions.

import { button, clock, element } from "./dom.js";

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
  const measured = track.measured || {};
  if (tempi.length || measured.tempo || track.known.bpm) {
    rows.push(["Tempo", tempi.map((bpm) => `${bpm} BPM`).join(", "), measured.tempo ? `${measured.tempo.bpm} BPM` : "",
      track.known.bpm ? `${track.known.bpm} BPM` : ""]);
  }
  if (keys.length || measured.key || track.known.key) {
    rows.push(["Key", keys.join(", "), measured.key ? measured.key.name : "", track.known.key || ""]);
  }
  if (!rows.length) return null;
  const head = ["", "in captions", "measured", "in tags"].map((text) => element("th", { textContent: text, scope: "col" }));
  return element("div", {}, element("table", { className: "facts" },
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...rows.map(([name, ...values]) => element("tr", {},
      element("th", { textContent: name, scope: "row" }),
      ...values.map((value) => element("td", { textContent: value || "–" })))))));
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
      element("span", { className: "soft", textContent: tokens })),
    caption.text ? marked(caption.text, caption.marks) : element("p", { className: "soft", textContent: "No caption." }),
    element("div", { className: "place" }),
    buttons.length ? element("div", { className: "buttons" }, ...buttons) : null,
    provenance(caption, state.showsProvenance),
  );
}

export function trackView(track, state, player) {
  const { actions, readOnly } = state;
  const badges = [];
  if (track.approved) badges.push(badge("approved"));
  if (track.excluded) badges.push(badge("excluded from exports", "warn"));
  if (track.doubt !== null) badges.push(badge(`doubt ${Math.round(100 * track.doubt)} %`, track.doubt >= 0.5 ? "warn" : ""));
  badges.push(badge(clock(track.seconds)));
  const buttons = readOnly ? [] : [
    button("Approve and next (Enter)", () => actions.approve(), { className: "approve" }),
    button(track.excluded ? "Include (X)" : "Exclude (X)", () => actions.exclude()),
    button("Note (N)", () => actions.note()),
  ];
  const problem = track.problem ? element("p", { className: "flag", textContent: track.problem }) : null;
  const note = track.note ? element("p", { textContent: `Note: ${track.note}` }) : null;
  const reasons = track.reasons.length
    ? element("ul", { className: "flag" }, ...track.reasons.map((text) => element("li", { textContent: text }))) : null;
  return [
    element("h2", { textContent: track.name, title: track.file }),
    element("div", { className: "badges" }, ...badges, element("span", { id: "elsewhere", className: "flag" })),
    problem,
    player.panel,
    buttons.length ? element("div", { className: "buttons" }, ...buttons) : null,
    element("div", { id: "note-place" }, note),
    facts(track),
    reasons,
    ...track.captions.map((caption, index) => captionCard(caption, index, state)),
  ].filter(Boolean);
}
