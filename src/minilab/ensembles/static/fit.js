for (const root of document.querySelectorAll("figure.minilab-fit:not([data-live])")) {
  const one = selector => root.querySelector(selector), all = selector => [...root.querySelectorAll(selector)];
  const data = JSON.parse(one('script[type="application/json"]').textContent), { search, standard } = data;
  const say = speaker(one("[role=status]")), pressed = name => one(`[data-${name}][aria-pressed=true]`).dataset[name];
  const number = text => text === "" ? null : Number(text), percent = `${100 * search.level}%`;
  const loss = v => v.toFixed(3), times = v => v === Infinity ? "\u221e" : v.toFixed(2);
  const groups = all("[data-points]"), shown = () => groups[Number(pressed("series"))];
  const inputs = (kind, group = shown()) => [...group.querySelectorAll(`input[type=${kind}]`)];

  // The law through points, its interval, and what that says of data; null for fewer different x than parameters.
  function judge({ x, y, tokens }) {
    const alpha = number(pressed("alpha"));
    if (new Set(x).size < (alpha === null ? 3 : 2)) return null;
    const fit = fitPowerLaw(x, y, alpha, search), allowed = allowance(fit, number(pressed("noise")), search);
    const interval = allowed === null ? null : asymptotes(x, y, fit, allowed, search);
    const range = allowed === null ? null : alphaRange(x, y, fit, allowed, search);
    const efficiency = standard && tokens ? v => inverse(standard, v) / tokens : null;
    return { ...fit, interval, range, efficiency, miss: Math.max(...y.map((v, i) =>
      Math.abs(v - fit.A / x[i] ** fit.alpha - fit.E))) };
  }
  const between = ({ low, high, openLow, openHigh }, show) => openLow && openHigh ? "no limits"
    : `${openLow ? "no lower limit" : show(low)} to ${openHigh ? "no upper limit" : show(high)}`;
  const saved = ({ interval: { low, high, openLow, openHigh }, efficiency }) => // a lower loss is worth more data
    between({ low: efficiency(high), high: efficiency(low), openLow: openHigh, openHigh: openLow }, times);
  function cells(found) {
    if (!found) return { E: "\u2013", interval: "\u2013", alpha: "\u2013", efficiency: "\u2013", saved: "\u2013" };
    const { E, alpha, exponent, interval, efficiency } = found;
    const notes = { given: " (fixed)", any: "any", lowest: " (end of the range)", highest: " (end of the range)" };
    return { E: loss(E), interval: interval ? between(interval, loss) : "none",
      alpha: exponent === "any" ? notes.any : alpha.toFixed(2) + (notes[exponent] || ""),
      efficiency: efficiency ? times(efficiency(E)) : "", saved: !efficiency ? "" : interval ? saved(found) : "none" };
  }

  function draw() {
    const series = data.series[Number(pressed("series"))], moved = inputs("range").map(input => Number(input.value));
    const y = series.losses.map((v, i) => v + moved[i]), on = inputs("checkbox").map(input => input.checked);
    groups.forEach(group => { group.hidden = group !== shown(); });
    [...shown().querySelectorAll("[data-loss]")].forEach((cell, i) => {
      cell.textContent = loss(y[i]);
      inputs("range")[i].setAttribute("aria-valuetext",
        `${minus(loss(moved[i]))} ${series.unit}, the loss is ${loss(y[i])}`);
    });
    const kept = values => values.filter((_, i) => on[i]);
    const now = judge({ x: kept(series.x), y: kept(y), tokens: series.tokens });
    const given = judge({ x: series.x, y: series.losses, tokens: series.tokens });
    for (const [kind, found] of [["given", cells(given)], ["now", cells(now)]])
      for (const cell of all(`[data-${kind}]`)) cell.textContent = found[cell.dataset[kind]];
    const told = describe(now, kept(series.x).length, series);
    const span = values => [Math.min(...values), Math.max(...values)], [low, high] = span([...y, ...series.losses]);
    const reach = { low, high, wide: high - low || .1 };
    drawLaw(now, series, y, on, reach, told);
    drawProfile(now, { x: kept(series.x), y: kept(y) }, series, reach);
    one("[data-out=told]").textContent = told;
    return told;
  }
  function describe(now, count, { x, unit }) {
    const free = pressed("alpha") === "";
    const points = `${count} of ${x.length} points, \u03b1 ${free ? "free" : "fixed at 1"}`;
    if (!now) return `${points}: ${free ? 3 : 2} parameters need as many different x. Switch points on`
      + `${free ? ", or fix \u03b1 at 1 and give 2" : ""}.`;
    const { E, interval, alpha, saved } = cells(now);
    const shape = { any: "the losses do not fall, so that any \u03b1 fits", given: "" }[now.exponent]
      ?? `\u03b1 = ${alpha}`;
    return `${points}: E = ${E} ${unit}${shape ? `, ${shape}` : ""}. `
      + (now.interval ? `${percent} interval of E: ${interval}. `
        : "No interval: no point is left to judge the noise by. ")
      + (now.efficiency ? `The standard recipe needs ${times(now.efficiency(now.E))} times the data for a loss of E`
        + `${now.interval ? ` (${saved})` : ""}. ` : "")
      + (now.spare < 1 ? "The law has a parameter for each point: that it meets them proves nothing."
        : `No point is further than ${loss(now.miss)} from the law.`);
  }
  function drawLaw(now, series, y, on, { low, high, wide }, told) {
    const x0 = Math.min(...series.x) / 1.4, x1 = Math.max(...series.x) * 8;
    const plot = axes({ x0, x1, y0: low - wide, y1: high + .1 * wide, xs: logTicks(x0, x1), logx: true,
      name: series.axis });
    let svg = plot.svg;
    if (now) {
      if (now.interval) svg += plot.band("interval", now.interval.low, now.interval.high);
      const at = geometric(x0, x1, 121);
      svg += plot.level("asymptote", now.E) + plot.path("law", at, at.map(v => now.A / v ** now.alpha + now.E));
    }
    series.x.forEach((v, i) => {
      const cx = plot.x(v), cy = plot.y(y[i]), was = plot.y(series.losses[i]);
      if (was !== cy) svg += tag("line", { class: "moved", x1: cx, x2: cx, y1: was, y2: cy })
        + tag("circle", { class: "ring", cx, cy: was, r: 2.5 });
      svg += on[i] ? "" : tag("circle", { class: "ring", cx, cy, r: 4.5 });
      svg += tag("circle", { class: on[i] ? "point" : "hollow", cx, cy, r: 4.5, "data-n": i });
    });
    put(one("[data-plot=law]"), svg, `Loss in ${series.unit} over ${series.axis}. ${told}`
      + `${now && now.E < low - wide ? " E lies below the picture." : ""}`);
  }
  function drawProfile(now, { x, y }, series, { low, wide }) {
    const picture = one("[data-plot=profile]");
    if (!now) return put(picture, "", "No profile: too few points");
    const plot = axes({ x0: search.lowest, x1: search.highest, y0: low - wide, y1: low + .2 * wide,
      xs: logTicks(search.lowest, search.highest), logx: true, name: "exponent \u03b1" });
    const curve = (kind, alphas) => plot.path(kind, alphas, profile(x, y, alphas).map(f => f.E));
    let svg = plot.svg + curve("profile", geometric(search.lowest, search.highest, 121));
    if (now.interval) svg += plot.band("interval", now.interval.low, now.interval.high);
    if (now.range && now.range.low < now.range.high)
      svg += curve("allowed", geometric(now.range.low, now.range.high, 61));
    if (now.E >= low - wide) svg += tag("circle", { class: "best", cx: plot.x(now.alpha), cy: plot.y(now.E), r: 5 });
    const best = profile(x, y, [.5, 1, 2]).map(f => loss(f.E)), allowed = now.range && now.exponent !== "given"
      ? ` The interval of \u03b1: ${between(now.range, v => v.toFixed(2))}.` : "";
    put(picture, svg, `The best E in ${series.unit} is ${best[0]} at \u03b1 = 0.5, ${best[1]} at 1 and ${best[2]} at 2.`
      + allowed);
  }

  for (const kind of ["series", "alpha", "noise"]) for (const button of all(`[data-${kind}]`))
    button.addEventListener("click", () => { press(all(`[data-${kind}]`), button); say(draw()); });
  for (const group of groups) group.addEventListener("input", () => say(draw()));
  one("[data-do=reset]").addEventListener("click", () => {
    for (const input of inputs("checkbox")) input.checked = true;
    for (const input of inputs("range")) input.value = 0;
    say(draw());
  });
  one("[data-plot=law]").addEventListener("click", event => {
    if (event.target.dataset.n !== undefined) inputs("checkbox")[Number(event.target.dataset.n)].click();
  });
  root.dataset.live = "";
  for (const part of all(".ml-live, .ml-curves")) part.hidden = false;
  draw();
}
