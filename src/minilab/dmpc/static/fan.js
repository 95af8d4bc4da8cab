const UNITS = { speed: "m/s", height: "m", pitch: "rad" };
for (const root of document.querySelectorAll("figure.minilab-fan:not([data-live])")) {
  const one = selector => root.querySelector(selector), all = selector => [...root.querySelectorAll(selector)];
  const data = JSON.parse(one('script[type="application/json"]').textContent);
  const slider = one("[name=n]"), pressed = name => one(`[data-${name}][aria-pressed=true]`).dataset[name];
  const say = speaker(one("[role=status]")), ROOM = { left: 38, right: 334, top: 8, bottom: 136 };
  const span = values => {
    const low = Math.min(...values), high = Math.max(...values);
    return high - low < 1e-9 ? { y0: low - .5, y1: high + .5 } : { y0: low, y1: high };
  };

  function draw() {
    const objective = pressed("objective"), start = data.starts.find(s => s.name === pressed("start")), n = Number(slider.value);
    const scores = start.scores[data.objectives.indexOf(objective)], drawn = scores.slice(0, n), N = scores.length;
    const ranked = drawn.map((_, i) => i).sort((a, b) => drawn[b] - drawn[a]), best = ranked[0];
    const mean = drawn.reduce((a, b) => a + b, 0) / n;
    const faint = rank => (n === 1 ? .9 : .9 - .75 * rank / (n - 1)).toFixed(2);
    for (const what of Object.keys(UNITS)) {
      const paths = start[what], values = paths.flat(), F = paths[0].length - 1; // one scale for every N and objective
      const plot = axes({ ...ROOM, x0: 0, x1: F * data.dt, ...span(values), name: "seconds ahead" });
      const line = (i, more) => tag("polyline", { ...more, points: paths[i].map((v, k) => `${plot.x(k * data.dt)},${plot.y(v)}`).join(" ") });
      let svg = plot.svg;
      for (let rank = n - 1; rank > 0; rank--) svg += line(ranked[rank], { class: "plan", opacity: faint(rank) });
      put(one(`[data-plot=${what}]`), svg + line(best, { class: "chosen" }),
        `Predicted ${what} of ${n} candidates over ${(F * data.dt).toFixed(2)} s. The chosen one goes from ${show(paths[best][0])} to ${show(paths[best][F])} ${UNITS[what]}.`);
    }
    const above = drawn.map(s => s - mean), bars = axes({ ...ROOM, x0: 0, x1: n, ...span([0, ...above]), name: "rank" });
    const width = (bars.right - bars.left) / n, zero = bars.y(0);
    let svg = bars.svg;
    ranked.forEach((i, rank) => {
      const end = bars.y(above[i]);
      svg += tag("rect", { class: rank ? "" : "best", opacity: rank ? faint(rank) : 1, x: (bars.x(rank) + .08 * width).toFixed(1),
        y: Math.min(end, zero), width: (.84 * width).toFixed(1), height: Math.abs(end - zero).toFixed(1) });
    });
    put(one("[data-plot=scores]"), svg + bars.level("axis", 0), `Scores of ${n} candidates from ${show(drawn[best])} down to ${show(drawn[ranked[n - 1]])}; their mean is ${show(mean)}.`);

    let top = -Infinity;
    const gains = scores.map(s => top = Math.max(top, s));
    const plot = axes({ ...ROOM, x0: 1, x1: N, ...span(gains), name: "candidates N" });
    const steps = gains.flatMap((g, i) => (i ? [gains[i - 1], g] : [g]).map(v => [plot.x(i + 1), plot.y(v)]));
    put(one("[data-plot=gain]"), plot.svg + polyline("gain", steps)
      + tag("circle", { cx: plot.x(n), cy: plot.y(gains[n - 1]), r: 5 }),
      `Best score among the first N candidates: ${show(gains[0])} for 1, ${show(gains[n - 1])} for ${n}, ${show(gains[N - 1])} for ${N}.`);

    const ends = Object.entries(UNITS).map(([what, unit]) => `${what} ${show(start[what][best].at(-1))} ${unit}`).join(", ");
    const told = n === 1 ? `One candidate, score ${show(drawn[best])}: it is run whatever it is. It ends at ${ends}.`
      : `Best of ${n} for “${objective}”: candidate ${best + 1}, score ${show(drawn[best])}; their mean is ${show(mean)}. It ends at ${ends}.`;
    one("[data-out=told]").textContent = told;
    say(told);
  }

  for (const name of ["objective", "start"]) for (const button of all(`[data-${name}]`)) button.addEventListener("click", () => {
    press(all(`[data-${name}]`), button);
    draw();
  });
  slider.addEventListener("input", () => {
    slider.parentElement.querySelector("b").textContent = slider.value;
    draw();
  });
  root.dataset.live = "";
  for (const part of all(".ml-live, .ml-curves")) part.hidden = false;
  draw();
}
