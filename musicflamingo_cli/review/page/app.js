// The review: state, commands and keys. Everything that changes goes through the server and comes back from it.

import { button, byId, element, keyed, later, say, warn } from "./dom.js";
import { get, post, session } from "./api.js";
import { List } from "./list.js";
import { Player } from "./player.js";
import { Editor } from "./editor.js";
import { trackView } from "./detail.js";
import { askForm, askPanel, isBusy } from "./asking.js";
import { openReplace } from "./replacing.js";

const KEYS = [
  ["Space", "play, pause (typing: Ctrl+Space)"],
  ["← →", "5 s back, forth (Shift: 30 s)"],
  ["J K, ↓ ↑", "next or previous track"],
  ["Enter", "approve the track, go on"],
  ["X", "exclude, go on (also Backspace)"],
  ["1 … 9", "choose a caption"],
  ["A", "approve this caption only"],
  ["E", "edit (Enter saves, Esc leaves)"],
  ["C", "correct a wrong tempo or key"],
  ["G", "ask the model again"],
  ["N", "write a note"],
  ["P", "show how captions were made"],
  ["Z, Y", "undo, redo"],
  ["R, W", "find and replace, trigger words"],
  ["S, Shift+S", "select this track, all listed"],
  ["/, F", "search, filter"],
  ["L", "sort the list again"],
  ["?", "show or hide these keys"],
];
const LEGEND = "musicflamingo-review-keys";
const POLL = 1500; // milliseconds
const POLL_ASKING = 400;

const state = { at: 0, showsProvenance: false, asks: [], elsewhere: "", actions: {} };
let about;
let list;
let player;
let track = null;
let editor = null;
let form = null;
let revision = 0;
let loading = 0;
let scanning = true;
let chain = Promise.resolve();

// Commands run one after another, each on what the one before it left.
const inTurn = (work) => (...given) => {
  chain = chain.then(() => work(...given)).catch((error) => warn(error.message));
  return chain;
};

// -- the list -----------------------------------------------------------------------------------------

async function reorder() {
  const found = await get("/api/order", { search: byId("search").value, only: byId("filter").value, sort: byId("sort").value });
  revision = found.revision;
  list.order(found.ids);
  show(found);
  if (!editor && (!track || list.place(track.id) < 0) && found.ids.length) await open(found.ids[0]);
}

function show(found) {
  const { counts } = found;
  scanning = found.scanning;
  const settled = counts.all - counts["to do"];
  const percent = counts.all ? Math.floor((100 * settled) / counts.all) : 0;
  byId("progress").setAttribute("aria-valuenow", String(percent));
  byId("progress").firstElementChild.style.width = `${percent}%`;
  byId("progress-text").textContent = `${counts.approved} approved, ${counts.excluded} excluded, ${counts["to do"]} to do`;
  byId("count").textContent = `${list.ids.length} of ${counts.all} tracks${scanning ? ", still reading…" : ""}`;
  for (const option of byId("filter").options) option.textContent = `${option.value} (${counts[option.value]})`;
  for (const [id, label] of [["undo", found.undo], ["redo", found.redo]]) {
    byId(id).disabled = !label || about.readOnly;
    byId(id).title = label;
  }
}

async function poll() {
  try {
    const found = await get("/api/changes", { since: revision, open: track ? track.id : -1 });
    revision = found.revision;
    const was_scanning = scanning;
    list.update(found.rows);
    show(found);
    state.elsewhere = found.elsewhere;
    state.asks = found.asks;
    showElsewhere();
    // What is being edited does not move; saving it shows a conflict, if there is one.
    showAsks();
    if (found.rows.some((row) => row.id === track?.id)) await refresh(found.rows);
    if (was_scanning) await reorder_in_turn();
  } catch (error) {
    warn(error.status === 401 ? "This review has ended or was restarted: open its new URL." : `No connection: ${error.message}`);
  } finally {
    setTimeout(poll, state.asks.some(isBusy) ? POLL_ASKING : POLL);
  }
}

// In turn, since a person may be on the way to another track.
const refresh = inTurn(async (rows) => {
  if (track && !editor && !form && rows.some((row) => row.id === track.id)) await open(track.id);
});
const reorder_in_turn = inTurn(reorder);

// -- the track ----------------------------------------------------------------------------------------

