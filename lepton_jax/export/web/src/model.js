// The phone models in LiteRT.js: opened once, called by signature with typed arrays.
import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

const runs = 10; // of one image, for its latency

/**
 * Opens the page's models.
 * @param {object} settings settings.json, as write_page writes it.
 * @returns the functions that the page is made of; `training` is null where the page has none.
 */
export async function open(settings) {
  await loadLiteRt("wasm/");
  const model = await load(settings.infer.file);
  const training = settings.training && learner(await load(settings.training.file), settings);
  return {
    classify: (image) => classify(model, settings.infer, image),
    time: (image) => time(model, settings.infer, image),
    training,
  };
}

async function load(file) {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file}: ${response.status}`);
  return loadAndCompile(new Uint8Array(await response.arrayBuffer()), { accelerator: "wasm" });
}

/** Calls a signature with typed arrays by input name; gives typed arrays by output name. */
async function call(model, signature, inputs) {
  const tensors = {};
  try {
    for (const { name, shape } of model.signatures[signature].getInputDetails()) {
      tensors[name] = new Tensor(inputs[name], shape);
    }
    const outputs = await model.run(signature, tensors);
    return Object.fromEntries(
      Object.entries(outputs).map(([name, tensor]) => {
        const values = tensor.toTypedArray();
        tensor.delete();
        return [name, values];
      }),
    );
  } finally {
    for (const tensor of Object.values(tensors)) tensor.delete(); // wasm memory is not collected
  }
}

async function classify(model, names, image) {
  const answer = await call(model, names.signature, { [names.image]: image });
  return answer[names.probabilities];
}

/** The milliseconds of an image, copies in and out included. */
async function time(model, names, image) {
  // Together, since browsers round their clock to a tenth of a millisecond.
  const start = performance.now();
  for (let i = 0; i < runs; i++) await classify(model, names, image);
  return (performance.now() - start) / runs;
}

// --- training -------------------------------------------------------------------------------------

function learner(model, settings) {
  const { infer, train, evaluate, get_weights, set_weights } = settings.training.signatures;
  const image = model.signatures[train.signature]
    .getInputDetails()
    .find(({ name }) => name === train.image);
  const batch = image.shape[0];
  const weights = async () => (await call(model, get_weights.signature, {}))[get_weights.weights];
  const restore = (values) => call(model, set_weights.signature, { [set_weights.weights]: values });
  const measure = async (examples) => {
    const sum = { loss: 0, correct: 0, weight: 0 };
    for (const inputs of batches(examples, batch, evaluate)) {
      const found = await call(model, evaluate.signature, inputs);
      for (const key of Object.keys(sum)) sum[key] += found[evaluate[key]][0];
    }
    return { loss: sum.loss / sum.weight, correct: Math.round(sum.correct) };
  };
  return {
    batch,
    weights,
    restore,
    evaluate: measure,
    classify: (each) => classify(model, infer, each),
    time: (each) => time(model, infer, each),
    train: async (examples, { epochs, rate, progress }) => {
      const before = await measure(examples);
      for (let epoch = 1; epoch <= epochs; epoch++) {
        for (const inputs of batches(examples, batch, train)) {
          inputs[train.learning_rate] = Float32Array.of(rate);
          await call(model, train.signature, inputs);
        }
        progress?.(epoch, epochs);
        await new Promise((resolve) => setTimeout(resolve)); // the page stays alive
      }
      return { before, after: await measure(examples) };
    },
  };
}

/**
 * The examples in their order, a batch at a time; the last one is padded with weight 0.
 * @param {{image: Uint8Array, label: number}[]} examples
 */
function* batches(examples, size, names) {
  for (let start = 0; start < examples.length; start += size) {
    const part = examples.slice(start, start + size);
    const pixels = part[0].image.length;
    const images = new Uint8Array(size * pixels);
    const labels = new Int32Array(size);
    const weights = new Float32Array(size);
    part.forEach(({ image, label }, i) => {
      images.set(image, i * pixels);
      labels[i] = label;
      weights[i] = 1;
    });
    yield { [names.image]: images, [names.label]: labels, [names.weight]: weights };
  }
}
