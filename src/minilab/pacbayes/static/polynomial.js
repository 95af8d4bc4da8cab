for (const root of document.querySelectorAll("figure.minilab-polynomial:not([data-live])")) {
  const one = selector => root.querySelector(selector), all = selector => [...root.querySelectorAll(selector)];
  const data = JSON.parse(one('script[type="application/json"]').textContent), say = speaker(one("[role=status]"));
  const value = name => Number(one(`[name=${name}]`).value), size = values => Math.max(...values.map(Math.abs));
  const rms = (a, b) => Math.sqrt(a.reduce((sum, v, i) => sum + (v - b[i]) ** 2, 0) / a.length);
  const roof = v => [1.5, 3].find(top => v <= top) || Math.ceil(v / 5) * 5; // in steps, so that axes seldom move

  function draw() {
    const target = one("[data-target][aria-pressed=true]").dataset.target;
    const J = value("degree"), growth = value("growth"), power = value("scale"), noise = value("noise");
    const y = data.values[target].map((v, i) => v + noise * data.draws[target][i]), truth = data.truth[target];
    const w = dualWeights(data.x, y, orderPenalty(J, 10 ** power, growth)), fit = fitted(w, data.grid);
    const residual = few(rms(fitted(w, data.x), y)), error = few(rms(fit, truth));
    const told = `Degree ${J}, growth ${growth.toFixed(2)}, scale ${few(10 ** power)}, noise ${noise.toFixed(2)}: the `
      + `fit is ${residual} from the ${y.length} points and ${error} from the truth (root mean squares), and reaches `
      + `${few(size(fit))} at most.`;
    drawFit(y, truth, fit, told);
    drawWeights(w);
    one("[data-out=told]").textContent = told;
    return told;
  }
  function drawFit(y, truth, fit, told) {
    const top = roof(size([...y, ...truth, ...fit]));
    const plot = axes({ x0: -1, x1: 1, y0: -top, y1: top, xs: [-1, -.5, 0, .5, 1], ys: ticks(-top, top, 6), name: "x" });
    const points = y.map((v, i) => tag("circle", { class: "point", cx: plot.x(data.x[i]), cy: plot.y(v), r: 3.4 }));
    put(one("[data-plot=fit]"), plot.svg + plot.path("truth", data.grid, truth)
      + plot.path("fit", data.grid, fit) + points.join(""), told);
  }
  function drawWeights(w) {
    const most = size(w), last = w.length - 1, largest = w.findIndex(v => Math.abs(v) === most);
    const plot = axes({ x0: 0, x1: last, y0: 0, y1: most || 1, xs: ticks(0, last, 5), ys: ticks(0, most || 1, 4),
      name: "order j" });
    const stems = w.map((v, j) => tag("line", { class: "weight", x1: plot.x(j), x2: plot.x(j), y1: plot.bottom,
      y2: plot.y(Math.abs(v)) }));
    const total = inner(w, w), reach = w.findIndex((_, j) => inner(w.slice(0, j + 1), w) >= .99 * total);
    put(one("[data-plot=weights]"), plot.svg + stems.join(""), `Weights of the orders 0 to ${last}. The largest is `
      + `${few(most)} at order ${largest}; 99% of the sum of squares lies at orders up to ${reach}.`);
  }

  function set(name, to) {
    const input = one(`[name=${name}]`);
    input.value = to;
    const shown = minus(Number(input.value).toFixed(Number(input.dataset.digits)));
    input.parentElement.querySelector("b").textContent = shown;
  }
  for (const button of all("[data-target]")) button.addEventListener("click", () => {
    press(all("[data-target]"), button);
    set("noise", data.spread[button.dataset.target]);
    say(draw());
  });
  for (const input of all("input")) input.addEventListener("input", () => {
    set(input.name, input.value);
    say(draw());
  });
  root.dataset.live = "";
  for (const part of all(".ml-live, .ml-curves")) part.hidden = false;
  draw();
}
