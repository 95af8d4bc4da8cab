// What all interactive figures draw with.
const tag = (name, attributes, text = "") =>
  `<${name} ${Object.entries(attributes).map(([k, v]) => `${k}="${v}"`).join(" ")}>${text}</${name}>`;
const clamp = (v, low, high) => Math.max(low, Math.min(high, v));
const evenly = (low, high, count) => Array.from({ length: count }, (_, i) => low + (high - low) * i / (count - 1));

// Numbers as text: with a real minus sign, with so many decimals and never minus zero, with two significant digits.
const minus = text => String(text).replaceAll("-", "\u2212");
const show = (v, digits = 2) => minus(v.toFixed(digits).replace(/^-(?=[0.]*$)/, ""));
const few = v => v === 0 ? "0" : Math.abs(v) >= 100 ? minus(v.toFixed(0))
  : Math.abs(v) >= 1e-3 ? minus(Number(v.toPrecision(2))) : minus(v.toExponential(0));

// At most `most` + 1 round numbers from low to high.
function ticks(low, high, most) {
  const raw = (high - low) / most, scale = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find(m => m * scale >= raw * (1 - 1e-9)) * scale;
  const first = Math.ceil(low / step - 1e-9), count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(6)));
}
// Round numbers from low to high on a logarithmic axis, powers of ten alone if there are many.
function logTicks(low, high, digits = Math.log10(high / low) > 3 ? [1] : [1, 2, 5]) {
  const first = Math.floor(Math.log10(low)), count = Math.ceil(Math.log10(high)) - first + 1;
  return Array.from({ length: count }, (_, i) => 10 ** (first + i))
    .flatMap(ten => digits.map(m => Number((m * ten).toPrecision(1)))).filter(v => v >= low && v <= high);
}
const polyline = (kind, points) => tag("polyline", { class: kind, points: points.map(p => p.join(",")).join(" ") });
// Axes from (x0, y0) to (x1, y1), either logarithmic: the maps to the picture, which stop at its edges, the markup so
// far, and what draws into it: a path (which leaves out what lies beyond y0 and y1), a level line, a band.
function axes({ x0, x1, y0, y1, xs = ticks(x0, x1, 5), ys = ticks(y0, y1, 5), name, above = "", logx = false,
  logy = false, left = 44, right = 330, top = 10, bottom = 192 }) {
  const share = (v, low, high, log) => log ? Math.log(v / low) / Math.log(high / low) : (v - low) / (high - low || 1);
  const x = v => +(left + (right - left) * share(clamp(v, x0, x1), x0, x1, logx)).toFixed(1);
  const y = v => +(bottom + (top - bottom) * share(clamp(v, y0, y1), y0, y1, logy)).toFixed(1);
  const label = v => minus(v !== 0 && Math.abs(v) < 1e-3 ? v.toExponential() : v);
  let svg = "";
  for (const v of ys) svg += tag("line", { class: "grid", x1: left, x2: right, y1: y(v), y2: y(v) })
    + tag("text", { x: left - 5, y: y(v) + 4, "text-anchor": "end" }, label(v));
  for (const v of xs) svg += tag("text", { x: x(v), y: bottom + 15, "text-anchor": "middle" }, label(v));
  svg += tag("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom })
    + tag("text", { x: right, y: bottom + 30, "text-anchor": "end" }, name)
    + (above && tag("text", { x: 0, y: top - 9 }, above));
  const inside = v => v >= y0 && v <= y1;
  const path = (kind, xs, ys) => polyline(kind, xs.map((v, i) => [v, ys[i]]).filter(([, v]) => inside(v))
    .map(([v, height]) => [x(v), y(height)]));
  const level = (kind, v) => inside(v) ? tag("line", { class: kind, x1: left, x2: right, y1: y(v), y2: y(v) }) : "";
  const band = (kind, low, high) => tag("rect", { class: kind, x: left, width: right - left, y: y(high),
    height: Math.max(0, y(low) - y(high)).toFixed(1) });
  return { x, y, svg, path, level, band, left, right, top, bottom };
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
