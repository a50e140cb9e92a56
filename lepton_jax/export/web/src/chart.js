// A small histogram.
import { histogram } from "./privacy.js";

const [width, height, bins] = [280, 90, 41];

/** Draws the histogram of `values` into `element`; `label` says it in words. */
export function draw(element, values, number, label) {
  const { counts, reach } = histogram(values, bins);
  const most = Math.max(...counts);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" });
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label(number(-reach), number(reach)));
  counts.forEach((count, i) => {
    const tall = (count / most) * (height - 2);
    const x = (i * width) / bins + 0.75;
    svg.append(
      make("rect", { x, y: height - tall, width: width / bins - 1.5, height: tall, rx: 1.5 }),
    );
  });
  svg.append(make("line", { x1: 0, x2: width, y1: height, y2: height }));
  const ticks = document.createElement("div");
  ticks.append(
    ...[-reach, 0, reach].map((value) =>
      Object.assign(document.createElement("span"), { textContent: number(value) }),
    ),
  );
  element.replaceChildren(svg, ticks);
}

function make(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
