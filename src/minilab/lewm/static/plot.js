// What the figures of this chapter draw with.
const tag = (name, attributes, text = "") =>
  `<${name} ${Object.entries(attributes).map(([k, v]) => `${k}="${v}"`).join(" ")}>${text}</${name}>`;
const show = (v, digits = 2) => v.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "\u2212");
const few = v => v >= 100 ? v.toFixed(0) : v >= 1e-3 ? String(Number(v.toPrecision(2)))
  : v.toExponential(0).replace("-", "\u2212");
const path = (kind, points) => tag("polyline", { class: kind, points: points.map(p => p.join(",")).join(" ") });
const powers = (low, high) => Array.from({ length: Math.round(Math.log10(high / low)) + 1 },
  (_, i) => Number((low * 10 ** i).toPrecision(1)));

// Axes over the ticks given: returns the maps to the picture and the markup. `log` is of y.
function axes({ x0, x1, y0, y1, xs, ys, name, bottom = 136, left = 38, right = 330, top = 8, log = false }) {
  const rise = log ? v => Math.log10(Math.max(v, y0) / y0) / Math.log10(y1 / y0) : v => (v - y0) / (y1 - y0);
  const x = v => +(left + (right - left) * (v - x0) / (x1 - x0 || 1)).toFixed(1);
  const y = v => +(bottom + (top - bottom) * Math.min(rise(v), 1)).toFixed(1);
  const label = v => String(v).replace("-", "\u2212");
  let svg = "";
  for (const v of ys) svg += tag("line", { class: "grid", x1: left, x2: right, y1: y(v), y2: y(v) })
    + tag("text", { x: left - 5, y: y(v) + 4, "text-anchor": "end" }, label(v));
  for (const v of xs) svg += tag("text", { x: x(v), y: bottom + 15, "text-anchor": "middle" }, label(v));
  svg += tag("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom })
    + tag("text", { x: right, y: bottom + 30, "text-anchor": "end" }, name);
  return { x, y, svg, left, right, top, bottom };
}
// A picture's markup, and what it shows in words.
function put(picture, svg, told) {
  picture.innerHTML = svg;
  picture.setAttribute("aria-label", told);
}

// A status line for listeners: of many small changes only the last is spoken.
function speaker(element, wait = 700) {
  let timer = 0;
  return text => { clearTimeout(timer); timer = setTimeout(() => { element.textContent = text; }, wait); };
}
