// The page: a photo or the camera comes in, what is painted is shown and saved.

import { Camera, cameraProblem, hasOtherCamera } from "./camera.js";
import { Choices } from "./choices.js";
import { fit } from "./geometry.js";
import { Painter } from "./painter.js";
import { draw, mixed, openPhoto, pixelsOf, savePng } from "./photo.js";

const QUICK = 512; // px: painted first, at once, where the picture is to be larger
const LIVE = 256; // px: of the camera's pictures, unless a size is chosen
const LEAST = 128; // px: a picture for which there is no memory even so is given up
const PAUSE = 600; // ms without a change before a large picture is begun
const SMOOTH = 0.8; // of the frames a second shown

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((each) => [each.id, each]));
let network;
let painter;
let choices;
let photo = null; // {name, image}
let painted = null; // {picture, before, width, height, fileName}: what is shown
let wish = 0; // number of the newest wish for a picture
let source = 0; // number of the newest wish for a photo, or for the camera
let live = false; // whether the camera runs, or is about to
const camera = new Camera(page.video);

function say(text) {
  page.status.textContent = text;
}

function complain(text) {
  page.problem.textContent = text;
  page.problem.hidden = !text;
}

/** Runs what a person asked for; an error becomes a sentence, and the page goes on. */
function carefully(action) {
  return async (...given) => {
    complain("");
    try {
      await action(...given);
    } catch (error) {
      complain(error.message);
    }
  };
}

const dimensions = ({ width, height }) => `${width} × ${height} px`;

function show() {
  const { width, height, before } = painted;
  draw(page.before, new ImageData(before, width, height));
  mix();
  page.after.hidden = false;
  page.compare_label.hidden = false;
  page.save.disabled = false;
  page.save.textContent = `Save as PNG, ${dimensions(painted)}`;
  compare();
}

/** Mixes what was painted with its photo. */
function mix() {
  draw(page.after, mixed(painted, choices.strength));
}

/** Shows the photo at the left of a line, the picture at its right. */
function compare() {
  const share = Number(page.compare.value);
  page.before.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  page.after.style.clipPath = `inset(0 0 0 ${share}%)`;
}

/** Lays a photo on the easel, as it is. */
function lay(image) {
  page.invitation.hidden = true;
  page.pictures.hidden = false;
  page.stage.classList.add("full");
  page.after.hidden = true;
  page.before.style.clipPath = "none";
  draw(page.before, image);
}

const take = carefully(async (file, name) => {
  const mine = (source += 1);
  say(`Opening ${name} …`);
  let opened;
  try {
    opened = await openPhoto(file, name);
  } catch (error) {
    if (mine !== source) return;
    say(photo ? `${photo.name} is still there.` : "Choose another photo.");
    throw error;
  }
  if (mine === source) await put(opened);
});

/** Has a photo painted in the place of what was there. */
async function put(opened) {
  endCamera();
  photo = opened;
  painted = null;
  page.save.disabled = true;
  choices.tellOwnSize(photo.image.width, photo.image.height);
  lay(photo.image);
  if (photo.reduced) {
    complain(`${photo.name} is larger than this browser can open; it was made smaller.`);
  }
  await paint();
}

/** Paints the photo: small at once, then as large as is wished. */
async function paint() {
  if (!photo) return;
  const mine = (wish += 1);
  painter.cancel();
  const { width, height } = photo.image;
  const longSide = Math.min(choices.longSide, Math.max(width, height));
  const steps = longSide > QUICK ? [QUICK, longSide] : [longSide];
  page.progress.hidden = true;
  try {
    for (const [number, step] of steps.entries()) {
      if (number) await new Promise((resolve) => setTimeout(resolve, PAUSE));
      if (mine !== wish) return;
      await paintAt(step, () => mine === wish);
      if (mine !== wish) return;
    }
  } catch (error) {
    if (mine !== wish) return;
    say(painted ? "The picture is shown as it was before." : "The photo is shown as it is.");
    throw error;
  } finally {
    if (mine === wish) page.progress.hidden = true;
  }
}

/** Paints at a size, or, where memory ends, at half of it; says so. */
async function paintAt(longSide, wanted) {
  const own = dimensions(photo.image);
  for (let side = longSide; ; side = Math.round(side / 2)) {
    const [width, height] = fit(photo.image.width, photo.image.height, side);
    const size = dimensions({ width, height });
    say(`Painting ${size} …`);
    const fileName = choices.fileName(photo.name);
    try {
      const found = await painter.paint(photo.image, choices.weights, side, (done, parts) => {
        if (!wanted()) return;
        page.progress.hidden = false;
        page.progress.value = done / parts;
        say(`Painting ${size}: part ${done + 1} of ${parts}`);
      });
      if (!found || !wanted()) return;
      painted = { ...found, fileName };
      show();
      const seconds = `${found.seconds.toFixed(found.seconds < 10 ? 1 : 0)} s`;
      const less = size === own ? "" : `; the photo has ${own}`;
      const short = side < longSide ? "; there was no memory for more" : "";
      say(`${size}, painted in ${seconds}${less}${short}.`);
      return;
    } catch (error) {
      if (!error.memory || side / 2 < LEAST) throw error;
    }
  }
}

