// Replays the streams of each race on the page. All that it shows is in the page already: it only hides
// what had not yet arrived at the time of the replay.
const still = matchMedia("(prefers-reduced-motion: reduce)");
for (const root of document.querySelectorAll("figure.minilab-race:not([data-live])")) {
  const one = (selector, from = root) => from.querySelector(selector);
  const say = text => { one("[role=status]").textContent = text; };
  const streams = [...root.querySelectorAll("[data-seconds]")].map(box => ({
    box, seconds: parseFloat(box.dataset.seconds), name: one(".ml-title", box).textContent, done: true,
    marks: [...box.querySelectorAll("[data-t]")].map(mark =>
      ({ mark, t: parseFloat(mark.dataset.t), n: Number(mark.dataset.n || 0) })),
    meter: one("[data-meter]", box), now: one(".now", box),
  }));
  const end = Math.max(...streams.map(s => s.seconds));
  const play = one("[data-do=play]");
  let time = end, speed = Number(one("[data-speed][aria-pressed=true]").dataset.speed), last = 0, playing = false;

  const summary = (tokens, seconds) => {
    const rate = seconds > 0 ? tokens / seconds : 0;
    return `${tokens} tokens · ${seconds.toFixed(2)} s · ${rate.toFixed(1)} tokens/s`;
  };
  const draw = () => {
    root.classList.toggle("replay", time < end);
    one("[data-clock]").textContent = `${time.toFixed(2)} s of ${end.toFixed(2)} s`;
    for (const stream of streams) {
      let tokens = 0, news = false;
      for (const { mark, t, n } of stream.marks) {
        const on = t <= time;
        news ||= on !== mark.classList.contains("on");
        mark.classList.toggle("on", on);
        if (on) tokens += n;
      }
      const x = 30 + 300 * Math.min(time, stream.seconds) / end;
      stream.now.setAttribute("x1", x);
      stream.now.setAttribute("x2", x);
      // With reduced motion the numbers change only when tokens arrive.
      if (!still.matches || news) stream.meter.textContent = summary(tokens, Math.min(time, stream.seconds));
      const done = time >= stream.seconds;
      if (done && !stream.done) say(`${stream.name} is done: ${summary(tokens, stream.seconds)}`);
      stream.done = done;
    }
  };
  const pause = () => { playing = false; play.textContent = "Play"; };
  const frame = now => {
    if (!playing || !root.isConnected) return;
    time = Math.min(end, time + Math.min(now - last, 250) / 1000 * speed); // a hidden tab does not run ahead
    last = now;
    draw();
    if (time < end) requestAnimationFrame(frame); else pause();
  };
  const start = from => {
    const running = playing;
    time = from;
    playing = true;
    play.textContent = "Pause";
    last = performance.now();
    draw();
    if (!running) requestAnimationFrame(frame);
  };
  play.addEventListener("click", () => playing ? pause() : start(time >= end ? 0 : time));
  one("[data-do=restart]").addEventListener("click", () => start(0));
  const choices = [...root.querySelectorAll("[data-speed]")];
  for (const choice of choices) choice.addEventListener("click", () => {
    speed = Number(choice.dataset.speed);
    press(choices, choice);
  });
  root.dataset.live = "";
  for (const part of root.querySelectorAll(".ml-live")) part.hidden = false;
  draw();
}