async function open(id) {
  const number = ++loading;
  const is_other = track?.id !== id;
  if (is_other) leave();
  const found = await get(`/api/tracks/${id}`);
  if (number !== loading) return; // another one was opened meanwhile
  if (!is_other && (editor || form)) return; // an editor was opened meanwhile, and stays as it is
  if (is_other) {
    state.at = 0;
    player.open(id, found.seconds, found.name);
    byId("detail").scrollTop = 0;
    if (track && isNarrow()) byId("detail").scrollIntoView();
  }
  const is_same = !is_other && JSON.stringify(found) === JSON.stringify(track);
  track = found;
  list.choose(id);
  if (!is_same) draw();
  const next = list.ids[list.place(id) + 1];
  if (next !== undefined) player.picture(next);
}

function draw() {
  const place = focusPlace();
  editor = form = null;
  byId("detail").replaceChildren(...trackView(track, state, player));
  showElsewhere();
  showAsks();
  place?.();
}

// Focus stays on the same button when the track is drawn again.
function focusPlace() {
  const focused = document.activeElement;
  if (!byId("detail").contains(focused)) return null;
  const label = focused.getAttribute("aria-label") || focused.textContent;
  const is_player = player.panel.contains(focused);
  return () => {
    const same = is_player ? focused
      : [...byId("detail").querySelectorAll("button")].find((each) => (each.getAttribute("aria-label") || each.textContent) === label);
    (same || byId("list")).focus({ preventScroll: true });
  };
}

function showElsewhere() {
  const place = byId("elsewhere");
  if (place) place.textContent = state.elsewhere ? `open in another review: ${state.elsewhere}` : "";
}

const card = (index) => byId("detail").querySelector(`.caption[data-index="${index}"]`);

function showAsks() {
  if (!track) return;
  for (const [index, caption] of track.captions.entries()) {
    const place = card(index)?.querySelector(".place");
    if (!place || place.querySelector(".editor, form")) continue;
    const ask = state.asks.findLast((each) => each.id === track.id && each.preset === caption.preset);
    const text = ask ? JSON.stringify([ask, caption.text]) : "";
    if (place.dataset.shown === text) continue;
    place.dataset.shown = text;
    place.replaceChildren(...(ask ? [askPanel(ask, caption, state.actions)] : []));
  }
}

function leave() {
  editor = form = null;
}

async function step(by) {
  const next = list.ids[list.place(track ? track.id : -1) + by];
  if (next !== undefined) await open(next);
  else say(by > 0 ? "This is the last track of the list." : "This is the first track of the list.");
}

// -- changes ------------------------------------------------------------------------------------------

async function change(path, values, then = "") {
  try {
    const answer = await post(`/api/tracks/${track.id}/${path}`, values);
    changed(answer);
    if (then) say(then);
    return true;
  } catch (error) {
    if (!error.conflict) throw error;
    await open(track.id);
    warn(`${error.message}. Nothing was changed: look at it again.`);
    return false;
  }
}

function changed(answer) {
  track = answer.track;
  list.update([answer.track]);
  show(answer);
  draw();
}

const isNarrow = () => matchMedia("(max-width: 52rem)").matches;
const bases = () => Object.fromEntries(track.captions.map((each) => [each.preset, each.base]));
const can = () => track && !about.readOnly;

async function approve(seen) {
  if (can() && (await change("approve", { bases: seen }, `Approved ${track.name}`))) await step(1);
}

