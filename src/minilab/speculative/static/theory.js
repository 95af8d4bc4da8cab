// The closed forms of minilab.speculative.theory, and one round of their model. Held equal in the tests.
function expectedTokens(alpha, K) {
  return alpha === 1 ? K + 1 : (1 - alpha ** (K + 1)) / (1 - alpha);
}
function speedup(alpha, K, cost, verify) {
  return expectedTokens(alpha, K) / (K * cost + verify);
}
function bestLookahead(alpha, cost, verify, longest) {
  let best = 0, most = 1; // K = 0 is autoregressive decoding: no draft, and a pass over one token
  for (let K = 1; K <= longest; K++) {
    const gain = speedup(alpha, K, cost, verify);
    if (gain > most) [best, most] = [K, gain];
  }
  return best;
}
function randomNumbers(seed) { // in [0, 1), the same for the same seed
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  };
}
function drawRound(alpha, K, random) { // one u for each draft token that is tested
  const u = [];
  while (u.length < K) {
    u.push(random());
    if (u[u.length - 1] >= alpha) return { u, accepted: u.length - 1 };
  }
  return { u, accepted: K };
}