/** Paints what the camera sees, frame by frame, until there is another wish. */
async function film(mine) {
  photo = null;
  wish += 1;
  painter.cancel();
  page.snap.hidden = false;
  page.invitation.hidden = true;
  page.pictures.hidden = false;
  page.stage.classList.add("full");
  const other = await hasOtherCamera();
  if (mine !== source) return;
  page.turn.hidden = !other;
  say("Painting what the camera sees.");
  let rate = 0;
  for (let before = performance.now(); mine === source; ) {
    const [width, height] = camera.size;
    const side = Number.isFinite(choices.longSide) ? choices.longSide : LIVE;
    const frame = width && pixelsOf(page.video, ...fit(width, height, side));
    if (!frame) {
      await new Promise(requestAnimationFrame);
      continue;
    }
    const fileName = choices.fileName("camera");
    const found = await painter.paint(frame, choices.weights, side);
    if (!found || mine !== source) break;
    painted = { ...found, fileName };
    show();
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    rate = rate ? SMOOTH * rate + ((1 - SMOOTH) * 1000) / (now - before) : 1000 / (now - before);
    before = now;
    page.speed.textContent = `${rate.toFixed(1)} frames a second`;
  }
}

function endCamera() {
  if (live) say("The camera is off.");
  live = false;
  source += 1;
  camera.stop();
  page.camera.classList.remove("live");
  page.camera.textContent = "Use the camera";
  page.snap.hidden = page.turn.hidden = true;
  page.speed.textContent = "";
}

async function startCamera() {
  const mine = (source += 1);
  live = true;
  page.camera.classList.add("live");
  page.camera.textContent = "Stop the camera";
  say("Starting the camera …");
  try {
    if ((await camera.start(endCamera)) && mine === source) await film(mine);
  } catch (error) {
    if (mine !== source) return;
    endCamera();
    say(photo ? "The photo is still there." : "Choose a photo.");
    throw error;
  }
}

function listen() {
  page.open.addEventListener("click", () => page.file.click());
  page.file.addEventListener("change", () => {
    const [file] = page.file.files;
    if (file) take(file, file.name);
    page.file.value = ""; // the same file may be chosen again
  });
  page.example.addEventListener(
    "click",
    carefully(async () => {
      const answer = await fetch(network.example);
      if (!answer.ok) throw new Error(`The example could not be loaded (${answer.status}).`);
      await take(await answer.blob(), network.example.split("/").at(-1));
    }),
  );
  page.camera.addEventListener("click", carefully(async () => (live ? endCamera() : startCamera())));
  page.turn.addEventListener(
    "click",
    carefully(async () => {
      camera.stop({ turn: true });
      await startCamera();
    }),
  );
  page.snap.addEventListener(
    "click",
    carefully(async () => {
      const [width, height] = camera.size;
      const image = width ? pixelsOf(page.video, width, height) : null;
      if (!image) throw new Error("The camera shows nothing yet; try again.");
      const name = `camera ${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}`;
      await put({ name, image });
    }),
  );
  page.save.addEventListener(
    "click",
    carefully(() => savePng(page.after, painted.fileName)),
  );
  page.compare.addEventListener("input", compare);
  page.palette.addEventListener("submit", (event) => event.preventDefault());

  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    page.stage.classList.add("over");
  });
  document.addEventListener("dragleave", () => page.stage.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    page.stage.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) take(file, file.name);
    else complain("What was dropped is no file; save the image first, then drop it.");
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) take(file, file.name || "pasted image");
  });
}

/** Says what this page is, and what the browser lacks. */
function about() {
  const { threads } = painter;
  const facts = [
    `${network.styles.length} styles; a network of ${(network.model_bytes / 1e6).toFixed(1)} MB, run by ${network.runtime}.`,
    `It paints on ${threads} ${threads === 1 ? "thread" : "threads"}.`,
  ];
  if (!globalThis.crossOriginIsolated) {
    facts.push("More threads need two headers from the server (see docs/web.md), or one reload of this page.");
  }
  if (cameraProblem()) facts.push(cameraProblem());
  if (!navigator.serviceWorker) facts.push("Without a connection this page cannot be opened again here.");
  facts.push(network.licence);
  page.about.replaceChildren(
    ...facts.map((text) => Object.assign(document.createElement("li"), { textContent: text })),
  );
}

/** Keeps the page for times without a connection. It also gives the page the headers that threads
 * need, where the server does not, from the next load on: which is at once, as long as nothing is
 * lost by it. */
async function keepForLater() {
  if (!navigator.serviceWorker) return;
  try {
    await navigator.serviceWorker.register("service_worker.js", { updateViaCache: "none" });
    await navigator.serviceWorker.ready;
    if (!globalThis.crossOriginIsolated && !photo && !live && !sessionStorage.getItem("reloaded")) {
      sessionStorage.setItem("reloaded", "yes");
      location.reload();
    }
  } catch (error) {
    console.info(`This page is not kept for later: ${error.message}`);
  }
}

async function begin() {
  say("Loading …");
  if (typeof WebAssembly !== "object" || typeof OffscreenCanvas === "undefined") {
    throw new Error("This browser is too old for this page; any current Chrome, Edge, Firefox or Safari will do.");
  }
  try {
    network = await (await fetch("network.json")).json();
    painter = new Painter(network);
    choices = new Choices(network, { repaint: carefully(paint), remix: () => painted && mix() });
    about();
  } catch (error) {
    throw new Error(`network.json is missing or damaged (${error.message}); export the page again.`);
  }
  page.camera.disabled = Boolean(cameraProblem());
  page.camera.title = cameraProblem();
  listen();
  keepForLater();
  await painter.load();
  say("Ready.");
}

carefully(begin)().then(() => {
  if (!page.problem.hidden) say("");
});
