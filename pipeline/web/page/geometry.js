// The geometry of painting, as nst's network/painter.py and images/codec.py have it: sizes, mirrored
// borders, tiles, and a resampling filter that gives what Pillow's LANCZOS gives.

const LOBES = 3;

function roundHalfEven(value) {
  const down = Math.floor(value);
  const rest = value - down;
  if (rest !== 0.5) return Math.round(value);
  return down % 2 === 0 ? down : down + 1;
}

/** The size with that long side and the same aspect; never larger than the given one. */
export function fit(width, height, longSide) {
  const longest = Math.max(width, height);
  if (longest <= longSide) return [width, height];
  return [width, height].map((side) => Math.max(1, roundHalfEven((side * longSide) / longest)));
}

/** Where a position beyond the border is found in the mirror, which repeats the outermost pixel. */
export function mirrored(position, length) {
  const period = 2 * length;
  const within = ((position % period) + period) % period;
  return within < length ? within : period - 1 - within;
}

/** A length in as few spans of at most `side` as possible, about equally long: [start, end]. */
function spans(length, side, alignment) {
  const count = Math.ceil(length / side);
  const step = Math.ceil(length / (count * alignment)) * alignment;
  const found = [];
  for (let start = 0; start < length; start += step) {
    found.push([start, Math.min(start + step, length)]);
  }
  return found;
}

/** The parts of a picture: what each is for (x0, y0, x1, y1), and what is painted for it (patch). */
export function tiles(width, height, { tile, reach, multiple_of: stride }) {
  const found = [];
  for (const [y0, y1] of spans(height, tile, stride)) {
    for (const [x0, x1] of spans(width, tile, stride)) {
      const patch = {
        x0: Math.max(0, x0 - reach),
        y0: Math.max(0, y0 - reach),
        x1: Math.min(width, x1 + reach),
        y1: Math.min(height, y1 + reach),
      };
      found.push({ x0, y0, x1, y1, patch });
    }
  }
  return found;
}

/** For each position of the result: the first that it looks at, and the shares of those. */
function weights(from, to) {
  const scale = Math.max(from / to, 1);
  const support = LOBES * scale;
  return Array.from({ length: to }, (_, position) => {
    const center = ((position + 0.5) * from) / to;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(from, Math.trunc(center + support + 0.5));
    const found = new Float64Array(end - first);
    let sum = 0;
    for (let i = 0; i < found.length; i += 1) {
      found[i] = lanczos((i + first - center + 0.5) / scale);
      sum += found[i];
    }
    return { first, shares: found.map((weight) => weight / sum) };
  });
}

function lanczos(x) {
  if (x <= -LOBES || x >= LOBES) return 0;
  return sinc(x) * sinc(x / LOBES);
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/**
 * A photo made smaller.
 *
 * @param {Uint8ClampedArray} pixels red, green, blue, alpha of each pixel, alpha not multiplied in
 * @returns {Float32Array} the same in [0, 1]. Colours are weighed by alpha, so that those of
 *   transparent pixels do not bleed into their neighbours.
 */
export function shrink(pixels, width, height, newWidth, newHeight) {
  const across = weights(width, newWidth);
  const down = weights(height, newHeight);
  const result = new Float32Array(newWidth * newHeight * 4);
  const narrow = new Map(); // rows that are needed, as wide as the result
  for (let y = 0; y < newHeight; y += 1) {
    const { first, shares } = down[y];
    const seen = [];
    for (const known of narrow.keys()) if (known < first) narrow.delete(known);
    for (let row = first; row < first + shares.length; row += 1) {
      if (!narrow.has(row)) narrow.set(row, narrowed(onWhite(pixels, row * width, width), across));
      seen.push(narrow.get(row));
    }
    for (let x = 0, at = y * newWidth * 4; x < newWidth * 4; x += 1, at += 1) {
      let sum = 0;
      for (let i = 0; i < shares.length; i += 1) sum += shares[i] * seen[i][x];
      result[at] = Math.min(1, Math.max(0, sum));
    }
  }
  for (let i = 0; i < result.length; i += 4) {
    const alpha = result[i + 3];
    for (let channel = i; channel < i + 3; channel += 1) {
      // Where alpha rounds to 0 in 8 bits, no colour can be recovered.
      const darkness = alpha > 0.5 / 255 ? (1 - result[channel]) / alpha : 0;
      result[channel] = Math.min(1, Math.max(0, 1 - darkness));
    }
  }
  return result;
}

/** A row of pixels in [0, 1], as it looks on white, and its alpha. */
function onWhite(pixels, start, width) {
  const row = new Float32Array(width * 4);
  for (let i = 0, at = start * 4; i < width * 4; i += 4, at += 4) {
    const alpha = pixels[at + 3] / 255;
    row[i] = 1 - alpha * (1 - pixels[at] / 255);
    row[i + 1] = 1 - alpha * (1 - pixels[at + 1] / 255);
    row[i + 2] = 1 - alpha * (1 - pixels[at + 2] / 255);
    row[i + 3] = alpha;
  }
  return row;
}

function narrowed(row, across) {
  const result = new Float32Array(across.length * 4);
  for (let x = 0; x < across.length; x += 1) {
    const { first, shares } = across[x];
    let [red, green, blue, alpha] = [0, 0, 0, 0];
    for (let i = 0, at = first * 4; i < shares.length; i += 1, at += 4) {
      const share = shares[i];
      red += share * row[at];
      green += share * row[at + 1];
      blue += share * row[at + 2];
      alpha += share * row[at + 3];
    }
    result.set([red, green, blue, alpha], 4 * x);
  }
  return result;
}
