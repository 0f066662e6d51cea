// What changes in a caption, word by word, with what stays shortened to the words around it.

import { element } from "./dom.js";

const BESIDE = 6; // words shown on each side of a change
const LARGEST = 1_000_000; // cells of a table; larger differences count as one

const words = (text) => text.match(/\s*\S+/g) || [];

// The runs of words that stay ("same"), go ("gone") and come ("new"), in order.
function runs(before, after) {
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start++;
  let end = 0;
  while (end < before.length - start && end < after.length - start && before.at(-1 - end) === after.at(-1 - end)) end++;
  const [old, fresh] = [before.slice(start, before.length - end), after.slice(start, after.length - end)];
  const found = [["same", before.slice(0, start)], ...middle(old, fresh), ["same", before.slice(before.length - end)]];
  return found.filter(([, run]) => run.length);
}

// By the longest common subsequence.
function middle(old, fresh) {
  if (old.length * fresh.length > LARGEST) return [["gone", old], ["new", fresh]];
  const width = fresh.length + 1;
  const length = new Uint16Array((old.length + 1) * width);
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = fresh.length - 1; j >= 0; j--) {
      length[i * width + j] = old[i] === fresh[j] ? length[(i + 1) * width + j + 1] + 1
        : Math.max(length[(i + 1) * width + j], length[i * width + j + 1]);
    }
  }
  const found = [];
  const add = (kind, word) => {
    if (found.at(-1)?.[0] === kind) found.at(-1)[1].push(word);
    else found.push([kind, [word]]);
  };
  let [i, j] = [0, 0];
  while (i < old.length || j < fresh.length) {
    if (i < old.length && j < fresh.length && old[i] === fresh[j]) {
      add("same", old[i++]);
      j++;
    } else if (i < old.length && (j === fresh.length || length[(i + 1) * width + j] >= length[i * width + j + 1])) add("gone", old[i++]);
    else add("new", fresh[j++]);
  }
  return found;
}

function shortened(run, isFirst, isLast) {
  const [head, tail] = [isFirst ? 0 : BESIDE, isLast ? 0 : BESIDE];
  if (run.length <= head + tail + 1) return run.join("");
  return [run.slice(0, head).join(""), "…", tail ? run.slice(-tail).join("").trim() : ""].filter(Boolean).join(" ");
}

// Nodes that show the new text with what is new in <ins>, and with what goes in <del> where that is wanted.
export function differences(before, after, withGone = true) {
  const found = runs(words(before), words(after)).filter(([kind]) => withGone || kind !== "gone");
  return found.flatMap(([kind, run], at) => {
    if (kind === "same") return [shortened(run, at === 0, at === found.length - 1)];
    const text = run.join("");
    return [at ? " " : "", element(kind === "gone" ? "del" : "ins", { textContent: text.trim() })];
  });
}
