// LeWorldModel in evaluation, as export.py wrote it: encoder, heads, and the causal predictor that keys steer.
function worldModel(payload) {
  const product = shape => shape.reduce((a, b) => a * b, 1), tensors = {};
  for (const [kind, type] of [["float32", Float32Array], ["int8", Int8Array]]) { // the scales first
    const values = new type(Uint8Array.from(atob(payload.values[kind]), c => c.charCodeAt(0)).buffer);
    for (const [name, [begin, ...shape]] of Object.entries(payload.places[kind])) {
      const tensor = tensors[name] = new Float32Array(values.subarray(begin, begin + product(shape)));
      const row = product(shape.slice(1)), scale = tensors[`${name}.scale`];
      if (kind === "int8") for (let i = 0; i < tensor.length; i++) tensor[i] *= scale[Math.floor(i / row)];
    }
  }

  const relu = x => Math.max(x, 0), gelu = x => x * (1 + erf(x / Math.SQRT2)) / 2;
  const add = (x, y) => x.map((v, i) => v + y[i]), average = x => x.reduce((a, b) => a + b, 0) / x.length;
  function erf(x) { // Abramowitz and Stegun 7.1.26: right to 1.5e-7
    const t = 1 / (1 + .3275911 * Math.abs(x)), c = [1.061405429, -1.453152027, 1.421413741, -.284496736, .254829592];
    return Math.sign(x) * (1 - c.reduce((sum, a) => (sum + a) * t, 0) * Math.exp(-x * x));
  }
  function linear(name, x) {
    const weight = tensors[`${name}.weight`], bias = tensors[`${name}.bias`], n = x.length;
    return Array.from({ length: weight.length / n }, (_, row) => {
      let sum = bias ? bias[row] : 0;
      for (let i = 0; i < n; i++) sum += weight[row * n + i] * x[i];
      return sum;
    });
  }
  function layerNorm(x, name) { // with gain and bias if it has a name
    const mean = average(x), variance = average(x.map(v => (v - mean) ** 2));
    const unit = x.map(v => (v - mean) / Math.sqrt(variance + 1e-5));
    return name ? unit.map((v, i) => v * tensors[`${name}.weight`][i] + tensors[`${name}.bias`][i]) : unit;
  }
  function head(name, x) {
    const up = linear(`${name}.up`, x);
    return linear(`${name}.down`, (payload.layer_norm ? layerNorm(up, `${name}.norm`) : up).map(gelu));
  }

  // A 3 x 3 convolution of stride 2 over maps [channel][row][column] that lie end to end, with a border of zeros.
  function convolve(name, map, side) {
    const weight = tensors[`${name}.weight`], bias = tensors[`${name}.bias`], half = side / 2;
    const inputs = map.length / side ** 2, out = new Float64Array(bias.length * half * half);
    for (let o = 0; o < bias.length; o++) for (let r = 0; r < half; r++) for (let c = 0; c < half; c++) {
      let sum = bias[o];
      for (let i = 0; i < inputs; i++) for (let dr = 0; dr < 3; dr++) for (let dc = 0; dc < 3; dc++) {
        const row = 2 * r + dr - 1, column = 2 * c + dc - 1;
        if (row < 0 || row >= side || column < 0 || column >= side) continue;
        sum += weight[((o * inputs + i) * 3 + dr) * 3 + dc] * map[(i * side + row) * side + column];
      }
      out[(o * half + r) * half + c] = sum;
    }
    return out;
  }
  // The latent of a picture: bytes [color][row][column].
  function encode(picture) {
    const color = i => Math.floor(i / payload.image ** 2);
    let map = Float64Array.from(picture, (v, i) => (v / 255 - payload.mean[color(i)]) / payload.std[color(i)]);
    for (let i = 0, side = payload.image; i < payload.layers; i++, side /= 2)
      map = convolve(`encoder.layers.${2 * i}`, map, side).map(relu);
    return head("projector", linear("encoder.out", map));
  }

  function attend(name, xs) { // each position sees itself and those before it
    const rows = xs.map(x => linear(`${name}.qkv`, x)), inner = rows[0].length / 3, d = inner / payload.heads;
    return rows.map((row, t) => {
      const mixed = new Float64Array(inner);
      for (let h = 0; h < inner; h += d) {
        const weights = rows.slice(0, t + 1).map(other => {
          let dot = 0;
          for (let j = h; j < h + d; j++) dot += row[j] * other[inner + j];
          return Math.exp(dot / Math.sqrt(d));
        });
        const total = weights.reduce((a, b) => a + b, 0);
        weights.forEach((w, s) => { for (let j = h; j < h + d; j++) mixed[j] += w / total * rows[s][2 * inner + j]; });
      }
      return linear(`${name}.out`, mixed);
    });
  }
  // The next latent, from up to `history` of them and the keys that are held as each is left.
  function expect(latents, keys) {
    const positions = tensors["predictor.positions"];
    let xs = latents.map((z, t) => {
      const x = tensors["predictor.enter.weight"] ? linear("predictor.enter", z) : z;
      return x.map((v, i) => v + positions[t * x.length + i]);
    });
    for (let i = 0; i < payload.depth; i++) {
      const name = `predictor.blocks.${i}`, width = xs[0].length;
      // Of attention shift, scale and gate; the same of the feed-forward network.
      const steer = (t, k, j) => tensors[`steer.${i}.${keys[t]}`][k * width + j];
      const turned = (k, x, t) => layerNorm(x).map((v, j) => v * (1 + steer(t, k + 1, j)) + steer(t, k, j));
      const gated = (k, y, t) => y.map((v, j) => steer(t, k, j) * v);
      const attended = attend(name, xs.map((x, t) => turned(0, x, t)));
      xs = xs.map((x, t) => add(x, gated(2, attended[t], t)));
      const fed = xs.map((x, t) => linear(`${name}.down`, linear(`${name}.up`, turned(3, x, t)).map(gelu)));
      xs = xs.map((x, t) => add(x, gated(5, fed[t], t)));
    }
    return head("predictor_head", layerNorm(xs.at(-1), "predictor.norm"));
  }
  const surprise = (expected, z) => average(z.map((v, i) => (v - expected[i]) ** 2));
  return { encode, expect, surprise, history: payload.history };
}
