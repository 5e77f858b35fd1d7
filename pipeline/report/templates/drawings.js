// Elements, numbers as text, and the two kinds of drawing. Text from the run goes in as text nodes
// and attributes, never as markup.

const LOSSES = ["total", "content", "style", "tv", "attention"];
const LEAST = -9; // log10 of what counts as no loss at all
const DECADES_BELOW = 2.5; // the least total, drawn of the other losses

function append(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}
const make = (tag, attributes = {}, ...children) =>
  append(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) =>
  append(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const grouped = (number) => number.toLocaleString("en");
const count = (number, word) => `${grouped(number)} ${word}${number === 1 ? "" : "s"}`;

function digits(value, places) {
  if (value === null) return "–";
  return value.toLocaleString("en", {
    minimumFractionDigits: places, maximumFractionDigits: places,
  });
}

function lossText(value) {
  if (value === null) return "–";
  return value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(1) : value.toPrecision(3);
}

// A row's loss curve: log10 of every loss by step, scales marked.
function drawCurve(row) {
  const [width, height, left, top, bottom] = [600, 250, 46, 20, 34];
  const right = width - 62, floor = height - bottom;
  const { steps, starts } = row.curve;
  const lines = LOSSES.map((name) => [name, levelsOf(row.curve[name])])
    .filter(([, levels]) => levels.some((level) => level > LEAST));
  if (!lines.length) return null;
  const levels = lines.flatMap(([, each]) => each).filter((level) => level > LEAST);
  // A term that begins at nothing, as content does, would flatten what matters.
  const low = Math.max(Math.min(...levels), Math.min(...lines[0][1]) - DECADES_BELOW);
  const high = Math.max(...levels, low + 0.5); // else noise fills the height
  const x = (step) => left + ((right - left) * step) / Math.max(1, steps - 1);
  const y = (level) => top + ((floor - top) * (high - level)) / (high - low);

  const [first, last] = [row.loss_first, row.loss_last].map(lossText);
  const svg = draw("svg", {
    class: "curve", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Loss from ${first} to ${last} in ${count(steps, "step")}`,
  });
  for (const [level, label] of ticks(low, high)) {
    svg.append(
      draw("line", { class: "axis", x1: left, x2: right, y1: y(level), y2: y(level) }),
      draw("text", { x: left - 8, y: y(level) + 4, "text-anchor": "end" }, label));
  }
  starts.forEach((step, i) => {
    const side = row.scales[i] ? `${Math.max(...row.scales[i].slice(0, 2))} px` : "";
    const at = x(step);
    if (step) svg.append(draw("line", { class: "scale", x1: at, x2: at, y1: top - 6, y2: floor }));
    svg.append(draw("text", { x: at + (step ? 4 : 0), y: top - 8 }, side));
  });
  svg.append(
    draw("text", { x: left, y: floor + 18 }, "step 1"),
    draw("text", { x: right, y: floor + 18, "text-anchor": "end" }, String(steps)));

  const ends = [];
  for (const [name, each] of lines.reverse()) { // the total on top
    const points = each.map((level, i) => [(i * (steps - 1)) / Math.max(1, each.length - 1), level])
      .filter(([, level]) => level >= low);
    if (!points.length) continue;
    const path = points.map(([step, level]) => `${x(step).toFixed(1)},${y(level).toFixed(1)}`);
    svg.append(draw("path", { class: name, d: `M${path.join("L")}` }));
    ends.push({ name, at: y(points[points.length - 1][1]) });
  }
  ends.sort((a, b) => a.at - b.at);
  ends.forEach((end, i) => {
    if (i) end.at = Math.max(end.at, ends[i - 1].at + 13); // names do not overlap
    svg.append(draw("text", { class: end.name, x: right + 8, y: end.at + 4 }, end.name));
  });
  return svg;
}

// From differences of 1000 * log10(loss), as report.py packs them.
function levelsOf(differences) {
  let level = 0;
  return differences.map((difference) => (level += difference) / 1000);
}

function ticks(low, high) {
  const steps = high - low > 2.5 ? [1] : [1, 2, 5];
  const found = [];
  for (let decade = Math.floor(low); decade <= high; decade += 1) {
    for (const step of steps) {
      const level = decade + Math.log10(step);
      const plain = Math.abs(decade) <= 3;
      const label = plain ? String(+(step * 10 ** decade).toPrecision(1)) : `${step}e${decade}`;
      if (level >= low && level <= high) found.push([level, label]);
    }
  }
  return found;
}

// A histogram with least, median and greatest value, into a figure; nothing of one value.
function drawHistogram(figure, values, places) {
  figure.hidden = values.length < 2;
  if (figure.hidden) return;
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [sorted[0], sorted[sorted.length - 1]];
  const median = (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
  const [width, height] = [400, 64];
  const x = (value) => (width * (value - low)) / (high - low || 1);

  const bins = Math.min(30, Math.max(6, Math.ceil(2 * Math.sqrt(values.length))));
  const bin = width / bins;
  const heights = new Array(bins).fill(0);
  for (const value of sorted) heights[Math.min(bins - 1, Math.floor(x(value) / bin))] += 1;
  const most = Math.max(...heights);
  const bars = heights.map((number, i) => {
    const tall = number && Math.max(1.5, (height * number) / most);
    const place = { x: i * bin, y: height - tall, width: bin - 1, height: tall };
    return draw("rect", place, draw("title", {}, count(number, "picture")));
  });
  const [least, middle, greatest] = [low, median, high].map((value) => digits(value, places));
  const text = (at, anchor, label) =>
    draw("text", { x: at, y: height + 15, "text-anchor": anchor }, label);
  figure.append(draw("svg", {
    viewBox: `0 0 ${width} ${height + 20}`, role: "img",
    "aria-label": `From ${least} to ${greatest}, median ${middle}`,
  },
  draw("g", { class: "bars" }, ...bars),
  draw("line", { class: "axis", x1: 0, x2: width, y1: height, y2: height }),
  draw("line", { class: "median", x1: x(median), x2: x(median), y1: 0, y2: height }),
  text(0, "start", least),
  text(Math.min(width - 95, Math.max(95, x(median))), "middle", `median ${middle}`),
  text(width, "end", greatest)));
}
