const UNITS = { speed: "m/s", height: "m", pitch: "rad" };
for (const root of document.querySelectorAll("figure.minilab-fan:not([data-live])")) {
  const one = selector => root.querySelector(selector), all = selector => [...root.querySelectorAll(selector)];
  const data = JSON.parse(one('script[type="application/json"]').textContent);
  const slider = one("[name=n]"), pressed = name => one(`[data-${name}][aria-pressed=true]`).dataset[name];
  let speaking = 0;
  const tag = (name, attributes, text = "") =>
    `<${name} ${Object.entries(attributes).map(([k, v]) => `${k}="${v}"`).join(" ")}>${text}</${name}>`;
  const show = v => v.toFixed(2).replace("-", "\u2212");
  const LEFT = 38, RIGHT = 334, TOP = 8, BOTTOM = 136;

  // Axes with at most five round ticks each way; returns the maps to the picture and the markup.
  function axes(x0, x1, y0, y1, name) {
    if (y1 - y0 < 1e-9) [y0, y1] = [y0 - .5, y1 + .5];
    const x = v => +(LEFT + (RIGHT - LEFT) * (v - x0) / (x1 - x0 || 1)).toFixed(1);
    const y = v => +(BOTTOM + (TOP - BOTTOM) * (v - y0) / (y1 - y0)).toFixed(1);
    const ticks = (low, high) => {
      const raw = (high - low) / 4, scale = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find(m => m * scale >= raw) * scale;
      const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
      return Array.from({ length: Math.floor(high / step + 1e-6) - Math.ceil(low / step - 1e-6) + 1 },
        (_, i) => [(Math.ceil(low / step - 1e-6) + i) * step, digits]);
    };
    const label = ([v, digits]) => (v.toFixed(digits) === "-0" ? "0" : v.toFixed(digits)).replace("-", "\u2212");
    let svg = "";
    for (const t of ticks(y0, y1)) svg += tag("line", { class: "grid", x1: LEFT, x2: RIGHT, y1: y(t[0]), y2: y(t[0]) })
      + tag("text", { x: LEFT - 5, y: y(t[0]) + 4, "text-anchor": "end" }, label(t));
    for (const t of ticks(x0, x1)) svg += tag("text", { x: x(t[0]), y: BOTTOM + 15, "text-anchor": "middle" }, label(t));
    svg += tag("line", { class: "axis", x1: LEFT, x2: RIGHT, y1: BOTTOM, y2: BOTTOM })
      + tag("text", { x: RIGHT, y: BOTTOM + 30, "text-anchor": "end" }, name);
    return { x, y, svg };
  }
  function put(name, svg, told) {
    const picture = one(`[data-plot=${name}]`);
    picture.innerHTML = svg;
    picture.setAttribute("aria-label", told);
  }

  function draw() {
    const objective = pressed("objective"), start = data.starts.find(s => s.name === pressed("start")), n = Number(slider.value);
    const scores = start.scores[data.objectives.indexOf(objective)], drawn = scores.slice(0, n), N = scores.length;
    const ranked = drawn.map((_, i) => i).sort((a, b) => drawn[b] - drawn[a]), best = ranked[0];
    const mean = drawn.reduce((a, b) => a + b, 0) / n;
    const faint = rank => (n === 1 ? .9 : .9 - .75 * rank / (n - 1)).toFixed(2);
    for (const what of Object.keys(UNITS)) {
      const paths = start[what], values = paths.flat(), F = paths[0].length - 1; // one scale for every N and objective
      const plot = axes(0, F * data.dt, Math.min(...values), Math.max(...values), "seconds ahead");
      const line = (i, more) => tag("polyline", { ...more, points: paths[i].map((v, k) => `${plot.x(k * data.dt)},${plot.y(v)}`).join(" ") });
      let svg = plot.svg;
      for (let rank = n - 1; rank > 0; rank--) svg += line(ranked[rank], { class: "plan", opacity: faint(rank) });
      put(what, svg + line(best, { class: "chosen" }),
        `Predicted ${what} of ${n} candidates over ${(F * data.dt).toFixed(2)} s. The chosen one goes from ${show(paths[best][0])} to ${show(paths[best][F])} ${UNITS[what]}.`);
    }
    const above = drawn.map(s => s - mean), low = Math.min(0, ...above), high = Math.max(0, ...above);
    const bars = axes(0, n, low, high, "rank"), width = (RIGHT - LEFT) / n, zero = bars.y(0);
    let svg = bars.svg;
    ranked.forEach((i, rank) => {
      const end = bars.y(above[i]);
      svg += tag("rect", { class: rank ? "" : "best", opacity: rank ? faint(rank) : 1, x: (bars.x(rank) + .08 * width).toFixed(1),
        y: Math.min(end, zero), width: (.84 * width).toFixed(1), height: Math.abs(end - zero).toFixed(1) });
    });
    svg += tag("line", { class: "axis", x1: LEFT, x2: RIGHT, y1: zero, y2: zero });
    put("scores", svg, `Scores of ${n} candidates from ${show(drawn[best])} down to ${show(drawn[ranked[n - 1]])}; their mean is ${show(mean)}.`);

    let top = -Infinity;
    const gains = scores.map(s => top = Math.max(top, s));
    const plot = axes(1, N, Math.min(...gains), Math.max(...gains), "candidates N");
    const steps = gains.flatMap((g, i) => i ? [`${plot.x(i + 1)},${plot.y(gains[i - 1])}`, `${plot.x(i + 1)},${plot.y(g)}`] : [`${plot.x(1)},${plot.y(g)}`]);
    put("gain", plot.svg + tag("polyline", { class: "gain", points: steps.join(" ") })
      + tag("circle", { cx: plot.x(n), cy: plot.y(gains[n - 1]), r: 5 }),
      `Best score among the first N candidates: ${show(gains[0])} for 1, ${show(gains[n - 1])} for ${n}, ${show(gains[N - 1])} for ${N}.`);

    const ends = Object.entries(UNITS).map(([what, unit]) => `${what} ${show(start[what][best].at(-1))} ${unit}`).join(", ");
    const told = n === 1 ? `One candidate, score ${show(drawn[best])}: it is run whatever it is. It ends at ${ends}.`
      : `Best of ${n} for “${objective}”: candidate ${best + 1}, score ${show(drawn[best])}; their mean is ${show(mean)}. It ends at ${ends}.`;
    one("[data-out=told]").textContent = told;
    clearTimeout(speaking); // a slider moves in many small steps: only the last is spoken
    speaking = setTimeout(() => { one("[role=status]").textContent = told; }, 700);
  }

  for (const name of ["objective", "start"]) for (const button of all(`[data-${name}]`)) button.addEventListener("click", () => {
    for (const other of all(`[data-${name}]`)) other.setAttribute("aria-pressed", String(other === button));
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
