// Beside a link to an equation, a theorem, a term or a reference: what it leads to. It appears when the link is pointed
// at or reached by keyboard, stays while the pointer is on it, and goes with Escape. Following the link works as ever.
(() => {
  const root = new URL(document.documentElement.dataset.content_root || "./", location.href).href;
  const card = document.createElement("div");
  Object.assign(card, { id: "ml-preview", className: "ml-preview", hidden: true });
  card.setAttribute("role", "tooltip");
  let loaded, wanted = null, timer = 0;

  const previewed = () => loaded ??= new Promise((done) => {
    const script = document.createElement("script");
    script.src = root + "_static/previewed.js";
    script.onload = () => done(window.minilabPreviewed);
    script.onerror = () => done({});
    document.head.append(script);
  });

  function place(link) {
    // A long formula shrinks: what scrolls would have to be reached by keyboard.
    card.style.fontSize = "";
    const wide = Math.max(...[card, ...card.querySelectorAll("div, section, mjx-container")]
      .map((part) => part.scrollWidth / part.clientWidth));
    if (wide > 1) card.style.fontSize = `${0.85 / wide}rem`;
    const at = link.getClientRects()[0], space = 8;
    const left = Math.min(at.left, document.documentElement.clientWidth - card.offsetWidth - space);
    const below = at.bottom + card.offsetHeight + space < innerHeight;
    card.style.left = `${scrollX + Math.max(space, left)}px`;
    card.style.top = `${scrollY + (below ? at.bottom : at.top - card.offsetHeight)}px`;
  }
  function hide() {
    clearTimeout(timer);
    wanted?.removeAttribute("aria-describedby");
    wanted = null;
    card.hidden = true;
  }
  async function show(link) {
    if (link === wanted) return;
    hide();
    wanted = link;
    const text = (await previewed())[decodeURI(link.href.slice(root.length))];
    if (!text || link !== wanted) return;
    card.innerHTML = text;
    card.hidden = false;
    card.style.visibility = "hidden"; // until its mathematics is set
    if (window.minilabMath && card.querySelector(".math")) {
      await window.minilabMath();
      window.MathJax?.typesetClear?.([card]);
      await window.MathJax?.typesetPromise?.([card]);
      place(link); // near the window, where formulas are set
      while (link === wanted && card.querySelector("mjx-lazy")) await new Promise(requestAnimationFrame);
    }
    if (link !== wanted) return;
    place(link);
    card.style.visibility = "";
    link.setAttribute("aria-describedby", card.id);
  }
  const later = (action, wait) => { clearTimeout(timer); timer = setTimeout(action, wait); };

  for (const link of document.querySelectorAll('.bd-article a.internal[href*="#"]')) {
    if (!link.href.startsWith(root)) continue;
    link.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") later(() => show(link), 250); });
    link.addEventListener("pointerleave", () => later(hide, 250));
    link.addEventListener("focus", () => { if (link.matches(":focus-visible")) show(link); });
    link.addEventListener("blur", hide);
  }
  card.addEventListener("pointerenter", () => clearTimeout(timer));
  card.addEventListener("pointerleave", () => later(hide, 250));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  // Within the main part, so that all of the page's content is inside a landmark.
  document.querySelector("main")?.append(card);
})();
