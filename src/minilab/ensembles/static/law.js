// The fit of `scaling.py` and its interval, for points of equal weight. `search` holds that file's range of exponents.
const geometric = (low, high, count) => evenly(Math.log(low), Math.log(high), count).map(Math.exp);
const total = values => values.reduce((a, b) => a + b, 0), mean = values => total(values) / values.length;
const squares = (z, y, A, E) => total(y.map((v, i) => (v - A * z[i] - E) ** 2));
const least = values => values.indexOf(Math.min(...values));

// A z + E with the fewest squares. Where one would be negative it is 0, and the other is the best without it.
function nonnegative(z, y) {
  const z0 = mean(z), y0 = mean(y), spread = total(z.map(v => (v - z0) ** 2));
  const A = total(z.map((v, i) => (v - z0) * (y[i] - y0))) / spread, E = y0 - A * z0;
  if (A >= 0 && E >= 0) return { A, E, rss: squares(z, y, A, E) };
  const alone = total(z.map((v, i) => v * y[i])) / total(z.map(v => v * v));
  const found = [[0, 0], [Math.max(0, alone), 0], [0, Math.max(0, y0)]]
    .map(([A, E]) => ({ A, E, rss: squares(z, y, A, E) }));
  return found[least(found.map(f => f.rss))];
}
const unitOf = x => Math.exp(mean(x.map(Math.log)));
const columnOf = (x, alpha, unit) => x.map(v => (v / unit) ** -alpha);

// The best law at each of these exponents, A in the unit of x.
function profile(x, y, alphas) {
  const unit = unitOf(x);
  return alphas.map(alpha => {
    const { A, E, rss } = nonnegative(columnOf(x, alpha, unit), y);
    return { A: A * unit ** alpha, alpha, E, rss };
  });
}
// The law with the fewest squares, alpha a number or null to search it, and what became of the search.
function fitPowerLaw(x, y, alpha, search) {
  let grid = alpha === null ? geometric(search.lowest, search.highest, search.grid) : [alpha];
  for (let zoom = 0; alpha === null && zoom < search.zooms; zoom++) {
    const i = least(profile(x, y, grid).map(f => f.rss));
    grid = evenly(grid[Math.max(i - 1, 0)], grid[Math.min(i + 1, grid.length - 1)], 17);
  }
  const laws = profile(x, y, grid), law = laws[least(laws.map(f => f.rss))];
  const exponent = alpha !== null ? "given" : law.A === 0 ? "any" : law.alpha < search.lowest * 1.001 ? "lowest"
    : law.alpha > search.highest / 1.001 ? "highest" : "found";
  return { ...law, exponent, spare: x.length - (alpha === null ? 3 : 2) };
}

// The quantile of F(1, nu): with t = sqrt(nu) tan(angle), Student's density is cos(angle)^(nu - 1) / constant.
function studentSquared(level, nu) {
  const angle = evenly(0, Math.PI / 2, 20001), density = angle.map(a => Math.max(0, Math.cos(a)) ** (nu - 1));
  const share = [0];
  for (let i = 1; i < density.length; i++) share.push(share[i - 1] + density[i] + density[i - 1]);
  const goal = level * share[share.length - 1], i = share.findIndex(v => v >= goal);
  const at = angle[i - 1] + (angle[i] - angle[i - 1]) * (goal - share[i - 1]) / (share[i] - share[i - 1]);
  return nu * Math.tan(at) ** 2;
}
// How many squares may be left; null if nothing says how noisy a loss is.
function allowance(fit, noise, search) {
  if (noise !== null) return fit.rss + noise ** 2 * search.normal;
  return fit.spare < 1 ? null : fit.rss * (1 + studentSquared(search.level, fit.spare) / fit.spare);
}
// The exponents that leave no more squares than allowed, on either side of the best.
function alphaRange(x, y, fit, allowed, search) {
  if (fit.exponent === "given") return { low: fit.alpha, high: fit.alpha, openLow: false, openHigh: false };
  const [low, high] = [search.lowest, search.highest].map(end => {
    let inside = fit.alpha, outside = end, all;
    for (let zoom = 0; zoom < 7; zoom++) {
      const alphas = evenly(inside, outside, 33);
      const first = profile(x, y, alphas.slice(1)).findIndex(f => !(f.rss <= allowed));
      all = first < 0;
      if (all) break;
      [inside, outside] = [alphas[first], alphas[first + 1]];
    }
    return [outside, all];
  });
  return { low: low[0], high: high[0], openLow: low[1], openHigh: high[1] };
}
// The same for E: each exponent allows an interval around its best E, or a flat line does, and we want them all.
function asymptotes(x, y, fit, allowed, search) {
  const range = alphaRange(x, y, fit, allowed, search), unit = unitOf(x), y0 = mean(y), n = x.length;
  const alphas = range.low < range.high ? geometric(range.low, range.high, 2001) : [range.low];
  const room = allowed / n - mean(y.map(v => (v - y0) ** 2));
  const [low, high] = [-1, 1].map(sign => {
    const edges = alphas.map(alpha => {
      const z = columnOf(x, alpha, unit), z0 = mean(z), spread = mean(z.map(v => (v - z0) ** 2));
      const A = mean(z.map((v, i) => v * (y[i] - y0))) / spread, best = y0 - A * z0;
      const left = allowed - squares(z, y, A, best);
      const E = best + sign * Math.sqrt(Math.max(0, left) / n * mean(z.map(v => v * v)) / spread);
      return total(z.map((v, i) => v * (y[i] - E))) >= 0 ? E : -sign * Infinity; // A >= 0
    });
    const i = least(edges.map(E => -sign * E));
    const flat = y0 + sign * Math.sqrt(Math.max(0, room));
    if (room >= 0 && sign * (flat - edges[i]) > 0) return [flat, false];
    return [edges[i], (i === 0 && range.openLow) || (i === alphas.length - 1 && range.openHigh)];
  });
  return { low: Math.max(low[0], 0), high: high[0], openLow: low[1] || low[0] <= 0, openHigh: high[1] };
}

// The x at which A / x^alpha + E has this loss: infinite at or below E.
const inverse = ([A, alpha, E], loss) => loss > E ? (A / (loss - E)) ** (1 / alpha) : Infinity;
