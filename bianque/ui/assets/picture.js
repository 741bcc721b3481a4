// A conversation as pictures for a doctor, one for each A4 page, drawn on a canvas: plain text in the system's own fonts.
// Loaded when the first picture is asked for. Asks nothing of any host.
window.bianquePicture = (() => {
  "use strict";
  const WIDTH = 620; // in units of the layout; A4 is 210 by 297
  const HEIGHT = 877;
  const SCALE = 2; // pixels of a unit: 150 dots per inch on paper, and sharp on a phone
  const EDGE = 40;
  const BOTTOM = HEIGHT - 58; // below it stands the label, on every page
  const COLOURS = { ink: "#16201c", quiet: "#52605a", jade: "#0a6552", line: "#c0cdc6", soft: "#eef8f4", alert: "#8a5300" };

  // The page's own: those of the body are gradio's, which name no font of simplified Chinese.
  const fonts = () =>
    getComputedStyle(document.querySelector(".gradio-container") || document.body).fontFamily;

  // ------------------------------------------------------------------ lines

  const graphemes = (text) =>
    window.Intl?.Segmenter ? [...new Intl.Segmenter().segment(text)].map((one) => one.segment) : [...text];
  const CLOSING = "，。、！？；：…—）》」』”’％·,.!?;:)]}%"; // never begins a line
  const OPENING = "（《「『“‘([{"; // never ends one
  const isWord = (character) => /^[\p{Script=Latin}\p{Nd}_@#/\\=+*.-]/u.test(character);

  // Pieces that are not broken: a Latin word, a Chinese character with the marks that belong to it.
  function pieces(text) {
    const found = [];
    for (const character of graphemes(text)) {
      const last = found[found.length - 1];
      const joins =
        last !== undefined &&
        ((CLOSING.includes(character) && !/\s$/.test(last)) ||
          OPENING.includes(last[last.length - 1]) ||
          (isWord(character) && isWord(last[last.length - 1])));
      if (joins) found[found.length - 1] = last + character;
      else found.push(character);
    }
    return found;
  }

  function lines(pen, text, width) {
    const all = [];
    for (const paragraph of text.split("\n")) {
      let line = "";
      const put = (piece) => {
        if (pen.measureText(line + piece).width <= width) line += piece;
        else {
          if (line) all.push(line.trimEnd());
          line = piece.trimStart();
        }
      };
      for (const piece of pieces(paragraph.replace(/\t/g, "    "))) {
        if (pen.measureText(piece).width <= width) put(piece);
        else graphemes(piece).forEach(put);
      }
      all.push(line.trimEnd());
    }
    return all;
  }

  // ------------------------------------------------------------------ pages

  class Sheet {
    constructor() {
      this.family = fonts();
      this.pages = [];
      this.turn();
    }

    turn() {
      const canvas = document.createElement("canvas");
      canvas.width = WIDTH * SCALE;
      canvas.height = HEIGHT * SCALE;
      this.pen = canvas.getContext("2d");
      this.pen.scale(SCALE, SCALE);
      this.pen.fillStyle = "#fff";
      this.pen.fillRect(0, 0, WIDTH, HEIGHT);
      this.pen.textBaseline = "alphabetic";
      this.pages.push(canvas);
      this.y = EDGE;
    }

    font(size, weight) {
      this.pen.font = `${weight} ${size}px ${this.family}`;
    }

    // Begins a page where less than so much is left of this one.
    need(height) {
      if (this.y + height > BOTTOM) this.turn();
    }

    // Draws text from the left edge on; a long one goes on with the next page. `bar` is the colour of a line beside it.
    write(text, { size = 15, weight = 400, colour = COLOURS.ink, left = 0, right = 0, bar = "", fill = "" } = {}) {
      const height = Math.round(size * 1.65);
      this.font(size, weight);
      for (const line of lines(this.pen, text, WIDTH - 2 * EDGE - left - right)) {
        this.need(height);
        this.font(size, weight); // a new page begins without one
        if (fill) this.paint(fill, EDGE, this.y, WIDTH - 2 * EDGE, height);
        if (bar) this.paint(bar, EDGE, this.y, 3, height);
        this.pen.fillStyle = colour;
        this.pen.fillText(line, EDGE + left, this.y + Math.round(size * 1.2));
        this.y += height;
      }
    }

    paint(colour, x, y, width, height) {
      this.pen.fillStyle = colour;
      this.pen.fillRect(x, y, width, height);
    }

    rule() {
      this.y += 6;
      this.paint(COLOURS.line, EDGE, this.y, WIDTH - 2 * EDGE, 1);
      this.y += 12;
    }

    logo(x, y, size) {
      const unit = size / 40;
      this.paint(COLOURS.jade, x, y, size, size);
      this.paint("#fff", x + 18 * unit, y + 9 * unit, 4 * unit, 22 * unit);
      this.paint("#fff", x + 9 * unit, y + 18 * unit, 22 * unit, 4 * unit);
      this.pen.fillStyle = COLOURS.jade;
      this.pen.strokeStyle = "#fff";
      this.pen.lineWidth = 3 * unit;
      this.pen.beginPath();
      this.pen.arc(x + size / 2, y + size / 2, 5.2 * unit, 0, 2 * Math.PI);
      this.pen.fill();
      this.pen.stroke();
    }
  }

  function heading(sheet, record) {
    const [label, time] = record.time;
    sheet.logo(EDGE, sheet.y, 34);
    sheet.font(22, 700);
    sheet.pen.fillStyle = COLOURS.ink;
    sheet.pen.fillText(record.title, EDGE + 46, sheet.y + 25);
    sheet.y += 46;
    sheet.write(record.label, { size: 15, weight: 700, colour: COLOURS.alert });
    sheet.write(record.notice, { size: 12.5, colour: COLOURS.quiet });
    sheet.rule();
    const local = new Date(time).toLocaleString(record.language, { dateStyle: "medium", timeStyle: "short" });
    for (const [name, value] of [[label, local], ...record.rows]) {
      sheet.write(`${name}${record.language === "en" ? ": " : "："}${value}`, { size: 12.5, colour: COLOURS.quiet });
    }
    sheet.rule();
  }

  function conversation(sheet, record) {
    const [title, summary] = record.summary;
    if (summary) {
      sheet.write(title, { size: 16, weight: 700 });
      sheet.y += 4;
      sheet.write(summary, { left: 14, right: 8, bar: COLOURS.jade, fill: COLOURS.soft });
      sheet.y += 14;
    }
    sheet.need(90);
    sheet.write(record.chat, { size: 16, weight: 700 });
    for (const { speaker, text, isVisitor } of record.messages) {
      sheet.y += 8;
      sheet.need(60); // a name does not stand alone at the foot of a page
      const colour = isVisitor ? COLOURS.jade : COLOURS.quiet;
      sheet.write(speaker, { size: 12.5, weight: 700, colour });
      sheet.write(text, { left: 14, bar: isVisitor ? COLOURS.jade : COLOURS.line });
    }
  }

  const numbered = (words, page, pages) => words.replace("{page}", page).replace("{pages}", pages);

  function foot(sheet, record) {
    sheet.pages.forEach((canvas, index) => {
      const pen = canvas.getContext("2d");
      pen.fillStyle = COLOURS.line;
      pen.fillRect(EDGE, HEIGHT - 48, WIDTH - 2 * EDGE, 1);
      pen.fillStyle = COLOURS.quiet;
      pen.font = `400 11.5px ${sheet.family}`;
      const number = numbered(record.words.page, index + 1, sheet.pages.length);
      const room = WIDTH - 2 * EDGE - pen.measureText(number).width - 12;
      lines(pen, record.watermark, room).forEach((line, row) => pen.fillText(line, EDGE, HEIGHT - 30 + 15 * row));
      pen.textAlign = "right";
      pen.fillText(number, WIDTH - EDGE, HEIGHT - 30);
    });
  }

  // Returns the pages as PNG files.
  async function draw(record, name) {
    const sheet = new Sheet();
    heading(sheet, record);
    conversation(sheet, record);
    foot(sheet, record);
    const made = sheet.pages.map(
      (canvas, index) =>
        new Promise((resolve) =>
          canvas.toBlob((blob) => {
            canvas.width = canvas.height = 0; // some phones keep the memory of a canvas that was only let go
            resolve(new File([blob], name.replace(/\.png$/, `-${index + 1}.png`), { type: "image/png" }));
          }, "image/png")
        )
    );
    return Promise.all(made);
  }

  // ------------------------------------------------------------------ the window that shows them

  function make(tag, properties, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  // Shown and not only saved: the browsers inside chat programs save no files, but let a picture be pressed and held.
  async function show({ name, text }) {
    const record = JSON.parse(text);
    const files = await draw(record, name);
    document.getElementById("bq-picture")?.remove();
    const addresses = files.map((file) => URL.createObjectURL(file));
    const close = make("button", { type: "button", textContent: record.words.close });
    const buttons = make("div", { className: "bq-picture-bar" });
    if (navigator.canShare?.({ files })) {
      const share = make("button", { type: "button", textContent: record.words.share });
      share.onclick = () => navigator.share({ files }).catch(() => {}); // the visitor thought better of it
      buttons.append(share);
    }
    buttons.append(close);
    const pages = files.map((file, index) => {
      const alt = `${record.words.heading}: ${numbered(record.words.page, index + 1, files.length)}`;
      const save = make("a", { href: addresses[index], download: file.name });
      save.textContent = numbered(record.words.save, index + 1, files.length);
      return make("figure", {}, make("img", { src: addresses[index], alt }), save);
    });
    const title = make("h2", { id: "bq-picture-title", textContent: record.words.heading });
    const hint = make("p", { textContent: record.words.hint });
    const dialog = make("dialog", { id: "bq-picture" }, title, hint, buttons, ...pages);
    dialog.lang = record.language;
    dialog.style.fontFamily = fonts();
    dialog.setAttribute("aria-labelledby", title.id);
    close.onclick = () => dialog.close();
    dialog.onclose = () => {
      dialog.remove();
      addresses.forEach((address) => URL.revokeObjectURL(address));
    };
    document.body.append(dialog);
    dialog.showModal();
  }

  return { show };
})();
