const REACH = 4, SIDE = 340, UNIT = SIDE / 2 / REACH, MOST_STEPS = 200;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const ROOM = { left: 38, top: 8, bottom: 136 }; // of the pictures on the right
for (const root of document.querySelectorAll("figure.minilab-cloud:not([data-live])")) {
  const one = selector => root.querySelector(selector), all = selector => [...root.querySelectorAll(selector)];
  const data = JSON.parse(one('script[type="application/json"]').textContent);
  const knots = quadrature(data.knots, data.t_max), fine = quadrature(61, data.t_max);
  const degrees = Array.from({ length: data.directions }, (_, m) => 180 * m / data.directions);
  const headings = degrees.map(heading);
  const floor = knots.reduce((sum, { phi, weight }) => sum + weight * (1 - phi * phi), 0);
  const shapes = all("[data-shape]"), stage = one(".ml-stage"), picture = one("[data-plot=cloud]");
  const value = name => Number(one(`[name=${name}]`).value), say = speaker(one("[role=status]"));
  const px = x => +(SIDE / 2 + x * UNIT).toFixed(1), py = y => +(SIDE / 2 - y * UNIT).toFixed(1);
  const average = values => values.reduce((a, b) => a + b, 0) / values.length;
  let base, held = 0, holding = false, steps = 0, running = 0;

  // The cloud as the sliders have it: stretched and moved.
  const cloud = () => base.map(([x, y]) => [value("along") * x + value("shift"), value("across") * y]);
  function set(name, to) {
    const input = one(`[name=${name}]`);
    input.value = to;
    input.parentElement.querySelector("b").textContent = Number(input.value).toFixed(Number(input.dataset.digits));
  }
  // What is on the screen becomes the cloud that the sliders act on.
  function keep(points) {
    base = points;
    for (const [name, to] of [["along", 1], ["across", 1], ["shift", 0]]) set(name, to);
  }
  function begin(name) {
    stop();
    base = data.shapes[name];
    steps = 0;
    press(shapes, shapes.find(button => button.dataset.shape === name));
  }

  function draw() {
    const points = cloud(), theta = value("theta"), chosen = project(points, heading(theta));
    const values = headings.map(a => eppsPulley(project(points, a), knots)), there = eppsPulley(chosen, knots);
    const seen = v => `${show(v)} at ${degrees[values.indexOf(v)]}\u00b0`;
    const collapse = points.length * knots.reduce((sum, { phi, weight }) => sum + weight * (1 - phi) ** 2, 0);
    const axis = [0, 1].map(i => points.map(p => p[i])), mean = axis.map(average);
    const moment = (i, j) => average(points.map(p => (p[i] - mean[i]) * (p[j] - mean[j])));
    const std = [0, 1].map(i => Math.sqrt(moment(i, i))), correlation = moment(0, 1) / (std[0] * std[1] || 1);
    const spread = `Standard deviations ${std.map(s => show(s)).join(" and ")}, correlation ${show(correlation)}.`;
    const bounds = `lowest ${seen(Math.min(...values))}, highest ${seen(Math.max(...values))}`;
    drawCloud(points, theta, spread);
    drawStatistic(values, theta, there, { floor, collapse }, bounds);
    drawHistogram(chosen, theta);
    drawCharacteristic(chosen);
    const told = `Mean over ${values.length} directions: ${show(average(values))} (floor ${show(floor)}, collapse `
      + `${show(collapse, 1)}). Along \u03b8 = ${theta}\u00b0: ${show(there)}; ${bounds}. ${spread}`;
    one("[data-out=told]").textContent = told;
    one("[data-out=steps]").textContent = steps ? `${steps} step${steps > 1 ? "s" : ""}` : "";
    return told;
  }
  function drawCloud(points, theta, spread) {
    const [c, s] = heading(theta), far = 1.5 * REACH;
    const line = (kind, x, y, u, v) => tag("line", { class: kind, x1: px(x), y1: py(y), x2: px(u), y2: py(v) });
    let svg = line("grid", -REACH, 0, REACH, 0) + line("grid", 0, -REACH, 0, REACH)
      + tag("text", { x: SIDE - 4, y: py(0) - 5, "text-anchor": "end" }, "z\u2081")
      + tag("text", { x: px(0) + 5, y: 11 }, "z\u2082");
    for (const r of [1, 2]) svg += tag("circle", { class: "ring", cx: px(0), cy: py(0), r: r * UNIT })
      + tag("text", { x: px(0) + 3, y: py(r) - 3 }, r);
    svg += line("direction", -far * c, -far * s, far * c, far * s);
    for (const h of project(points, [c, s])) // a tick where the point falls on the direction
      svg += line("shadow", h * c - .1 * s, h * s + .1 * c, h * c + .1 * s, h * s - .1 * c);
    const dot = ([x, y], attributes) => tag("circle", { cx: px(x), cy: py(y), ...attributes });
    svg += points.map((p, n) => dot(p, { class: "point", r: 3.4, "data-n": n })).join("");
    if (holding || document.activeElement === stage) svg += dot(points[held], { class: "held", r: 7 });
    put(picture, svg, `${points.length} points, rings at 1 and 2 standard deviations of N(0, I), and the direction of `
      + `${theta} degrees. ${spread}`);
  }
  function drawStatistic(values, theta, there, levels, bounds) {
    const top = 1.5 * levels.collapse, ys = [.01, .1, 1, 10, 100].filter(v => v < top);
    const plot = axes({ ...ROOM, right: 270, x0: 0, x1: 180, y0: .01, y1: top, xs: [0, 45, 90, 135, 180], ys, logy: true,
      name: "direction \u03b8 (degrees)" });
    let svg = plot.svg;
    for (const [name, v] of Object.entries(levels))
      svg += plot.level("law", v) + tag("text", { x: plot.right + 5, y: plot.y(v) + 4 }, `${name} ${show(v, v < 10 ? 2 : 0)}`);
    svg += polyline("curve", [...values, values[0]].map((v, m) => [plot.x(180 * m / values.length), plot.y(v)]))
      + tag("circle", { class: "chosen", cx: plot.x(theta), cy: plot.y(there), r: 5 });
    put(one("[data-plot=statistic]"), svg, `Statistic along directions from 0 to 180 degrees: ${bounds}; floor `
      + `${show(levels.floor)}, collapse ${show(levels.collapse, 1)}.`);
  }
  function drawHistogram(h, theta) {
    const width = .5, bins = Array(2 * REACH / width).fill(0);
    for (const v of h)
      bins[Math.max(0, Math.min(bins.length - 1, Math.floor((v + REACH) / width)))] += 1 / (h.length * width);
    const top = Math.max(.6, ...bins), ys = [0, .5, 1, 1.5, 2].filter(v => v <= top);
    const plot = axes({ ...ROOM, x0: -REACH, x1: REACH, y0: 0, y1: top, xs: [-4, -2, 0, 2, 4], ys,
      name: "h = a\u00b7z" });
    let svg = plot.svg;
    bins.forEach((density, i) => {
      const x = plot.x(-REACH + width * i), y = plot.y(density);
      svg += tag("rect", { class: "bar", x, y, width: (plot.x(width) - plot.x(0) - 1).toFixed(1),
        height: (plot.bottom - y).toFixed(1) });
    });
    const law = v => Math.exp(-v * v / 2) / Math.sqrt(2 * Math.PI), mean = average(h);
    const grid = evenly(-REACH, REACH, 81);
    put(one("[data-plot=histogram]"), svg + plot.path("law", grid, grid.map(law)),
      `Histogram of the points projected on ${theta} degrees, and the density of N(0, 1) dashed. The projections have `
      + `mean ${show(mean)} and standard deviation ${show(Math.sqrt(average(h.map(v => (v - mean) ** 2))))}.`);
  }
  function drawCharacteristic(h) {
    const seen = characteristic(h, fine), gap = Math.max(...seen.map(({ C, S }, k) => Math.hypot(C - fine[k].phi, S)));
    const plot = axes({ ...ROOM, x0: 0, x1: data.t_max, y0: -1, y1: 1, xs: [0, 1, 2, 3], ys: [-1, 0, 1], name: "t" });
    const line = (kind, of) => polyline(kind, fine.map(({ t }, k) => [plot.x(t), plot.y(of(k))]));
    put(one("[data-plot=characteristic]"), plot.svg + line("cosine", k => seen[k].C) + line("sine", k => seen[k].S)
      + line("law", k => fine[k].phi) + line("law", () => 0),
      `Means of cos(t h) and sin(t h) for t from 0 to ${data.t_max}, and those of N(0, 1) dashed. They are at most `
      + `${show(gap)} apart.`);
  }

  function step() {
    keep(descended(cloud(), headings, knots, data.rate));
    steps += 1;
    return `Step ${steps}. ${draw()}`;
  }
  function stop() {
    clearInterval(running);
    running = 0;
    one("[data-do=run]").textContent = "Run";
  }
  one("[data-do=step]").addEventListener("click", () => { stop(); say(step()); });
  one("[data-do=run]").addEventListener("click", () => {
    if (running) return stop();
    one("[data-do=run]").textContent = "Pause";
    let left = MOST_STEPS;
    running = setInterval(() => root.isConnected && left-- > 0 ? say(step()) : stop(), 60);
  });
  one("[data-do=reset]").addEventListener("click", () => {
    keep(base);
    begin(one("[data-shape][aria-pressed=true]").dataset.shape);
    say(draw());
  });
  for (const button of shapes) button.addEventListener("click", () => { begin(button.dataset.shape); say(draw()); });
  for (const input of all("input")) input.addEventListener("input", () => {
    set(input.name, input.value);
    say(draw());
  });

  function move(dx, dy) {
    const points = cloud(), limit = v => Math.max(-REACH, Math.min(REACH, v)), [x, y] = points[held];
    points[held] = [limit(x + dx), limit(y + dy)];
    keep(points);
    say(`${where()} ${draw()}`);
  }
  const where = () => `Point ${held + 1} of ${base.length} at ${cloud()[held].map(v => show(v, 1)).join(", ")}.`;
  stage.addEventListener("keydown", event => {
    const to = ARROWS[event.key], next = { n: 1, p: -1 }[event.key.toLowerCase()], far = event.shiftKey ? .5 : .1;
    if (event.ctrlKey || event.metaKey || event.altKey || !(to || next)) return;
    event.preventDefault();
    stop();
    if (to) return move(...to.map(v => far * v));
    held = (held + next + base.length) % base.length;
    draw();
    say(where());
  });
  for (const kind of ["focus", "blur"]) stage.addEventListener(kind, draw);
  const at = ({ clientX, clientY }) => {
    const { left, top, width, height } = picture.getBoundingClientRect();
    return [((clientX - left) / width * 2 - 1) * REACH, (1 - (clientY - top) / height * 2) * REACH];
  };
  picture.addEventListener("pointerdown", event => {
    if (event.target.dataset.n === undefined) return;
    stop();
    const [x, y] = at(event), away = cloud().map(p => Math.hypot(p[0] - x, p[1] - y));
    held = away.indexOf(Math.min(...away));
    holding = true;
    picture.setPointerCapture(event.pointerId);
    draw();
  });
  picture.addEventListener("pointermove", event => {
    if (!holding) return;
    const [x, y] = at(event), point = cloud()[held];
    move(x - point[0], y - point[1]);
  });
  for (const kind of ["pointerup", "pointercancel"]) picture.addEventListener(kind, () => { holding = false; draw(); });

  root.dataset.live = "";
  begin(data.start);
  for (const part of all(".ml-live, .ml-curves")) part.hidden = false;
  draw();
}
