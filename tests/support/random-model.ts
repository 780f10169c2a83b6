// Random llama GGUFs in memory, of any shape, tensor type and seed, with a small byte-level BPE tokenizer.
// Imports nothing from src. Weights are random valid blocks whose scales keep activations finite and logits of order 1.

import { TENSOR_TYPES, type TensorToWrite, type Value, writeGguf } from "./gguf-writer.ts";
import { newRandom, type Random } from "./random.ts";

export interface RandomModelOptions {
  seed?: number; // 1
  dim?: number; // 64
  hiddenDim?: number; // 96
  nLayers?: number; // 2
  nHeads?: number; // 4
  nKvHeads?: number; // nHeads
  headDim?: number; // dim / nHeads
  /** Elements of each head that turn; default: all. */
  ropeDim?: number;
  ropeBase?: number; // 10000
  ropeScaling?:
    | { kind: "linear"; factor: number }
    | { kind: "llama3"; factor: number; lowFrequency: number; highFrequency: number; originalContext: number };
  /** No output.weight: the embedding serves twice. */
  tied?: boolean; // false
  /** Biases on q, k, v and the attention's output. */
  bias?: boolean; // false
  normEps?: number; // 1e-5
  contextLength?: number; // 512
  /** Of all matrices, or of each by name (`blk.0.attn_q.weight`); rows must hold whole blocks. Norms and biases are F32. */
  type?: string | ((tensor: string) => string); // "F32"
  /** Tokens in all; what the tokenizer does not need is filled with unused ones. Default: what it needs, 300. */
  vocab?: number;
  addBos?: boolean; // false
  chatTemplate?: string;
  name?: string;
  /** More metadata, or other values for the keys above. */
  metadata?: Record<string, Value>;
}

/** The common layout of chats, for `chatTemplate`. */
export const CHAT_TEMPLATE =
  "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/** The bytes of a GGUF. The same options give the same bytes. */
export function randomModel(options: RandomModelOptions = {}): Uint8Array {
  const { seed = 1, dim = 64, hiddenDim = 96, nLayers = 2, nHeads = 4, contextLength = 512 } = options;
  const { nKvHeads = nHeads, headDim = dim / nHeads, ropeBase = 10000, normEps = 1e-5, type = "F32" } = options;
  const { ropeDim = headDim, ropeScaling, tied = false, bias = false, addBos = false } = options;
  const tokenizer = tokenizerMetadata(options.vocab, addBos);
  const vocab = tokenizer.nTokens;
  const random = newRandom(seed);
  const tensors: TensorToWrite[] = [];

  const add = (name: string, rows: number, cols: number, deviation: number) => {
    const of = typeof type === "string" ? type : type(name);
    tensors.push({ name, type: of, shape: [rows, cols], data: randomBlocks(of, rows * cols, deviation, random, cols) });
  };
  const addVector = (name: string, length: number, mean: number, deviation: number) => {
    const values = Float32Array.from({ length }, () => mean + deviation * random.normal());
    tensors.push({ name, type: "F32", shape: [length], data: new Uint8Array(values.buffer) });
  };

  if (ropeScaling?.kind === "llama3") {
    const values = Float32Array.from({ length: ropeDim / 2 }, (_, i) => {
      const wavelength = 2 * Math.PI * ropeBase ** ((2 * i) / ropeDim);
      const { factor, lowFrequency, highFrequency, originalContext } = ropeScaling;
      const turns = originalContext / wavelength;
      if (turns > highFrequency) return 1;
      if (turns < lowFrequency) return factor;
      const share = (turns - lowFrequency) / (highFrequency - lowFrequency);
      return 1 / ((1 - share) / factor + share);
    });
    tensors.push({ name: "rope_freqs.weight", type: "F32", shape: [ropeDim / 2], data: new Uint8Array(values.buffer) });
  }
  // Deviations that keep each product about as large as its input; scores and logits a little larger, so that they differ.
  const per = (cols: number, gain: number) => gain / Math.sqrt(cols);
  add("token_embd.weight", vocab, dim, tied ? per(dim, 1.5) : 0.5);
  if (!tied) add("output.weight", vocab, dim, per(dim, 1.5));
  for (let layer = 0; layer < nLayers; layer++) {
    const name = (part: string) => `blk.${layer}.${part}`;
    addVector(name("attn_norm.weight"), dim, 1, 0.1);
    add(name("attn_q.weight"), nHeads * headDim, dim, per(dim, 1.5));
    add(name("attn_k.weight"), nKvHeads * headDim, dim, per(dim, 1.5));
    add(name("attn_v.weight"), nKvHeads * headDim, dim, per(dim, 1));
    add(name("attn_output.weight"), dim, nHeads * headDim, per(nHeads * headDim, 1));
    if (bias) {
      addVector(name("attn_q.bias"), nHeads * headDim, 0, 0.3);
      addVector(name("attn_k.bias"), nKvHeads * headDim, 0, 0.3);
      addVector(name("attn_v.bias"), nKvHeads * headDim, 0, 0.3);
      addVector(name("attn_output.bias"), dim, 0, 0.1);
    }
    addVector(name("ffn_norm.weight"), dim, 1, 0.1);
    add(name("ffn_gate.weight"), hiddenDim, dim, per(dim, 1.5));
    add(name("ffn_up.weight"), hiddenDim, dim, per(dim, 1.5));
    add(name("ffn_down.weight"), dim, hiddenDim, per(hiddenDim, 1));
  }
  addVector("output_norm.weight", dim, 1, 0.1);

  const metadata: Record<string, Value> = {
    "general.architecture": ["string", "llama"],
    "general.type": ["string", "model"],
    "general.name": ["string", options.name ?? `random ${seed}`],
    "llama.block_count": ["u32", nLayers],
    "llama.context_length": ["u32", contextLength],
    "llama.embedding_length": ["u32", dim],
    "llama.feed_forward_length": ["u32", hiddenDim],
    "llama.attention.head_count": ["u32", nHeads],
    "llama.attention.head_count_kv": ["u32", nKvHeads],
    "llama.rope.freq_base": ["f32", ropeBase],
    "llama.attention.layer_norm_rms_epsilon": ["f32", normEps],
    "llama.attention.key_length": ["u32", headDim],
    "llama.attention.value_length": ["u32", headDim],
    "llama.vocab_size": ["u32", vocab],
    "llama.rope.dimension_count": ["u32", ropeDim],
    ...(ropeScaling?.kind === "linear" && {
      "llama.rope.scaling.type": ["string", "linear"] as Value,
      "llama.rope.scaling.factor": ["f32", ropeScaling.factor] as Value,
    }),
    ...tokenizer.metadata,
    ...(options.chatTemplate !== undefined && { "tokenizer.chat_template": ["string", options.chatTemplate] as Value }),
    ...options.metadata,
  };
  return writeGguf({ metadata, tensors });
}

