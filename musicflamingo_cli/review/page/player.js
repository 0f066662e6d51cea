// The sound: a media element with the server's waveform and spectrogram; nothing is decoded here.

import { button, clock, element, warn } from "./dom.js";
import { picture } from "./api.js";

const STEP = 5; // seconds
const KEPT = 8; // pictures in memory
const QUIET = 0.016; // two steps of a peak: below it there is nothing to see

const colour = (name) => {
  const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(value.slice(at, at + 2), 16));
};

export class Player {
  constructor(shape) {
    this.shape = shape;
    this.pictures = new Map();
    this.audio = element("audio", { preload: "metadata" });
    this.wave = element("canvas", { width: shape.peaks, height: 80, className: "wave" });
    this.spectrogram = element("canvas", { width: shape.columns, height: shape.rows, className: "spectrogram" });
    this.head = element("i", { className: "head" });
    this.slider = element(
      "div",
      {
        className: "slider",
        tabIndex: 0,
        attributes: { role: "slider", "aria-label": "Position in the track", "aria-valuemin": "0" },
      },
      this.wave, this.spectrogram, this.head,
    );
    this.time = element("span", { className: "time" });
    this.play = button("Play", () => this.toggle(), { className: "play" });
    this.panel = element("div", { className: "player" }, this.slider, this.audio);
    this.controls = element("div", { className: "controls" }, this.play, this.time);
    this.slider.addEventListener("pointerdown", (event) => {
      const box = this.slider.getBoundingClientRect();
      this.seek(((event.clientX - box.left) / box.width) * this.seconds);
    });
    for (const name of ["timeupdate", "seeked", "play", "pause", "ended", "loadedmetadata"]) {
      this.audio.addEventListener(name, () => this.show());
    }
    this.audio.addEventListener("error", () => this.fallBack());
  }

  async open(id, seconds, name) {
    this.id = id;
    this.length = seconds;
    this.converted = false;
    this.audio.src = `/api/tracks/${id}/audio`;
    this.slider.setAttribute("aria-label", `Position in ${name}`);
    if (this.wanted) this.start(); // also where the last track ended by itself
    this.show();
    for (const canvas of [this.wave, this.spectrogram]) canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    const data = await this.picture(id);
    if (data && this.id === id) this.draw(data);
  }

  // Pictures are asked for once, those of the next track before it is opened.
  picture(id) {
    if (!this.pictures.has(id)) {
      this.pictures.set(id, picture(id).catch(() => null));
      if (this.pictures.size > KEPT) this.pictures.delete(this.pictures.keys().next().value);
    }
    return this.pictures.get(id);
  }

  get seconds() {
    return Number.isFinite(this.audio.duration) && this.audio.duration > 0 ? this.audio.duration : this.length || 0;
  }

  // What this browser cannot play is converted by the server.
  fallBack() {
    if (this.id === undefined || !this.audio.src) return;
    if (this.converted) {
      warn("This track cannot be played.");
      return;
    }
    this.converted = true;
    const was_wanted = this.wanted;
    this.audio.src = `/api/tracks/${this.id}/audio?wav=1`;
    if (was_wanted) this.start();
  }

  start() {
    this.wanted = true;
    this.audio.play().catch((error) => {
      if (error.name === "NotAllowedError") warn("The browser does not let the page play sound: click Play.");
    });
  }

  toggle() {
    if (this.audio.paused) this.start();
    else {
      this.wanted = false;
      this.audio.pause();
    }
  }

  seek(seconds) {
    this.audio.currentTime = Math.min(Math.max(0, seconds), Math.max(0, this.seconds - 0.05));
    this.show();
  }

  step(direction) {
    this.seek(this.audio.currentTime + direction * STEP);
  }

  show() {
    const at = this.audio.currentTime || 0;
    this.head.style.left = `${this.seconds ? (100 * at) / this.seconds : 0}%`;
    this.time.textContent = `${clock(at)} / ${clock(this.seconds)}`;
    this.play.textContent = this.audio.paused ? "Play" : "Pause";
    this.slider.setAttribute("aria-valuemax", String(Math.round(this.seconds)));
    this.slider.setAttribute("aria-valuenow", String(Math.round(at)));
    this.slider.setAttribute("aria-valuetext", `${clock(at)} of ${clock(this.seconds)}`);
  }

  draw(data) {
    const { peaks, columns, rows } = this.shape;
    const wave = this.wave.getContext("2d");
    const middle = this.wave.height / 2;
    let loudest = 0;
    for (let at = 0; at < 2 * peaks; at++) loudest = Math.max(loudest, Math.abs(data[at] - 128) / 127);
    const scale = loudest > QUIET ? 0.96 / loudest : 1; // a quiet track has a shape, too; silence has none
    wave.clearRect(0, 0, this.wave.width, this.wave.height);
    wave.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
    for (let at = 0; at < peaks; at++) {
      const low = scale * (data[2 * at] - 128) / 127;
      const high = scale * (data[2 * at + 1] - 128) / 127;
      wave.fillRect(at, middle - high * middle, 1, Math.max(1, (high - low) * middle));
    }
    const context = this.spectrogram.getContext("2d");
    const image = context.createImageData(columns, rows);
    const [low, high] = [colour("--low"), colour("--high")];
    for (let at = 0; at < columns * rows; at++) {
      const level = data[2 * peaks + at] / 255;
      const pixel = 4 * ((rows - 1 - (at % rows)) * columns + Math.floor(at / rows));
      for (let part = 0; part < 3; part++) image.data[pixel + part] = low[part] + (high[part] - low[part]) * level;
      image.data[pixel + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }
}
