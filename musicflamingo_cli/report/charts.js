"use strict";
// Captions and names are untrusted: they are set as textContent, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
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

// -- totals and charts --------------------------------------------------------------------------------

// What the charts show, counted: `summary` has lists of [value, number of tracks or captions].
function showTotals({ tracks, problems }) {
  byId("path").textContent = data.dataset;
  const cards = [
    [tracks, "tracks"],
    [data.hours < 10 ? data.hours.toFixed(2) : Math.round(data.hours), "hours of audio"],
    [percent(data.complete, tracks), `complete (${data.complete})`],
    [problems, "with problems"],
    [data.sharedCount, data.part ? "with a caption of other tracks" : "captions on several tracks"],
  ];
  if (data.checked) cards.push([data.contradicted, `contradicted, of ${data.checked} checked`]);
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

function histogram(title, counted, { low, high, bins, beyond = Infinity, note = "" }) {
  const counts = new Array(bins).fill(0);
  for (const [value, number] of counted) {
    counts[Math.min(bins - 1, Math.max(0, Math.floor(((value - low) / (high - low)) * bins)))] += number;
  }
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

const tally = (values) => {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
  return [...counts];
};
const most = (counted, number = 12) =>
  counted.sort((one, other) => other[1] - one[1] || (one[0] < other[0] ? -1 : 1)).slice(0, number);
const sum = (counted) => counted.reduce((total, [, number]) => total + number, 0);

function showCharts({ tracks, tokens, tempi, keys, genres, instruments, moods }) {
  const limits = Object.entries(data.limits);
  const truncated = limits.map(([name, limit]) =>
    `${sum(tokens.filter(([value]) => value > limit))} over ${limit} (${name})`);
  // Not Math.max(...tokens): a call cannot take a hundred thousand arguments.
  const longest = tokens.reduce((longest, [value]) => Math.max(longest, value), 0);
  const high = Math.max(limits[0][1] * 2, Math.ceil(longest / 50) * 50);
  byId("charts").append(
    bars("Captions per preset", Object.entries(data.coverage), tracks),
    histogram(`T5 tokens per caption${data.tokensAreEstimated ? " (estimated)" : ""}`, tokens,
      { low: 0, high, bins: 32, beyond: limits[0][1], note: truncated.join(", ") }),
    histogram("Tempo in captions", tempi, { low: 50, high: 210, bins: 32, note: `${sum(tempi)} tracks with a tempo` }),
    bars("Key", most(keys)),
    bars("Genres", most(genres)),
    bars("Instruments", most(instruments)),
    bars("Moods", most(moods)),
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

function showSummary(summary) {
  showTotals(summary);
  showCharts(summary);
  showShared();
}

