// The page's words and numbers in the reader's language.
import ar from "./locales/ar.json";
import de from "./locales/de.json";
import en from "./locales/en.json";
import es from "./locales/es.json";
import fr from "./locales/fr.json";
import hi from "./locales/hi.json";
import ja from "./locales/ja.json";
import pt from "./locales/pt.json";
import zh from "./locales/zh.json";

const words = { ar, de, en, es, fr, hi, ja, pt, zh };
export const languages = Object.keys(words);
const rightToLeft = ["ar", "fa", "he", "ur", "ps", "sd", "yi", "dv", "ckb"];
const languageOf = (locale) => locale.split("-")[0];

/** The first of the wanted locales that there is, by language at least; else the first there is. */
export function chooseLocale(wanted, there) {
  for (const each of wanted) {
    const found =
      there.find((locale) => locale.toLowerCase() === each.toLowerCase()) ??
      there.find((locale) => languageOf(locale) === languageOf(each.toLowerCase()));
    if (found) return found;
  }
  return there[0];
}

/** What a language is called in itself. */
export function nameOf(locale) {
  try {
    const name = new Intl.DisplayNames([locale], { type: "language" }).of(locale);
    return name.charAt(0).toLocaleUpperCase(locale) + name.slice(1);
  } catch {
    return locale;
  }
}

/** Words and number formats of a locale; English where the page lacks the language. */
export function speak(locale) {
  const language = languageOf(locale) in words ? languageOf(locale) : "en";
  const tag = language === languageOf(locale) ? locale : "en";
  const format = (options) => {
    const formatter = new Intl.NumberFormat(tag, options);
    return (value) => formatter.format(value);
  };
  const [plain, tiny] = [
    format({ maximumSignificantDigits: 3 }),
    format({ notation: "scientific", maximumSignificantDigits: 3 }),
  ];
  return {
    language,
    direction: rightToLeft.includes(language) ? "rtl" : "ltr",
    t: (key, values = {}) => words[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]),
    number: (value) => (value && Math.abs(value) < 1e-3 ? tiny(value) : plain(value)),
    whole: format({ maximumFractionDigits: 0 }),
    percent: format({ style: "percent", maximumFractionDigits: 1 }),
    milliseconds: format({ style: "unit", unit: "millisecond", maximumSignificantDigits: 2 }),
    kilobytes: format({ style: "unit", unit: "kilobyte", maximumFractionDigits: 0 }),
  };
}
