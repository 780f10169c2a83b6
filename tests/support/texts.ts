// Texts that tokenizers get wrong: a fixed list of 20,000 and more, the same on every run. Some hold lone surrogates.

import { newRandom } from "./random.ts";

/** All texts, in a fixed order. */
export function allTexts(): string[] {
  return [...HAND_PICKED, ...sweep(), ...generated(14_000)];
}

/** Numerals that Unicode 17 added: the oracle's Digits step knows them, its regular expressions (Unicode 16) do not. */
const NEW_NUMERALS = /[\u{11de0}-\u{11de9}\u{16ff4}-\u{16ff6}]/u;

/**
 * Marks newer than Unicode 9, which the oracle's NFC (that of an older Unicode than its regular expressions) does not put in order.
 * They stand alone here: what order they take among other marks is the platform's business.
 */
const LATE_MARKS = ranges(
  "7fd 897-89f 8ca-8d3 9fe c3c d3b-d3c eba 1715 1abf-1add 1ae0-1aeb 1df6-1dfa a82c 10d24-10d27 10d69-10d6d 10eab-10eac 10efa-10efb 10efd-10eff 10f46-10f50 10f82-10f85 11070 1133b 113ce-113d0 1145e 11839-1183a 1193d-1193e 11943 119e0 11a34 11a47 11a99 11d42 11d44-11d45 11d97 11f41-11f42 1612f 16ff0-16ff1 1e08f 1e130-1e136 1e2ae 1e2ec-1e2ef 1e4ec-1e4ef 1e5ee-1e5ef 1e6e3 1e6e6 1e6ee-1e6ef 1e6f5",
);

function ranges(text: string): Set<number> {
  const points = new Set<number>();
  for (const range of text.split(" ")) {
    const [first, last = first] = range.split("-").map((digits) => Number.parseInt(digits, 16)) as [number, number?];
    for (let point = first; point <= last!; point++) points.add(point);
  }
  return points;
}

/** FNV-1a of all texts: tells a fixture that was made from others. */
export function hashTexts(): number {
  let hash = 0x811c9dc5;
  for (const text of allTexts())
    for (let i = 0; i <= text.length; i++) hash = Math.imul(hash ^ (text.charCodeAt(i) || 0), 0x01000193);
  return hash >>> 0;
}

/** Texts of control and other added tokens of the published models. */
// biome-ignore format: a list
export const TOKEN_TEXTS = [
  "<|endoftext|>", "<|endofprompt|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>",
  "<|start_header_id|>", "<|reserved_special_token_0|>", "<s>", "</s>", "<unk>", "<bos>", "<eos>", "<pad>",
  "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜▁pad▁｜>", "<tool_call>", "</tool_call>",
  "<|fim_prefix|>", "<|repo_name|>", "<0x0A>", "<|im_start", "|im_end|>", "<<s>>", "<|endoftext|><|endoftext|>",
  "<left>", "<right>", "<both>", "lone", "A\u030angstrom", "\u00c5ngstrom",
];

