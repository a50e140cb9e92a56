// What would leave the device: the change of the weights, clipped and noised.

/**
 * The update that a phone would send: Gaussian mechanism on one client's change.
 *
 * The noise is 53-bit uniforms of crypto.getRandomValues through Box and Muller (1958). Its low bits
 * can tell of what it was added to (Mironov, 2012): good enough to show, not to send; the library's
 * own noise is drawn in whole numbers.
 *
 * @param {Float32Array} before weights; @param {Float32Array} after weights.
 * @param {number} clip the largest L2 norm; @param {number} multiplier deviation over `clip`.
 */
export function upload(before, after, clip, multiplier) {
  const change = after.map((value, i) => value - before[i]);
  const norm = length(change);
  const scale = norm > clip ? clip / norm : 1;
  const deviation = clip * multiplier;
  const noise = deviation > 0 ? normals(change.length) : null;
  const sent = change.map((value, i) => scale * value + (noise ? deviation * noise[i] : 0));
  return { change, sent, norm, clipped: norm * scale, deviation, bytes: sent.byteLength };
}

export function length(values) {
  let sum = 0;
  for (const value of values) sum += value * value;
  return Math.sqrt(sum);
}

/** `count` independent standard normal numbers. */
export function normals(count) {
  const found = new Float64Array(count + (count % 2));
  for (let i = 0; i < found.length;) {
    const words = crypto.getRandomValues(new Uint32Array(Math.min(16384, 2 * (found.length - i))));
    for (let j = 0; j < words.length; j += 4, i += 2) {
      const radius = Math.sqrt(-2 * Math.log(1 - uniform(words[j], words[j + 1])));
      const angle = 2 * Math.PI * uniform(words[j + 2], words[j + 3]);
      found[i] = radius * Math.cos(angle);
      found[i + 1] = radius * Math.sin(angle);
    }
  }
  return found.subarray(0, count);
}

const uniform = (high, low) => ((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53; // [0, 1)

/** Counts over equal bins of [-reach, reach], where all but 1 in 1000 of the values lie. */
export function histogram(values, bins) {
  const sizes = Float32Array.from(values, Math.abs).sort();
  const reach = sizes[Math.floor(0.999 * (sizes.length - 1))] || sizes.at(-1) || 1;
  const counts = new Array(bins).fill(0);
  for (const value of values) {
    const bin = Math.floor(((value / reach + 1) / 2) * bins);
    counts[Math.min(bins - 1, Math.max(0, bin))] += 1;
  }
  return { counts, reach };
}
