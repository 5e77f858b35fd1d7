// Paints, in a thread of its own, so that the page stays at hand. Asked by painter.js:
//   {kind: "load", geometry, model, threads}                     -> loaded | failed
//   {kind: "paint", job, pixels, width, height, style, longSide} -> progress ..., painted | failed
//   {kind: "cancel", job}                                        -> the job ends as `cancelled`

import * as ort from "./runtime/ort.wasm.min.mjs";
import { fit, mirrored, shrink, tiles } from "./geometry.js";

let session = null;
let geometry = null; // of network.json
let cancelled = -1; // jobs up to this number

self.onmessage = async ({ data }) => {
  if (data.kind === "cancel") {
    cancelled = Math.max(cancelled, data.job);
    return;
  }
  try {
    if (data.kind === "load") await load(data);
    else await paint(data);
  } catch (error) {
    const memory = error instanceof RangeError || /alloc|memory/i.test(String(error));
    self.postMessage({ kind: "failed", memory, message: String(error) });
  }
};

async function load({ geometry: numbers, model, threads }) {
  geometry = numbers;
  ort.env.wasm.numThreads = threads;
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  for (const name of ["image", "style", "given_moments", "given_used"]) {
    if (!session.inputNames.includes(name)) throw new Error(`the file has no input "${name}"`);
  }
  self.postMessage({ kind: "loaded" });
}

async function paint({ job, pixels, width, height, style, longSide }) {
  const started = performance.now();
  const photo = opened(pixels, width, height, longSide);
  const picture = new Uint8ClampedArray(photo.width * photo.height * 4);
  const weights = new ort.Tensor("float32", Float32Array.from(style), [1, style.length]);
  const whole = { x0: 0, y0: 0, x1: photo.width, y1: photo.height };
  if (Math.max(photo.width, photo.height) <= geometry.largest_whole) {
    copy(await run(photo, whole, weights), { ...whole, patch: whole }, photo, picture);
  } else {
    // Tiles are normalised by the moments of a smaller version of the whole picture (Chen et al.
    // 2022, URST), so that no seam shows.
    const small = opened(pixels, width, height, geometry.largest_whole);
    const all = { x0: 0, y0: 0, x1: small.width, y1: small.height };
    const { moments } = await run(small, all, weights);
    const parts = tiles(photo.width, photo.height, geometry);
    for (const [done, part] of parts.entries()) {
      self.postMessage({ kind: "progress", done, parts: parts.length });
      await new Promise((resolve) => setTimeout(resolve)); // lets a cancellation in
      if (cancelled >= job) {
        self.postMessage({ kind: "cancelled" });
        return;
      }
      copy(await run(photo, part.patch, weights, moments), part, photo, picture);
    }
  }
  const seconds = (performance.now() - started) / 1000;
  const before = asBytes(photo);
  self.postMessage(
    { kind: "painted", picture, before, width: photo.width, height: photo.height, seconds },
    [picture.buffer, before.buffer],
  );
}

/** A photo at the size in which it is painted. `unit` is the value of white. */
function opened(pixels, width, height, longSide) {
  const [newWidth, newHeight] = fit(width, height, longSide);
  if (newWidth === width && newHeight === height) return { pixels, width, height, unit: 255 };
  const smaller = shrink(pixels, width, height, newWidth, newHeight);
  return { pixels: smaller, width: newWidth, height: newHeight, unit: 1 };
}

/** Paints a part of a photo; the result is larger by its mirrored border. */
async function run(photo, part, style, moments = null) {
  const { border, multiple_of: stride, channels } = geometry;
  const [width, height] = [part.x1 - part.x0, part.y1 - part.y0];
  const padded = [width, height].map((side) => Math.ceil(side / stride) * stride + 2 * border);
  const image = new Float32Array(padded[0] * padded[1] * 3);
  const columns = Array.from({ length: padded[0] }, (_, x) => mirrored(x - border, width));
  for (let y = 0, at = 0; y < padded[1]; y += 1) {
    const row = (part.y0 + mirrored(y - border, height)) * photo.width + part.x0;
    for (let x = 0; x < padded[0]; x += 1) {
      const from = (row + columns[x]) * 4;
      // What is not seen counts as white, so that hidden colours do not show.
      const seen = photo.pixels[from + 3] > 0;
      for (let channel = 0; channel < 3; channel += 1, at += 1) {
        image[at] = seen ? photo.pixels[from + channel] / photo.unit : 1;
      }
    }
  }
  const found = await session.run({
    image: new ort.Tensor("float32", image, [1, padded[1], padded[0], 3]),
    style,
    given_moments: moments ?? new ort.Tensor("float32", new Float32Array(2 * channels), [2, channels]),
    given_used: new ort.Tensor("float32", Float32Array.of(moments ? 1 : 0), []),
  });
  return { picture: found.picture.data, moments: found.moments, width: padded[0] };
}

/** Copies what a patch is for into the picture, with the photo's alpha. */
function copy(painted, part, photo, picture) {
  const { border } = geometry;
  for (let y = part.y0; y < part.y1; y += 1) {
    let from = ((y - part.patch.y0 + border) * painted.width + part.x0 - part.patch.x0 + border) * 3;
    let to = (y * photo.width + part.x0) * 4;
    for (let x = part.x0; x < part.x1; x += 1, from += 3, to += 4) {
      for (let channel = 0; channel < 3; channel += 1) {
        picture[to + channel] = 255 * painted.picture[from + channel];
      }
      picture[to + 3] = (photo.pixels[to + 3] * 255) / photo.unit;
    }
  }
}

function asBytes({ pixels, unit }) {
  return unit === 255 ? new Uint8ClampedArray(pixels) : Uint8ClampedArray.from(pixels, (v) => v * 255);
}
