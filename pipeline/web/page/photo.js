// Photos as files and as pixels.

const LEAST = 64; // px, of the long side: a photo that cannot even be opened so small is given up

/**
 * Opens an image file, upright as its EXIF orientation says, in the colours of the screen's sRGB.
 *
 * @param {Blob} file
 * @param {string} name for people
 * @returns {Promise<{name: string, image: ImageData, reduced: boolean}>} `reduced`: the browser has
 *   no room for all its pixels
 */
export async function openPhoto(file, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${name} is no image that this browser can read; try a JPEG or PNG file.`);
  }
  try {
    let { width, height } = bitmap;
    for (let reduced = false; !reduced || Math.max(width, height) >= LEAST; reduced = true) {
      const image = pixelsOf(bitmap, width, height);
      if (image) return { name, image, reduced };
      [width, height] = [Math.ceil(width / 2), Math.ceil(height / 2)];
    }
  } finally {
    bitmap.close();
  }
  throw new Error(`${name} is too large for this browser; make it smaller first.`);
}

/** The pixels of an image or a video's frame at a size; null if there is no room for them. */
export function pixelsOf(source, width, height) {
  try {
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.drawImage(source, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  } catch {
    return null;
  }
}

/**
 * A painted picture mixed with its photo, whose alpha it has.
 *
 * @param {{picture: Uint8ClampedArray, before: Uint8ClampedArray, width: number, height: number}} painted
 * @param {number} strength from 0, the photo, to 1, the picture
 */
export function mixed({ picture, before, width, height }, strength) {
  const pixels = new Uint8ClampedArray(picture);
  if (strength < 1) {
    for (let i = 0; i < pixels.length; i += 1) {
      pixels[i] = before[i] + strength * (picture[i] - before[i]);
    }
  }
  return new ImageData(pixels, width, height);
}

/** Draws pixels on a canvas, which takes their size. */
export function draw(canvas, image) {
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Saves what a canvas shows as a PNG file. */
export async function savePng(canvas, name) {
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  if (!blob) throw new Error("The picture is too large for this browser to save; choose a smaller size.");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
