// The drawing pad: strokes by finger, pen or mouse, or a picture that is dropped or chosen.
import { trace } from "./drawing.js";

/**
 * Makes the pad's canvas take strokes (where `pen` is not null) and pictures.
 * @param {HTMLElement} element with a canvas in it; @param {HTMLInputElement} file its chooser.
 * @param {?object} pen as in settings.json.
 * @param {(content: {strokes?, picture?} | null, done: boolean) => void} changed null when cleared.
 * @param {() => void} failed a picture that can't be read.
 */
export function makePad({ element, file, pen, changed, failed }) {
  const canvas = element.querySelector("canvas");
  const context = canvas.getContext("2d");
  let strokes = [];
  let picture = null;
  let drawing = null; // the pointer that draws

  const paint = () => {
    const side = Math.round(element.clientWidth * devicePixelRatio);
    [canvas.width, canvas.height] = [side, Math.round(element.clientHeight * devicePixelRatio)];
    element.classList.toggle("used", Boolean(picture || strokes.length));
    element.classList.toggle("picture", Boolean(picture));
    if (picture) {
      const scale = Math.min(canvas.width / picture.width, canvas.height / picture.height);
      const [w, h] = [picture.width * scale, picture.height * scale];
      context.drawImage(picture, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
    } else if (pen) {
      context.lineWidth = pen.width * pen.box * side;
      context.lineCap = context.lineJoin = "round";
      context.strokeStyle = getComputedStyle(canvas).color;
      trace(context, strokes, ([x, y]) => [x * side, y * side]);
    }
  };
  const tell = (done) => {
    paint();
    changed(picture ? { picture } : strokes.length ? { strokes } : null, done);
  };
  const clear = () => {
    [strokes, picture] = [[], null];
    tell(true);
  };
  const take = async (blob) => {
    try {
      picture = await createImageBitmap(blob);
    } catch {
      return failed();
    }
    strokes = [];
    tell(true);
  };

  if (pen) followPointer();
  addEventListener("resize", paint);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  file.addEventListener("change", () => {
    if (file.files[0]) take(file.files[0]);
    file.value = ""; // the same file may be chosen again
  });
  for (const [type, over] of [
    ["dragover", true],
    ["dragleave", false],
    ["drop", false],
  ]) {
    element.addEventListener(type, (event) => {
      event.preventDefault();
      element.classList.toggle("over", over);
      if (type === "drop" && event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
    });
  }
  // A picture that misses the pad would replace the page.
  for (const type of ["dragover", "drop"])
    addEventListener(type, (event) => event.preventDefault());
  const undo = () => {
    if (picture) return clear();
    strokes = strokes.slice(0, -1);
    tell(true);
  };
  return { clear, undo, paint };

  function followPointer() {
    const point = (event) => {
      const { left, top, width } = canvas.getBoundingClientRect();
      return [(event.clientX - left) / width, (event.clientY - top) / width];
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (drawing !== null || event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      [drawing, picture] = [event.pointerId, null];
      strokes = [...strokes, [point(event)]];
      tell(false);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (drawing !== event.pointerId) return;
      const events = event.getCoalescedEvents?.() ?? [];
      strokes.at(-1).push(...(events.length ? events : [event]).map(point));
      tell(false);
    });
    for (const type of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(type, (event) => {
        if (drawing !== event.pointerId) return;
        drawing = null;
        tell(true);
      });
    }
  }
}
