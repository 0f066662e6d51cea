
// -- the tracks -------------------------------------------------------------------------------------

const CHUNK = 100; // rows added at a time while scrolling


for (const [index, track] of data.tracks.entries()) {
  track.index = index;
  track.longest = Math.max(0, ...Object.values(track.tokens));
  track.number = Object.keys(track.captions).length;
  track.text = [track.name, track.problem, ...track.reasons, ...Object.values(track.captions),
    ...(track.segments || []).flatMap((segment) => segment.captions)].join("\n").toLowerCase();
}

function summary() {
  const { tracks } = data;
  return {
    tracks: tracks.length,
    problems: tracks.filter((track) => track.problem).length,
    tokens: tally(tracks.flatMap((track) => Object.values(track.tokens))),
    tempi: tally(tracks.map((track) => track.tempo).filter(Boolean)),
    keys: tally(tracks.map((track) => track.key).filter(Boolean)),
    genres: tally(tracks.flatMap((track) => track.genres)),
    instruments: tally(tracks.flatMap((track) => track.instruments)),
    moods: tally(tracks.flatMap((track) => track.moods)),
  };
}

// Of a large dataset a page shows one part.
function showPart() {
  if (!data.part) return;
  const { first, last, index, previous, next } = data.part;
  const link = (href, textContent) => (href ? [element("a", { href, textContent })] : []);
  byId("part").hidden = false;
  byId("part").append(`Tracks ${first} to ${last}`, ...link(index, "Whole dataset"), ...link(previous, "Previous"),
    ...link(next, "Next"));
}

// -- the table ----------------------------------------------------------------------------------------

const FILTERS = {
  all: ["all tracks", () => true],
  incomplete: ["incomplete", (track) => track.number < data.presets.length],
  problem: ["with problems", (track) => track.problem],
  contradicted: ["contradicted", (track) => track.flags.includes("contradicted")],
  doubt: ["in doubt", (track) => track.reasons.length > 0],
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
  trust: (track) => track.trust ?? 2, // those without a check last
};
let shown = [];
let drawn = 0;
// The most doubtful first, where anything was checked.
let sort = { by: data.tracks.some((track) => track.reasons.length) ? "trust" : "name", down: false };

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
    element("td", { className: "number", textContent: `${track.number}/${data.presets.length}` }),
    element("td", { className: "number", textContent: track.trust === null ? "" : track.trust.toFixed(2) }));
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
  const segments = element("dl", { className: "segments" }, ...(track.segments || []).map((segment) => {
    const play = element("button", { textContent: segment.span, title: "Play from here" });
    play.addEventListener("click", () => playFrom(player, segment.start));
    return element("div", {}, element("dt", {}, play),
      ...segment.captions.map((caption) => element("dd", { textContent: caption })));
  }));
  const reasons = element("ul", { className: "reasons" }, ...track.reasons.map((reason) => element("li", { textContent: reason })));
  made.after(element("tr", { className: "detail" }, element("td", { colSpan: 8 }, player, reasons, captions, segments)));
}

function playFrom(player, seconds) {
  player.currentTime = seconds; // before anything is loaded: where it will begin
  player.play();
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
  for (const head of document.querySelectorAll("th")) head.removeAttribute("aria-sort");
  document.querySelector(`button[data-sort=${sort.by}]`).parentElement.setAttribute("aria-sort", "ascending");
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

showPart();
showSummary(summary());
showTools();
select();