// ---------------------------------------------------------------------------------------------- weights

/** `elements` random values of about this deviation around zero, as blocks of a type. `cols`: elements of a row. */
export function randomBlocks(
  type: string,
  elements: number,
  deviation: number,
  random: Random,
  cols = elements,
): Uint8Array {
  const { blockElements, blockBytes } = TENSOR_TYPES[type];
  if (cols % blockElements !== 0) throw new Error(`rows of ${cols} hold no whole blocks of ${type}`);
  const out = new Uint8Array((elements / blockElements) * blockBytes);
  const view = new DataView(out.buffer);
  for (let at = 0; at < out.length; at += blockBytes) {
    for (let i = 0; i < blockBytes; i++) out[at + i] = random.below(256);
    // Quants are uniform; a scale of either sign turns their deviation into the wanted one, give or take a third.
    const scale = deviation * (0.7 + 0.6 * random.next()) * (random.next() < 0.5 ? -1 : 1);
    const half = (offset: number, value: number) => view.setUint16(at + offset, toHalf(value), true);
    switch (type) {
      case "F32":
        view.setFloat32(at, deviation * random.normal(), true);
        break;
      case "F16":
        half(0, deviation * random.normal());
        break;
      case "BF16":
        view.setUint16(at, new Uint32Array(Float32Array.of(deviation * random.normal()).buffer)[0] >>> 16, true);
        break;
      case "Q8_0":
        half(0, scale / uniform(256));
        break;
      case "Q4_0":
      case "Q5_0":
        half(0, scale / uniform(type === "Q4_0" ? 16 : 32));
        break;
      case "Q4_1":
      case "Q5_1": {
        const levels = type === "Q4_1" ? 16 : 32;
        const step = scale / uniform(levels);
        half(0, step);
        half(2, -step * ((levels - 1) / 2) * (0.9 + 0.2 * random.next()));
        break;
      }
      case "Q4_K":
      case "Q5_K": {
        // Groups have scales of 1 … 63 and minima about as large, so that dmin = d · the middle quant centres them.
        const levels = type === "Q4_K" ? 16 : 32;
        const step = scale / (36 * uniform(levels));
        half(0, step);
        half(2, (step * (levels - 1)) / 2);
        for (let group = 0; group < 8; group++) {
          const factor = 1 + random.below(63);
          setScaleAndMin(out, at + 4, group, factor, Math.max(0, Math.min(63, factor + random.below(7) - 3)));
        }
        break;
      }
      case "Q6_K":
        half(208, scale / (uniform(256) * uniform(64)));
        break;
      default:
        throw new Error(`no random blocks of ${type}`);
    }
  }
  return out;
}

