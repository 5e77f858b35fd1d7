// What is chosen beside the picture: styles and their mixture, strength, size. The page's address
// carries it, so that a link gives the same choices.

const SIZES = [256, 512, 1024, 2048];
const OWN = "own";
const CALM = 300; // ms without a change, before the address is: browsers count how often it is
const LONGEST = 80; // letters of each part of a file's name

export class Choices {
  /**
   * @param {object} network network.json of this page
   * @param {{repaint: () => void, remix: () => void}} on called when the picture must be painted
   *   anew, or only mixed anew with its photo
   */
  constructor(network, on) {
    this.network = network;
    this.element = Object.fromEntries(
      ["styles", "with", "mix", "strength", "size", "blending"].map((id) => [id, document.getElementById(id)]),
    );
    this.#make();
    this.#read(new URLSearchParams(location.search));
    for (const [id, element] of Object.entries(this.element)) {
      element.addEventListener("input", () => {
        this.#tell();
        if (id === "strength") on.remix();
        else on.repaint();
      });
    }
    this.#tell();
  }

  /** The weight of each style, with sum 1. */
  get weights() {
    const share = this.#share();
    return this.network.styles.map(
      ({ name }) => (name === this.style ? 1 - share : 0) + (name === this.element.with.value ? share : 0),
    );
  }

  get style() {
    return this.element.styles.querySelector("input:checked").value;
  }

  /** From 0, the photo, to 1. */
  get strength() {
    return this.element.strength.value / 100;
  }

  /** The long side of the picture at most, in px; infinite for the photo's own size. */
  get longSide() {
    return this.element.size.value === OWN ? Infinity : Number(this.element.size.value);
  }

  /** The name of a picture's file, as things are chosen now. */
  fileName(photo) {
    const stem = photo.replace(/\.[^.]*$/, "") || "photo";
    const styles = this.#share() ? [this.style, this.element.with.value] : [this.style];
    return `${[stem, ...styles].map((part) => part.slice(0, LONGEST)).join("-")}.png`;
  }

  /** Says what the photo's own size is. */
  tellOwnSize(width, height) {
    this.element.size.querySelector(`[value=${OWN}]`).textContent = `its own, ${width} × ${height} px`;
  }

  #make() {
    const { styles } = this.network;
    this.element.styles.replaceChildren(
      ...styles.map(({ name, label, thumbnail }, number) => {
        const input = Object.assign(document.createElement("input"), {
          type: "radio",
          name: "style",
          value: name,
          checked: number === 0,
        });
        const image = Object.assign(document.createElement("img"), { src: thumbnail, alt: "" });
        const text = Object.assign(document.createElement("span"), { textContent: label });
        const made = document.createElement("label");
        made.append(input, image, text);
        return made;
      }),
    );
    this.element.with.replaceChildren(...styles.map(({ name, label }) => new Option(label, name)));
    if (styles.length > 1) this.element.with.selectedIndex = 1;
    this.element.blending.hidden = styles.length < 2;
    this.element.size.replaceChildren(
      ...SIZES.map((side) => new Option(`up to ${side} px`, side)),
      new Option("its own", OWN, true, true),
    );
  }

  /** Takes up what an address says; what it does not say, or says wrongly, stays as it is. */
  #read(given) {
    const radio = [...this.element.styles.querySelectorAll("input")].find((each) => each.value === given.get("style"));
    if (radio) radio.checked = true;
    for (const id of ["with", "size"]) {
      const known = [...this.element[id].options].some((option) => option.value === given.get(id));
      if (known) this.element[id].value = given.get(id);
    }
    for (const id of ["mix", "strength"]) {
      const value = Number.parseFloat(given.get(id));
      if (Number.isFinite(value)) this.element[id].value = Math.round(100 * value);
    }
  }

  #share() {
    return this.element.with.value === this.style ? 0 : this.element.mix.value / 100;
  }

  /** Shows the values beside their sliders, and in the address. */
  #tell() {
    for (const id of ["mix", "strength"]) {
      document.getElementById(`${id}_value`).textContent = `${this.element[id].value} %`;
    }
    const said = new URLSearchParams({ style: this.style });
    if (this.#share()) {
      said.set("with", this.element.with.value);
      said.set("mix", this.element.mix.value / 100);
    }
    if (this.strength < 1) said.set("strength", this.strength);
    if (this.element.size.value !== OWN) said.set("size", this.element.size.value);
    clearTimeout(this.telling);
    this.telling = setTimeout(() => history.replaceState(null, "", `?${said}`), CALM);
  }
}
