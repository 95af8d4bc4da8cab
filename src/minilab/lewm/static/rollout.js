for (const root of document.querySelectorAll("figure.minilab-rollout:not([data-live])")) {
  const one = selector => root.querySelector(selector), all = selector => [...root.querySelectorAll(selector)];
  const data = JSON.parse(one('script[type="application/json"]').textContent);
  const { history, size, skip, rows, compared } = data, T = history + data.mean.length;
  const time = one("[name=t]"), buttons = all("[data-episode]"), canvases = all("canvas");
  const say = speaker(one("[role=status]")), errors = data.episodes.flatMap(e => e.error);
  const y0 = 10 ** Math.floor(Math.log10(Math.max(1e-6, Math.min(...data.mean, ...errors))));
  const y1 = 10 ** Math.ceil(Math.log10(Math.max(1, ...data.stay, ...errors)));
  const xs = Array.from({ length: T }, (_, i) => i).filter(i => i % Math.ceil((T - 1) / 10) === 0);
  const plot = axes({ x0: 0, x1: T - 1, y0, y1, xs, ys: logTicks(y0, y1, [1]), logy: true, left: 38, bottom: 156,
    name: `frame (${skip} steps each)` });
  const line = (kind, values) => polyline(kind, values.map((v, i) => [plot.x(history + i), plot.y(v)]));
  const end = (values, text, below) => tag("text",
    { x: plot.right, y: plot.y(values.at(-1)) + below, "text-anchor": "end" }, text);

  function draw() {
    const name = one("[data-episode][aria-pressed=true]").dataset.episode, t = Number(time.value);
    const { error } = data.episodes.find(e => e.name === name), ahead = t - history; // blocks imagined, less one
    const strip = one(`[data-frames="${name}"]`);
    const film = strip.querySelector("img"), now = strip.querySelector(".ml-now");
    for (const other of all(".ml-strip")) other.toggleAttribute("data-shown", other === strip);
    now.hidden = false;
    now.style.left = `${100 * t / T}%`;
    if (film.complete && film.naturalWidth) canvases.forEach((canvas, row) => {
      canvas.getContext("2d").drawImage(film, t * size, row * size, size, size, 0, 0, size, size);
      canvas.setAttribute("aria-label", `Frame ${t}, ${rows[row]}`);
    });
    else film.decode().then(draw, () => {});

    const off = ahead < 0 ? "" : `Error ${few(error[ahead])}; mean of ${compared} clips ${few(data.mean[ahead])}, `
      + `and ${few(data.stay[ahead])} if nothing moved.`;
    put(one("[data-plot=error]"), plot.svg + line("stay", data.stay) + line("mean", data.mean) + line("error", error)
      + end(data.stay, "if nothing moved (mean)", -5)
      + end(data.mean, "mean", data.mean.at(-1) < error.at(-1) ? 13 : -5)
      + (ahead < 0 ? "" : tag("circle", { cx: plot.x(t), cy: plot.y(error[ahead]), r: 5 })),
      `Error of the imagined latent of the ${name} clip from frame ${history} to ${T - 1}: from ${few(error[0])} to `
      + `${few(error.at(-1))}. ${off}`);
    const told = ahead < 0 ? `Frame ${t}: the model is given it.`
      : `Frame ${t}: ${ahead + 1} block${ahead ? "s" : ""} imagined, from actions alone. ${off}`;
    one("[data-out=told]").textContent = told;
    one("[data-do=back]").disabled = t === 0;
    one("[data-do=on]").disabled = t === T - 1;
    return told;
  }
  function to(t) {
    time.value = t;
    time.parentElement.querySelector("b").textContent = time.value;
    say(draw());
  }
  for (const button of buttons) button.addEventListener("click", () => {
    press(buttons, button);
    say(draw());
  });
  time.addEventListener("input", () => to(time.value));
  one("[data-do=back]").addEventListener("click", () => to(Number(time.value) - 1));
  one("[data-do=on]").addEventListener("click", () => to(Number(time.value) + 1));
  root.dataset.live = "";
  for (const part of all(".ml-live, .ml-curves")) part.hidden = false;
  draw();
}
