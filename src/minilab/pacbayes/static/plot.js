// What the figures of this chapter draw with.
const tag = (name, attributes, text = "") =>
  `<${name} ${Object.entries(attributes).map(([k, v]) => `${k}="${v}"`).join(" ")}>${text}</${name}>`;
const minus = text => String(text).replace("-", "\u2212");
const label = v => minus(v !== 0 && Math.abs(v) < 1e-3 ? v.toExponential() : v);
const few = v => v === 0 ? "0" : v < 1e-4 ? minus(v.toExponential(0)) : String(Number(v.toPrecision(2)));

// At most `most` + 1 round numbers from low to high.
function ticks(low, high, most) {
  const raw = (high - low) / most, scale = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find(m => m * scale >= raw * (1 - 1e-9)) * scale;
  const first = Math.ceil(low / step - 1e-9), count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(6)));
}
// Axes from (x0, y0) to (x1, y1): returns the maps to the picture and the markup. A path has no points above y1.
function axes({ x0, x1, y0, y1, xs, ys, name, bottom, left = 44, right = 330, top = 8 }) {
  const x = v => +(left + (right - left) * (v - x0) / (x1 - x0)).toFixed(1);
  const y = v => +(bottom + (top - bottom) * (v - y0) / (y1 - y0)).toFixed(1);
  let svg = "";
  for (const v of ys) svg += tag("line", { class: "grid", x1: left, x2: right, y1: y(v), y2: y(v) })
    + tag("text", { x: left - 5, y: y(v) + 4, "text-anchor": "end" }, label(v));
  for (const v of xs) svg += tag("text", { x: x(v), y: bottom + 15, "text-anchor": "middle" }, label(v));
  svg += tag("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom })
    + tag("text", { x: right, y: bottom + 31, "text-anchor": "end" }, name);
  const path = (kind, xs, of) => {
    const points = xs.map((v, i) => [v, of(v, i)]).filter(([, height]) => height <= y1);
    return tag("polyline", { class: kind, points: points.map(([v, height]) => `${x(v)},${y(height)}`).join(" ") });
  };
  return { x, y, svg, path, left, right, top, bottom };
}
const evenly = (low, high, count) => Array.from({ length: count }, (_, i) => low + (high - low) * i / (count - 1));
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
