"use strict";
// A grid of any length: only the cells in sight exist, and they are used again.

class Grid {
  /**
   * @param root the element that the cells go into; the window scrolls it.
   * @param makeCell makes an empty cell.
   * @param fillCell fills a cell with an item and its place.
   */
  constructor(root, makeCell, fillCell) {
    Object.assign(this, { root, makeCell, fillCell, items: [], cells: new Map(), spare: [] });
    this.current = 0; // the item that the keyboard is at
    addEventListener("scroll", () => this.render(), { passive: true });
    new ResizeObserver(() => this.measure()).observe(root);
    root.addEventListener("keydown", (event) => this.move(event));
    root.addEventListener("focusin", (event) => {
      const cell = event.target.closest("[data-place]");
      if (cell) this.setCurrent(Number(cell.dataset.place));
    });
  }

  /** Show other items. */
  show(items) {
    this.items = items;
    this.current = Math.min(this.current, Math.max(items.length - 1, 0));
    this.clear();
    this.measure();
  }

  clear() {
    for (const cell of this.cells.values()) this.drop(cell);
    this.cells.clear();
  }

  drop(cell) {
    cell.hidden = true;
    this.spare.push(cell);
  }

  /** Fit columns to the width. */
  measure() {
    const width = this.root.clientWidth;
    const columns = Math.max(2, Math.floor(width / 200));
    const cell = width / columns;
    if (columns !== this.columns || cell !== this.cell) this.clear();
    Object.assign(this, { columns, cell, row: Math.round(cell * 0.72 + 44) });
    this.root.style.height = `${Math.ceil(this.items.length / columns) * this.row}px`;
    this.render();
  }

  /** Bring the cells in sight into being. */
  render() {
    const top = -this.root.getBoundingClientRect().top;
    const first = Math.max(Math.floor(top / this.row) - 1, 0) * this.columns;
    const end = Math.min((Math.ceil((top + innerHeight) / this.row) + 1) * this.columns, this.items.length);
    for (const [place, cell] of this.cells) {
      if ((place < first || place >= end) && !cell.contains(document.activeElement)) {
        this.cells.delete(place);
        this.drop(cell);
      }
    }
    for (let place = first; place < end; place++) {
      if (!this.cells.has(place)) this.cells.set(place, this.place(place));
    }
    // Who reads by the order of the elements is to meet that of the items.
    let next = this.root.firstChild;
    for (const place of [...this.cells.keys()].sort((a, b) => a - b)) {
      const cell = this.cells.get(place);
      while (next?.hidden) next = next.nextSibling;
      if (cell === next) next = next.nextSibling;
      else this.root.insertBefore(cell, next);
    }
  }

  place(place) {
    const cell = this.spare.shift() ?? this.root.appendChild(this.makeCell());
    const x = (place % this.columns) * this.cell, y = Math.floor(place / this.columns) * this.row;
    cell.hidden = false;
    cell.dataset.place = place;
    cell.style.transform = `translate(${x}px, ${y}px)`;
    cell.style.width = `${this.cell}px`;
    cell.style.height = `${this.row}px`;
    cell.setAttribute("aria-posinset", place + 1);
    cell.setAttribute("aria-setsize", this.items.length);
    this.fillCell(cell, this.items[place], place);
    cell.querySelector("button").tabIndex = place === this.current ? 0 : -1;
    return cell;
  }

  /** Fill the cells in sight anew. */
  refill() {
    for (const [place, cell] of this.cells) this.fillCell(cell, this.items[place], place);
  }

  setCurrent(place) {
    for (const at of [this.current, place]) {
      const button = this.cells.get(at)?.querySelector("button");
      if (button) button.tabIndex = at === place ? 0 : -1;
    }
    this.current = place;
  }

  /** Put the keyboard's focus on an item, in sight. */
  focus(place) {
    const y = Math.floor(place / this.columns) * this.row + this.root.getBoundingClientRect().top;
    if (y < 0) scrollBy(0, y);
    if (y + this.row > innerHeight) scrollBy(0, y + this.row - innerHeight);
    this.render();
    this.setCurrent(place);
    this.cells.get(place)?.querySelector("button").focus({ preventScroll: true });
  }

  move(event) {
    const page = Math.max(Math.floor(innerHeight / this.row) - 1, 1) * this.columns;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns,
      PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step === undefined || event.target.tagName !== "BUTTON") return;
    event.preventDefault();
    this.focus(Math.min(Math.max(this.current + step, 0), this.items.length - 1));
  }
}
