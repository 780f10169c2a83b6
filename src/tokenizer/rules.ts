// The published pre-tokenizers: which rules of assembly/text/split.ts each consists of, by the expression a tokenizer.json writes
// and by the name a GGUF gives. Knows nothing of vocabularies.

/** The rules, numbered as in assembly/text/split.ts. */
const RULES = {
  gpt2: 1,
  cl100k3: 2,
  cl100k1: 3,
  cl100kMarks: 4,
  o200k: 5,
  tekken: 6,
  deepseekV3: 7,
  number: 8,
  numbers3: 9,
  numbers: 10,
  digits3: 11,
  hanKana: 12,
  hanHangul: 13,
  lineBreak: 14,
  spacedLetters: 15,
  spacedCased: 16,
  spacedPunctuation: 17,
  spacedSigns: 18,
  trailingSpace: 19,
  falconSigns: 20,
  defaultSigns: 21,
} as const;

export type RuleName = keyof typeof RULES;

/** A list of at most eight rules as newVocab takes it: one a byte, the first lowest. */
export function packRules(rules: readonly RuleName[]): bigint {
  return rules.reduceRight((packed, rule) => (packed << 8n) | BigInt(RULES[rule]), 0n);
}

/** The rule that a regular expression of a tokenizer.json spells, if it is a published one. */
export function ruleOfPattern(pattern: string): RuleName | undefined {
  return byPattern.get(canonical(pattern));
}

/** Whether the rule's matches cover every text, so that it makes no difference what happens to the rest. */
export function coversAll(rule: RuleName): boolean {
  return ["gpt2", "cl100k3", "cl100k1", "cl100kMarks", "o200k", "tekken"].includes(rule);
}

export interface Pretokenizer {
  readonly rules: readonly RuleName[];
  readonly wholeWords?: boolean;
  readonly addBos?: boolean;
  /** The published tokenizer composes characters first. */
  readonly nfc?: boolean;
}

/** The pre-tokenizer of a GGUF's tokenizer.ggml.pre. */
export function pretokenizerOfName(name: string): Pretokenizer | undefined {
  return byName.get(name);
}

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const CASED_WORD =
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+C|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*C";
const WHITE = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const CASED =
  "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃";

const cl100k = (letters: string, digits: string) =>
  `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?${letters === "\\p{L}" ? letters : `[${letters}]`}+|\\p{N}${digits}| ?[^\\s${letters}\\p{N}]+[\\r\\n]*|${WHITE}`;

/** Every rule's expression; where it has been published in several spellings of one meaning, all of them. */
const PATTERNS: Record<RuleName, readonly string[]> = {
  gpt2: ["'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"],
  cl100k3: [
    cl100k("\\p{L}", "{1,3}"),
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
  ],
  cl100k1: [
    cl100k("\\p{L}", ""),
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
  ],
  cl100kMarks: [cl100k("\\p{L}\\p{M}", "")],
  o200k: [`${CASED_WORD.replaceAll("C", `${CONTRACTIONS}?`)}|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${WHITE}`],
  tekken: [`${CASED_WORD.replaceAll("C", "")}|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${WHITE}`],
  deepseekV3: [
    `[!"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_\`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|${WHITE}`,
  ],
  number: ["\\p{N}", "\\p{N}{1}"],
  numbers3: ["\\p{N}{1,3}"],
  numbers: ["\\p{N}+"],
  digits3: ["[0-9][0-9][0-9]"],
  hanKana: ["[一-龥぀-ゟ゠-ヿ]+"],
  hanHangul: ["[一-龥ࠀ-一가-퟿]+"],
  lineBreak: ["[\\r\\n]"],
  spacedLetters: ["\\s?\\p{L}+"],
  spacedCased: [`\\s?[${CASED}]+`],
  spacedPunctuation: ["\\s?\\p{P}+"],
  spacedSigns: ["\\s?[!-/:-~！-／：-～‘-‟　-。]+"],
  trailingSpace: ["\\s+$"],
  falconSigns: ["[\\p{P}\\$\\+<=>\\^~\\|`]+"],
  defaultSigns: ["[\\p{P}\\$\\+<=>\\^~\\|]+"],
};

const byPattern = new Map(
  (Object.keys(PATTERNS) as RuleName[]).flatMap((rule) =>
    PATTERNS[rule].map((pattern): [string, RuleName] => [canonical(pattern), rule]),
  ),
);

/** Line breaks are written as escapes in some files and as themselves in others. */
function canonical(pattern: string): string {
  return pattern.replaceAll("\r", "\\r").replaceAll("\n", "\\n");
}

const GPT2: Pretokenizer = { rules: ["gpt2"] };
const LLAMA3: Pretokenizer = { rules: ["cl100k3"], wholeWords: true, addBos: true };
const DIGITS: Pretokenizer = { rules: ["number", "gpt2"] };
const QWEN: Pretokenizer = { rules: ["cl100k1"] };
const DEEPSEEK3: Pretokenizer = { rules: ["numbers3", "hanKana", "deepseekV3"] };
const GPT4O: Pretokenizer = { rules: ["o200k"] };

/** Names that mean the same in GGUF files, beside each other. What is not listed is not computed here. */
const NAMES: readonly (readonly [Pretokenizer, string])[] = [
  [GPT2, "gpt-2 gpt2 phi-2 jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code roberta-bpe gigachat a.x-4.0"],
  [GPT2, "mellum modern-bert mpt jais trillion granite-docling exaone4 olmo"],
  [LLAMA3, "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano"],
  [{ rules: ["cl100k3"] }, "dbrx smaug-bpe glm4 chatglm-bpe"],
  [DIGITS, "smollm starcoder refact codeshell exaone minerva-7b mellum2"],
  [{ ...DIGITS, nfc: true }, "command-r"],
  [{ ...QWEN, nfc: true }, "qwen2 stablelm2"],
  [QWEN, "deepseek-r1-qwen megrez hunyuan solar-open kormo f2llmv2 bailingmoe bailingmoe2 llada-moe grok-2"],
  [{ rules: ["cl100kMarks"], nfc: true }, "qwen35"],
  [DEEPSEEK3, "deepseek-v3 hunyuan-dense joyai-llm hy_v4"],
  [{ rules: ["lineBreak", "spacedCased", "spacedSigns", "trailingSpace", "hanHangul", "numbers"] }, "deepseek-llm"],
  [{ rules: ["lineBreak", "spacedLetters", "spacedPunctuation", "hanHangul", "number"] }, "deepseek-coder"],
  [GPT4O, "gpt-4o llama4 kanana2 talkie minimax-m2"],
  [{ rules: ["tekken"], wholeWords: true, addBos: true }, "tekken"],
  [{ rules: ["falconSigns", "gpt2", "digits3"] }, "falcon"],
  [{ rules: ["defaultSigns", "gpt2", "numbers", "digits3"] }, "default"],
];

const byName = new Map(
  NAMES.flatMap(([pre, names]) => names.split(" ").map((name): [string, Pretokenizer] => [name, pre])),
);