/** Deviation of a uniform choice among so many whole numbers. */
const uniform = (levels: number) => Math.sqrt((levels * levels - 1) / 12);

/** Six bits each into the 12 bytes that eight groups share: groups 4 … 7 lie in two pieces. */
function setScaleAndMin(out: Uint8Array, at: number, group: number, scale: number, min: number): void {
  if (group < 4) {
    out[at + group] = (out[at + group] & 0xc0) | scale;
    out[at + group + 4] = (out[at + group + 4] & 0xc0) | min;
  } else {
    out[at + group + 4] = (scale & 15) | ((min & 15) << 4);
    out[at + group - 4] = (out[at + group - 4] & 63) | ((scale >> 4) << 6);
    out[at + group] = (out[at + group] & 63) | ((min >> 4) << 6);
  }
}

/** Bits of the nearest half-precision number (ties to even). */
export function toHalf(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(size)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  const exponent = Math.max(-14, Math.floor(Math.log2(size || 2 ** -30)));
  const steps = size / 2 ** (exponent - 10);
  let whole = Math.floor(steps);
  if (steps - whole > 0.5 || (steps - whole === 0.5 && whole % 2 === 1)) whole++;
  // Rounding up may carry into the exponent, which is what the sum does.
  return sign | (exponent === -14 ? whole : ((exponent + 15) << 10) + whole - 1024);
}

// ---------------------------------------------------------------------------------------------- tokenizer

const MERGES = [
  ..."Ġ t,h e,Ġt he,i n,a n,r e,e r,Ġ a,o n,Ġ s,o u,Ġ w,e n,Ġ o,a t,Ġa n,Ġan d,in g,Ġo f,Ġ c,o r,e s,i s,i t,Ġ b,Ġt o".split(
    ",",
  ),
  ..."Ġ Ġ,l l,Ċ Ċ,1 2,Ġw it,Ġwit h,s t,u r,c t,Ã ©,ä ½,ä½ ł,ð Ł,ðŁ ĺ".split(","),
];

/** In this order behind the bytes and merges: begin, end, and the marks of chats. */
export const CONTROL_TOKENS = ["<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>"];

/** GPT-2's alphabet: printable bytes stand for themselves, the others for letters from U+0100 on. By byte. */
export function byteLetters(): string[] {
  const letters: string[] = new Array(256);
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    letters[byte] = String.fromCharCode(printable ? byte : next++);
  }
  return letters;
}

function tokenizerMetadata(vocab: number | undefined, addBos: boolean) {
  const letters = byteLetters();
  const plain = [...[...letters].sort(), ...MERGES.map((merge) => merge.replace(" ", ""))];
  const tokens = [...plain, ...CONTROL_TOKENS];
  const types: number[] = [...plain.map(() => 1), ...CONTROL_TOKENS.map(() => 3)];
  const nTokens = vocab ?? tokens.length;
  if (nTokens < tokens.length)
    throw new Error(`the tokenizer needs ${tokens.length} tokens; got a vocabulary of ${nTokens}`);
  while (tokens.length < nTokens) {
    tokens.push(`<|unused${tokens.length}|>`);
    types.push(5);
  }
  const idOf = (token: string) => tokens.indexOf(token);
  const metadata: Record<string, Value> = {
    "tokenizer.ggml.model": ["string", "gpt2"],
    "tokenizer.ggml.pre": ["string", "gpt-2"],
    "tokenizer.ggml.tokens": ["string[]", tokens],
    "tokenizer.ggml.token_type": ["i32[]", types],
    "tokenizer.ggml.merges": ["string[]", MERGES],
    "tokenizer.ggml.bos_token_id": ["u32", idOf("<|begin|>")],
    "tokenizer.ggml.eos_token_id": ["u32", idOf("<|end|>")],
    "tokenizer.ggml.add_bos_token": ["bool", addBos],
  };
  return { nTokens, metadata };
}
