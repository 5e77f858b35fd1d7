// The page's side of worker.js: one picture at a time, the newest wish first.

const MOST_THREADS = 4; // so that a device stays of use for other things; more were not tried

export class PaintError extends Error {
  /**
   * @param {string} message a sentence for people
   * @param {{memory?: boolean, said?: boolean}} of `memory`: a smaller picture may work; `said`: by
   *   the painting thread, which was given something that it cannot use
   */
  constructor(message, { memory = false, said = false } = {}) {
    super(message);
    this.memory = memory;
    this.said = said;
  }
}

export class Painter {
  /** @param {object} network network.json of this page */
  constructor(network) {
    this.network = network;
    this.threads = globalThis.crossOriginIsolated
      ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS)
      : 1;
    this.jobs = 0;
    this.worker = null;
    this.waiting = null; // {resolve, reject, onProgress} of what the worker is at
    this.queue = Promise.resolve();
  }

  /** Fetches the network and starts its thread; throws a PaintError that says what is wrong. */
  load() {
    this.loaded ??= this.#start().catch((error) => {
      this.loaded = null; // the next call tries again
      throw error;
    });
    return this.loaded;
  }

  /**
   * Paints a photo; gives {picture, before, width, height, seconds}, or null if a newer wish came.
   *
   * @param {ImageData} photo
   * @param {number[]} style the weight of each style, with sum 1
   * @param {number} longSide of the picture, at most
   * @param {(done: number, parts: number) => void} onProgress of large pictures
   */
  paint(photo, style, longSide, onProgress = () => {}) {
    const job = (this.jobs += 1);
    this.worker?.postMessage({ kind: "cancel", job: job - 1 });
    const painted = this.queue.then(async () => {
      if (job !== this.jobs) return null;
      await this.load();
      const { data: pixels, width, height } = photo;
      return this.#ask({ kind: "paint", job, pixels, width, height, style, longSide }, onProgress);
    });
    this.queue = painted.catch(() => {});
    return painted;
  }

  /** Gives up whatever is being painted. */
  cancel() {
    this.jobs += 1;
    this.worker?.postMessage({ kind: "cancel", job: this.jobs });
  }

  async #start() {
    let model;
    try {
      const answer = await fetch(this.network.model);
      if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
      model = new Uint8Array(await answer.arrayBuffer());
    } catch (error) {
      throw new PaintError(`The network could not be loaded (${error.message}).`);
    }
    this.#stop();
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.#hear(data);
    this.worker.onerror = (event) => {
      const why = event.message ? ` (${event.message})` : "";
      this.#fail(new PaintError(`This browser cannot run the painting thread${why}.`));
    };
    try {
      await this.#ask({ kind: "load", geometry: this.network.geometry, model, threads: this.threads });
    } catch (error) {
      if (!error.said || error.memory) throw error;
      if (/backend|wasm/i.test(error.message)) {
        throw new PaintError(`The files in runtime/ are missing or damaged (${error.message}).`);
      }
      throw new PaintError(
        `${this.network.model} is damaged, or no network of this page (${error.message}).`,
      );
    }
  }

  #ask(question, onProgress = () => {}) {
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject, onProgress };
      this.worker.postMessage(question);
    });
  }

  #hear(answer) {
    if (!this.waiting) return;
    const { kind, memory, message, done, parts } = answer;
    if (kind === "progress") this.waiting.onProgress(done, parts);
    else if (kind === "failed") this.#fail(new PaintError(message, { memory, said: true }));
    else this.#settle("resolve", kind === "cancelled" ? null : answer);
  }

  #fail(error) {
    this.#stop(); // after an error nothing is known of its memory
    this.loaded = null;
    this.#settle("reject", error);
  }

  #settle(how, value) {
    const { waiting } = this;
    this.waiting = null;
    waiting?.[how](value);
  }

  #stop() {
    this.worker?.terminate();
    this.worker = null;
  }
}
