"use strict";
// The page of a run, or of several side by side.

/** A section with a title, and in it a part for each run. */
function section(title, runs, part) {
  const parts = runs.map((run) => {
    const made = part(run);
    return element("div", {}, ...(runs.length > 1 ? [element("h3", {}, element("bdi", {}, run.name))] : []), ...made);
  });
  return element("section", {}, element("h2", {}, title), element("div", { className: "runs" }, ...parts));
}

/** A table of values by names, a column a run; rows that differ stand out. */
function table(title, runs) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.tables[title])))];
  const rows = names.map((name) => {
    const values = runs.map((run) => run.tables[title][name] ?? "–");
    const differs = values.some((value) => value !== values[0]);
    return element("tr", { className: differs ? "differs" : "" },
      element("th", { scope: "row" }, name), ...values.map((value) => element("td", {}, value)));
  });
  const heads = runs.map((run) => element("th", { scope: "col" }, element("bdi", {}, run.name)));
  const head = runs.length > 1 ? [element("tr", {}, element("th"), ...heads)] : [];
  return element("section", {}, element("h2", {}, title), element("div", { className: "scroll" }, element("table", {}, ...head, ...rows)));
}

/** A chart over epochs with its legend. */
function curve({ title, epochs, series }) {
  const legend = Object.keys(series).map((name, i) => element("span", { className: `line-${i % 4}` }, `— ${name}`));
  return element("figure", {}, element("figcaption", {}, title), lines(epochs, series, title),
    element("div", { className: "legend" }, ...legend));
}

/** Predicted over rated scores. */
function predicted(run) {
  const all = run.predictions;
  if (!all.length) return [element("p", { className: "note" }, "no predictions: the run has not ended")];
  const values = all.flatMap((one) => [one.rated, one.score]);
  const low = Math.floor(values.reduce((a, b) => Math.min(a, b)));
  const high = Math.max(Math.ceil(values.reduce((a, b) => Math.max(a, b))), low + 1);
  const canvas = element("canvas", { role: "img", ariaLabel: `predicted over rated scores of ${all.length} images` });
  const said = element("p", { className: "note", role: "status" }, "A click on a point names its image.");
  const tell = (one) => said.replaceChildren(element("bdi", {}, one.name), `: rated ${number(one.rated)}, predicted ${number(one.score)}`);
  const draw = () => scatter(canvas, all, low, high, tell);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  requestAnimationFrame(draw);
  return [canvas, said];
}

function notes(run) {
  const all = run.notes.map((note) => element("li", {}, note));
  return [all.length ? element("ul", { className: "notes" }, ...all) : element("p", { className: "note" }, "none")];
}

load("page").then(({ version, runs }) => {
  document.title = `${runs.map((run) => run.name).join(", ")}: report`;
  find("title").append(element("bdi", {}, runs.map((run) => run.name).join(", ")));
  find("status").textContent = `eat ${version}`;
  find("report").style.setProperty("--runs", runs.length);
  const some = (title) => runs.some((run) => Object.keys(run.tables[title]).length);
  find("report").append(
    ...["Metrics", "Slices"].filter(some).map((title) => table(title, runs)),
    section("Notes and log", runs, notes),
    section("Curves", runs, (run) => [element("div", { className: "charts" }, ...run.charts.map(curve))]),
    section("Predictions", runs, predicted),
    ...["Faults", "Options", "Environment"].filter(some).map((title) => table(title, runs)),
  );
  document.documentElement.dataset.complete = "";
}).catch((error) => {
  find("status").textContent = `The page is incomplete: ${error.message}.`;
});
