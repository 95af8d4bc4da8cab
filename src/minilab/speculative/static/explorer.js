const LONGEST = 16;
for (const root of document.querySelectorAll("figure.minilab-explorer:not([data-live])")) {
  const one = selector => root.querySelector(selector);
  const value = name => Number(one(`[name=${name}]`).value);
  const write = (name, text) => { one(`[data-out=${name}]`).textContent = text; };
  let timer = 0;
  const say = (text, wait = 0) => { // sliders move in many small steps: only the last is spoken
    clearTimeout(timer);
    timer = setTimeout(() => { one("[role=status]").textContent = text; }, wait);
  };
  const tag = (name, attributes, text = "") =>
    `<${name} ${Object.entries(attributes).map(([k, v]) => `${k}="${v}"`).join(" ")}>${text}</${name}>`;

  // Axes from (x0, y0) to (x1, y1) around the unit square: returns the maps to the picture and the axes' markup.
  function axes({ left, right, bottom, top, xs, ys, x1, y0 = 0, y1, x0 = 0, xname, yname }) {
    const x = v => +(left + (right - left) * (v - x0) / (x1 - x0)).toFixed(2);
    const y = v => +(bottom + (top - bottom) * (v - y0) / (y1 - y0)).toFixed(2);
    let svg = "";
    for (const v of ys) svg += tag("line", { class: "grid", x1: left, x2: right, y1: y(v), y2: y(v) })
      + tag("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, v);
    for (const v of xs) svg += tag("text", { x: x(v), y: bottom + 15, "text-anchor": "middle" }, v);
    svg += tag("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom })
      + tag("text", { x: right, y: bottom + 30, "text-anchor": "end" }, xname)
      + tag("text", { x: 0, y: top - 9 }, yname);
    return { x, y, svg };
  }
  const ticks = (top, most) => {
    const step = [0.5, 1, 2, 4, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 1e5].find(s => top / s <= most) || 1e6;
    return Array.from({ length: Math.floor(top / step + 1e-9) + 1 }, (_, i) => i * step);
  };
  const times = v => `${v.toFixed(2)}×`;

  function drawSpeed() {
    const [alpha, K, c, v] = ["alpha", "K", "c", "v"].map(value);
    const gains = Array.from({ length: LONGEST }, (_, i) => speedup(alpha, i + 1, c, v));
    const top = Math.max(1.5, Math.ceil(Math.max(...gains) * 1.08 * 2) / 2), best = bestLookahead(alpha, c, v, LONGEST);
    const plot = axes({ left: 30, right: 332, bottom: 202, top: 26, x0: 0.5, x1: LONGEST + 0.5, y1: top,
      xs: [1, 4, 8, 12, 16], ys: ticks(top, 6), xname: "lookahead K (draft tokens a round)", yname: "speed-up" });
    const at = k => [plot.x(k), plot.y(gains[k - 1])];
    let svg = plot.svg + tag("line", { class: "one", x1: 30, x2: 332, y1: plot.y(1), y2: plot.y(1) })
      + tag("polyline", { class: "curve", points: gains.map((_, i) => at(i + 1).join(",")).join(" ") });
    gains.forEach((_, i) => { svg += tag("circle", { class: "dot", cx: at(i + 1)[0], cy: at(i + 1)[1], r: 2.2 }); });
    svg += tag("circle", { class: "chosen", cx: at(K)[0], cy: at(K)[1], r: 5 });
    if (best) svg += tag("circle", { class: "best", cx: at(best)[0], cy: at(best)[1], r: 8 });
    const chosen = `K = ${K}: ${expectedTokens(alpha, K).toFixed(2)} tokens in ${(K * c + v).toFixed(2)} target steps, ${times(gains[K - 1])}`;
    const bestText = best ? `best K = ${best}${best === LONGEST ? " or more" : ""}: ${times(gains[best - 1])}`
      : "best: no speculation (the dashed line)";
    const picture = one("[data-plot=speed]");
    picture.innerHTML = svg;
    picture.setAttribute("aria-label", `Speed-up against the lookahead K from 1 to ${LONGEST}. ${chosen}; ${bestText}.`);
    write("chosen", chosen);
    write("best", bestText);
    return `${chosen}; ${bestText}.`;
  }

  let random, rounds, tokens, means, round, shown; // `shown` draft tokens of the round are tested
  function reset() {
    random = randomNumbers(Number(root.dataset.seed));
    rounds = tokens = shown = 0;
    means = [];
    round = null;
    drawRounds("Press “Next token” to test the draft tokens one by one.");
  }
  function count() {
    rounds += 1;
    tokens += round.accepted + 1;
    means.push(tokens / rounds);
  }
  function outcome() {
    const n = round.accepted, K = value("K");
    return n === K ? `all ${K} draft tokens accepted, and a bonus token: ${n + 1} tokens.`
      : `${n} of ${K} draft tokens accepted, and a bonus token from the residual: ${n + 1} token${n ? "s" : ""}.`;
  }
  function step() {
    const alpha = value("alpha");
    if (!round || shown > round.u.length) { round = drawRound(alpha, value("K"), random); shown = 0; }
    shown += 1;
    if (shown > round.u.length) {
      count();
      return drawRounds(`Round ${rounds}: ${outcome()}`);
    }
    const u = round.u[shown - 1], passed = u < alpha;
    drawRounds(`s${shown}: u = ${u.toFixed(3)} ${passed ? "<" : "≥"} α = ${alpha.toFixed(2)}, ` + (passed
      ? `accepted. ${shown === round.u.length ? "It was the last; next comes the bonus token." : ""}`
      : "rejected. What follows was never tested; next comes the bonus token."));
  }
  function whole(n) {
    for (let i = 0; i < n; i++) {
      if (!round || shown > round.u.length) round = drawRound(value("alpha"), value("K"), random);
      shown = round.u.length + 1;
      count();
    }
    drawRounds(n === 1 ? `Round ${rounds}: ${outcome()}` : `${n} rounds. The last, round ${rounds}: ${outcome()}`);
  }
  function drawRounds(verdict) {
    const K = value("K"), expected = expectedTokens(value("alpha"), K), finished = round && shown > round.u.length;
    let html = "";
    for (let i = 1; i <= K; i++) {
      const tested = round && i <= Math.min(shown, round.u.length);
      const state = tested ? (i <= round.accepted ? "accepted" : "rejected")
        : round && round.accepted < K && shown > round.accepted ? "dropped" : "waiting";
      const sign = { accepted: "✓", rejected: "✗", dropped: "", waiting: "?" }[state];
      html += `<span class="${state}">s<sub>${i}</sub>${sign && "<br>" + sign}</span>`;
    }
    html += finished ? '<span class="bonus">bonus<br>+1</span>' : '<span class="bonus" style="visibility:hidden"></span>';
    const boxes = one(".ml-boxes");
    boxes.innerHTML = html;
    boxes.setAttribute("aria-label", verdict);
    write("verdict", verdict);

    const last = Math.max(20, rounds);
    const plot = axes({ left: 30, right: 332, bottom: 84, top: 24, x0: 0, x1: last, y1: K + 1,
      xs: ticks(last, 5), ys: ticks(K + 1, 3), xname: "rounds", yname: "average tokens a round" });
    const stride = Math.ceil(rounds / 500) || 1, points = [];
    for (let i = stride; i <= rounds; i += stride) points.push(`${plot.x(i)},${plot.y(means[i - 1])}`);
    const summary = rounds ? `average of ${rounds} round${rounds > 1 ? "s" : ""}: ${means[rounds - 1].toFixed(3)} tokens; `
      : "";
    const formula = `formula (1 − α^(K+1)) / (1 − α): ${expected.toFixed(3)}`;
    const picture = one("[data-plot=mean]");
    picture.innerHTML = plot.svg + tag("line", { class: "one", x1: 30, x2: 332, y1: plot.y(expected), y2: plot.y(expected) })
      + tag("polyline", { class: "curve", points: points.join(" ") })
      + (rounds ? tag("circle", { class: "dot", cx: plot.x(rounds), cy: plot.y(means[rounds - 1]), r: 2.6 }) : "");
    picture.setAttribute("aria-label", `Average tokens a round against rounds; ${summary}${formula}.`);
    one("[data-out=mean]").innerHTML = `${summary || "no round yet"}<br>${formula.replace("α^(K+1)", "α<sup>K+1</sup>")}`;
    if (round) say(`${verdict} ${finished ? summary + formula : ""}`);
  }

  for (const input of root.querySelectorAll("input")) input.addEventListener("input", () => {
    input.parentElement.querySelector("b").textContent = Number(input.value).toFixed(Number(input.dataset.digits));
    if (["alpha", "K"].includes(input.name)) reset();
    say(drawSpeed(), 700);
  });
  one("[data-do=step]").addEventListener("click", step);
  one("[data-do=round]").addEventListener("click", () => whole(1));
  one("[data-do=many]").addEventListener("click", () => whole(100));
  one("[data-do=reset]").addEventListener("click", reset);
  root.dataset.live = "";
  one(".ml-live").hidden = false;
  reset();
  drawSpeed();
}
