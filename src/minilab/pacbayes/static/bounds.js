// The formulas of minilab.pacbayes.bounds and their inverse of kl. Held equal in the tests.
function kl(q, p) {
  const part = (a, ratio) => a === 0 ? 0 : a * Math.log(ratio);
  return Math.max(0, part(q, q / p) + part(1 - q, (1 - q) / (1 - p)));
}
function klInverse(q, c) { // the upper end of the last interval: the lower would be no bound
  let low = q, high = 1;
  for (let i = 0; i < 64; i++) {
    const middle = (low + high) / 2;
    if (kl(q, middle) <= c) low = middle; else high = middle;
  }
  return high;
}
const pinsker = (q, p) => 2 * (p - q) ** 2; // never above kl
const price = (n, nats, delta) => (nats - Math.log(delta)) / n;
const pricePosterior = (n, nats, delta) => (nats + Math.log(2 * Math.sqrt(n) / delta)) / n;
const occamHoeffding = (risk, n, nats, delta) => risk + Math.sqrt(price(n, nats, delta) / 2);
const occamKl = (risk, n, nats, delta) => klInverse(risk, price(n, nats, delta));
const maurer = (risk, n, nats, delta) => klInverse(risk, pricePosterior(n, nats, delta));
