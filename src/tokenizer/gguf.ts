// The tokenizer part of a GGUF's metadata -> TokenizerData. Knows the keys tokenizer.ggml.*; nothing of how the file is read.

import { fail, show } from "../errors.ts";
import {
  type AddedToken,
  checkId,
  findEnds,
  isByteText,
  MOST_MERGES,
  MOST_TOKENS,
  type NormalizeStep,
  type TokenizerData,
  TokenType,
} from "./data.ts";
import { pretokenizerOfName } from "./rules.ts";

/**
 * metadata: the file's keys, at least those under tokenizer.ggml. Errors: `unsupported` for a tokenizer that is no BPE or a
 * pre-tokenizer without a name here; `format` for what is missing or broken.
 */
export function tokenizerDataFromGguf(metadata: ReadonlyMap<string, unknown>): TokenizerData {
  const key = (name: string) => metadata.get(`tokenizer.ggml.${name}`);
  const model = key("model");
  if (model !== "gpt2" && model !== "llama")
    fail(
      model === undefined ? "format" : "unsupported",
      `GGUF: tokenizer.ggml.model is ${show(model)}, expected "gpt2" (byte-level BPE) or "llama" (SentencePiece BPE)`,
    );

  const tokens = readTokens(key("tokens"));
  const size = tokens.length;
  const types = readTypes(key("token_type"), tokens, model);
  const id = (name: string, missing?: number) => {
    const value = key(`${name}_token_id`) ?? (missing !== undefined && missing < size ? missing : undefined);
    return value === undefined ? undefined : checkId(value, size, `GGUF: tokenizer.ggml.${name}_token_id`);
  };
  // Files of the llama kind may leave out the ids that all of them had at first.
  const isLlama = model === "llama";
  const bosId = id("bos", isLlama ? 1 : undefined);
  const given = [id("eos", isLlama ? 2 : undefined), id("eot"), id("eom")].filter((end) => end !== undefined);
  if (key("token_type") === undefined)
    for (const special of [bosId, ...given]) if (special !== undefined) types[special] = TokenType.Control;

  // Ends are control tokens whatever the file calls them, as in llama.cpp: else a message's content could end the message.
  const eosIds = findEnds(tokens, types, given);
  for (const end of eosIds) if (types[end] === TokenType.UserDefined) types[end] = TokenType.Control;
  const common = { tokens, types, bosId, eosIds, fuseUnknown: false };
  if (isLlama) {
    const prefix = flag(metadata, "add_space_prefix", true);
    return {
      ...common,
      kind: "sentencepiece",
      merges: [],
      scores: readScores(key("scores"), size),
      rules: [],
      wholeWords: false,
      unknownId: id("unknown", 0),
      normalizer: [
        ...(prefix ? [{ kind: "prepend", text: " ", unlessThere: false, onlyFirst: false } as const] : []),
        { kind: "replace", from: " ", to: "▁" },
      ],
      stripsFirstSpace: prefix,
      added: addedTokens(tokens, types),
      addBos: bosId !== undefined && flag(metadata, "add_bos_token", true),
    };
  }

  const name = key("pre") ?? "default";
  const pre = typeof name === "string" ? pretokenizerOfName(name) : undefined;
  if (!pre) fail("unsupported", `GGUF: tokenizer.ggml.pre is ${show(name)}, which is not a pre-tokenizer known here`);
  const normalizer: NormalizeStep[] = pre.nfc ? [{ kind: "unicode", form: "NFC" }] : [];
  return {
    ...common,
    kind: "byte-level",
    merges: readMerges(key("merges")),
    rules: pre.rules,
    wholeWords: pre.wholeWords ?? false,
    normalizer,
    stripsFirstSpace: false,
    added: addedTokens(tokens, types),
    addBos: bosId !== undefined && flag(metadata, "add_bos_token", pre.addBos ?? false),
  };
}

