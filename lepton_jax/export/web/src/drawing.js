// From strokes and pictures to the bytes that the model takes.

const fine = 8; // finer than a pixel, by side: averaged over, as the data sets' scans were

/**
 * The pad's content as bytes for the model.
 * @param {{strokes?: number[][][], picture?: ImageBitmap}} content one of both.
 * @param {{image: number[], pen: ?object}} settings of settings.json.
 * @returns {?Uint8Array} H*W*F bytes; null where a picture shows nothing.
 */
export function see({ strokes, picture }, { image, pen }) {
  if (strokes) return rasterize(strokes, image, pen);
  return pen ? scan(picture, image, pen) : fit(picture, image);
}

/**
 * A drawing as the data set has it: scaled into a box, drawn with its pen, centred.
 * @param {number[][][]} strokes points [x, y] in any unit.
 * @param {number[]} shape [H, W, 1]; @param {{box, width, centre}} pen in parts of the shorter side.
 * @returns {Uint8Array} H*W bytes, ink is 255.
 */
function rasterize(strokes, shape, pen) {
  const width = pen.width * Math.min(shape[0], shape[1]);
  const points = strokes.flat();
  const [left, right] = extent(points.map(([x]) => x));
  const [top, bottom] = extent(points.map(([, y]) => y));
  const room = pen.box * Math.min(shape[0], shape[1]) - width;
  const size = Math.max(right - left, bottom - top);
  const scale = size > 0 ? room / size : 0;
  return place(shape, pen, (context, dx, dy) => {
    const middle = [(left + right) / 2, (top + bottom) / 2];
    context.lineWidth = width;
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = "#fff";
    trace(context, strokes, ([x, y]) => [
      (x - middle[0]) * scale + shape[1] / 2 + dx,
      (y - middle[1]) * scale + shape[0] / 2 + dy,
    ]);
  });
}

/** Draws strokes with smooth curves through the middles between points. */
export function trace(context, strokes, map) {
  for (const stroke of strokes) {
    const points = stroke.map(map);
    context.beginPath();
    context.moveTo(...points[0]);
    for (let i = 1; i < points.length - 1; i++) {
      const [x, y] = points[i];
      context.quadraticCurveTo(x, y, (x + points[i + 1][0]) / 2, (y + points[i + 1][1]) / 2);
    }
    context.lineTo(...points.at(-1)); // to itself, if it is a dot
    context.stroke();
  }
}

/** A photo of handwriting, dark on light or light on dark, as `rasterize` would have drawn it. */
function scan(picture, shape, pen) {
  const side = 256;
  const scale = side / Math.max(picture.width, picture.height);
  const canvas = new OffscreenCanvas(
    Math.max(1, Math.round(picture.width * scale)),
    Math.max(1, Math.round(picture.height * scale)),
  );
  const context = canvas.getContext("2d", { willReadFrequently: true });
  paint(context, picture, 0, 0, canvas.width, canvas.height);
  const box = inkOf(context, canvas.width, canvas.height);
  if (!box) return null;
  const [left, top, width, height] = box;
  const fitted = (pen.box * Math.min(shape[0], shape[1])) / Math.max(width, height);
  return place(shape, pen, (target, dx, dy) => {
    const [w, h] = [width * fitted, height * fitted];
    const [x, y] = [(shape[1] - w) / 2 + dx, (shape[0] - h) / 2 + dy];
    target.imageSmoothingQuality = "high";
    target.drawImage(canvas, left, top, width, height, x, y, w, h);
  });
}

/** A picture's middle in the model's size, RGB. */
function fit(picture, [height, width]) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const scale = Math.max(width / picture.width, height / picture.height);
  const [w, h] = [picture.width * scale, picture.height * scale];
  paint(context, picture, (width - w) / 2, (height - h) / 2, w, h);
  const { data } = context.getImageData(0, 0, width, height);
  return Uint8Array.from(
    { length: 3 * width * height },
    (_, i) => data[4 * Math.floor(i / 3) + (i % 3)],
  );
}

/** Shows bytes of the model's input, a canvas pixel each. */
export function show(canvas, image, [height, width, channels]) {
  [canvas.width, canvas.height] = [width, height];
  const pixels = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = image[channels * i + (c % channels)];
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// --- inside ---------------------------------------------------------------------------------------

function extent(values) {
  return values.reduce(
    ([low, high], v) => [Math.min(low, v), Math.max(high, v)],
    [Infinity, -Infinity],
  );
}

/** Draws, and once more where the centre of mass is to be the middle. */
function place([height, width], pen, draw) {
  const once = (dx, dy) => {
    const canvas = new OffscreenCanvas(width * fine, height * fine);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.scale(fine, fine);
    draw(context, dx, dy);
    return averages(context.getImageData(0, 0, canvas.width, canvas.height).data, height, width);
  };
  const image = once(0, 0);
  if (pen.centre !== "mass") return image;
  const [x, y] = mass(image, width);
  // MNIST's middle is the pixel (14, 14) of 28, half a pixel right of and below the geometric one.
  return once(Math.floor(width / 2) - x, Math.floor(height / 2) - y);
}

function averages(data, height, width) {
  const image = new Uint8Array(height * width);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let j = 0; j < fine; j++) {
        for (let i = 0; i < fine; i++) {
          sum += data[4 * ((y * fine + j) * width * fine + x * fine + i)];
        }
      }
      image[y * width + x] = Math.round(sum / fine ** 2);
    }
  }
  return image;
}

function mass(image, width) {
  let [sum, sx, sy] = [0, 0, 0];
  image.forEach((value, i) => {
    sum += value;
    sx += value * (i % width);
    sy += value * Math.floor(i / width);
  });
  return sum ? [sx / sum, sy / sum] : [width / 2, image.length / width / 2];
}

function paint(context, picture, x, y, width, height) {
  context.fillStyle = "#fff"; // behind what is transparent
  context.fillRect(0, 0, context.canvas.width, context.canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, x, y, width, height);
}

/** Turns a canvas to ink, light on black, and finds its box; null where there is none. */
function inkOf(context, width, height) {
  const pixels = context.getImageData(0, 0, width, height);
  const grey = Float32Array.from({ length: width * height }, (_, i) => {
    const [r, g, b] = pixels.data.subarray(4 * i, 4 * i + 3);
    return 0.299 * r + 0.587 * g + 0.114 * b;
  });
  const border = [...grey].filter((_, i) => {
    const [x, y] = [i % width, Math.floor(i / width)];
    return x === 0 || y === 0 || x === width - 1 || y === height - 1;
  });
  const paper = border.sort((a, b) => a - b)[border.length >> 1];
  const most = grey.reduce((found, v) => Math.max(found, Math.abs(v - paper)), 0);
  if (most < 16) return null;
  const inked = [];
  grey.forEach((v, i) => {
    // Below a quarter it is the paper's grain or a shadow.
    const ink = Math.max(0, (Math.abs(v - paper) / most - 0.25) / 0.75);
    if (ink > 0) inked.push([i % width, Math.floor(i / width)]);
    pixels.data.set([255 * ink, 255 * ink, 255 * ink, 255], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
  const [left, right] = extent(inked.map(([x]) => x));
  const [top, bottom] = extent(inked.map(([, y]) => y));
  return [left, top, right - left + 1, bottom - top + 1];
}
