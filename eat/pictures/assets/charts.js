"use strict";
// Histogram, votes and scatter plot.

/** Count values in equal bins from low to high; what lies outside counts in the outermost. */
function bins(values, low, high, count) {
  const found = new Array(count).fill(0);
  for (const value of values) {
    const place = Math.floor(((value - low) / (high - low)) * count);
    found[Math.min(Math.max(place, 0), count - 1)] += 1;
  }
  return found;
}

/** A drawing with bars from series of counts, one over the other, and labels below. */
function bars(series, labels, title, pick) {
  const count = series[0].length;
  const most = Math.max(...series.flat(), 1e-9);
  const chart = drawn("svg", { viewBox: "0 0 200 76", class: "bars", role: "img", "aria-label": title });
  const width = 200 / count;
  series.forEach((values, i) =>
    values.forEach((value, k) => {
      const height = (60 * value) / most;
      const bar = { x: k * width + 0.5, y: 62 - height, width: Math.max(width - 1, 0.5), height, class: `series-${i}` };
      chart.append(drawn("rect", bar));
    }),
  );
  if (pick) {
    for (let k = 0; k < count; k++) {
      const area = drawn("rect", { x: k * width, y: 0, width, height: 62, class: "pick" });
      area.addEventListener("click", () => pick(k));
      chart.append(area);
    }
  }
  labels.forEach((label, k) => {
    const x = labels.length === count ? (k + 0.5) * width : (200 * k) / (labels.length - 1);
    const anchor = labels.length === count ? "middle" : ["start", "middle", "end"][Math.sign(k) + (k === labels.length - 1)];
    chart.append(drawn("text", { x, y: 73, "text-anchor": anchor }, label));
  });
  return chart;
}

/** A drawing with lines from series of numbers over epochs; null leaves a gap. */
function lines(epochs, series, title) {
  const values = Object.values(series).flat().filter((value) => value != null);
  const low = Math.min(...values), high = Math.max(...values, low + 1e-9);
  const last = Math.max(...epochs, 2);
  const right = (epoch) => 8 + (184 * (epoch - 1)) / (last - 1);
  const up = (value) => 92 - (80 * (value - low)) / (high - low);
  const chart = drawn("svg", { viewBox: "0 0 200 104", class: "lines", role: "img", "aria-label": title });
  Object.values(series).forEach((numbers, i) => {
    const there = numbers.map((value, k) => [epochs[k], value]).filter(([, value]) => value != null);
    const points = there.map(([epoch, value]) => `${right(epoch)},${up(value)}`).join(" ");
    chart.append(drawn("polyline", { points, class: `line-${i % 4}` }));
    for (const [epoch, value] of there.length < 2 ? there : []) {
      chart.append(drawn("circle", { cx: right(epoch), cy: up(value), r: 2, class: `line-${i % 4}` }));
    }
  });
  const text = (x, y, anchor, label) => chart.append(drawn("text", { x, y, "text-anchor": anchor }, label));
  if (values.length) {
    text(3, 8, "start", high.toPrecision(3));
    text(3, 102, "start", low.toPrecision(3));
  }
  text(197, 102, "end", `epoch ${last}`);
  return chart;
}

/** Draw predicted over rated scores on a canvas; a click opens the nearest photograph. */
function scatter(canvas, photographs, low, high, open) {
  const side = 320, margin = 26;
  const scale = window.devicePixelRatio || 1;
  canvas.width = canvas.height = side * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(canvas);
  const span = side - 2 * margin;
  const right = (value) => margin + (span * (value - low)) / (high - low);
  const up = (value) => side - right(value);
  pen.clearRect(0, 0, side, side);
  pen.strokeStyle = pen.fillStyle = style.getPropertyValue("--muted");
  pen.font = "11px system-ui, sans-serif";
  pen.strokeRect(margin, margin, span, span);
  pen.beginPath();
  pen.moveTo(right(low), up(low));
  pen.lineTo(right(high), up(high));
  pen.stroke();
  pen.fillText(`rated, ${low} to ${high}`, margin, side - 8);
  pen.fillText(`predicted, ${low} to ${high}`, margin, 14);
  pen.fillStyle = style.getPropertyValue("--accent");
  pen.globalAlpha = photographs.length > 2000 ? 0.25 : 0.6;
  for (const one of photographs) pen.fillRect(right(one.rated) - 1.5, up(one.score) - 1.5, 3, 3);
  canvas.onclick = (event) => {
    const distance = (one) => Math.hypot(right(one.rated) - event.offsetX, up(one.score) - event.offsetY);
    const nearest = photographs.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    if (distance(nearest) < 12) open(nearest);
  };
}
