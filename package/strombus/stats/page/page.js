"use strict";
// Draws the charts into the page; `lanes.js` draws the lanes. Numbers come ready from Python.

window.addEventListener("error", (event) => { document.documentElement.dataset.error = event.message; });
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");

function make(tag, attributes, parent, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const name in attributes) node.setAttribute(name, attributes[name]);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.appendChild(node);
  return node;
}

function html(tag, className, parent, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  if (parent) parent.appendChild(node);
  return node;
}

function say(event, text) {
  tip.textContent = text;
  tip.hidden = !text;
  if (!text) return;
  const x = event.clientX + 14, y = event.clientY + 16;
  tip.style.left = Math.max(4, x + tip.offsetWidth > innerWidth ? event.clientX - 14 - tip.offsetWidth : x) + "px";
  tip.style.top = (y + tip.offsetHeight > innerHeight ? event.clientY - 10 - tip.offsetHeight : y) + "px";
}

// -- numbers

function figure(value, unit) {
  if (value === null) return "none";
  const size = Math.abs(value);
  const digits = size >= 100 || Number.isInteger(value) && size < 1e6
    ? Math.round(value).toLocaleString("en") : size && size < 1e-3 ? value.toExponential(1) : String(+value.toPrecision(3));
  return unit ? `${digits} ${unit}` : digits;
}

function seconds(value, step) {
  const whole = step === undefined ? value : step;
  if (value === 0) return "0";
  if (whole >= 3600) return +(value / 3600).toFixed(2) + " h";
  if (whole >= 60) return +(value / 60).toFixed(2) + " min";
  if (whole >= 0.1 || value >= 10 && whole >= 0.001) return +value.toFixed(whole < 0.01 ? 3 : whole < 0.1 ? 2 : 1) + " s";
  return value < 1e-3 && whole < 1e-4 ? +(1e6 * value).toFixed(0) + " µs" : +(1e3 * value).toFixed(whole < 1e-3 ? 2 : 1) + " ms";
}

// Round places between two values, about `count` of them.
function ticks(low, high, count) {
  const raw = (high - low) / Math.max(1, count), power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found;
}

// Places of time that read well: halves of minutes and hours too.
function timeTicks(low, high, count) {
  const raw = (high - low) / Math.max(1, count);
  const step = [60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000, 86400].find((one) => one >= raw);
  if (raw < 30 || !step) return ticks(low, high, count);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
  return found;
}

// -- charts of lines

const HEIGHT = 190, BELOW = 22, ABOVE = 8;

function range(chart) {
  const values = chart.lines.flatMap((line) => line.y).concat(chart.band ? [...chart.band.low, ...chart.band.high] : []);
  const known = values.filter((value) => value !== null);
  let low = chart.floor === undefined ? Math.min(...known) : chart.floor, high = Math.max(...known);
  if (!known.length) [low, high] = [0, 1];
  // A single long event must not flatten all others: what is far above them runs out of the chart.
  if (chart.band) {
    const usual = chart.band.high.filter((value) => value !== null).sort((a, b) => a - b);
    const often = usual[Math.floor(0.95 * (usual.length - 1))];
    if (high > 3 * often && often > 0) high = 1.6 * often;
  }
  if (high <= low) [low, high] = [chart.floor === undefined ? low - (Math.abs(low) || 1) * 0.1 : low, high + (Math.abs(high) || 1) * 0.1];
  if (chart.floor === undefined) low -= 0.06 * (high - low);
  return [low, high + 0.06 * (high - low)];
}

function colour(line, number) {
  return line.name === "all" ? "var(--line-all)" : `var(--line-${number % 6})`;
}

