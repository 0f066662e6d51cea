"use strict";
// Captions and names are untrusted: they are set as textContent, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const CHUNK = 100; // rows added at a time while scrolling

const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const byId = (id) => document.getElementById(id);
const clock = (seconds) => {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
};
const percent = (part, whole) => (whole ? `${Math.floor((100 * part) / whole)} %` : "-");

for (const [index, track] of data.tracks.entries()) {
  track.index = index;
  track.longest = Math.max(0, ...Object.values(track.tokens));
  track.number = Object.keys(track.captions).length;
  track.text = [track.name, track.problem, ...Object.values(track.captions)].join("\n").toLowerCase();
}

// -- totals and charts --------------------------------------------------------------------------------

function showTotals() {
  byId("path").textContent = data.dataset;
  const tracks = data.tracks.length;
  const failures = data.tracks.filter((track) => track.problem).length;
  const cards = [
    [tracks, "tracks"],
    [data.hours < 10 ? data.hours.toFixed(2) : Math.round(data.hours), "hours of audio"],
    [percent(data.complete, tracks), `complete (${data.complete})`],
    [failures, "with problems"],
    [data.sharedCount, "captions on several tracks"],
  ];
  if (data.skipped) cards.push([data.skipped, "files skipped"]);
  byId("totals").append(...cards.map(([value, label]) =>
    element("div", { className: "card" }, element("strong", { textContent: value }), label)));
}

function card(title, ...content) {
  return element("div", { className: "card" }, element("h2", { textContent: title }), ...content);
}

function bars(title, counts, whole) {
  const most = Math.max(1, whole || Math.max(0, ...counts.map(([, number]) => number)));
  const rows = counts.map(([label, number]) => {
    const bar = element("i");
    bar.style.width = `${(100 * number) / most}%`;
    return element("div", { className: "bar" }, element("span", { textContent: label, title: label }),
      element("span", {}, bar), element("b", { textContent: number }));
  });
  return card(title, ...(rows.length ? rows : [element("p", { className: "soft", textContent: "none" })]));
}

function histogram(title, values, { low, high, bins, beyond = Infinity, note = "" }) {
  const counts = new Array(bins).fill(0);
  for (const value of values) counts[Math.min(bins - 1, Math.max(0, Math.floor(((value - low) / (high - low)) * bins)))]++;
  const most = Math.max(1, ...counts);
  const columns = counts.map((number, index) => {
    const from = low + ((high - low) * index) / bins;
    const column = element("i", { title: `${Math.round(from)}: ${number}`, className: from >= beyond ? "beyond" : "" });
    column.style.height = `${(100 * number) / most}%`;
    return column;
  });
  const axis = element("div", { className: "axis" }, element("span", { textContent: Math.round(low) }),
    element("span", { textContent: Math.round(high) }));
  const remark = element("p", { className: "soft", textContent: note });
  return card(title, element("div", { className: "histogram" }, ...columns), axis, remark);
}

function counted(lists, most = 12) {
  const counts = new Map();
  for (const list of lists) for (const term of list) counts.set(term, (counts.get(term) || 0) + 1);
  return [...counts].sort((one, other) => other[1] - one[1] || (one[0] < other[0] ? -1 : 1)).slice(0, most);
}

function showCharts() {
  const { tracks } = data;
  const tokens = tracks.flatMap((track) => Object.values(track.tokens));
  const limits = Object.entries(data.limits);
  const truncated = limits.map(([name, limit]) => `${tokens.filter((n) => n > limit).length} over ${limit} (${name})`);
  // Not Math.max(...tokens): a call cannot take a hundred thousand arguments.
  const longest = tokens.reduce((most, n) => Math.max(most, n), 0);
  const high = Math.max(limits[0][1] * 2, Math.ceil(longest / 50) * 50);
  const tempi = tracks.map((track) => track.tempo).filter(Boolean);
  byId("charts").append(
    bars("Captions per preset", Object.entries(data.coverage), tracks.length),
    histogram(`T5 tokens per caption${data.tokensAreEstimated ? " (estimated)" : ""}`, tokens,
      { low: 0, high, bins: 32, beyond: limits[0][1], note: truncated.join(", ") }),
    histogram("Tempo in captions", tempi, { low: 50, high: 210, bins: 32, note: `${tempi.length} tracks with a tempo` }),
    bars("Key", counted(tracks.map((track) => (track.key ? [track.key] : [])))),
    bars("Genres", counted(tracks.map((track) => track.genres))),
    bars("Instruments", counted(tracks.map((track) => track.instruments))),
    bars("Moods", counted(tracks.map((track) => track.moods))),
  );
  if (Object.keys(data.failures).length) byId("charts").append(bars("Problems", Object.entries(data.failures)));
}

function showShared() {
  if (!data.shared.length) return;
  const rest = data.sharedCount - data.shared.length;
  byId("shared").hidden = false;
  byId("shared").append(card("Captions on several tracks: does the model get the audio?",
    ...data.shared.map(([preset, text, number]) =>
      element("p", {}, element("b", { textContent: `${number} tracks, ${preset}: ` }), text)),
    ...(rest > 0 ? [element("p", { className: "soft", textContent: `and ${rest} more` })] : [])));
}

