// A figure that waits gets its data and its script when it is near the window, and before a page is printed.
(() => {
  const parts = [...document.querySelectorAll("script[data-src]")];
  const load = part => {
    if (!part.asked) part.asked = new Promise(done => {
      const script = document.createElement("script");
      script.src = part.dataset.src;
      script.onload = script.onerror = done;
      document.head.append(script);
    });
    return part.asked;
  };
  window.minilabFigures = () => Promise.all(parts.map(load));
  addEventListener("beforeprint", window.minilabFigures);
  const near = new IntersectionObserver(changes => changes.forEach(change => {
    if (change.isIntersecting) parts.filter(part => part.closest("figure") === change.target).forEach(load);
  }), { rootMargin: "800px" });
  parts.forEach(part => near.observe(part.closest("figure")));
})();
