"use strict";
// One photograph: its votes, where the model looks, and its near-duplicates.

class Detail {
  /**
   * @param about what data/page.js says.
   * @param wishes functions: neighbour(photograph, step), group(photograph), mark(photograph, on),
   *   closed(photograph).
   */
  constructor(about, wishes) {
    Object.assign(this, { about, wishes, dialog: find("detail"), points: [] });
    find("detail-close").onclick = () => this.dialog.close();
    find("detail-previous").onclick = () => this.step(-1);
    find("detail-next").onclick = () => this.step(1);
    find("detail-overlay").onchange = () => this.draw();
    find("detail-mark").onchange = (event) => this.wishes.mark(this.photograph, event.target.checked);
    this.dialog.addEventListener("close", () => this.wishes.closed(this.photograph));
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    new ResizeObserver(() => this.draw()).observe(find("detail-points"));
    find("detail-overlay-label").hidden = !about.block;
    find("detail-block").textContent = about.block
      ? `The positions with the most attention in ${about.block}, of all heads; circles grow with their share.`
      : "This model samples no positions; there is nothing to lay over the photograph.";
    find("detail-overlay").checked = Boolean(about.block);
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    const boxes = { o: "detail-overlay", x: "detail-mark" };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) this.step(steps[event.key]);
    else if (event.key in boxes) find(boxes[event.key]).click();
    else return;
    event.preventDefault();
  }

  step(step) {
    const next = this.wishes.neighbour(this.photograph, step);
    if (next) this.open(next);
  }

  /** Show a photograph. */
  async open(photograph) {
    this.photograph = photograph;
    this.points = [];
    const { about } = this;
    const image = find("detail-photo");
    image.src = `thumbs/${photograph.thumb}`;
    image.alt = photograph.name;
    const ratio = photograph.width / photograph.height;
    this.dialog.style.setProperty("--ratio", ratio);
    find("detail-name").textContent = photograph.name;
    find("detail-folder").textContent = photograph.folder;
    find("detail-mark").checked = photograph.marked;
    find("detail-previous").disabled = !this.wishes.neighbour(photograph, -1);
    find("detail-next").disabled = !this.wishes.neighbour(photograph, 1);
    this.showScores();
    this.showGroup();
    find("detail-votes").replaceChildren();
    find("detail-note").textContent = "";
    this.draw();
    if (!this.dialog.open) this.dialog.showModal();
    const details = await load(`details-${Math.floor(photograph.place / about.details)}`);
    if (this.photograph !== photograph) return; // another was opened meanwhile
    const [link, points, votes, ratedVotes, note] = details[photograph.place % about.details];
    find("detail-link").href = link;
    find("detail-note").textContent = note;
    this.points = points;
    this.showVotes(votes, ratedVotes);
    this.draw();
    this.sharpen(image, link, photograph);
  }

  /** Show the photograph itself in place of its thumbnail, if it is where it was. */
  sharpen(image, link, photograph) {
    if (!this.about.upright) return; // the browser would turn it, and the model does not
    const probe = new Image();
    probe.onload = () => {
      const same = Math.abs(Math.log((probe.width / probe.height) * (photograph.height / photograph.width)));
      if (this.photograph === photograph && same < 0.1) image.src = link;
    };
    probe.src = link;
  }

  showScores() {
    const { score, rated, percentile } = this.photograph;
    const facts = [[rated == null ? "score" : "predicted", number(score)]];
    if (rated != null) facts.push(["rated", number(rated)], ["error", number(score - rated)]);
    find("detail-percentile").textContent = percentile == null ? ""
      : `higher than ${number(percentile, 0)}% of the scores of ${this.about.ranked_among}`;
    find("detail-scores").replaceChildren(
      ...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
    );
  }

  showVotes(votes, ratedVotes) {
    const { low, high } = this.about;
    const drawnVotes = [];
    for (const [title, shares] of [["predicted votes", votes], ["votes", ratedVotes]]) {
      if (!shares.length) continue;
      const labels = shares.length > 12 ? [`${low}`, `${high}`]
        : shares.map((_, k) => number(low + ((high - low) * k) / (shares.length - 1), 1).replace(/\.0$/, ""));
      const text = `${title}: ${shares.map((share, k) => `${labels[k] ?? ""} ${Math.round(100 * share)}%`).join(", ")}`;
      drawnVotes.push(element("h3", {}, title), bars([shares], labels, text));
    }
    find("detail-votes").replaceChildren(...drawnVotes);
  }

  showGroup() {
    const others = this.wishes.group(this.photograph);
    const box = find("detail-group");
    box.replaceChildren();
    if (others.length < 2) return;
    const buttons = others.map((one) => {
      const image = element("img", { src: `thumbs/${one.thumb}`, alt: one.name });
      const button = element("button", { type: "button" }, image, number(one.score));
      button.onclick = () => this.open(one);
      if (one === this.photograph) button.setAttribute("aria-current", "true");
      return button;
    });
    box.append(element("h3", {}, `${others.length} near-duplicates, the best first`),
      element("div", { className: "strip" }, ...buttons));
  }

  /** Draw where the model looks. */
  draw() {
    const canvas = find("detail-points");
    const scale = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    canvas.width = width * scale;
    canvas.height = height * scale;
    if (!find("detail-overlay").checked || !width) return;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const most = Math.max(...this.points.filter((_, i) => i % 3 === 2), 1);
    for (let i = 0; i < this.points.length; i += 3) {
      const [x, y, share] = this.points.slice(i, i + 3);
      const radius = (Math.sqrt(share / most) * Math.min(width, height)) / 24;
      pen.beginPath();
      pen.arc((x * width) / 1000, (y * height) / 1000, Math.max(radius, 2), 0, 2 * Math.PI);
      pen.fillStyle = "rgb(255 60 40 / 0.25)";
      pen.fill();
      pen.lineWidth = 3;
      pen.strokeStyle = "rgb(0 0 0 / 0.6)";
      pen.stroke();
      pen.lineWidth = 1.4;
      pen.strokeStyle = "rgb(255 220 210)";
      pen.stroke();
    }
  }
}
