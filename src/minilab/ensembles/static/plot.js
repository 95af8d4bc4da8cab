// What the figure draws with.
const tag = (name, attributes, text = "") =>
  `<${name} ${Object.entries(attributes).map(([k, v]) => `${k}="${v}"`).join(" ")}>${text}</${name}>`;
const minus = text => String(text).replace("-", "\u2212");
const clamp = (v, low, high) => Math.max(low, Math.min(high, v));

// At most `most` + 1 round numbers from low to high.
function ticks(low, high, most) {
  const raw = (high - low) / most, scale = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find(m => m * scale >= raw * (1 - 1e-9)) * scale;
  const first = Math.ceil(low / step - 1e-9), count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(6)));
}
// Round numbers from low to high on a logarithmic axis, powers of ten alone if there are many.
function logTicks(low, high) {
  const decades = Math.ceil(Math.log10(high)) - Math.floor(Math.log10(low));
  const found = Array.from({ length: decades + 1 }, (_, i) => 10 ** (i + Math.floor(Math.log10(low))))
    .flatMap(ten => (decades > 3 ? [1] : [1, 2, 5]).map(m => Number((m * ten).toPrecision(1))));
  return found.filter(v => v >= low && v <= high);
}
// Axes from (x0, y0) to (x1, y1), x logarithmic: the maps to the picture, which stop at its edges, and the markup.
function axes({ x0, x1, y0, y1, xs, name, bottom = 192, left = 44, right = 330, top = 10 }) {
  const x = v => +(left + (right - left) * Math.log(clamp(v, x0, x1) / x0) / Math.log(x1 / x0)).toFixed(1);
  const y = v => +(bottom + (top - bottom) * (clamp(v, y0, y1) - y0) / (y1 - y0)).toFixed(1);
  let svg = "";
  for (const v of ticks(y0, y1, 6)) svg += tag("line", { class: "grid", x1: left, x2: right, y1: y(v), y2: y(v) })
    + tag("text", { x: left - 5, y: y(v) + 4, "text-anchor": "end" }, minus(v));
  for (const v of xs) svg += tag("text", { x: x(v), y: bottom + 15, "text-anchor": "middle" }, v);
  svg += tag("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom })
    + tag("text", { x: right, y: bottom + 31, "text-anchor": "end" }, name);
  const path = (kind, xs, ys) => tag("polyline", { class: kind,
    points: xs.map((v, i) => [v, ys[i]]).filter(([, h]) => h >= y0 && h <= y1).map(([v, h]) => `${x(v)},${y(h)}`)
      .join(" ") });
  const level = (kind, height) => height < y0 || height > y1 ? ""
    : tag("line", { class: kind, x1: left, x2: right, y1: y(height), y2: y(height) });
  const band = (kind, low, high) => tag("rect", { class: kind, x: left, width: right - left, y: y(high),
    height: Math.max(0, y(low) - y(high)).toFixed(1) });
  return { x, y, svg, path, level, band };
}
// A picture's markup, and what it shows in words.
function put(picture, svg, told) {
  picture.innerHTML = svg;
  picture.setAttribute("aria-label", told);
}
function press(buttons, chosen) {
  for (const button of buttons) button.setAttribute("aria-pressed", String(button === chosen));
}
// A status line for listeners: of many small changes only the last is spoken.
function speaker(element, wait = 700) {
  let timer = 0;
  return text => { clearTimeout(timer); timer = setTimeout(() => { element.textContent = text; }, wait); };
}
