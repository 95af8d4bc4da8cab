// A long equation scrolls sideways on a narrow page; the keyboard must be able to reach it.
window.addEventListener("load", () => {
  const ready = window.MathJax && MathJax.startup && MathJax.startup.promise;
  if (ready) ready.then(() => document.querySelectorAll('mjx-container[display="true"]').forEach((e) => { e.tabIndex = 0; }));
});
