// The fit of minilab.pacbayes.phenomena.polynomials by its dual. Held equal in the tests.
const chebyshev = (x, J) => x.map(v => {
  const angle = Math.acos(v);
  return Array.from({ length: J + 1 }, (_, j) => Math.cos(j * angle));
});
const orderPenalty = (J, scale, growth) => Array.from({ length: J + 1 }, (_, j) => scale * growth ** j);
const inner = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);
// The a with K a = y for a symmetric positive definite K, by Cholesky's L with L Lᵀ = K.
function solved(K, y) {
  const L = K.map(() => []), n = y.length, a = [...y];
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) L[i][j] = (K[i][j] - inner(L[i].slice(0, j), L[j])) / L[j][j];
    L[i][i] = Math.sqrt(K[i][i] - inner(L[i], L[i]));
  }
  for (let i = 0; i < n; i++) a[i] = (y[i] - inner(L[i].slice(0, i), a)) / L[i][i];
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) a[i] -= L[k][i] * a[k];
    a[i] /= L[i][i];
  }
  return a;
}
// The weights from n equations; and what they give at any places.
function dualWeights(x, y, penalty) {
  const T = chebyshev(x, penalty.length - 1), cheap = T.map(row => row.map((t, j) => t / penalty[j]));
  const K = T.map((row, i) => cheap.map((other, k) => inner(row, other) + (i === k)));
  const a = solved(K, y);
  return penalty.map((_, j) => cheap.reduce((sum, row, i) => sum + row[j] * a[i], 0));
}
const fitted = (w, at) => chebyshev(at, w.length - 1).map(row => inner(row, w));