function readTokens(value: unknown): readonly string[] {
  if (!Array.isArray(value))
    fail("format", `GGUF: tokenizer.ggml.tokens is ${show(value)}, expected an array of strings`);
  if (value.length === 0 || value.length > MOST_TOKENS)
    fail("format", `GGUF: tokenizer.ggml.tokens has ${value.length} tokens, expected 1 to ${MOST_TOKENS}`);
  for (let id = 0; id < value.length; id++)
    if (typeof value[id] !== "string")
      fail("format", `GGUF: tokenizer.ggml.tokens[${id}] is ${show(value[id])}, expected a string`);
  return value;
}

function readTypes(value: unknown, tokens: readonly string[], model: "gpt2" | "llama"): Uint8Array {
  const types = new Uint8Array(tokens.length).fill(TokenType.Normal);
  if (value === undefined) {
    if (model === "llama") for (const [id, text] of tokens.entries()) if (isByteText(text)) types[id] = TokenType.Byte;
    return types;
  }
  const list = numbers(value, tokens.length, "token_type");
  for (let id = 0; id < types.length; id++) {
    const type = list[id];
    if (typeof type !== "number" || !Number.isInteger(type) || type < 0 || type > TokenType.Byte)
      fail("format", `GGUF: tokenizer.ggml.token_type[${id}] is ${show(type)}, expected a number from 0 to 6`);
    if (type !== 0) types[id] = type;
    if (type === TokenType.Byte && !isByteText(tokens[id]!))
      fail(
        "format",
        `GGUF: token ${id} is of the byte kind, but its text is ${show(tokens[id])}, expected the form <0x00>`,
      );
  }
  return types;
}

function readScores(value: unknown, size: number): Float32Array {
  const list = numbers(value, size, "scores");
  const scores = new Float32Array(size);
  for (let id = 0; id < size; id++) {
    const score = list[id];
    if (typeof score !== "number" || Number.isNaN(score))
      fail("format", `GGUF: tokenizer.ggml.scores[${id}] is ${show(score)}, expected a number`);
    scores[id] = score;
  }
  return scores;
}

function readMerges(value: unknown): readonly string[] {
  if (!Array.isArray(value))
    fail("format", `GGUF: tokenizer.ggml.merges is ${show(value)}, expected an array of strings`);
  if (value.length > MOST_MERGES)
    fail("format", `GGUF: tokenizer.ggml.merges has ${value.length} merges, expected at most ${MOST_MERGES}`);
  return value;
}

/** An array of numbers as long as the vocabulary, as an array or a typed array. */
function numbers(value: unknown, size: number, name: string): ArrayLike<unknown> {
  const isList = Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
  const length = isList ? (value as ArrayLike<unknown>).length : -1;
  if (length !== size)
    fail(
      "format",
      `GGUF: tokenizer.ggml.${name} ${isList ? `has ${length} entries` : `is ${show(value)}`}, expected ${size} numbers`,
    );
  return value as ArrayLike<unknown>;
}

function flag(metadata: ReadonlyMap<string, unknown>, name: string, missing: boolean): boolean {
  const value = metadata.get(`tokenizer.ggml.${name}`) ?? missing;
  if (typeof value !== "boolean")
    fail("format", `GGUF: tokenizer.ggml.${name} is ${show(value)}, expected true or false`);
  return value;
}

/**
 * Control, unknown and user-defined tokens. Those spelled with U+2581 (runs of spaces in Gemma) stand for normalised text; the
 * others are looked for in the text as it is.
 */
function addedTokens(tokens: readonly string[], types: Uint8Array): AddedToken[] {
  const added: AddedToken[] = [];
  for (let id = 0; id < types.length; id++) {
    const type = types[id];
    if (type !== TokenType.Control && type !== TokenType.UserDefined && type !== TokenType.Unknown) continue;
    const normalized = type === TokenType.UserDefined && tokens[id]!.includes("▁");
    added.push({ id, text: tokens[id]!, lstrip: false, rstrip: false, singleWord: false, normalized });
  }
  return added;
}
