const WINDOW = 36, GLIDE = 45; // blocks in the trace; milliseconds between the steps of a block
const EVENTS = { teleport: "T", recolor: "R" };
const SHORTCUTS = { ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right", " ": "stay",
  t: "teleport", r: "recolor" };
for (const root of document.querySelectorAll("figure.minilab-drive:not([data-live])")) {
  const one = selector => root.querySelector(selector), all = selector => [...root.querySelectorAll(selector)];
  const data = JSON.parse(one('script[type="application/json"]').textContent), { level, size } = data;
  const model = worldModel(data.model), world = twoRooms(data.world, size), say = speaker(one("[role=status]"), 300);
  const canvas = one("canvas"), context = canvas.getContext("2d"), stage = one(".ml-stage");
  const calm = matchMedia("(prefers-reduced-motion: reduce)"), share = `${Math.round(100 * data.share)}%`;
  let state, blue, jumps, latents, keys, trace, moving = false, next = "";

  const picture = at => world.render(at, blue ? data.blue : data.red);
  function paint(at) {
    const bytes = picture(at), pixels = Uint8ClampedArray.from({ length: 4 * size * size },
      (_, i) => i % 4 === 3 ? 255 : bytes[i % 4 * size * size + (i >> 2)]);
    context.putImageData(new ImageData(pixels, size), 0, 0);
  }
  function begin() {
    [state, blue, jumps, keys, trace] = [data.start, false, 0, [], []];
    latents = [model.encode(picture(state))];
    for (const name of data.opening) finish(name);
    draw();
  }
  // Where the dot is after each step of a block.
  function steps(name) {
    const action = data.keys[name] || data.keys.stay, way = [];
    for (let i = 0; i < data.skip; i++) way.push(world.step(i ? way[i - 1] : state, action));
    return way;
  }
  // A block is over: what happened to the world, and how far off the model was.
  function finish(name) {
    state = name === "teleport" ? data.places[jumps++ % data.places.length] : steps(name).at(-1);
    if (name === "recolor") blue = !blue;
    keys = [...keys, name in data.keys ? name : "stay"].slice(-model.history);
    const expected = model.expect(latents.slice(-keys.length), keys), z = model.encode(picture(state));
    latents = [...latents, z].slice(-model.history);
    trace.push({ name, surprise: model.surprise(expected, z) });
  }
  function move(name) {
    if (moving) { next = name; return; } // a key that is held repeats faster than the dot: remember one
    const way = steps(name), still = calm.matches || way.every(([x, y]) => x === state[0] && y === state[1]);
    const glide = i => {
      if (!root.isConnected) return;
      if (i < way.length) {
        paint(way[i]);
        return setTimeout(glide, GLIDE, i + 1);
      }
      finish(name);
      say(draw());
      [moving, name, next] = [false, next, ""];
      if (name) move(name);
    };
    moving = true;
    glide(still ? way.length : 0);
  }

  function draw() {
    paint(state);
    const shown = trace.slice(-WINDOW), first = trace.length - shown.length;
    const values = [level, ...shown.map(b => b.surprise)];
    const y0 = 10 ** Math.floor(Math.log10(Math.max(1e-6, Math.min(...values))));
    const y1 = 10 ** Math.ceil(Math.log10(Math.max(...values, 10 * y0))), x1 = first + Math.max(20, shown.length);
    const xs = Array.from({ length: x1 + 1 }, (_, i) => i).filter(i => i > first && i % 5 === 0);
    const plot = axes({ x0: first, x1: x1 + 1, y0, y1, xs, ys: logTicks(y0, y1, [1]), logy: true, left: 38, bottom: 176,
      top: 22, name: "block" });
    let svg = plot.svg + plot.level("level", level);
    const at = shown.map((b, i) => [plot.x(first + i + 1), plot.y(b.surprise)]);
    shown.forEach(({ name }, i) => {
      if (name in EVENTS) svg += tag("line", { class: "event", x1: at[i][0], x2: at[i][0], y1: 16, y2: plot.bottom })
        + tag("text", { x: at[i][0], y: 12, "text-anchor": "middle" }, EVENTS[name]);
    });
    svg += polyline("trace", at) + shown.map(({ surprise }, i) => tag("circle", { cx: at[i][0], cy: at[i][1],
      ...(surprise > level ? { class: "odd", r: 4.2 } : { class: "block", r: 2.8 }) })).join("");
    const above = shown.filter(b => b.surprise > level).length, last = trace.at(-1);
    put(one("[data-plot=trace]"), svg,
      `Surprise of ${shown.length} blocks, ${above} of them above the level of ${few(level)}.`);
    const where = `${blue ? "blue" : "red"} dot at ${state.map(v => v.toFixed(0)).join(", ")}`;
    const usual = `${few(level)}, the level (dashed) that ${share} of blocks stay under when nothing is broken`;
    const told = `Block ${trace.length}, ${last.name}: surprise ${few(last.surprise)}, `
      + `${last.surprise > level ? "above" : "under"} ${usual}. Now a ${where}.`;
    canvas.setAttribute("aria-label", `Two rooms and a ${where} of ${data.world.FRAME}, `
      + `the door in the wall at ${data.world.WALL}, ${data.world.DOOR}`);
    one("[data-move=recolor]").setAttribute("aria-pressed", String(blue));
    one("[data-out=told]").textContent = told;
    return told;
  }

  for (const button of all("[data-move]")) button.addEventListener("click", () => move(button.dataset.move));
  stage.addEventListener("keydown", event => {
    const name = SHORTCUTS[event.key.length > 1 ? event.key : event.key.toLowerCase()];
    if (!name || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (!(event.repeat && name in EVENTS)) move(name);
  });
  stage.addEventListener("pointerdown", () => stage.focus());
  one("[data-do=wander]").addEventListener("click", () => {
    if (moving) return;
    const names = Object.keys(data.keys);
    for (let i = 0; i < 10; i++) finish(names[Math.floor(Math.random() * names.length)]);
    say(draw());
  });
  one("[data-do=restart]").addEventListener("click", () => { if (!moving) { begin(); say("Start over."); } });
  root.dataset.live = "";
  begin();
  for (const part of all(".ml-live, .ml-curves")) part.hidden = false;
}
