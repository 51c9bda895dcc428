"use strict";
// What the pages share: data from files, elements, numbers, and files to save.
// Texts of others, such as file names, become text nodes and never HTML.

const received = new Map();

/** Take in data: each file in data/ consists of one such call. */
function receive(name, value) {
  received.set(name, value);
}

/** Load data/NAME.js as a script, as a browser reads no other data from the disk. */
function load(name) {
  return new Promise((resolve, reject) => {
    if (received.has(name)) return resolve(received.get(name));
    const script = element("script", { src: `data/${name}.js` });
    script.onload = () => resolve(received.get(name));
    script.onerror = () => reject(new Error(`data/${name}.js cannot be read`));
    document.head.append(script);
  });
}

/** Find an element by its id. */
function find(id) {
  return document.getElementById(id);
}

/** Make an element with properties, or attributes where it has no such property. */
function element(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Make an element of a drawing. */
function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A number with two digits after the point; a dash for none. */
function number(value, digits = 2) {
  return value == null ? "–" : value.toFixed(digits).replace(/^-(?=[0.]+$)/, "");
}

/** A count with its noun. */
function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** Rows as CSV. */
function csv(rows) {
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  return rows.map((row) => row.map((value) => cell(String(value))).join(",") + "\r\n").join("");
}

/** Let the user save a text as a file. */
function save(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
