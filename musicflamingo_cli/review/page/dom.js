// Captions and names are untrusted: they are set as textContent, never as markup.

export const element = (name, properties = {}, ...children) => {
  const { attributes = {}, ...own } = properties;
  const made = Object.assign(document.createElement(name), own);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
};

export const byId = (id) => document.getElementById(id);

export const button = (label, onclick, properties = {}) =>
  element("button", { type: "button", textContent: label, onclick, ...properties });

// A button that has a key: the key is not shown where there is no keyboard.
export const keyed = (label, key, onclick, properties = {}) =>
  element("button", { type: "button", onclick, ...properties }, label, element("span", { className: "key", textContent: ` (${key})` }));

export const clock = (seconds) => {
  const whole = Math.max(0, Math.floor(seconds || 0));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
};

export const percent = (share) => `${Math.round(100 * (share || 0))} %`;

export const later = (work, milliseconds) => {
  let waiting;
  return (...given) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => work(...given), milliseconds);
  };
};

// Shows a message at the bottom; what went wrong interrupts a screen reader, the rest waits.
export const say = (text) => {
  byId("alert").textContent = "";
  byId("status").textContent = text;
};
export const warn = (text) => {
  byId("status").textContent = "";
  byId("alert").textContent = text;
};