const actions = {
  approve: inTurn(() => approve(track ? bases() : {})),
  approveSeen: inTurn(approve),
  approveCaption: inTurn(async (index = state.at) => {
    const caption = track?.captions[index];
    if (can() && caption) await change("approve", { bases: bases(), preset: caption.preset, value: !caption.approved });
  }),
  correct: inTurn(async () => {
    if (!can() || editor || form) return;
    if (track.corrections.length) await change("correct", { bases: bases() }, `Corrected ${track.corrections.join(", ").replaceAll("->", "→")}; undo with Z.`);
    else say("Nothing to correct: no tempo or key is contradicted by a sure measurement.");
  }),
  step: inTurn((by) => step(by)),
  exclude: inTurn(async () => {
    if (!can()) return;
    const value = !track.excluded;
    if ((await change("exclude", { value }, `${value ? "Excluded" : "Included"} ${track.name}`)) && value) await step(1);
  }),
  edit(index = state.at) {
    if (!can() || !track.captions[index]) return;
    if (editor || form) draw();
    choose(index);
    editor = new Editor(track, track.captions[index], about.limits, {
      closed: () => {
        draw();
        byId("list").focus();
      },
      saved: async (answer, preset, goOn) => {
        // The other captions as they were on the screen: the answer may hold newer ones, which nobody has seen.
        const saved = answer.track.captions.find((each) => each.preset === preset);
        const seen = { ...bases(), [preset]: saved?.base };
        changed(answer);
        byId("list").focus();
        say("Saved.");
        if (goOn) await actions.approveSeen(seen);
      },
    });
    card(index).querySelector(".text, .soft:not(span)")?.remove();
    card(index).querySelector(".place").replaceChildren(editor.panel);
    editor.focus();
  },
  note() {
    if (!can()) return;
    if (editor || form) draw();
    const input = element("input", { type: "text", value: track.note, attributes: { "aria-label": "Note about this track" } });
    const closed = () => {
      draw();
      byId("list").focus();
    };
    const save = inTurn(async () => {
      if (await change("note", { text: input.value, base: track.noteBase }, "Saved the note.")) byId("list").focus();
    });
    form = element("form", { className: "buttons", onsubmit: (event) => {
      event.preventDefault();
      save();
    } }, input, element("button", { textContent: "Save (Enter)" }), button("Cancel (Esc)", closed));
    form.close = closed;
    byId("note-place").replaceChildren(form);
    input.focus();
  },
  ask(index = state.at) {
    if (!can() || !about.ask || !track.captions[index]) return;
    if (editor || form) draw();
    choose(index);
    const closed = () => {
      draw();
      byId("list").focus();
      poll_soon();
    };
    const made = askForm(track, track.captions[index], about.ask, closed);
    form = made.form;
    form.close = closed;
    card(index).querySelector(".place").replaceChildren(form);
    made.focus();
  },
  take: inTurn(async (ask, caption) => {
    const answer = await post(`/api/asks/${ask.number}/take`, { base: caption.base });
    state.asks = state.asks.filter((each) => each !== ask);
    changed(answer);
    say("Took the new caption; undo with Z.");
  }),
  drop: inTurn(async (ask) => {
    await post(`/api/asks/${ask.number}/drop`);
    state.asks = state.asks.filter((each) => each !== ask);
    showAsks();
  }),
  undo: inTurn(() => move("undo")),
  redo: inTurn(() => move("redo")),
  replace(kind) {
    if (!can()) return;
    const presets = [...new Set([...about.presets, ...track.captions.map((each) => each.preset)])];
    openReplace({ ids: list.ids, selected: [...list.selected], presets, kind, done: async (answer) => {
      show(answer);
      await poll_once();
      if (track) await open(track.id);
      byId("list").focus();
    } });
  },
};
state.actions = actions;

async function poll_once() {
  const found = await get("/api/changes", { since: revision, open: track ? track.id : -1 });
  revision = found.revision;
  list.update(found.rows);
  state.asks = found.asks;
  showAsks();
}
const poll_soon = later(() => poll_once().catch(() => {}), 100);

async function move(which) {
  if (about.readOnly) return;
  const done = await post(`/api/${which}`);
  show(done);
  if (!done.label) {
    say(`There is nothing to ${which}.`);
    return;
  }
  const left = done.conflicts.length ? ` ${done.conflicts.length} tracks were changed since, or cannot be written, and stay as they are.` : "";
  await poll_once();
  if (done.changed.length) {
    if (!done.changed.includes(track?.id)) await open(done.changed[0]);
    else await open(track.id);
  }
  const text = `${which === "undo" ? "Undone" : "Done again"}: ${done.label}.${left}`;
  if (left) warn(text);
  else say(text);
}

function choose(index) {
  if (!track || !track.captions[index]) return;
  state.at = index;
  for (const each of byId("detail").querySelectorAll(".caption")) {
    each.classList.toggle("current", Number(each.dataset.index) === index);
  }
  card(index).scrollIntoView({ block: "nearest" });
}

function select(all) {
  const { selected } = list;
  if (all) {
    const has_all = list.ids.every((id) => selected.has(id));
    for (const id of list.ids) if (has_all) selected.delete(id);
    else selected.add(id);
  } else if (track) {
    if (selected.has(track.id)) selected.delete(track.id);
    else selected.add(track.id);
  }
  list.draw();
  say(`${selected.size} tracks selected.`);
}

function showLegend(is_shown) {
  const legend = byId("legend");
  legend.hidden = !is_shown;
  legend.replaceChildren(
    element("dl", {}, ...KEYS.map(([keys, text]) => element("div", {},
      element("dt", {}, element("kbd", { textContent: keys })), element("dd", { textContent: text })))),
    keyed("Hide", "?", toggleLegend));
}

// A cookie, unlike storage, is kept for the next review, which has another port.
function toggleLegend() {
  const is_shown = byId("legend").hidden;
  document.cookie = `${LEGEND}=${is_shown ? "shown" : "hidden"}; SameSite=Strict; Max-Age=31536000`;
  showLegend(is_shown);
}

// -- keys ---------------------------------------------------------------------------------------------