// biome-ignore format: a list
const HAND_PICKED = [
  "", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\r", "\t", "\t\t", " \n", "\n ", " \n \n ", "\r\n\r\n ", "   \n\n\n   x", "a", " a",
  "a ", "  a", "a  b", "a   b", "a\n\n b", "a \n b", "a\r\n\r\n\tb", "x \r y\r\nz", "\u00a0", "a\u00a0b", "\u00a0\u00a0a", "\u3000日本\u3000",
  "\u2003x\u2003\u2003y", "\u0085a\u0085", "\ufeffa\ufeff", "\u200ba\u200b", "\u2028a\u2029b", "\u180ea", "\u1680 a",
  "it's", "IT'S", "It'S we'RE I'Ll don'T they'Ve I'M he'D", "'s't're've'm'll'd", "''s '' s 'S", "it’s we’re", "'ſ 'ſa x'ſ X'ſ", "'K 'K",
  "'re're 'r e 'v 'l 'lL 'LL 'Ll", "o'clock rock'n'roll d'Artagnan l'été", "can't've", "'", "''", "'sx", "x'sx", "A's B'S",
  "1", "12", "123", "1234", "12345", "123456", "1234567 3.14159 1,000,000", "a1b22c333d4444", "１２３４", "٠١٢٣٤", "१२३४", "Ⅷ½²³①",
  "1st 2nd 3rd", " 1 22 333 4444", "0x1F 1e-10 1_000", "²³¹", "𝟏𝟐𝟑𝟒",
  "Hello, world!", "Hello World HELLO hELLO helloWorld HTTPServer XMLHttpRequest iPhone eBay", "ǅ ǅabc ABǅ ǈa", "ʰʱ aʰB Aʰb",
  "naïve café — “quotes” …", "e\u0301 E\u0301a a\u0301\u0302\u0303", "\u0301abc", " \u0301", "\u0301\u0301", "A\u0301BC\u0301d", "क्षत्रिय हिन्दी",
  "নমস্কার বাংলা", "สวัสดีชาวโลก", "ภาษาไทย ๑๒๓", "မြန်မာဘာသာ", "ភាសាខ្មែរ", "བོད་སྐད་", "தமிழ் மொழி", "తెలుగు", "ಕನ್ನಡ", "മലയാളം",
  "日本語テキスト、カタカナ・ひらがな。", "中文字符，标点符号！「引用」", "한국어 텍스트 입력", "각각ᄀ", "ㄱㄴㄷ", "漢字ーカナー々〆", "ｶﾀｶﾅ", "Ａｂｃ　Ｄ",
  "العربية ١٢٣ مرحبا", "مُحَمَّدٌ", "עִבְרִית שלום", "فارسی‌ها", "Ελληνικά Σίσυφος ςσ", "Русский Язык ЁЖ", "ᏣᎳᎩ ꭰꭱ", "Ⴀⴀ აბ Აა", "𐐀𐐨 Deseret",
  "🙂", "🙂👍🏽", "👨‍👩‍👧‍👦", "👩🏽‍💻 👩‍❤️‍💋‍👨", "🇩🇪🇫🇷🇯🇵", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "1️⃣ #️⃣ *️⃣", "☺️☺︎", "a🙂b 🙂 🙂🙂", "❤️‍🔥",
  "\ud800", "\udc00", "a\ud83d", "\ude00b", "\ud83d\ud83d\ude00", "\udc00\ud800", "x\ud800\u0301", "\ud800 \udfff", "\ufffd",
  "\u0000", "\u0000\u0001\u007f", "a\u0000b", "\u001b[31mred\u001b[0m", "\u0001\u0002abc", "\u007f\u0080\u009f", "\u00ad soft\u00adhyphen",
  "\uffff\ufffe", "\u{10ffff}\u{fffff}", "\u{e0001}\u{e0100}a\u{e0101}", "\ue000\uf8ff", "\u{323af}\u{323b0}", "\u0378 \u0379",
  "def f(x):\n    return x + 1\n\n\nclass A:\n\tpass\n", "for (let i = 0; i < n; ++i) { a[i] += b[i] ** 2; } // done\n", "#include <stdio.h>\r\nint main() {}\r\n",
  "SELECT * FROM t WHERE a >= 'x' AND b <> 1;", "<html><body class=\"a b\">&nbsp;</body></html>", "{\"a\": [1, 2.5, null, true], \"b\": {}}",
  "https://example.org/a/b?c=d&e=f#g", "user@example.org", "C:\\path\\to\\file", "/usr/local/bin//x/", "a/b\n/c\r\n/d", "----====####", "!!!???...", "....\n\n", "a.\n/b",
  "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "#hash @at $var %d &amp *p +1 -1 =x", "(a)[b]{c}<d>", "!a ?b .c ,d ;e :f", "_a __b__ -c", "~~~ ``` ^^^ |||", "$€£¥₿ ±×÷ ©®™",
  "–—―‘’‚“”„†‡•…‰′″‹›", "、。〃〈〉《》「」『』【】", "！？：；（）", "　、　。", "—a —b", "«a» ¿b? ¡c!", "´`¨^˘", "؟،؛", "।॥",
  "▁", "▁▁", "▁a", "a▁b", " ▁ a ▁", "a ▁▁b", "Ġ", "ĠaĠ", "Ċ", "ĀāĂ", "Ã©", "<0x41>", "<0xE2><0x96><0x81>",
  "   leading", "trailing   ", "  both  ", "tabs\tand\t\tmore", " \t \t x", "\n\n\n\n\n", "\n \n  \n   \n", " \u00a0 \u2003 x", "x\n\u00a0y", "x \n\u3000 y",
  "a".repeat(300), "ab".repeat(200), " ".repeat(200), `${" ".repeat(129)}x`, "\n".repeat(70), "=".repeat(300), "1".repeat(200), "é".repeat(150), "的".repeat(150), "🙂".repeat(60), "aA".repeat(60), "ªA".repeat(40), "A".repeat(90), "\u0301".repeat(60), "x\u0301".repeat(60), "\u0000".repeat(50), "' ".repeat(50), "_-".repeat(50), "<|".repeat(50), "Aa1 ".repeat(40),
  ...TOKEN_TEXTS, ...TOKEN_TEXTS.map((text) => ` ${text} x`), ...TOKEN_TEXTS.map((text) => `a${text}\n${text}b`),
  "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n", "<s>[INST] hi [/INST] there </s>", "<start_of_turn>user\nhi<end_of_turn>\n",
];

