// The statistic of Epps and Pulley and its gradient, by the same quadrature as sigreg.py.
function quadrature(knots, tMax) {
  const step = tMax / (knots - 1);
  return Array.from({ length: knots }, (_, k) => {
    const t = k * step, phi = Math.exp(-t * t / 2);
    return { t, phi, weight: phi * step * (k % (knots - 1) ? 2 : 1) };
  });
}
// C(t) = mean cos(t h) and S(t) = mean sin(t h) at each knot.
function characteristic(h, knots) {
  return knots.map(({ t }) => {
    let C = 0, S = 0;
    for (const value of h) { C += Math.cos(t * value); S += Math.sin(t * value); }
    return { C: C / h.length, S: S / h.length };
  });
}
function eppsPulley(h, knots) {
  const distance = characteristic(h, knots).map(({ C, S }, k) => knots[k].weight * ((C - knots[k].phi) ** 2 + S * S));
  return h.length * distance.reduce((a, b) => a + b, 0);
}
// dEP/dh of each number: 2 sum weight t (S cos(t h) - (C - phi) sin(t h)).
function slope(h, knots) {
  const seen = characteristic(h, knots);
  return h.map(value => knots.reduce((sum, { t, phi, weight }, k) =>
    sum + 2 * weight * t * (seen[k].S * Math.cos(t * value) - (seen[k].C - phi) * Math.sin(t * value)), 0));
}
const project = (points, [c, s]) => points.map(([x, y]) => c * x + s * y);
const heading = degrees => [Math.cos(degrees * Math.PI / 180), Math.sin(degrees * Math.PI / 180)];

// One step down the mean statistic over these directions, times `rate`: what SIGReg does to a batch.
function descended(points, headings, knots, rate) {
  const slopes = headings.map(a => slope(project(points, a), knots));
  return points.map(([x, y], n) => headings.reduce(([px, py], [c, s], m) =>
    [px - rate * c * slopes[m][n] / headings.length, py - rate * s * slopes[m][n] / headings.length], [x, y]));
}
