const FORMULAS = { hoeffding: occamHoeffding, kl: occamKl, maurer };
for (const root of document.querySelectorAll("figure.minilab-calculator:not([data-live])")) {
  const one = selector => root.querySelector(selector), all = selector => [...root.querySelectorAll(selector)];
  const data = JSON.parse(one('script[type="application/json"]').textContent), say = speaker(one("[role=status]"));
  const field = name => one(`[name=${name}]`), percent = v => `${(100 * v).toFixed(2)}%`;
  const pressed = name => Number(one(`[data-${name}][aria-pressed=true]`).dataset[name]);
  const count = v => v.toLocaleString("en-US", { maximumFractionDigits: 2 });
  const holds = { n: v => v >= 1, risk: v => v >= 0 && v <= 1, size: v => v >= 0, guess: v => v > 0 && v <= 1 };

  // Why the first bad field is bad, if one is; each is marked.
  function complaint() {
    const bad = Object.keys(holds).filter(name => {
      const valid = field(name).value !== "" && holds[name](Number(field(name).value));
      field(name).setAttribute("aria-invalid", String(!valid));
      return !valid;
    });
    if (!bad.length) return "";
    const [name] = bad, { value } = field(name);
    return value === "" ? `${name} is no number: type one, with a point for decimals`
      : `${name} = ${value}: ${data.advice[name]}`;
  }
  function draw() {
    const wrong = complaint();
    const told = wrong || certify();
    if (wrong) {
      for (const cell of all("[data-bound], [data-verdict]")) cell.textContent = "\u2013";
      put(one("[data-plot=inverse]"), "", "No picture: an input is not valid");
    }
    one("[data-out=told]").textContent = told;
    return told;
  }
  function certify() {
    const [n, risk, size, guess] = Object.keys(holds).map(name => Number(field(name).value));
    const bits = size * pressed("unit"), nats = bits * Math.LN2, delta = pressed("delta");
    const bounds = {};
    for (const [name, formula] of Object.entries(FORMULAS)) {
      bounds[name] = formula(risk, n, nats, delta);
      one(`[data-bound=${name}]`).textContent = percent(bounds[name]);
      one(`[data-verdict=${name}]`).textContent = bounds[name] < guess ? "yes" : "no, vacuous";
    }
    const c = price(n, nats, delta);
    drawInverse({ n, risk, guess, c, posterior: pricePosterior(n, nats, delta), ...bounds });
    return `${count(bits)} bits and ${count(n)} examples: c = ${few(c)} nats an example. With ${percent(risk)} `
      + `training errors the true risk is at most ${percent(bounds.kl)}, with confidence ${100 - 100 * delta}%`
      + `${bounds.kl < guess ? "" : `: vacuous, guessing has ${percent(guess)}`}.`;
  }
  function drawInverse({ n, risk, guess, c, posterior, hoeffding, kl: met, maurer: last }) {
    const reach = Math.max(hoeffding, last) - risk;
    const x0 = Math.max(0, risk - .25 * reach), x1 = Math.min(1, risk + 1.25 * reach), y1 = 1.4 * posterior;
    const plot = axes({ x0, x1, y0: 0, y1, xs: ticks(x0, x1, 5), ys: ticks(0, y1, 4), top: 16,
      name: "true risk p" });
    const p = evenly(x0, x1, 201);
    const dot = (kind, at, height) => tag("circle", { class: kind, cx: plot.x(at), cy: plot.y(height), r: 4.5 });
    let svg = plot.svg + plot.level("price", c) + plot.level("price posterior", posterior)
      + plot.path("parabola", p, p.map(v => pinsker(risk, v))) + plot.path("kl", p, p.map(v => kl(risk, v)))
      + dot("risk", risk, 0) + dot("met", met, c);
    if (hoeffding <= x1) svg += dot("late", hoeffding, c);
    if (guess >= x0 && guess <= x1) {
      const at = plot.x(guess);
      svg += tag("line", { class: "guess", x1: at, x2: at, y1: plot.top, y2: plot.bottom })
        + tag("text", { x: at, y: plot.top - 5, "text-anchor": "middle" }, "guessing");
    }
    put(one("[data-plot=inverse]"), svg, `kl of ${percent(risk)} against the true risk p, from ${percent(x0)} to `
      + `${percent(x1)}. It meets the price ${few(c)} at ${percent(met)} and that of a posterior, ${few(posterior)}, `
      + `at ${percent(last)}. Pinsker's parabola meets the first at ${percent(hoeffding)}`
      + `${hoeffding > x1 ? ", outside the picture" : ""}.`);
  }

  // A slider moves its field, a field its slider.
  const follow = slider => {
    const v = Number(slider.value);
    return "log" in slider.dataset ? Number((10 ** v).toPrecision(3)) : v;
  };
  const lead = slider => {
    const v = Number(field(slider.dataset.of).value);
    slider.value = "log" in slider.dataset ? Math.log10(v) : v;
    slider.setAttribute("aria-valuetext", field(slider.dataset.of).value);
  };
  for (const slider of all("[data-of]")) {
    slider.addEventListener("input", () => {
      field(slider.dataset.of).value = follow(slider);
      slider.setAttribute("aria-valuetext", field(slider.dataset.of).value);
      say(draw());
    });
    field(slider.dataset.of).addEventListener("input", () => { lead(slider); say(draw()); });
    lead(slider);
  }
  for (const kind of ["[data-unit]", "[data-delta]"]) for (const button of all(kind))
    button.addEventListener("click", () => { press(all(kind), button); say(draw()); });
  root.dataset.live = "";
  for (const part of all(".ml-live, .ml-curves")) part.hidden = false;
  draw();
}