/** Every code point of the planes in use (all of the first two), 24 a text, between letters, digits and spaces. */
function* sweep(): Generator<string> {
  const joints = ["", "", "", " ", "a", "B", "1", "'s", "\n", "  ", "."];
  const random = newRandom(1);
  const points: number[] = [];
  for (let point = 0; point < 0x20000; point++) points.push(point);
  for (let point = 0x20000; point < 0x34000; point += 11) points.push(point);
  for (let point = 0xe0000; point < 0xe0200; point++) points.push(point);
  for (let point = 0x40000; point < 0x110000; point += 2003) points.push(point);
  const kept = points.filter((point) => !NEW_NUMERALS.test(String.fromCodePoint(point)));
  // In order, so that characters of one script stand together.
  for (let at = 0; at < kept.length; at += 24) {
    let text = "";
    for (const point of kept.slice(at, at + 24)) {
      const character = String.fromCodePoint(point);
      text += (LATE_MARKS.has(point) ? `.${character}.` : character) + random.pick(joints);
    }
    yield text;
  }
}

// biome-ignore format: a list
const RANGES: readonly (readonly [number, number])[] = [
  [0x20, 0x7e], [0x20, 0x7e], [0x00, 0x1f], [0x80, 0xff], [0x100, 0x24f], [0x250, 0x2ff], [0x300, 0x36f], [0x370, 0x3ff], [0x400, 0x52f],
  [0x531, 0x58f], [0x590, 0x5ff], [0x600, 0x6ff], [0x900, 0x97f], [0xe00, 0xe7f], [0x10a0, 0x10ff], [0x1100, 0x11ff], [0x13a0, 0x13ff],
  [0x1e00, 0x1fff], [0x2000, 0x206f], [0x2070, 0x209f], [0x20a0, 0x20cf], [0x2100, 0x218f], [0x2190, 0x2bff], [0x3000, 0x30ff],
  [0x4e00, 0x9fff], [0xac00, 0xd7ff], [0xa640, 0xa7ff], [0xd800, 0xdfff], [0xf900, 0xfaff], [0xfb00, 0xfdff], [0xfe00, 0xfe6f],
  [0xff00, 0xffff], [0x10000, 0x107ff], [0x10400, 0x1044f], [0x1d400, 0x1d7ff], [0x1f000, 0x1faff], [0x20000, 0x2ffff], [0x10000, 0x10ffff],
];

// biome-ignore format: a list
const WORDS = [
  "the", "The", "THE", "of", "and", "tokenizer", "Unicode", "camelCase", "PascalCase", "snake_case", "kebab-case", "don't", "I'm", "we'LL",
  "naïve", "Straße", "été", "œuvre", "Ελλάδα", "Москва", "日本", "東京都", "中文", "한국어", "العربية", "עברית", "हिन्दी", "ไทย", "👍🏽", "👨‍👩‍👧", "e\u0301", "ﬁ",
  "return", "function", "=>", "!=", "//", "/*", "*/", "()", "{}", "[];", "->", "::", "&&", "...", "—", "“", "”", "x2", "3D", "v1.2.3", "2024-01-31", "50%", "$9.99", "#1",
];

const SPACES = [
  " ",
  " ",
  " ",
  "  ",
  "   ",
  "\n",
  "\n\n",
  "\r\n",
  "\r",
  "\t",
  " \n",
  "\n  ",
  "\u00a0",
  "\u3000",
  "\u2003",
  "\u0085",
  "\u2028",
  "",
  "",
];

function* generated(count: number): Generator<string> {
  const { below, pick } = newRandom(2);
  const character = () => {
    const [low, high] = pick(RANGES);
    return String.fromCodePoint(low + below(high - low + 1));
  };
  // biome-ignore format: a table of cases
  const atom = (): string => {
    switch (below(12)) {
      case 0: case 1: case 2:
        return pick(WORDS);
      case 3: case 4:
        return pick(SPACES) + pick(WORDS);
      case 5:
        return pick(SPACES) + pick(SPACES);
      case 6:
        return String(below(10 ** (1 + below(9))));
      case 7:
        return character();
      case 8: {
        const [low, high] = pick(RANGES);
        let text = "";
        for (let i = below(6); i >= 0; i--) text += String.fromCodePoint(low + below(high - low + 1));
        return text;
      }
      case 9:
        return pick(["'s", "'T", "'re", "'VE", "'m", "'lL", "'d", "'", "’s", "'x"]);
      case 10:
        return below(4) === 0 ? pick(TOKEN_TEXTS) : pick([...".,;:!?/-_=+*#@&%$^~|<>()[]{}\"'`\\"]).repeat(1 + below(4));
      default:
        return character().repeat(1 + below(5));
    }
  };
  for (let i = 0; i < count; i++) {
    let text = "";
    for (let atoms = 1 + below(12); atoms > 0; atoms--) text += atom();
    yield text.replaceAll(new RegExp(NEW_NUMERALS, "gu"), "0");
  }
}
