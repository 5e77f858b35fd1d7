// The camera, and what may keep it from being used.

const REASONS = {
  NotAllowedError: "The camera was refused. Allow it beside the page's address, then try again.",
  NotFoundError: "No camera was found on this device.",
  NotReadableError: "The camera is used by another program, or does not answer.",
  OverconstrainedError: "There is no other camera.",
};

/** Why there can be no camera in this page; "" if there can. */
export function cameraProblem() {
  if (!window.isSecureContext) return "The camera needs a page served by https, or by this device.";
  if (!navigator.mediaDevices?.getUserMedia) return "This browser gives pages no camera.";
  return "";
}

export class Camera {
  /** @param {HTMLVideoElement} video shows the camera to this class alone */
  constructor(video) {
    this.video = video;
    this.facing = "environment";
    this.turns = 0; // starts and stops so far
    this.stream = null;
  }

  /**
   * Starts the camera; gives whether it runs, which it does not if it was stopped, or started once
   * more, before it answered.
   *
   * @param {() => void} onEnd called if it is taken away
   */
  async start(onEnd) {
    const problem = cameraProblem();
    if (problem) throw new Error(problem);
    const mine = (this.turns += 1);
    try {
      const wish = { facingMode: this.facing, width: { ideal: 1280 } };
      const stream = await navigator.mediaDevices.getUserMedia({ video: wish, audio: false });
      if (mine !== this.turns) {
        end(stream);
        return false;
      }
      this.stream = stream;
      stream.getVideoTracks()[0].addEventListener("ended", onEnd);
      this.video.srcObject = stream;
      await this.video.play();
      return mine === this.turns;
    } catch (error) {
      if (mine !== this.turns) return false;
      this.stop();
      throw new Error(REASONS[error.name] ?? `The camera cannot be used (${error.message}).`);
    }
  }

  /** Stops it; `turn` has the next start take the camera on the other side. */
  stop({ turn = false } = {}) {
    this.turns += 1;
    end(this.stream);
    this.stream = null;
    this.video.srcObject = null;
    if (turn) this.facing = this.facing === "user" ? "environment" : "user";
  }

  get size() {
    return [this.video.videoWidth, this.video.videoHeight];
  }
}

function end(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

/** Whether there is more than one camera to turn to. */
export async function hasOtherCamera() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter((device) => device.kind === "videoinput").length > 1;
}
