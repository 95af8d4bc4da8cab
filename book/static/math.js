// Formulas are set when they come near the window. A long one scrolls sideways on a narrow page; the keyboard must be
// able to reach it.
(() => {
  const reachable = (part) => { if (part.matches?.('mjx-container[display="true"]')) part.tabIndex = 0; };
  new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach(reachable)))
    .observe(document.documentElement, { childList: true, subtree: true });
})();
