const WINDOW = 16, MOST_ROWS = 16, NAMES = { ar: "autoregressive (AR)", sd: "speculative (SD)", ssd: "speculative speculative (SSD)" };
for (const root of document.querySelectorAll("figure.minilab-timeline:not([data-live])")) {
  const one = selector => root.querySelector(selector), all = selector => [...root.querySelectorAll(selector)];
  const data = JSON.parse(one('script[type="application/json"]').textContent);
  const value = name => Number(one(`[name=${name}]`).value);
  const picture = one("svg[role=img]"), play = one("[data-do=play]"), moment = one("[name=moment]");
  const random = randomNumbers(data.seed), times = n => Array.from({ length: n }, (_, i) => i);
  // A round lasts at least one step, so these suffice. Drawn once: a slider changes what they decide, not their luck.
  const luck = times(WINDOW).map(() => times(MOST_ROWS).map(() => [random(), random()]));
  const say = speaker(one("[role=status]"));
  let playing = 0;

  function draw() {
    const [alpha, hitRate, K, batch] = ["alpha", "hit_rate", "K", "batch"].map(value);
    const costs = { verify: value("verify"), step: 1, draft: value("draft"), prepare: (K + 1) * value("prepare"),
      handshake: 0, contention: value("contention") };
    const outcomes = outcomesFrom(luck.map(rows => rows.slice(0, batch)), alpha, K, hitRate);
    const means = SCHEDULERS.map(name => longRun(name, costs, K, alpha, hitRate, batch));
    const lines = SCHEDULERS.map(name => simulate(name, costs, outcomes, K));
    const now = Number(moment.value), made = lines.map(line => tokensBy(line, now));
    table(means);
    drawLanes(lines, made, now);
    const told = `By ${now.toFixed(1)} target steps: ${SCHEDULERS.map((name, i) => `${NAMES[name]} ${made[i]} tokens`).join(", ")}.`;
    picture.setAttribute("aria-label", `Time lines of three schedulers. ${told}`);
    return `${told} Speed-up in the long run: SD ${gain(means[0], means[1])}, SSD ${gain(means[0], means[2])}.`;
  }
  const gain = (ar, m) => `${(m.tokens / m.seconds * ar.seconds / ar.tokens).toFixed(2)}×`;
  function table(means) {
    const share = x => `${(100 * x).toFixed(0)}\u00a0%`;
    all("tbody tr").forEach((row, i) => {
      const m = means[i], cells = [m.tokens.toFixed(2), m.seconds.toFixed(2), gain(means[0], m), share(m.idleTarget), share(m.idleDraft)];
      row.querySelectorAll("td").forEach((cell, j) => { cell.textContent = cells[j]; });
    });
    one("caption").textContent = "A round in the long run: " + all(".ml-sliders label span").map(s => s.textContent).join("; ");
  }
  function drawLanes(lines, made, now) {
    const width = picture.clientWidth || 340, left = 42, x = t => +(left + (width - left - 6) * Math.min(t, WINDOW) / WINDOW).toFixed(2);
    const bar = (kind, y, start, end) => end > start && start < WINDOW
      ? tag("rect", { class: kind, x: x(start), y, width: Math.max(.6, x(end) - x(start) - .6).toFixed(2), height: 16 }) : "";
    let svg = "", y = 12;
    lines.forEach((line, i) => {
      const scheduler = SCHEDULERS[i];
      svg += tag("text", { class: "ml-title", x: 0, y }, `${NAMES[scheduler]}: ${made[i]} tokens`);
      y += 22;
      for (const lane of scheduler === "ar" ? ["target"] : ["target", "draft"]) {
        svg += tag("text", { x: 0, y: y + 12 }, lane) + bar("lane", y, 0, WINDOW);
        for (const e of line.events) if (e.lane === lane) {
          svg += bar(`${e.kind} ghost`, y, e.start, e.end) + bar(e.kind, y, e.start, Math.min(e.end, now));
          const got = `+${line.made[e.round]}`, middle = (x(e.start) + x(e.end)) / 2;
          if (lane === "target" && e.end <= Math.min(now, WINDOW) && x(e.end) - x(e.start) > 6.5 * got.length)
            svg += tag("text", { x: middle, y: y - 4, "text-anchor": "middle" }, got);
        }
        y += 19;
      }
      y += 18;
    });
    svg += tag("line", { class: "axis", x1: left, x2: x(WINDOW), y1: y - 12, y2: y - 12 })
      + tag("line", { class: "now", x1: x(now), x2: x(now), y1: 18, y2: y - 12 });
    for (let t = 0; t <= WINDOW; t += 4) svg += tag("text", { x: x(t), y: y + 2, "text-anchor": "middle" }, t);
    svg += tag("text", { x: width - 6, y: y + 16, "text-anchor": "end" }, "time in target steps");
    picture.setAttribute("viewBox", `0 0 ${width} ${y + 20}`);
    picture.setAttribute("height", y + 20);
    picture.innerHTML = svg;
  }

  function stop() {
    clearInterval(playing);
    playing = 0;
    play.textContent = "Play";
  }
  function set(to) {
    moment.value = to;
    moment.dispatchEvent(new Event("input"));
  }
  play.addEventListener("click", () => {
    if (playing) return stop();
    if (Number(moment.value) >= WINDOW) set(0);
    play.textContent = "Pause";
    playing = setInterval(() => {
      if (!root.isConnected || Number(moment.value) >= WINDOW) return stop();
      set(Number(moment.value) + .2);
    }, 100);
  });
  for (const input of all("input")) input.addEventListener("input", () => {
    input.parentElement.querySelector("b").textContent = Number(input.value).toFixed(Number(input.dataset.digits));
    say(draw());
  });
  root.dataset.live = "";
  one(".ml-live").hidden = false;
  new ResizeObserver(draw).observe(root); // draws at once, and when the width changes: the text keeps its size
}
