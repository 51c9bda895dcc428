"use strict";
// The gallery: filters, order, groups of near-duplicates, marks and export.

const BINS = 27;
const ORDERS = {
  best: ["best first", (a, b) => b.score - a.score],
  worst: ["worst first", (a, b) => a.score - b.score],
  name: ["by name", (a, b) => a.rank - b.rank],
};
const RATED_ORDERS = {
  wrong: ["largest errors first", (a, b) => Math.abs(b.score - b.rated) - Math.abs(a.score - a.rated)],
  over: ["rated too high first", (a, b) => b.score - b.rated - (a.score - a.rated)],
  under: ["rated too low first", (a, b) => a.score - a.rated - (b.score - b.rated)],
  rated: ["rated best first", (a, b) => b.rated - a.rated],
};

class Gallery {
  constructor(about) {
    this.about = about;
    this.photographs = [];
    this.shown = [];
    this.groups = new Map();
    this.orders = about.rated ? { ...RATED_ORDERS, ...ORDERS } : ORDERS;
    this.grid = new Grid(find("grid"), () => this.makeCell(), (cell, one) => this.fillCell(cell, one));
    this.detail = new Detail(about, {
      neighbour: (one, step) => this.shown[this.shown.indexOf(one) + step],
      group: (one) => this.groups.get(one.group),
      mark: (one, on) => this.mark(one, on),
      closed: (one) => this.grid.focus(Math.max(this.shown.indexOf(one), 0)),
    });
    this.introduce();
    this.listen();
  }

  /** Say what the page shows. */
  introduce() {
    const { title, model, checkpoint, trained_on, rated, count, errors, low, high, version } = this.about;
    document.title = `${title}: gallery`;
    find("title").append(element("bdi", {}, title));
    const from = rated ? `${rated.title}. ` : "";
    find("about").textContent = `${from}${counted(count, "photograph")} scored ${low} to ${high} by ${model}, ` +
      `trained on ${trained_on} (${checkpoint}). eat ${version}.`;
    find("order").append(...Object.entries(this.orders).map(([value, [text]]) => element("option", { value }, text)));
    find("grouped").checked = !rated;
    find("grouped").defaultChecked = !rated;
    for (const id of ["low", "high"]) Object.assign(find(id), { min: low, max: high, placeholder: this.about[id] });
    if (errors.length) {
      find("errors").hidden = false;
      find("errors").firstChild.textContent = `${counted(errors.length, "photograph")} could not be scored`;
      find("errors").lastChild.append(...errors.map((text) => element("li", {}, element("bdi", {}, text))));
    }
    if (rated) this.showRatings(rated);
  }

  showRatings({ metrics, slices }) {
    find("ratings").hidden = false;
    find("ratings").open = true;
    const columns = { images: "images", srcc: "SRCC", plcc: "PLCC", accuracy: "accuracy", emd: "EMD", error: "mean error", bias: "bias" };
    const used = Object.keys(columns).filter((key) => key in metrics);
    const row = (head, values) => element("tr", {}, element("th", { scope: "row" }, head),
      ...used.map((key) => element("td", {}, key === "images" ? values[key] : number(values[key], 3))));
    find("metrics").append(
      element("tr", {}, element("th", { scope: "col" }, "slice"), ...used.map((key) => element("th", { scope: "col" }, columns[key]))),
      row("all", metrics),
      ...slices.map((slice, i) => {
        const button = element("button", { type: "button", className: "link" }, `${slice.column}: ${slice.slice}`);
        button.onclick = () => { find("slice").value = i; this.refresh(); };
        return row(button, slice);
      }),
    );
    find("slice-label").hidden = !slices.length;
    find("slice").append(element("option", { value: "" }, "all"),
      ...slices.map((slice, i) => element("option", { value: i }, `${slice.column}: ${slice.slice} (${slice.images})`)));
  }

