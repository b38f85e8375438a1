/** Thumbnails: windows onto sheets of many small pictures. */

import { bytesOf } from "./data.js";
import { make } from "./dom.js";

/** @typedef {import("./data.js").Sprites} Sprites */

const LARGEST_ZOOM = 2;

export class Thumbnails {
  /** @param {Sprites | null} sprites @param {{width: number[], height: number[]}} images */
  constructor(sprites, images) {
    this.sprites = sprites;
    this.images = images;
    /** @type {string[]} one address a sheet; a sheet inside the page gets its own at first use */
    this.addresses = [];
  }

  /** The picture of a row, at most `box` pixels wide and high; grey where there is none.
   * @param {number} image @param {number} box @param {string | null} label null: decoration
   * @returns {HTMLElement} */
  draw(image, box, label) {
    const element = make("span", "thumbnail");
    if (label === null) {
      element.setAttribute("aria-hidden", "true");
    } else {
      element.setAttribute("role", "img");
      element.setAttribute("aria-label", label);
    }
    const width = this.images.width[image] ?? 0;
    const height = this.images.height[image] ?? 0;
    if (this.sprites === null || !width || !height) {
      element.classList.add("missing");
      return element;
    }
    const { cell, per_line: perLine, per_sheet: perSheet } = this.sprites;
    const zoom = Math.min(box / width, box / height, LARGEST_ZOOM);
    const place = image % perSheet;
    const step = cell * zoom;
    element.style.width = `${width * zoom}px`;
    element.style.height = `${height * zoom}px`;
    element.style.backgroundImage = `url("${this.address(Math.floor(image / perSheet))}")`;
    element.style.backgroundSize = `${perLine * step}px auto`;
    element.style.backgroundPosition = `${-(place % perLine) * step}px ${-Math.floor(place / perLine) * step}px`;
    return element;
  }

  /** @param {number} sheet @returns {string} */
  address(sheet) {
    this.addresses[sheet] ??= addressOf(this.sprites?.sheets[sheet] ?? "");
    return this.addresses[sheet];
  }
}

/** A short address of a sheet: megabytes of base64 in the style of every row would be slow.
 * @param {string} sheet @returns {string} */
function addressOf(sheet) {
  const inside = /^data:image\/webp;base64,(.*)$/s.exec(sheet);
  if (!inside) return new URL(sheet, document.baseURI).href;
  return URL.createObjectURL(new Blob([bytesOf(inside[1])], { type: "image/webp" }));
}
