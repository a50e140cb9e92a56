// "Train on my drawings": examples, training, and what would be uploaded.
import { draw } from "./chart.js";
import { show } from "./drawing.js";
import { upload } from "./privacy.js";

const $ = (id) => document.getElementById(id);
const few = 12; // classes that get a button each
const make = (tag, content = "") =>
  Object.assign(document.createElement(tag), { textContent: content });

/**
 * The page's lower half.
 * @param {object} training of model.js; @param {() => string[]} labels in the reader's language.
 * @param {() => object} say words of text.js; @param {(which) => void} use lets a model answer.
 */
export function makeTeaching({ settings, training, labels, say, use }) {
  const state = {
    image: null,
    added: null,
    examples: [],
    before: null,
    after: null,
    result: null,
    update: null,
    busy: false,
  };
  $("teach").hidden = false;
  $("epochs").value = settings.epochs;
  $("rate").value = settings.learning_rate;
  const clip = Math.log10(settings.clip_norm);
  setKnob("clip", clip, Math.min(-2, clip - 1), Math.max(2, clip + 1));
  setKnob("noise", settings.noise_multiplier, 0, Math.max(2, 2 * settings.noise_multiplier));
  $("train").addEventListener("click", train);
  $("forget").addEventListener("click", forget);
  $("again").addEventListener("click", weigh);
  for (const knob of ["clip", "noise"]) $(knob).addEventListener("input", weigh);

  /** The bounds first: a value beyond them would be moved. */
  function setKnob(id, value, min, max) {
    Object.assign($(id), { min, max });
    $(id).value = value;
  }

  /** An image that may become an example; null: none, or the hand is still drawing. */
  function offer(image, added) {
    [state.image, state.added] = [image, added];
    enable();
  }

  function add(label) {
    state.examples.push({ image: state.image, label });
    state.added();
    list();
  }

  async function train() {
    const [epochs, rate] = [Math.round($("epochs").valueAsNumber), $("rate").valueAsNumber];
    if (!(epochs >= 1 && rate >= 0)) return;
    busy(true);
    try {
      state.before ??= await training.weights();
      state.result = await training.train(state.examples, {
        epochs,
        rate,
        progress: (done, all) => ($("progress").value = done / all),
      });
      state.result.all = state.examples.length;
      state.after = await training.weights();
    } finally {
      busy(false);
    }
    translate();
    weigh();
    use("taught");
  }

  async function forget() {
    if (state.before) await training.restore(state.before);
    Object.assign(state, { examples: [], before: null, after: null, result: null, update: null });
    translate();
    use("original");
  }

  /** What would be uploaded, with noise drawn anew. */
  function weigh() {
    const [clip, multiplier] = [10 ** $("clip").valueAsNumber, $("noise").valueAsNumber];
    $("clip-value").textContent = say().number(clip);
    $("noise-value").textContent = say().number(multiplier);
    if (!state.after) return;
    state.update = upload(state.before, state.after, clip, multiplier);
    summarize();
  }

  function summarize() {
    const { t, number, whole, kilobytes } = say();
    const { change, sent, norm, clipped, deviation, bytes } = state.update;
    const told = (values) => (low, high) => t("chart", { count: whole(values.length), low, high });
    draw($("change"), change, number, told(change));
    draw($("sent"), sent, number, told(sent));
    const rows = [
      ["numbers", whole(sent.length)],
      ["size", kilobytes(bytes / 1000)],
      ["norm", number(norm)],
      ["clipped", number(clipped)],
      ["deviation", deviation ? `± ${number(deviation)}` : number(0)],
      ["signal", deviation ? number(clipped / (deviation * Math.sqrt(sent.length))) : "∞"],
    ];
    $("summary").replaceChildren(
      ...rows.map(([key, value]) => {
        const row = make("div");
        row.append(make("dt", t(key)), make("dd", value));
        return row;
      }),
    );
    $("alone").textContent = t(deviation ? "alone" : "noNoise");
    $("drawings").textContent = t("drawings", { count: whole(state.examples.length) });
    $("strip").replaceChildren(...state.examples.map(thumbnail));
  }

  function thumbnail({ image }) {
    const canvas = make("canvas");
    show(canvas, image, settings.image);
    return canvas;
  }

  function list() {
    $("examples").replaceChildren(
      ...state.examples.map((example, i) => {
        const [item, button, name] = [
          make("li"),
          make("button"),
          make("span", labels()[example.label]),
        ];
        const told = say().t("remove", { label: labels()[example.label] });
        Object.assign(button, {
          type: "button",
          title: told,
          ariaLabel: told,
          disabled: state.busy,
        });
        button.addEventListener("click", () => {
          state.examples.splice(i, 1);
          list();
        });
        button.append(thumbnail(example), name);
        item.append(button);
        return item;
      }),
    );
    enable();
  }

  /** A button for each class, or a list to choose from. */
  function offerLabels() {
    const names = labels();
    if (names.length <= few) {
      const buttons = names.map((name, label) => {
        const button = Object.assign(make("button", name), { type: "button", dir: "auto" });
        button.addEventListener("click", () => add(label));
        return button;
      });
      return $("labels").replaceChildren(...buttons);
    }
    const select = make("select");
    select.append(...names.map((name, label) => new Option(name, label)));
    const button = Object.assign(make("button", say().t("add")), { type: "button" });
    button.addEventListener("click", () => add(Number(select.value)));
    $("labels").replaceChildren(select, button);
  }

  function busy(now) {
    state.busy = now;
    $("progress").hidden = !now;
    $("progress").value = 0;
    list();
  }

  function enable() {
    for (const button of $("labels").querySelectorAll("button"))
      button.disabled = state.busy || !state.image;
    $("train").disabled = state.busy || !state.examples.length;
    $("forget").disabled = state.busy || !(state.examples.length || state.before);
  }

  function translate() {
    const { t, number, whole } = say();
    $("teach-title").textContent = t(settings.pen ? "teach" : "teachPictures");
    $("train").textContent = t("train");
    offerLabels();
    list();
    $("result").hidden = $("upload").hidden = !state.result;
    $("clip-value").textContent = say().number(10 ** $("clip").valueAsNumber);
    $("noise-value").textContent = say().number($("noise").valueAsNumber);
    if (!state.result) return;
    for (const when of ["before", "after"]) {
      $(`loss-${when}`).textContent = number(state.result[when].loss);
      const right = { right: whole(state.result[when].correct), all: whole(state.result.all) };
      $(`right-${when}`).textContent = t("right", right);
    }
    if (state.update) summarize();
  }

  return { offer, translate, trained: () => state.after !== null };
}
