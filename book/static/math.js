// MathJax comes when a formula is near the window, the reader begins to move or has been here for a while, and sets
// formulas as they come near.
// A long one scrolls sideways on a narrow page; the keyboard must be able to reach it.
(() => {
  const waiting = document.querySelector('script[src*="mathjax/startup.js"]');
  if (!waiting) return; // a page without formulas
  let asked;
  window.minilabMath = () => asked ??= new Promise((done) => {
    const script = document.createElement("script");
    script.src = waiting.src;
    script.onload = () => MathJax.startup.promise.then(done);
    script.onerror = () => { // better their TeX than nothing
      document.querySelectorAll("span.math[style]").forEach((part) => part.removeAttribute("style"));
      done();
    };
    document.head.append(script);
  });
  const begun = new AbortController();
  for (const sign of ["scroll", "pointermove", "keydown", "touchstart", "beforeprint"])
    addEventListener(sign, () => { begun.abort(); window.minilabMath(); }, { passive: true, signal: begun.signal });
  addEventListener("load", () => setTimeout(window.minilabMath, 10_000)); // so that a page can be printed unmoved
  const near = new IntersectionObserver((changes) => {
    if (changes.some((change) => change.isIntersecting)) { near.disconnect(); window.minilabMath(); }
  }, { rootMargin: "400px" });
  document.querySelectorAll(".math").forEach((part) => near.observe(part));

  const reachable = (part) => { if (part.matches?.('mjx-container[display="true"]')) part.tabIndex = 0; };
  new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach(reachable)))
    .observe(document.documentElement, { childList: true, subtree: true });
})();
