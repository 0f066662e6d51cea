
// -- the pages with the tracks ------------------------------------------------------------------------

const number = (textContent) => element("td", { className: "number", textContent });

function showParts() {
  let done = 0;
  byId("parts").append(...data.parts.map((part) => {
    const tracks = `${done + 1} to ${(done += part.tracks)}`;
    return element("tr", {},
      element("td", {}, element("a", { href: part.url, textContent: tracks })),
      element("td", { textContent: part.first }), element("td", { textContent: part.last }),
      number(part.incomplete), number(part.problems), number(part.contradicted), number(part.shared), number(part.unusual));
  }));
}

showSummary(data.summary);
showParts();