function drawLines(box, chart) {
  const width = Math.max(160, box.clientWidth), [low, high] = range(chart);
  const rows = ticks(low, high, 4).filter((value) => value >= low && value <= high);
  const left = 10 + 6.4 * Math.max(...rows.map((value) => figure(value).length)), right = width - 10;
  const first = chart.x[0], last = Math.max(chart.x[chart.x.length - 1], first + 1e-9);
  const single = chart.x.length === 1;
  const atX = (x) => single ? (left + right) / 2 : left + (right - left) * (x - first) / (last - first);
  const atY = (y) => ABOVE + (HEIGHT - BELOW - ABOVE) * (1 - (Math.min(y, high) - low) / (high - low));
  const svg = make("svg", {viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT});
  for (const value of rows) {
    make("line", {class: "grid", x1: left, x2: right, y1: atY(value), y2: atY(value)}, svg);
    make("text", {x: left - 6, y: atY(value) + 4, "text-anchor": "end"}, svg, figure(value));
  }
  const byEpoch = chart.axis === "epoch", count = Math.max(2, Math.floor((right - left) / 90));
  let places = byEpoch ? ticks(first, last, count).filter(Number.isInteger) : timeTicks(first, last, count);
  if (byEpoch && single) places = [first];
  const step = places.length > 1 ? places[1] - places[0] : last - first;
  for (const value of places) {
    const x = atX(value), near = 22;
    const anchor = x < left + near ? "start" : x > right - near ? "end" : "middle";
    make("line", {class: "axis", x1: x, x2: x, y1: HEIGHT - BELOW, y2: HEIGHT - BELOW + 4}, svg);
    make("text", {x, y: HEIGHT - 5, "text-anchor": byEpoch ? "middle" : anchor}, svg, byEpoch ? String(value) : seconds(value, step));
  }
  make("line", {class: "axis", x1: left, x2: right, y1: HEIGHT - BELOW, y2: HEIGHT - BELOW}, svg);
  if (chart.band) {
    const edge = chart.x.map((x, i) => `${atX(x).toFixed(1)},${atY(chart.band.high[i]).toFixed(1)}`);
    const back = chart.x.map((x, i) => `${atX(x).toFixed(1)},${atY(chart.band.low[i]).toFixed(1)}`).reverse();
    make("polygon", {points: edge.concat(back).join(" "), fill: "var(--line-0)", opacity: 0.18}, svg);
  }
  chart.lines.forEach((line, number) => {
    let path = "", pen = "M";
    chart.x.forEach((x, i) => {
      if (line.y[i] === null) return;
      path += `${pen}${atX(x).toFixed(1)} ${atY(line.y[i]).toFixed(1)}`;
      pen = "L";
      if (chart.dots) make("circle", {cx: atX(x), cy: atY(line.y[i]), r: 3, fill: colour(line, number)}, svg);
    });
    make("path", {class: "curve", d: path || "M0 0", stroke: colour(line, number)}, svg);
  });
  svg.addEventListener("pointermove", (event) => {
    const x = (event.clientX - svg.getBoundingClientRect().left), at = first + (x - left) / (right - left) * (last - first);
    let nearest = 0;
    chart.x.forEach((value, i) => { if (Math.abs(value - at) < Math.abs(chart.x[nearest] - at)) nearest = i; });
    const head = byEpoch ? `epoch ${chart.x[nearest]}` : `at ${seconds(chart.x[nearest])}`;
    say(event, [head, ...chart.lines.map((line) => `${line.name}: ${figure(line.y[nearest], chart.unit)}`)].join("\n"));
  });
  svg.addEventListener("pointerleave", (event) => say(event, ""));
  box.replaceChildren(svg);
}

// -- histograms

function drawHistogram(box, chart) {
  const width = Math.max(160, box.clientWidth), left = 10, right = width - 10, most = Math.max(...chart.counts);
  const logs = chart.edges.map(Math.log10), low = logs[0], high = logs[logs.length - 1];
  const atX = (log) => left + (right - left) * (log - low) / (high - low);
  const svg = make("svg", {viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT});
  chart.counts.forEach((count, i) => {
    if (!count) return;
    const x = atX(logs[i]), tall = Math.max(1, (HEIGHT - BELOW - ABOVE) * count / most);
    const bar = make("rect", {class: "count", x, width: Math.max(1, atX(logs[i + 1]) - x - 1), y: HEIGHT - BELOW - tall, height: tall, fill: "var(--line-0)"}, svg);
    bar.addEventListener("pointermove", (event) =>
      say(event, `${figure(chart.edges[i])} to ${figure(chart.edges[i + 1])} ms\n${count.toLocaleString("en")} times`));
    bar.addEventListener("pointerleave", (event) => say(event, ""));
  });
  make("line", {class: "axis", x1: left, x2: right, y1: HEIGHT - BELOW, y2: HEIGHT - BELOW}, svg);
  let taken = -Infinity;
  for (const value of logTicks(chart.edges[0], chart.edges[chart.edges.length - 1])) {
    const x = atX(Math.log10(value)), label = seconds(value / 1e3), half = 3.2 * label.length;
    make("line", {class: "axis", x1: x, x2: x, y1: HEIGHT - BELOW, y2: HEIGHT - BELOW + 4}, svg);
    if (x - half < Math.max(0, taken + 8) || x + half > width) continue;
    make("text", {x, y: HEIGHT - 5, "text-anchor": "middle"}, svg, label);
    taken = x + half;
  }
  box.replaceChildren(svg);
}

function logTicks(low, high) {
  const found = [];
  const factors = high / low > 300 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const factor of factors) found.push(+(factor * 10 ** power).toPrecision(6));
  const inside = found.filter((value) => value >= low && value <= high);
  return inside.length > 1 ? inside : ticks(low, high, 2).filter((value) => value > 0);
}

