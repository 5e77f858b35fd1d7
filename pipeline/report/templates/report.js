"use strict";
{
{% include "drawings.js" %}

// The table: which rows are shown, in which order, on which page.

const PAGE = 50; // rows; more are slow to read, not to draw
const STYLES_SHOWN = 4; // of a blend
const STATUSES = ["ok", "cached", "failed", "deferred"];

const find = (id) => document.getElementById(id);
const data = JSON.parse(find("data").textContent);
const columns = Object.entries(data.columns);
const rows = data.columns.manifest_line.map((_, i) =>
  Object.fromEntries(columns.map(([key, values]) => [key, values[i]])));
const byLine = new Map(rows.map((row) => [row.manifest_line, row]));

const base = (path) => path.split("/").pop();
const pathOf = (index) => (index === null ? "" : data.files[index][0]);
const stylesOf = (row) => row.styles.map(([index]) => base(pathOf(index))).join(", ");
const gigabytes = (row) => row.peak_memory_bytes === null ? null : row.peak_memory_bytes / 1e9;

const COLUMNS = [
  { title: "Line", key: (row) => row.manifest_line },
  { title: "Content", key: (row) => base(pathOf(row.content)).toLowerCase() },
  { title: "Style", key: (row) => stylesOf(row).toLowerCase() },
  { title: "Result", key: (row) => (row.output || "").toLowerCase() },
  { title: "Status", key: (row) => STATUSES.indexOf(row.status) },
  { title: "Size, px", key: (row) => row.width && row.width * row.height,
    text: (row) => (row.width ? `${row.width} × ${row.height}` : "–") },
  { title: "Loss", key: (row) => row.loss_last, text: (row) => lossText(row.loss_last) },
  { title: "Seconds", key: (row) => row.seconds_total,
    text: (row) => digits(row.seconds_total, 1) },
  { title: "Optimizing", key: (row) => row.seconds_optimize,
    text: (row) => digits(row.seconds_optimize, 1) },
  { title: "Memory, GB", key: gigabytes, text: (row) => digits(gigabytes(row), 2) },
  // What no picture has, as engines differ, is left out.
].filter((column) => !["Loss", "Optimizing"].includes(column.title)
  || rows.some((row) => column.key(row) !== null));
const NUMBERS = COLUMNS.filter((column) => column.text);

const state = { status: "", search: "", group: null, sort: 0, down: false, page: 0, target: null };
let shown = rows;

function searchable(row) {
  row.searchable ??= [
    row.manifest_line, row.job_id, row.status, row.output, row.error_type, row.error_message,
    pathOf(row.content), ...row.styles.map(([index]) => pathOf(index)),
  ].join("\n").toLowerCase();
  return row.searchable;
}

function select() {
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const lines = state.group && new Set(state.group.lines);
  const { key } = COLUMNS[state.sort];
  const sign = state.down ? -1 : 1;
  shown = rows
    .filter((row) => (!state.status || row.status === state.status)
      && (!lines || lines.has(row.manifest_line))
      && words.every((word) => searchable(row).includes(word)))
    .map((row) => [key(row), row])
    .sort(([a, first], [b, second]) => {
      // What has no value comes last, whichever way.
      const missing = (a === null || a === "") - (b === null || b === "");
      return missing || sign * ((a > b) - (a < b)) || first.manifest_line - second.manifest_line;
    })
    .map(([, row]) => row);
}

// Cells

// Names may break behind their separators.
const nameOf = (text) => make("span", { class: "name" },
  ...text.split(/(?<=[/_-])/).flatMap((part) => [part, make("wbr")]));

function picture(index, text) {
  const [path, link] = data.files[index];
  const parts = [image(index), nameOf(text)];
  return link === null
    ? make("span", { title: path }, ...parts)
    : make("a", { href: link, title: path }, ...parts);
}

function image(index) {
  const [path, link, thumbnail] = data.files[index];
  const seen = link !== null && !/^(s3|gs):/.test(link); // by browsers
  const source = thumbnail ?? (seen ? link : ""); // "": it cannot be read
  const missing = () => make("span", { class: "missing" });
  if (!source) return missing();
  return make("img", {
    src: source, alt: base(path), loading: "lazy", decoding: "async",
    onerror: (event) => event.target.replaceWith(missing()),
  });
}

function styles(row) {
  if (row.styles.length < 2) {
    return row.styles.map(([index]) => picture(index, base(pathOf(index))));
  }
  const sum = row.styles.reduce((total, [, weight]) => total + weight, 0);
  const rest = row.styles.length - STYLES_SHOWN;
  const parts = row.styles.slice(0, STYLES_SHOWN).map(([index, weight]) =>
    picture(index, `${base(pathOf(index))} ${Math.round((100 * weight) / sum)} %`));
  return [make("div", { class: "blend" }, ...parts), rest > 0 ? `and ${rest} more` : null];
}

function tableRow(row) {
  const line = row.manifest_line;
  const element = make("tr", { class: line === state.target ? "target" : null });
  const toggle = make("button", {
    type: "button", "aria-expanded": "false", "aria-label": `Line ${line}, details`,
    onclick: () => {
      const opened = element.classList.toggle("opened");
      toggle.setAttribute("aria-expanded", String(opened));
      if (opened) element.after(details(row));
      else element.nextSibling.remove();
    },
  }, String(line));
  const cell = (...children) => make("td", { class: "picture" }, ...children);
  const error = make("span", { class: row.status }, row.error_message || "–");
  element.append(
    make("td", { class: "line" }, toggle),
    cell(row.content === null ? "–" : picture(row.content, base(pathOf(row.content)))),
    cell(...styles(row)),
    cell(row.result === null ? error : picture(row.result, row.output)),
    make("td", {}, make("span", { class: `status ${row.status}` }, row.status)),
    ...NUMBERS.map((column) => make("td", { class: "number" }, column.text(row))));
  return element;
}

const TOLD = new Set([
  "loss_first", "loss_last", "loss_content", "loss_style", "loss_tv", "loss_attention",
]);
const titleOf = (name) => name[0].toUpperCase() + name.slice(1).replaceAll("_", " ");

// What opens under a row.
function details(row) {
  const terms = ["content", "style", "tv", "attention"].filter((term) => row[`loss_${term}`])
    .map((term) => `${term} ${lossText(row[`loss_${term}`])}`);
  const facts = {
    Id: row.job_id,
    Error: row.error_type && `${row.error_type}: ${row.error_message}`,
    "File at fault": row.error_path,
    Losses: row.loss_last !== null
      && `${lossText(row.loss_first)} → ${lossText(row.loss_last)}: ${terms.join(", ")}`,
    Begun: row.started_at && `${row.started_at} UTC`,
    Ended: row.finished_at && `${row.finished_at} UTC`,
    "Computed on": row.device && `${row.device}, ${row.precision}`,
    Batch: row.batch_size > 1 && `${row.batch_size} pictures, which share its seconds`,
    Seed: row.seed === null ? "" : String(row.seed),
    "Spec hash": row.spec_hash,
  };
  for (const name of data.figures.filter((each) => !TOLD.has(each) && row[each] !== null)) {
    facts[titleOf(name)] = String(row[name]);
  }
  const list = make("dl", { class: "facts" });
  for (const [title, text] of Object.entries(facts).filter(([, each]) => each)) {
    list.append(make("dt", {}, title), make("dd", { class: "path" }, text));
  }
  return make("tr", { class: "more" }, make("td", { colspan: COLUMNS.length },
    make("div", { class: "inside" },
      row.curve && drawCurve(row), make("div", {}, list, scalesTable(row)))));
}

function scalesTable(row) {
  if (!row.scales.length) return null;
  const titles = ["Scale, px", "Steps", "Seconds", "Ended by"].map((title) =>
    make("th", { scope: "col" }, title));
  const lines = row.scales.map(([height, width, steps, , seconds, reason]) =>
    [`${width} × ${height}`, String(steps), digits(seconds, 1), reason]);
  return make("table", { class: "plain" },
    make("thead", {}, make("tr", {}, ...titles)),
    make("tbody", {}, ...lines.map((line) =>
      make("tr", {}, ...line.map((text) => make("td", {}, text))))));
}

// The page

function showHead() {
  const cells = COLUMNS.map((column, i) => make("th", {
    scope: "col", class: column.text ? "number" : null,
    "aria-sort": state.sort === i ? (state.down ? "descending" : "ascending") : null,
  }, make("button", { type: "button", onclick: () => sortBy(i) }, column.title)));
  find("rows").tHead.replaceChildren(make("tr", {}, ...cells));
}

function showBody() {
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  const start = state.page * PAGE;
  const page = shown.slice(start, start + PAGE);
  find("rows").tBodies[0].replaceChildren(...page.map(tableRow));
  find("shown").textContent = page.length
    ? `${grouped(start + 1)}–${grouped(start + page.length)} of ${count(shown.length, "row")}`
    : "no rows";
  find("page").textContent = `Page ${state.page + 1} of ${pages}`;
  find("previous").disabled = state.page === 0;
  find("next").disabled = state.page === pages - 1;
  document.querySelector(".pager").hidden = pages === 1;
}

function showFilters() {
  const buttons = ["", ...STATUSES].map((status) => {
    const number = rows.filter((row) => !status || row.status === status).length;
    const name = status || "all";
    return number || !status ? make("button", {
      type: "button", "data-status": name, "aria-pressed": String(state.status === status),
      onclick: () => update({ status, target: null }, `[data-status=${name}]`),
    }, `${name} ${grouped(number)}`) : "";
  });
  find("statuses").replaceChildren(...buttons);
  find("group").hidden = !state.group;
  find("group").textContent = state.group ? `✕ ${state.group.label}` : "";
  find("search").value = state.search;
}

function update(changes, focus = null) {
  Object.assign(state, { page: 0 }, changes);
  select();
  showHead();
  showFilters();
  showBody();
  if (focus) document.querySelector(focus).focus();
}

function sortBy(column) {
  const down = state.sort === column && !state.down;
  update({ sort: column, down }, `#rows th:nth-child(${column + 1}) button`);
}

function turn(pages) {
  state.page += pages;
  showBody();
  find("pictures").scrollIntoView();
}

// #line-12 opens a row; #failures-0 and #changes-0 show the rows of a group.
function follow() {
  const [kind, number] = location.hash.slice(1).split("-");
  const row = kind === "line" && byLine.get(Number(number));
  const group = (data.groups[kind] || [])[number];
  if (row) {
    update({ status: "", search: "", group: null, target: row.manifest_line });
    state.page = Math.floor(shown.indexOf(row) / PAGE);
    showBody();
    const toggle = document.querySelector("tr.target button");
    toggle.click();
    toggle.focus({ preventScroll: true });
    toggle.scrollIntoView({ block: "center" });
  } else if (group) {
    update({ status: "", search: "", group, target: null });
    find("pictures").scrollIntoView();
  }
}

const known = (key) =>
  rows.filter((row) => row.status === "ok").map(key).filter((value) => value !== null);
drawHistogram(find("seconds"), known((row) => row.seconds_total), 1);
drawHistogram(find("memory"), known(gigabytes), 2);
find("search").addEventListener("input", (event) =>
  update({ search: event.target.value, target: null }));
find("group").addEventListener("click", () => update({ group: null }, "#search"));
find("previous").addEventListener("click", () => turn(-1));
find("next").addEventListener("click", () => turn(1));
window.addEventListener("hashchange", follow);
document.addEventListener("click", (event) => { // the same link twice changes no hash
  if (event.target.hash && event.target.hash === location.hash) follow();
});
window.addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});
update({});
follow();
}
