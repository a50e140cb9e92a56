// Runs a page in headless Chromium: a task in by stdin, what was seen out by stdout, both JSON.
import { createRequire } from "node:module";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const task = JSON.parse(Buffer.concat(chunks));
const { chromium } = createRequire(join(task.packages, "package.json"))("playwright-core");

const profile = await mkdtemp(join(tmpdir(), "page-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: task.chromium,
  headless: true,
  locale: task.locale,
  viewport: { width: 1180, height: 900 },
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const seen = { requests: [], errors: [] };
try {
  context.on("request", (request) => seen.requests.push(request.url()));
  const page = context.pages()[0] ?? (await context.newPage());
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  await page.goto(task.url);
  await page.evaluate(() => window.ready.then(() => null));
  await byHook(page);
  if (task.examples) {
    await trainByHook(page);
    await byHand(page);
  }
  seen.refused = await page.evaluate(refused);
} finally {
  await context.close();
  await rm(profile, { recursive: true, force: true });
}
process.stdout.write(JSON.stringify(seen));

/** The page's functions. */
async function byHook(page) {
  seen.probabilities = await page.evaluate(async (images) => {
    const found = [];
    for (const image of images) found.push(await window.lepton.classify(image));
    return found;
  }, task.images);
  seen.pictures = await page.evaluate(async (pictures) => {
    const found = [];
    for (const png of pictures) {
      const bytes = Uint8Array.from(atob(png), (character) => character.charCodeAt(0));
      const picture = await createImageBitmap(new Blob([bytes]));
      found.push(Array.from(window.lepton.see({ picture }) ?? []));
    }
    return found;
  }, task.pictures);
  seen.noise = await page.evaluate(() => Array.from(window.lepton.normals(20000)));
  seen.upload = await page.evaluate(() => {
    const before = new Float32Array([1, 1, 1]);
    const { sent, norm, clipped } = window.lepton.upload(before, new Float32Array([4, 1, 5]), 2, 0);
    return { sent: Array.from(sent), norm, clipped };
  });
}

/** Training by the page's functions; afterwards the weights are as before. */
async function trainByHook(page) {
  seen.trained = await page.evaluate(async ({ examples, epochs, rate }) => {
    const { training } = window.lepton;
    const given = examples.map(({ image, label }) => ({ image: Uint8Array.from(image), label }));
    const start = await training.weights();
    const told = await training.train(given, { epochs, rate });
    const weights = Array.from(await training.weights());
    await training.restore(start);
    const restored = await training.evaluate(given);
    return { ...told, weights, restored };
  }, task);
}

/** What a visitor does: draws, names, trains, changes the language. */
async function byHand(page) {
  const text = (selector) => page.locator(selector).innerText();
  const draw = async (strokes) => {
    const box = await page.locator("#ink").boundingBox();
    const at = ([x, y]) => [box.x + x * box.width, box.y + y * box.height];
    for (const stroke of strokes) {
      await page.mouse.move(...at(stroke[0]));
      await page.mouse.down();
      for (const point of stroke.slice(1)) await page.mouse.move(...at(point), { steps: 4 });
      await page.mouse.up();
    }
    await page.waitForFunction(() => document.getElementById("latency").textContent !== "–");
  };
  seen.first = { lang: await page.locator("html").getAttribute("lang") };
  await draw(task.strokes);
  Object.assign(seen.first, {
    best: await text("#best"),
    rows: await page.locator("#top li").count(),
  });
  for (const locale of task.locales) {
    await page.selectOption("#locale", locale);
    const [best, direction] = [await text("#best"), await page.locator("html").getAttribute("dir")];
    seen[locale] = { best, direction };
  }
  await page.locator("#labels button").nth(task.label).click();
  seen.kept = await page.locator("#examples li").count();
  await page.locator("#train").click();
  await page.waitForSelector("#upload:not([hidden])");
  seen.after = {
    summary: await text("#summary"),
    charts: await page.locator(".chart svg").count(),
  };
  await page.locator("#forget").click();
  await page.waitForSelector("#upload", { state: "hidden" });
  seen.forgotten = await page.locator("#examples li").count();
}

/** Whether the page's policy stops a request to elsewhere before it is made. */
async function refused() {
  const stopped = new Promise((resolve) =>
    document.addEventListener("securitypolicyviolation", (event) => resolve(event.blockedURI)),
  );
  const failed = await fetch("http://elsewhere.invalid/").then(
    () => false,
    () => true,
  );
  return failed && stopped;
}
