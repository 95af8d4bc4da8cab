// minilab.speculative.simulate in JavaScript: the same names, the same order of operations. Held equal in the tests.
const SCHEDULERS = ["ar", "sd", "ssd"];
function outcomesFrom(u, alpha, K, hitRate) { // u: rounds, rows, 2
  return u.map((rows, i) => ({
    accepted: rows.map(([x]) => { let k = 0; while (k < K && x < alpha ** (k + 1)) k++; return k; }),
    hit: rows.map(([, y]) => i > 0 && y < hitRate),
  }));
}
function phases(scheduler, costs, hit, K) {
  const justInTime = K * costs.draft, verify = ["verify", costs.verify];
  if (scheduler === "ar") return [{ target: ["step", costs.step] }];
  if (scheduler === "sd") return [{ draft: ["draft", justInTime] }, { target: verify }];
  const waiting = [{ draft: ["handshake", costs.handshake] }, { draft: ["fallback", hit ? 0 : costs.fallback ?? justInTime] }];
  return [...waiting, { target: verify, draft: ["prepare", costs.prepare] }];
}
function simulate(scheduler, costs, outcomes, K) {
  const events = [];
  let now = 0;
  outcomes.forEach((outcome, round) => {
    for (const phase of phases(scheduler, costs, outcome.hit.every(Boolean), K)) {
      const start = now;
      let left = Object.entries(phase).map(([lane, [, seconds]]) => [lane, seconds]).filter(([, seconds]) => seconds > 0);
      while (left.length) {
        const shortest = Math.min(...left.map(([, s]) => s));
        now += shortest * (left.length > 1 ? costs.contention : 1);
        for (const [lane, s] of left) if (s === shortest) events.push({ lane, kind: phase[lane][0], start, end: now, round });
        left = left.filter(([, s]) => s > shortest).map(([lane, s]) => [lane, s - shortest]);
      }
    }
  });
  const made = outcomes.map(o => o.hit.length + (scheduler === "ar" ? 0 : o.accepted.reduce((a, b) => a + b, 0)));
  return { events, made, seconds: now };
}
function tokensBy({ events, made }, moment) {
  return events.reduce((n, e) => n + (e.lane === "target" && e.end <= moment ? made[e.round] : 0), 0);
}
function busy({ events }, lane) {
  return events.reduce((sum, e) => sum + (e.lane === lane ? e.end - e.start : 0), 0);
}
function longRun(scheduler, costs, K, alpha, hitRate, batch) {
  const [hit, miss] = [true, false].map(h => simulate(scheduler, costs, [{ accepted: [0], hit: [h] }], K));
  const p = hitRate ** batch, mean = of => p * of(hit) + (1 - p) * of(miss), seconds = mean(r => r.seconds);
  const [idleTarget, idleDraft] = ["target", "draft"].map(lane => 1 - mean(r => busy(r, lane)) / seconds);
  return { tokens: batch * (scheduler === "ar" ? 1 : expectedTokens(alpha, K)), seconds, idleTarget, idleDraft };
}