// -- the timeline

function drawTimeline(box) {
  const lanes = data.timeline.lanes, width = Math.max(200, box.clientWidth), tall = lanes.length > 24 ? 14 : 26;
  const left = 10 + 7 * Math.max(...lanes.map((lane) => lane.name.length)), right = width - 12;
  const bottom = lanes.length * tall, svg = make("svg", {class: "timeline", viewBox: `0 0 ${width} ${bottom + 24}`, height: bottom + 24});
  lanes.forEach((lane, row) => {
    const group = make("g", {class: "lane", "shape-rendering": "crispEdges"}, svg), top = row * tall, full = tall - 4, slots = lane.shares.length;
    make("text", {class: "name", x: left - 8, y: top + full / 2 + 4, "text-anchor": "end"}, group, lane.name);
    make("rect", {x: left, width: right - left, y: top, height: full, fill: "var(--idle)"}, group);
    lane.shares.forEach((shares, slot) => {
      const x = left + (right - left) * slot / slots;
      let y = top + full;
      shares.forEach((share, i) => {
        if (share < 0.004) return;
        y -= share * full;
        make("rect", {class: "bar", x: x.toFixed(2), width: ((right - left) / slots + 0.3).toFixed(2), y: y.toFixed(2), height: (share * full).toFixed(2), fill: `var(--${data.groups[i]})`}, group);
      });
    });
    group.addEventListener("pointermove", (event) => {
      const slot = Math.floor(slots * (event.clientX - svg.getBoundingClientRect().left - left) / (right - left));
      if (!lane.shares[slot]) return say(event, "");
      const parts = data.groups.map((name, i) => [name, lane.shares[slot][i]]).filter((part) => part[1] > 0.004);
      const at = seconds(data.timeline.seconds * slot / slots, data.timeline.seconds / 100);
      say(event, [`${lane.name} at ${at}`, ...parts.map((part) => `${part[0]} ${(100 * part[1]).toFixed(0)} %`)].join("\n"));
    });
    group.addEventListener("pointerleave", (event) => say(event, ""));
  });
  const places = timeTicks(0, data.timeline.seconds, Math.max(2, Math.floor((right - left) / 110)));
  const step = places.length > 1 ? places[1] : data.timeline.seconds;
  for (const value of places) {
    const x = left + (right - left) * value / data.timeline.seconds;
    make("line", {class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 4}, svg);
    make("text", {x, y: bottom + 18, "text-anchor": x > right - 20 ? "end" : "middle"}, svg, seconds(value, step));
  }
  box.replaceChildren(svg);
}

// -- the page

const drawn = [];

function keep(box, draw) {
  drawn.push(() => draw(box));
}

function addChart(parent, chart, draw) {
  const outer = html("figure", "", parent);
  html("figcaption", "", outer, chart.unit ? `${chart.title} (${chart.unit})` : chart.title);
  keep(html("div", "chart", outer), (box) => draw(box, chart));
  const names = (chart.lines || []).map((line, i) => [line.name, colour(line, i), 1]);
  if (chart.band) names.push([chart.band.name, "var(--line-0)", 0.25]);
  if (names.length < 2) return;
  const key = html("ul", "key", outer);
  for (const [name, fill, opacity] of names) {
    const item = html("li", "", key), mark = html("i", "", item);
    mark.style.background = fill;
    mark.style.opacity = opacity;
    item.append(name);
  }
}

function addCharts(id, charts) {
  const section = document.getElementById(id);
  if (!charts.length) return section.remove();
  for (const chart of charts) addChart(section.querySelector(".charts"), chart, drawLines);
}

function addKeys() {
  const used = new Set(data.phases.map((phase) => phase.group));
  for (const key of document.querySelectorAll("[data-key]"))
    for (const group of data.groups.filter((name) => used.has(name))) {
      const item = html("li", "", key);
      html("i", "", item).style.background = `var(--${group})`;
      item.append(group);
    }
}

function addDurations() {
  const section = document.getElementById("durations");
  if (!data.durations.length) return section.remove();
  for (const one of data.durations) {
    const pair = html("div", "pair", section.querySelector(".pairs"));
    html("h3", "", pair, one.phase);
    addChart(pair, one.line, drawLines);
    addChart(pair, one.histogram, drawHistogram);
  }
}

function redraw() {
  for (const draw of drawn) draw();
}

if (data.lanes.length) {
  keep(document.querySelector("[data-chart=timeline]"), drawTimeline);
  addKeys();
}
addCharts("steps", data.steps);
addCharts("epochs", data.epochs);
addDurations();