  listen() {
    const form = find("filters");
    const narrow = matchMedia("(max-width: 760px)"); // where the filters would hide the photographs
    const fold = () => { find("filter-box").open = !narrow.matches; };
    narrow.addEventListener("change", fold);
    fold();
    form.addEventListener("input", () => this.refresh());
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(() => this.refresh()));
    find("export").onclick = () => this.export();
    find("unmark").onclick = () => {
      for (const one of this.photographs) one.marked = false;
      this.marksChanged();
    };
    find("grid").addEventListener("keydown", (event) => {
      const one = this.shown[this.grid.current];
      if (event.key === "x" && one && event.target.tagName === "BUTTON") this.mark(one, !one.marked);
    });
  }

  /** Take in more photographs. */
  add(rows) {
    for (const [name, folder, thumb, width, height, score, group, percentile, rated, slices] of rows) {
      const parent = this.about.folders[folder];
      const one = { name, folder: parent, thumb, width, height, score, group, percentile, rated, slices, marked: false };
      one.image = parent === "." ? name : parent.endsWith("/") ? parent + name : `${parent}/${name}`;
      one.lower = one.image.toLowerCase();
      one.place = this.photographs.push(one) - 1;
      if (!this.groups.has(group)) this.groups.set(group, []);
      this.groups.get(group).push(one);
    }
  }

  /** All are there. */
  complete() {
    const named = [...this.photographs].sort((a, b) => (a.image < b.image ? -1 : 1));
    named.forEach((one, rank) => { one.rank = rank; });
    for (const group of this.groups.values()) group.sort((a, b) => b.score - a.score);
    this.listFolders();
    if (this.about.rated) {
      const { low, high } = this.about;
      const draw = () => scatter(find("scatter"), this.photographs, low, high, (one) => this.detail.open(one));
      find("scatter").setAttribute("aria-label", `predicted over rated scores of ${counted(this.photographs.length, "photograph")}`);
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
      draw();
    }
    this.refresh();
  }

  /** Offer every folder, and those above that hold several. */
  listFolders() {
    const counts = new Map();
    for (const { folder } of this.photographs) {
      const parts = folder.split("/");
      for (let depth = 1; depth <= parts.length; depth++) {
        const above = parts.slice(0, depth).join("/");
        counts.set(above, (counts.get(above) ?? 0) + 1);
      }
    }
    const all = this.photographs.length;
    const own = new Set(this.about.folders);
    const listed = [...counts].filter(([folder, count]) => folder && (own.has(folder) || count < all)).sort();
    find("folder").replaceChildren(element("option", { value: "" }, "all"),
      ...listed.map(([value, count]) => element("option", { value }, `${value} (${count})`)));
  }

  /** Whether a photograph passes the filters other than that of the score. */
  passes(one, { folder, slice, name }) {
    return (!folder || one.folder === folder || one.folder.startsWith(`${folder}/`))
      && (slice === "" || one.slices.includes(Number(slice)))
      && (!name || one.lower.includes(name));
  }

  /** Show what the filters leave. */
  refresh() {
    const wanted = { folder: find("folder").value, slice: find("slice").value, name: find("name").value.toLowerCase() };
    const [from, to] = [find("low").valueAsNumber, find("high").valueAsNumber];
    const passing = this.photographs.filter((one) => this.passes(one, wanted));
    const chosen = passing.filter(({ score }) => !(score < from) && !(score > to));
    const best = new Map();
    for (const one of chosen) {
      one.alike = 0;
      const key = find("grouped").checked ? one.group : one;
      const other = best.get(key);
      if (!other || one.score > other.score) best.set(key, one);
    }
    if (find("grouped").checked) for (const one of chosen) best.get(one.group).alike += 1;
    this.chosen = chosen;
    this.shown = [...best.values()].sort(this.orders[find("order").value][1]);
    this.drawHistogram(passing);
    this.grid.show(this.shown);
    this.tell();
  }

  drawHistogram(passing) {
    const { low, high } = this.about;
    const count = (photographs) => bins(photographs.map((one) => one.score), low, high, BINS);
    const edge = (k) => low + ((high - low) * k) / BINS;
    const pick = (k) => {
      const value = [edge(k).toFixed(2), edge(k + 1).toFixed(2)];
      const same = find("low").value === value[0] && find("high").value === value[1];
      [find("low").value, find("high").value] = same ? ["", ""] : value;
      this.refresh();
    };
    const text = `Histogram of ${counted(passing.length, "score")}`;
    const chart = bars([count(passing), count(this.chosen)], [`${low}`, `${(low + high) / 2}`, `${high}`], text, pick);
    find("histogram").replaceChildren(chart);
  }

  /** Say how many are shown, and marked. */
  tell() {
    const { count } = this.about;
    const marked = this.photographs.filter((one) => one.marked).length;
    const loading = this.photographs.length < count ? `, ${this.photographs.length} loaded` : "";
    const grouped = this.shown.length < this.chosen.length ? ` in ${counted(this.shown.length, "group")}` : "";
    find("status").textContent = `${this.chosen.length} of ${counted(count, "photograph")}${grouped}${loading}` +
      (marked ? `, ${marked} marked` : "") + (this.about.rated ? ". Below each: predicted / rated" : "");
    find("export").textContent = marked ? `Export ${marked} marked` : "Export CSV";
    find("unmark").hidden = !marked;
  }

  makeCell() {
    const image = element("img", { decoding: "async", alt: "" });
    const open = element("button", { type: "button", className: "open" }, image, element("span", { className: "badge" }));
    const box = element("input", { type: "checkbox", tabIndex: -1 });
    const label = element("label", {}, box, element("b"), element("bdi"));
    const cell = element("div", { className: "cell", role: "listitem" }, open, label);
    open.onclick = () => this.detail.open(cell.photograph);
    box.onchange = () => this.mark(cell.photograph, box.checked);
    return cell;
  }

  fillCell(cell, one) {
    const [open, label] = cell.children;
    const [image, badge] = open.children;
    const [box, score, name] = label.children;
    if (cell.photograph !== one) {
      image.removeAttribute("src"); // or else the last photograph stands there until this is loaded
      image.src = `thumbs/${one.thumb}`;
    }
    cell.photograph = one;
    const words = one.rated == null ? `score ${number(one.score)}` : `predicted ${number(one.score)}, rated ${number(one.rated)}`;
    image.alt = `${one.name}, ${words}`;
    badge.textContent = one.alike > 1 ? `${one.alike} alike` : "";
    box.checked = one.marked;
    box.setAttribute("aria-label", `mark ${one.name}`);
    score.textContent = one.rated == null ? number(one.score) : `${number(one.score)} / ${number(one.rated)}`;
    name.textContent = name.title = one.name;
    cell.classList.toggle("marked", one.marked);
  }

  mark(one, on) {
    one.marked = on;
    this.marksChanged();
  }

  marksChanged() {
    this.grid.refill();
    this.tell();
  }

  /** Save the marked photographs, or all that the filters leave, in the order shown. */
  export() {
    const marked = this.photographs.filter((one) => one.marked);
    const rows = (marked.length ? marked : [...this.chosen]).sort(this.orders[find("order").value][1]);
    const head = ["image", "score", ...(this.about.ranked_among ? ["percentile"] : []), ...(this.about.rated ? ["rated"] : []), "group"];
    save("selection.csv", csv([head, ...rows.map((one) => head.map((name) => one[name]))]));
  }
}

async function start() {
  const about = await load("page");
  const gallery = new Gallery(about);
  for (let i = 0; i * about.chunk < about.count; i++) {
    gallery.add(await load(`photographs-${i}`));
    if (i === 0) gallery.refresh(); // the rest comes in while the first are looked at
  }
  gallery.complete();
  document.documentElement.dataset.complete = "";
}

start().catch((error) => {
  find("status").textContent = `The page is incomplete: ${error.message}.`;
});
