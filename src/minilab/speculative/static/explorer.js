const LONGEST = 16;
for (const root of document.querySelectorAll("figure.minilab-explorer:not([data-live])")) {
  const one = selector => root.querySelector(selector);
  const data = JSON.parse(one('script[type="application/json"]').textContent);
  const value = name => Number(one(`[name=${name}]`).value);
  const write = (name, text) => { one(`[data-out=${name}]`).textContent = text; };
  const say = speaker(one("[role=status]")), soon = speaker(one("[role=status]"), 0);
  const ROOM = { left: 30, right: 332 };
  const times = v => `${v.toFixed(2)}×`;

  function drawSpeed() {
    const [alpha, K, c, v] = ["alpha", "K", "c", "v"].map(value);
    const gains = Array.from({ length: LONGEST }, (_, i) => speedup(alpha, i + 1, c, v));
    const top = Math.max(1.5, Math.ceil(Math.max(...gains) * 1.08 * 2) / 2), best = bestLookahead(alpha, c, v, LONGEST);
    const plot = axes({ ...ROOM, bottom: 202, top: 26, x0: 0.5, x1: LONGEST + 0.5, y0: 0, y1: top, xs: [1, 4, 8, 12, 16],
      ys: ticks(0, top, 6), name: "lookahead K (draft tokens a round)", above: "speed-up" });
    const at = k => [plot.x(k), plot.y(gains[k - 1])];
    let svg = plot.svg + plot.level("one", 1) + polyline("curve", gains.map((_, i) => at(i + 1)));
    gains.forEach((_, i) => { svg += tag("circle", { class: "dot", cx: at(i + 1)[0], cy: at(i + 1)[1], r: 2.2 }); });
    svg += tag("circle", { class: "chosen", cx: at(K)[0], cy: at(K)[1], r: 5 });
    if (best) svg += tag("circle", { class: "best", cx: at(best)[0], cy: at(best)[1], r: 8 });
    const chosen = `K = ${K}: ${expectedTokens(alpha, K).toFixed(2)} tokens in ${(K * c + v).toFixed(2)} target steps, ${times(gains[K - 1])}`;
    const bestText = best ? `best K = ${best}${best === LONGEST ? " or more" : ""}: ${times(gains[best - 1])}`
      : "best: no speculation (the dashed line)";
    put(one("[data-plot=speed]"), svg, `Speed-up against the lookahead K from 1 to ${LONGEST}. ${chosen}; ${bestText}.`);
    write("chosen", chosen);
    write("best", bestText);
    return `${chosen}; ${bestText}.`;
  }

  let random, rounds, tokens, means, round, shown; // `shown` draft tokens of the round are tested
  function reset() {
    random = randomNumbers(data.seed);
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
    const plot = axes({ ...ROOM, bottom: 84, top: 24, x0: 0, x1: last, y0: 0, y1: K + 1, ys: ticks(0, K + 1, 3),
      name: "rounds", above: "average tokens a round" });
    const stride = Math.ceil(rounds / 500) || 1, points = [];
    for (let i = stride; i <= rounds; i += stride) points.push([plot.x(i), plot.y(means[i - 1])]);
    const summary = rounds ? `average of ${rounds} round${rounds > 1 ? "s" : ""}: ${means[rounds - 1].toFixed(3)} tokens; `
      : "";
    const formula = `formula (1 − α^(K+1)) / (1 − α): ${expected.toFixed(3)}`;
    put(one("[data-plot=mean]"), plot.svg + plot.level("one", expected) + polyline("curve", points)
      + (rounds ? tag("circle", { class: "dot", cx: plot.x(rounds), cy: plot.y(means[rounds - 1]), r: 2.6 }) : ""),
      `Average tokens a round against rounds; ${summary}${formula}.`);
    one("[data-out=mean]").innerHTML = `${summary || "no round yet"}<br>${formula.replace("α^(K+1)", "α<sup>K+1</sup>")}`;
    if (round) soon(`${verdict} ${finished ? summary + formula : ""}`);
  }

  for (const input of root.querySelectorAll("input")) input.addEventListener("input", () => {
    input.parentElement.querySelector("b").textContent = Number(input.value).toFixed(Number(input.dataset.digits));
    if (["alpha", "K"].includes(input.name)) reset();
    say(drawSpeed());
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
