// Two Rooms as worlds/rooms.py has it; the numbers of its geometry come from there.
function twoRooms(g, size) {
  const scale = g.FRAME / size, clamp = (v, low, high) => Math.max(low, Math.min(high, v));
  const inDoor = y => Math.abs(y - g.DOOR) <= g.HALF_DOOR + g.DOOR_SLACK;
  function step(from, action) {
    const [x, y] = from.map((v, i) => clamp(v + g.SPEED * clamp(action[i], -1, 1), g.LOW, g.HIGH));
    const west = from[0] < g.WALL, blocked = (west ? x > g.LEFT : x < g.RIGHT) && !inDoor(y);
    return [blocked ? (west ? g.LEFT - g.PUSHED_BACK : g.RIGHT + g.PUSHED_BACK) : x, y];
  }

  // The picture without the dot: each pixel is the mean of the area that it covers, and `scale` is whole.
  const far = g.FRAME - g.MARGIN;
  const line = p => (p >= g.MARGIN - g.LINE && p < g.MARGIN) || (p >= far && p < far + g.LINE);
  const wall = (x, y) => Math.abs(x - g.WALL) <= g.HALF_WALL && Math.abs(y - g.DOOR) > g.HALF_DOOR;
  const rooms = Float64Array.from({ length: size * size }, (_, i) => {
    const left = i % size * scale, top = Math.floor(i / size) * scale;
    let white = 0;
    for (let y = top; y < top + scale; y++) for (let x = left; x < left + scale; x++)
      white += !(line(x) || line(y) || wall(x, y));
    return 255 * white / scale ** 2;
  });
  const centers = Array.from({ length: size }, (_, i) => (i + .5) * scale - .5);
  // Bytes [color][row][column], the dot a Gaussian blob over the rooms.
  function render(state, color) {
    const [along, down] = state.map(v => centers.map(c => Math.exp(-((c - v) ** 2) / (2 * g.RADIUS ** 2))));
    return Uint8Array.from({ length: 3 * size * size }, (_, i) => {
      const at = i % (size * size), alpha = down[Math.floor(at / size)] * along[at % size];
      return Math.round(rooms[at] + alpha * (color[Math.floor(i / (size * size))] - rooms[at]));
    });
  }
  return { step, render };
}