const newest = () => state.asks.findLast((ask) => ask.id === track?.id && ask.state === "answered");
const COMMANDS = {
  " ": () => player.toggle(),
  arrowleft: () => player.step(-1),
  arrowright: () => player.step(1),
  j: inTurn(() => step(1)),
  arrowdown: inTurn(() => step(1)),
  k: inTurn(() => step(-1)),
  arrowup: inTurn(() => step(-1)),
  enter: actions.approve,
  x: actions.exclude,
  backspace: actions.exclude,
  a: () => actions.approveCaption(),
  c: actions.correct,
  e: inTurn(() => actions.edit()),
  g: inTurn(() => actions.ask()),
  n: inTurn(() => actions.note()),
  p: () => {
    state.showsProvenance = !state.showsProvenance;
    for (const each of byId("detail").querySelectorAll("details")) each.open = state.showsProvenance;
  },
  t: () => newest() && actions.take(newest(), track.captions.find((each) => each.preset === newest().preset)),
  o: () => newest() && actions.drop(newest()),
  z: actions.undo,
  y: actions.redo,
  r: inTurn(() => actions.replace("replace")),
  w: inTurn(() => actions.replace("add in front")),
  s: () => select(false),
  l: inTurn(reorder),
  "/": () => byId("search").focus(),
  f: () => byId("filter").focus(),
  "?": toggleLegend,
};

function onKey(event) {
  const { target } = event;
  const is_typing = target.matches("input:not([type=checkbox]), textarea, select");
  const key = event.key.toLowerCase();
  if (byId("replace").open || event.altKey || event.isComposing) return;
  if (event.ctrlKey || event.metaKey) onControl(event, key, is_typing);
  else if (is_typing) onTyped(event, key, target);
  else if (target.matches("button, summary") && (key === " " || key === "enter")) return;
  else if (key === "s" && event.shiftKey) run(event, () => select(true));
  else if (event.shiftKey && (key === "arrowleft" || key === "arrowright")) run(event, () => player.step(key === "arrowleft" ? -6 : 6));
  else if (/^[1-9]$/.test(key)) run(event, inTurn(() => choose(Number(key) - 1)));
  else if (COMMANDS[key]) run(event, COMMANDS[key]);
}

function run(event, command) {
  event.preventDefault();
  if (!event.repeat || ["j", "k", "arrowdown", "arrowup", "arrowleft", "arrowright"].includes(event.key.toLowerCase())) command();
}

function onControl(event, key, is_typing) {
  if (key === " ") run(event, () => player.toggle());
  else if (editor && (key === "enter" || key === "s")) run(event, () => editor.save(key === "enter"));
  else if (!is_typing && key === "z") run(event, event.shiftKey ? actions.redo : actions.undo);
  else if (!is_typing && key === "y") run(event, actions.redo);
}

// In a field, letters are letters; Enter and Escape end it.
function onTyped(event, key, target) {
  if (key === "escape") {
    event.preventDefault();
    if (editor) editor.close();
    else if (form) form.close();
    else byId("list").focus();
  } else if (key === "enter" && target.matches("[data-editor]") && !event.shiftKey) {
    run(event, () => editor.save(false));
  } else if (["search", "filter", "sort"].includes(target.id) && key === "enter") {
    event.preventDefault();
    byId("list").focus();
  }
}

// -- the beginning ------------------------------------------------------------------------------------

async function begin() {
  about = await session();
  document.title = `${about.dataset.split(/[\\/]/).findLast(Boolean) || "dataset"} - review`;
  byId("dataset").textContent = document.title;
  Object.assign(state, { readOnly: about.readOnly, canAsk: Boolean(about.ask), estimated: about.tokensAreEstimated });
  byId("filter").append(...about.filters.map((value) => element("option", { value, textContent: value })));
  if (about.readOnly) byId("open-replace").disabled = true;
  list = new List(inTurn(open));
  player = new Player(about.picture);
  showLegend(!isNarrow() && !document.cookie.includes(`${LEGEND}=hidden`)); // smaller screens are touched, not typed at
  const reorder_soon = later(inTurn(reorder), 60);
  byId("search").addEventListener("input", reorder_soon);
  for (const id of ["filter", "sort"]) byId(id).addEventListener("change", inTurn(reorder));
  byId("undo").addEventListener("click", actions.undo);
  byId("redo").addEventListener("click", actions.redo);
  byId("open-replace").addEventListener("click", () => actions.replace("replace"));
  byId("open-legend").addEventListener("click", toggleLegend);
  document.addEventListener("keydown", onKey);
  window.addEventListener("beforeunload", (event) => {
    if (editor?.isChanged) event.preventDefault();
  });
  await reorder();
  byId("list").focus();
  poll();
}

begin().catch((error) => warn(error.message));
