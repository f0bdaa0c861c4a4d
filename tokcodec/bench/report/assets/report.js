"use strict";
(() => {
  const data = JSON.parse(document.getElementById("chart-data").textContent);
  const frames = JSON.parse(document.getElementById("frame-data").textContent);
  const NS = "http://www.w3.org/2000/svg";
  const WIDTH = 520, HEIGHT = 330, LEFT = 56, RIGHT = 12, TOP = 12, BOTTOM = 42;
  const hidden = new Set();
  const clipChoice = document.getElementById("curve-clip");

  function node(name, attributes, parent, text) {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  function element(name, properties, parent) {
    const made = Object.assign(document.createElement(name), properties);
    if (parent) parent.append(made);
    return made;
  }

  function marker(codec, x, y, size, attributes, parent) {
    const shapes = {
      "x265": `M${x - size} ${y - size}h${2 * size}v${2 * size}h${-2 * size}z`,
      "x265-veryslow": `M${x} ${y - 1.35 * size}l${1.35 * size} ${1.35 * size}l${-1.35 * size} ${1.35 * size}l${-1.35 * size} ${-1.35 * size}z`,
      "svtav1": `M${x} ${y - 1.3 * size}l${1.25 * size} ${2.2 * size}h${-2.5 * size}z`,
      "vvenc": `M${x} ${y + 1.3 * size}l${1.25 * size} ${-2.2 * size}h${-2.5 * size}z`,
    };
    if (shapes[codec]) return node("path", { d: shapes[codec], ...attributes }, parent);
    return node("circle", { cx: x, cy: y, r: 1.1 * size, ...attributes }, parent);
  }

  // Points of a series, for the clip that is chosen or for the mean.
  function shown(series) {
    const points = clipChoice.value ? series.clips[clipChoice.value] || [] : series.mean;
    return points.filter((point) => point[1] !== null);
  }

  function rateTicks(low, high) {
    const ticks = [], digits = high / low < 8 ? [1, 1.5, 2, 3, 4, 5, 7] : [1, 2, 5];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1)
      for (const digit of digits) {
        const value = digit * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001) ticks.push(value);
      }
    return ticks;
  }

  function qualityTicks(low, high) {
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((value) => value >= rough);
    const ticks = [];
    for (let index = Math.ceil(low / step - 1e-9); index * step <= high + 1e-9 * step; index += 1) ticks.push(index * step);
    return { ticks, digits: Math.max(0, Math.ceil(-Math.log10(step) - 1e-9) + (/^2\.5/.test((step / power).toString()) ? 1 : 0)) };
  }

  function draw(chart, figure) {
    figure.querySelectorAll("svg, .empty, .tip").forEach((old) => old.remove());
    const visible = chart.series.filter((series) => !hidden.has(series.codec));
    const all = visible.flatMap(shown);
    if (!all.length) {
      element("div", { className: "empty", textContent: "No points for this choice." }, figure);
      return;
    }
    const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${chart.label} over bits per pixel` }, figure);
    const rates = all.map((point) => point[0]), values = all.map((point) => point[1]);
    let [low, high] = [Math.min(...rates) / 1.12, Math.max(...rates) * 1.12];
    let [bottom, top] = [Math.min(...values), Math.max(...values)];
    const room = (top - bottom || Math.abs(top) || 1) * 0.06;
    [bottom, top] = [bottom - room, top + room];
    const x = (rate) => LEFT + (WIDTH - LEFT - RIGHT) * Math.log(rate / low) / Math.log(high / low);
    const y = (value) => {
      const share = (value - bottom) / (top - bottom);
      return TOP + (HEIGHT - TOP - BOTTOM) * (chart.less ? share : 1 - share);
    };
    for (const tick of rateTicks(low, high)) {
      node("line", { class: "grid", x1: x(tick), x2: x(tick), y1: TOP, y2: HEIGHT - BOTTOM }, svg);
      node("text", { x: x(tick), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, svg, String(Number(tick.toPrecision(2))));
    }
    const { ticks, digits } = qualityTicks(bottom, top);
    for (const tick of ticks) {
      node("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) }, svg);
      node("text", { x: LEFT - 7, y: y(tick) + 4, "text-anchor": "end" }, svg, tick.toFixed(digits));
    }
    node("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, svg, "bits per pixel");
    const tip = element("div", { className: "tip", hidden: true }, figure);
    const say = (target, series, point, what) => {
      const lines = [series.label, what, `${point[0].toPrecision(3)} bits per pixel`, `${chart.label} ${point[1].toFixed(chart.digits)}${chart.unit ? " " + chart.unit : ""}`];
      target.setAttribute("data-tip", lines.filter(Boolean).join("\n"));
      target.addEventListener("pointerenter", () => {
        tip.innerText = lines.filter(Boolean).join("\n");
        tip.hidden = false;
        const box = figure.getBoundingClientRect(), spot = target.getBoundingClientRect();
        tip.style.left = `${Math.min(spot.left - box.left + 14, box.width - tip.offsetWidth)}px`;
        tip.style.top = `${Math.max(0, spot.top - box.top - tip.offsetHeight - 6)}px`;
      });
      target.addEventListener("pointerleave", () => { tip.hidden = true; });
    };
    const order = [...visible].sort((one, two) => (one.codec === "tokcodec") - (two.codec === "tokcodec"));
    for (const series of order) {
      const colour = data.codecs[series.codec].colour, points = shown(series);
      const line = (some, kind) => some.length > 1 && node("polyline", { class: `curve ${kind}`, stroke: colour, points: some.map((point) => `${x(point[0])},${y(point[1])}`).join(" ") }, svg);
      const full = points.filter((point) => !point[3]);
      if (full.length < points.length) line(points, "partial");
      line(full, series.codec === "tokcodec" ? "own" : "");
      for (const point of points) {
        const look = point[3] ? { class: "point hollow", style: `stroke: ${colour}` } : { class: "point", fill: colour };
        const what = clipChoice.value ? point[2] : ["mean over clips", point[2]].filter(Boolean).join("\n");
        say(marker(series.codec, x(point[0]), y(point[1]), 4, { ...look, "data-codec": series.codec }, svg), series, point, what);
        if (point[3]) node("text", { class: "part", x: x(point[0]) + 8, y: y(point[1]) + 13 }, svg, point[3]);
      }
    }
  }

  const figures = data.charts.map((chart) => {
    const figure = element("figure", {}, document.getElementById("charts"));
    figure.dataset.metric = chart.metric;
    const caption = element("figcaption", { textContent: `${chart.label}${chart.unit ? ", " + chart.unit : ""} ` }, figure);
    element("span", { textContent: chart.less ? "less is better, axis upside down" : "more is better" }, caption);
    element("span", { className: "variants", textContent: "" }, caption);
    const variants = chart.series.filter((series) => series.label.includes(",")).map((series) => series.label);
    if (variants.length) caption.lastChild.textContent = ` · ${variants.join("; ")}`;
    return figure;
  });
  const drawAll = () => data.charts.forEach((chart, index) => draw(chart, figures[index]));

  const legend = document.getElementById("legend");
  for (const [codec, look] of Object.entries(data.codecs)) {
    const label = element("label", {}, legend);
    const box = element("input", { type: "checkbox", checked: true, value: codec }, label);
    element("i", {}, label).style.borderColor = look.colour;
    label.append(look.label);
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(codec); else hidden.add(codec);
      drawAll();
    });
  }
  clipChoice.addEventListener("change", drawAll);
  drawAll();

  if (!frames.length) return;
  const stage = document.getElementById("stage"), slider = document.getElementById("slider");
  const choices = { clip: document.getElementById("frame-clip"), left: document.getElementById("frame-left"), right: document.getElementById("frame-right") };
  const zoom = document.getElementById("frame-zoom");
  const fill = (select, options, wanted) => {
    select.replaceChildren(...options.map(([value, label]) => element("option", { value, textContent: label })));
    if (options.some(([value]) => value === wanted)) select.value = wanted;
  };

  function slide() {
    const share = Number(slider.value);
    document.getElementById("picture-left").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    document.getElementById("divider").style.left = `${share}%`;
    slider.setAttribute("aria-valuetext", `${Math.round(share)}% left`);
  }

  function ofClip() {
    return frames.filter((frame) => frame.clip === choices.clip.value);
  }

  function caption(frame) {
    return frame.bits_per_pixel === null ? frame.label : `${frame.label}, ${frame.bits_per_pixel.toFixed(4)} bits per pixel`;
  }

  function show() {
    const pair = {};
    for (const side of ["left", "right"]) {
      const frame = ofClip().find((one) => one.codec === choices[side].value);
      pair[side] = frame;
      const image = document.getElementById(`picture-${side}`);
      image.src = frame.uri;
      image.alt = `${frame.clip}, frame ${frame.frame}, ${caption(frame)}`;
      document.getElementById(`caption-${side}`).textContent = caption(frame);
    }
    const [left, right] = [pair.left.bits_per_pixel, pair.right.bits_per_pixel];
    const difference = left && right ? 100 * (right / left - 1) : 0;
    document.getElementById("rate-note").textContent =
      left && right ? `The right one has ${Math.abs(difference).toFixed(1)}% ${difference < 0 ? "less" : "more"} rate than the left one.` : "";
    resize();
  }

  function resize() {
    const image = document.getElementById("picture-right"), factor = Number(zoom.value);
    stage.classList.toggle("large", factor > 1);
    stage.style.width = factor && image.naturalWidth ? `${factor * image.naturalWidth / window.devicePixelRatio}px` : "100%";
  }

  function chooseClip() {
    const options = ofClip().map((frame) => [frame.codec, frame.label]);
    const others = options.map(([codec]) => codec);
    const left = choices.left.value || (others.includes("x265") ? "x265" : "original");
    const right = choices.right.value || (others.includes("tokcodec") ? "tokcodec" : others.findLast((codec) => codec !== left) || left);
    fill(choices.left, options, left);
    fill(choices.right, options, right);
    show();
  }

  fill(choices.clip, [...new Set(frames.map((frame) => frame.clip))].map((clip) => [clip, clip]));
  choices.clip.addEventListener("change", chooseClip);
  choices.left.addEventListener("change", show);
  choices.right.addEventListener("change", show);
  zoom.addEventListener("change", resize);
  document.getElementById("picture-right").addEventListener("load", resize);
  slider.addEventListener("input", slide);
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    slider.value = 100 * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    slide();
  };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    follow(event);
    event.preventDefault();
  });
  stage.addEventListener("pointermove", (event) => {
    if (event.buttons) follow(event);
  });
  chooseClip();
  slide();
})();
