"use strict";
// The lanes: every event as a bar. Where many fall on one pixel, the pixel shows how they share it.

(function () {
  const TICK = 1e-5, TALL = data.lanes.length > 24 ? 16 : 26, BELOW = 24;
  const canvas = document.querySelector("canvas"), pen = canvas.getContext("2d");
  const groupOf = data.phases.map((phase) => data.groups.indexOf(phase.group));
  const lanes = data.lanes.map(unpack);
  let left = 0, right = 0, from = 0, to = data.seconds, due = false, colours = {};

  function unpack(lane) {
    const count = lane.rows.length / 3, start = new Float64Array(count), end = new Float64Array(count);
    const phase = new Uint16Array(count), reach = new Float64Array(count);
    let now = 0, furthest = 0;
    for (let i = 0; i < count; i++) {
      now += lane.rows[3 * i];
      start[i] = now * TICK;
      end[i] = (now + lane.rows[3 * i + 1]) * TICK;
      phase[i] = lane.rows[3 * i + 2];
      reach[i] = furthest = Math.max(furthest, end[i]);  // of all so far: to find what began long before
    }
    return {name: lane.name, every: lane.every, count, start, end, phase, reach};
  }

  // The first index whose value is above `limit`; values ascend.
  function after(values, limit) {
    let low = 0, high = values.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[middle] > limit) high = middle; else low = middle + 1;
    }
    return low;
  }

  function measure() {
    const ratio = window.devicePixelRatio || 1, width = Math.max(200, canvas.parentNode.clientWidth);
    const height = lanes.length * TALL + BELOW, style = getComputedStyle(document.documentElement);
    for (const name of [...data.groups, "idle", "faint", "text", "line"]) colours[name] = style.getPropertyValue("--" + name).trim();
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.height = height + "px";
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    left = 10 + 7 * Math.max(...lanes.map((lane) => lane.name.length));
    right = width - 12;
    draw();
  }

  function draw() {
    due = false;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.font = "12px system-ui, sans-serif";
    lanes.forEach((lane, row) => {
      pen.fillStyle = colours.text;
      pen.textAlign = "right";
      pen.fillText(lane.name, left - 8, row * TALL + TALL / 2 + 2.5);
      pen.fillStyle = colours.idle;
      pen.fillRect(left, row * TALL, right - left, TALL - 4);
      drawLane(lane, row * TALL, TALL - 4);
    });
    drawAxis(lanes.length * TALL);
    canvas.dataset.lanes = lanes.length;
    canvas.dataset.events = lanes.reduce((sum, lane) => sum + lane.count, 0);
  }

  function drawLane(lane, top, tall) {
    const scale = (right - left) / (to - from), pixels = Math.ceil(right - left), groups = data.groups.length;
    const crowd = new Float32Array(pixels * groups);
    for (let i = after(lane.reach, from); i < lane.count && lane.start[i] < to; i++) {
      if (lane.end[i] < from) continue;
      const group = groupOf[lane.phase[i]];
      const a = Math.max(0, (lane.start[i] - from) * scale), b = Math.min(pixels, (lane.end[i] - from) * scale);
      if (b - a >= 2) {
        pen.fillStyle = colours[data.groups[group]];
        pen.fillRect(left + a, top, b - a - (b - a > 4 ? 0.6 : 0), tall);
        continue;
      }
      for (let x = Math.floor(a); x < pixels && x < b + 1e-9; x++)
        crowd[x * groups + group] += Math.max(1e-6, Math.min(b, x + 1) - Math.max(a, x)) * lane.every;
    }
    for (let x = 0; x < pixels; x++) {
      let whole = 0, y = top + tall;
      for (let group = 0; group < groups; group++) whole += crowd[x * groups + group];
      if (!whole) continue;
      for (let group = 0; group < groups; group++) {
        if (!crowd[x * groups + group]) continue;
        const share = crowd[x * groups + group] / Math.max(1, whole), part = whole > 0.5 ? share * tall : Math.max(2, share * tall);
        pen.fillStyle = colours[data.groups[group]];
        pen.fillRect(left + x, y - part, 1, part);
        y -= part;
      }
    }
  }

  function drawAxis(top) {
    const places = timeTicks(from, to, Math.max(2, Math.floor((right - left) / 110)));
    const step = places.length > 1 ? places[1] - places[0] : to - from;
    pen.fillStyle = colours.faint;
    pen.font = "11px system-ui, sans-serif";
    for (const value of places) {
      const x = left + (right - left) * (value - from) / (to - from);
      pen.fillRect(x, top, 1, 4);
      pen.textAlign = x > right - 24 ? "right" : "center";
      pen.fillText(seconds(value, step), x, top + 17);
    }
  }

  function later() {
    if (!due) requestAnimationFrame(draw);
    due = true;
  }

  // Show another stretch; never less than 100 microseconds, and never beyond the run.
  function show(start, length) {
    const whole = data.seconds || 1;
    length = Math.min(whole, Math.max(1e-4, length));
    from = Math.min(Math.max(0, start), whole - length);
    to = from + length;
    canvas.dataset.from = from;
    canvas.dataset.to = to;
    later();
  }

  function zoom(factor, x) {
    const at = from + (to - from) * (x - left) / (right - left), length = (to - from) * factor;
    show(at - length * (x - left) / (right - left), length);
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  function tell(event) {
    const [x, y] = place(event), lane = lanes[Math.floor(y / TALL)], near = 2 * (to - from) / (right - left);
    if (!lane || x < left || x > right) return say(event, "");
    const at = from + (to - from) * (x - left) / (right - left);
    let found = -1;
    for (let i = after(lane.reach, at - near); i < lane.count && lane.start[i] <= at + near; i++)
      if (lane.end[i] >= at - near && (found < 0 || lane.end[i] - lane.start[i] < lane.end[found] - lane.start[found])) found = i;
    if (found < 0) return say(event, "");
    const took = lane.end[found] - lane.start[found];
    say(event, `${lane.name}: ${data.phases[lane.phase[found]].name}\n${seconds(took)} at ${seconds(lane.start[found], to - from)}`);
  }

  const fingers = new Map();
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY))
      show(from + (to - from) * (event.deltaX || event.deltaY) / (right - left), to - from);
    else zoom(Math.exp(event.deltaY / 300), place(event)[0]);
  }, {passive: false});
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, place(event)[0]);
    canvas.setPointerCapture(event.pointerId);
    canvas.classList.add("moving");
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return tell(event);
    const before = [...fingers.values()], x = place(event)[0], old = fingers.get(event.pointerId);
    fingers.set(event.pointerId, x);
    say(event, "");
    if (fingers.size === 2) {
      const now = [...fingers.values()], wide = Math.max(8, Math.abs(now[0] - now[1]));
      zoom(Math.max(8, Math.abs(before[0] - before[1])) / wide, (now[0] + now[1]) / 2);
    } else show(from - (x - old) * (to - from) / (right - left), to - from);
  });
  for (const name of ["pointerup", "pointercancel"])
    canvas.addEventListener(name, (event) => {
      fingers.delete(event.pointerId);
      canvas.classList.remove("moving");
    });
  canvas.addEventListener("pointerleave", (event) => say(event, ""));
  canvas.addEventListener("dblclick", () => show(0, data.seconds));
  canvas.addEventListener("keydown", (event) => {
    const steps = {ArrowLeft: -0.2, ArrowRight: 0.2}, factors = {"+": 0.5, "=": 0.5, "-": 2};
    if (event.key in steps) show(from + steps[event.key] * (to - from), to - from);
    else if (event.key in factors) zoom(factors[event.key], (left + right) / 2);
    else if (event.key === "0") show(0, data.seconds);
    else return;
    event.preventDefault();
  });
  for (const button of document.querySelectorAll("[data-zoom]"))
    button.addEventListener("click", () => +button.dataset.zoom ? zoom(+button.dataset.zoom, (left + right) / 2) : show(0, data.seconds));

  const every = Math.max(1, ...lanes.map((lane) => lane.every));
  if (every > 1) document.getElementById("thinned").textContent =
    `A long run: of some phases one event in ${every} is drawn. Counts and totals are of all.`;
  show(0, data.seconds);
  if (lanes.length) keep(canvas, measure);
  else for (const id of ["timeline", "lanes"]) document.getElementById(id).remove();

  let width = 0;
  new ResizeObserver(() => {
    if (document.body.clientWidth !== width) redraw();
    width = document.body.clientWidth;
  }).observe(document.body);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  redraw();
  width = document.body.clientWidth;
  document.documentElement.dataset.ready = "yes";
})();