// -- the table ----------------------------------------------------------------------------------------

const FILTERS = {
  all: ["all tracks", () => true],
  incomplete: ["incomplete", (track) => track.number < data.presets.length],
  problem: ["with problems", (track) => track.problem],
  shared: ["shared captions", (track) => track.flags.includes("shared caption")],
  unusual: ["unusual length", (track) => track.flags.includes("unusual length")],
};
for (const [name, limit] of Object.entries(data.limits)) {
  FILTERS[`beyond${limit}`] = [`over ${limit} tokens (${name})`, (track) => track.longest > limit];
}
const SORTS = {
  name: (track) => track.index,
  seconds: (track) => track.seconds,
  tempo: (track) => track.tempo || 0,
  key: (track) => track.key || "~",
  tokens: (track) => track.longest,
  captions: (track) => track.number,
};
let shown = [];
let drawn = 0;
let sort = { by: "name", down: false };

function select() {
  const terms = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const passes = FILTERS[byId("filter").value][1];
  shown = data.tracks.filter((track) => passes(track) && terms.every((term) => track.text.includes(term)));
  const value = SORTS[sort.by];
  const sign = sort.down ? -1 : 1;
  shown.sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    return a < b ? -sign : a > b ? sign : one.index - other.index;
  });
  byId("count").textContent = `${shown.length} of ${data.tracks.length}`;
  byId("tracks").replaceChildren();
  drawn = 0;
  drawMore();
}

function drawMore() {
  byId("tracks").append(...shown.slice(drawn, drawn + CHUNK).map(row));
  drawn = Math.min(shown.length, drawn + CHUNK);
  const left = shown.length - drawn;
  byId("more").textContent = left ? `${left} more: scroll down` : shown.length ? "" : "No tracks.";
}

function row(track) {
  const about = element("div", { className: "soft" },
    ...[...track.flags, track.problem].filter(Boolean).map((flag) => element("span", { className: "flag", textContent: flag })),
    [...track.genres, ...track.moods].slice(0, 6).join(", "));
  const name = element("button", { className: "open", textContent: track.name });
  name.setAttribute("aria-expanded", "false");
  const made = element("tr", { className: "track" },
    element("td", { className: "picture" }, picture(track)),
    element("td", { className: "name" }, name, about),
    element("td", { className: "number", textContent: clock(track.seconds) }),
    element("td", { className: "number", textContent: track.tempo ? `${track.tempo} BPM` : "" }),
    element("td", { className: "number", textContent: track.key }),
    element("td", { className: "number", textContent: track.longest || "" }),
    element("td", { className: "number", textContent: `${track.number}/${data.presets.length}` }));
  made.addEventListener("click", () => toggle(made, track)); // also for the Enter key on the button
  return made;
}

function toggle(made, track) {
  const button = made.querySelector("button");
  const open = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!open));
  if (open) {
    made.nextElementSibling.remove();
    return;
  }
  const player = element("audio", { controls: true, preload: "none", src: track.audio });
  const captions = element("dl", {}, ...data.presets.filter((preset) => preset in track.captions).map((preset) =>
    element("div", {}, element("dt", { textContent: `${preset} (${track.tokens[preset]} tokens)` }),
      element("dd", { textContent: track.captions[preset] }))));
  made.after(element("tr", { className: "detail" }, element("td", { colSpan: 7 }, player, captions)));
}

function colour(name) {
  const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(value.slice(at, at + 2), 16));
}

function picture(track) {
  if (!track.picture) return "";
  const [columns, rows] = data.picture;
  const canvas = element("canvas", { width: columns, height: rows });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "spectrogram");
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const packed = atob(track.picture);
  const [low, high] = [colour("--low"), colour("--high")];
  for (let at = 0; at < columns * rows; at++) {
    const level = ((packed.charCodeAt(at >> 1) >> (at % 2 ? 0 : 4)) & 15) / 15;
    const pixel = 4 * ((rows - 1 - (at % rows)) * columns + Math.floor(at / rows));
    for (let part = 0; part < 3; part++) image.data[pixel + part] = low[part] + (high[part] - low[part]) * level;
    image.data[pixel + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function showTools() {
  byId("filter").append(...Object.entries(FILTERS).map(([value, [label, passes]]) =>
    element("option", { value, textContent: `${label} (${data.tracks.filter(passes).length})` })));
  byId("filter").addEventListener("change", select);
  let waiting;
  byId("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(select, 120);
  });
  for (const button of document.querySelectorAll("button[data-sort]")) {
    button.addEventListener("click", () => {
      sort = { by: button.dataset.sort, down: sort.by === button.dataset.sort && !sort.down };
      for (const head of document.querySelectorAll("th")) head.removeAttribute("aria-sort");
      button.parentElement.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      select();
    });
  }
  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && drawn < shown.length) drawMore();
  }, { rootMargin: "600px" }).observe(byId("more"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", select);
}

showTotals();
showCharts();
showShared();
showTools();
select();
