// The page: draw or drop, see the answer, train, see what would be uploaded.
import { see, show } from "./drawing.js";
import { open } from "./model.js";
import { makePad } from "./pad.js";
import { normals, upload } from "./privacy.js";
import { chooseLocale, languages, nameOf, speak } from "./text.js";
import { makeTeaching } from "./teaching.js";

const $ = (id) => document.getElementById(id);
const shown = 3; // best classes

let says = speak(chooseLocale(navigator.languages, ["en", ...languages]));

async function start() {
  if (location.protocol === "file:") return notify(says.t("serve"));
  const answer = await fetch("settings.json");
  if (!answer.ok) throw new Error(`settings.json: ${answer.status}`);
  const settings = await answer.json();
  const models = await open(settings);
  const page = makePage(settings, models);
  window.lepton = hook(settings, models);
  document.querySelector("main").hidden = false;
  $("notice").hidden = true;
  page.ready();
  return window.lepton;
}

/** For developers, and for the tests: the page's functions without the page. */
function hook(settings, models) {
  return {
    settings,
    classify: async (image) => Array.from(await models.classify(Uint8Array.from(image))),
    see: (content) => see(content, settings),
    training: models.training,
    upload,
    normals,
  };
}

function makePage(settings, models) {
  const there = Object.keys(settings.labels);
  const state = { image: null, model: models, answer: null };
  const labels = () => settings.labels[$("locale").value];
  const teaching =
    models.training &&
    makeTeaching({ settings, training: models.training, labels, say: () => says, use });
  const pad = makePad({
    element: $("pad"),
    file: $("file"),
    pen: settings.pen,
    changed,
    failed: () => notify(says.t("unreadable")),
  });

  $("locale").append(...there.map((locale) => new Option(nameOf(locale), locale)));
  $("locale").value = chooseLocale(navigator.languages, there);
  $("locale").addEventListener("change", translate);
  $("clear").addEventListener("click", pad.clear);
  $("undo").addEventListener("click", pad.undo);
  for (const button of $("which").children)
    button.addEventListener("click", () => use(button.dataset.which));

  function ready() {
    translate();
    changed(null, true);
    pad.paint();
  }

  /** The pad's new content; `done` when the hand is off it. */
  async function changed(content, done) {
    $("notice").hidden = true;
    state.image = content && see(content, settings);
    $("undo").disabled = $("clear").disabled = content === null;
    teaching?.offer(done ? state.image : null, pad.clear);
    await answer(done);
  }

  async function answer(timed) {
    const { image, model } = state;
    show(
      $("seen"),
      image ?? new Uint8Array(settings.image.reduce((a, b) => a * b)),
      settings.image,
    );
    const found = image && (await model.classify(image));
    if (image !== state.image) return; // drawn on meanwhile
    state.answer = found;
    tell();
    if (!image) $("latency").textContent = "–";
    else if (timed) $("latency").textContent = says.milliseconds(await model.time(image));
  }

  function tell() {
    $("answer").hidden = !state.answer;
    $("waiting").hidden = Boolean(state.answer);
    if (!state.answer) return;
    const best = [...state.answer.keys()]
      .sort((a, b) => state.answer[b] - state.answer[a])
      .slice(0, shown);
    $("best").textContent = labels()[best[0]];
    $("top").replaceChildren(...best.map((label) => row(labels()[label], state.answer[label])));
  }

  /** Lets the original or the trained model answer. */
  function use(which) {
    state.model = which === "taught" ? models.training : models;
    $("which").hidden = !teaching.trained();
    for (const button of $("which").children)
      button.setAttribute("aria-pressed", String(button.dataset.which === which));
    answer(true);
  }

  function translate() {
    says = speak($("locale").value);
    [document.documentElement.lang, document.documentElement.dir] = [says.language, says.direction];
    for (const element of document.querySelectorAll("[data-t]"))
      element.textContent = says.t(element.dataset.t);
    const drawn = Boolean(settings.pen);
    document.title = $("name").textContent = settings.name;
    const accuracy = says.t("accuracy", { accuracy: says.percent(settings.accuracy) });
    $("facts").textContent = `${accuracy} · ${says.kilobytes(settings.infer.bytes / 1000)}`;
    $("draw-title").textContent = says.t(drawn ? "draw" : "picture");
    $("pad-hint").textContent = says.t(drawn ? "drawHint" : "pictureHint");
    $("ink").setAttribute("aria-label", $("draw-title").textContent);
    $("waiting").textContent = says.t(drawn ? "waiting" : "waitingPicture");
    const [height, width, channels] = settings.image;
    $("size").textContent =
      `${says.whole(width)} × ${says.whole(height)}${channels === 3 ? " RGB" : ""}`;
    tell();
    teaching?.translate();
  }

  return { ready };
}

function row(label, share) {
  const item = document.createElement("li");
  const [name, part, meter] = ["bdi", "span", "meter"].map((tag) => document.createElement(tag));
  name.textContent = label;
  [part.textContent, part.className] = [says.percent(share), "share"];
  meter.value = share;
  meter.setAttribute("aria-hidden", "true");
  item.append(name, part, meter);
  return item;
}

function notify(text) {
  $("notice").textContent = text;
  $("notice").hidden = false;
}

window.ready = start();
window.ready.catch((error) => {
  console.error(error);
  notify(says.t("failed", { reason: error.message }));
});
