// One token from one row: candidates -> rank, or all logits -> id. Owns what a call's samples have counted and the edits that follow.
// Order: bias, penalties, temperature, top-k, top-p, min-p; each keeps the first so-and-so many in order of probability
// (ties: lowest id), then one draw walks down that order. Both ways of sampling share the walk, and so its arithmetic.
// Knows nothing of models, of text, or of how candidates were found.

import { adjust, best, EDIT_BYTES, highest, logSumExp } from "../logits";
import { alloc, mark, release } from "../memory";
import { uniform } from "./random";

/** The candidates do not decide: all logits are needed. */
const NEED_LOGITS: i32 = -1;
/** A logit, or an edited one, is NaN or +Infinity. */
const NOT_FINITE: i32 = -2;
/** Every token is impossible. */
const NO_TOKEN: i32 = -3;
const NO_MEMORY: i32 = -4;
const UNKNOWN_ID: i32 = -5;

@unmanaged
class Sampler {
  vocab: u32;
  nSamples: u32;
  // What the call asked for; 0 for topK is off.
  inverseTemperature: f64; // 0: greedy
  topP: f64;
  minP: f64;
  topK: u32;
  repetition: f32;
  presence: f32;
  frequency: f32;
  counts: u32; // 1 where a sample's own tokens change its logits
  // Edits of all samples: of the bias, and of the prompt's ids where repetition is penalised. (nShared) edits, ids rising.
  shared: usize;
  sharedBytes: usize;
  nShared: u32;
  // The samples' records, (nSamples) of SAMPLE_BYTES.
  samples: usize;
  samplesBytes: usize;
  // The last row's edits, and what JavaScript hands over.
  edits: usize;
  editsBytes: usize;
  input: usize;
  inputBytes: usize;
  present: usize; // (vocab) bits, all 0 between calls
  freeRuns: usize; // (32) heads of lists of free runs, by the log of their places
  logprob: f64; // of the last token sampled from all logits
}

// A sample: seedLow u32, seedHigh u32, position u32, then its run: address, places, count. A run holds what the sample counted:
// (count) of id u32 and times u32, ids rising. Runs have a power of two of places; a longer one replaces a full one.
const SAMPLE_BYTES: u32 = 24;
const COUNTED_BYTES: u32 = 8;
const FIRST_PLACES: u32 = 16;

/** A sampler for one call at a time over `vocab` ids; 0 where there is no memory. */
export function newSampler(vocab: u32): usize {
  const at = alloc(offsetof<Sampler>());
  const bits = alloc((<usize>vocab + 31) >>> 3);
  const freeRuns = alloc(32 * 4);
  if (at == 0 || bits == 0 || freeRuns == 0) return 0;
  memory.fill(at, 0, offsetof<Sampler>());
  memory.fill(bits, 0, (<usize>vocab + 31) >>> 3);
  memory.fill(freeRuns, 0, 32 * 4);
  const sampler = changetype<Sampler>(at);
  sampler.vocab = vocab;
  sampler.present = bits;
  sampler.freeRuns = freeRuns;
  return at;
}

/** Where JavaScript puts what the next calls of this sampler read: room for `words` 32-bit words; 0 where there is no memory. */
export function samplerInput(handle: usize, words: u32): usize {
  const sampler = changetype<Sampler>(handle);
  const bytes = <usize>words << 2;
  if (bytes > sampler.inputBytes) {
    sampler.input = alloc(max(bytes, sampler.inputBytes << 1));
    sampler.inputBytes = sampler.input == 0 ? 0 : max(bytes, sampler.inputBytes << 1);
  }
  return sampler.input;
}

/**
 * Begins a call; the one before is forgotten. Input: the prompt's ids (nPrompt) u32, then the bias (nBias) of id u32 and f32.
 * inverseTemperature 0: greedy. topK 0, topP 1, minP 0, repetition 1, presence 0, frequency 0: off.
 */
export function samplerBegin(
  handle: usize, nSamples: u32, inverseTemperature: f64, topK: u32, topP: f64, minP: f64,
  repetition: f32, presence: f32, frequency: f32, nPrompt: u32, nBias: u32,
): i32 {
  const sampler = changetype<Sampler>(handle);
  for (let i: u32 = 0; i < sampler.nSamples; i++) samplerEnd(handle, i);
  sampler.nSamples = 0;
  const samplesBytes = <usize>nSamples * SAMPLE_BYTES;
  if (samplesBytes > sampler.samplesBytes) {
    const bytes = max(samplesBytes, sampler.samplesBytes << 1);
    const at = alloc(bytes);
    if (at == 0) return NO_MEMORY;
    sampler.samples = at;
    sampler.samplesBytes = bytes;
  }
  memory.fill(sampler.samples, 0, samplesBytes);
  sampler.nSamples = nSamples;
  sampler.inverseTemperature = inverseTemperature;
  sampler.topK = topK;
  sampler.topP = topP;
  sampler.minP = minP;
  sampler.repetition = repetition;
  sampler.presence = presence;
  sampler.frequency = frequency;
  sampler.counts = u32(repetition != 1 || presence != 0 || frequency != 0);
  return share(sampler, repetition != 1 ? nPrompt : 0, sampler.input + (<usize>nPrompt << 2), nBias);
}

/** The edits that all samples share: each id of prompt and bias once, in rising order. */
function share(sampler: Sampler, nPrompt: u32, bias: usize, nBias: u32): i32 {
  const input = sampler.input;
  const present = sampler.present;
  const vocab = sampler.vocab;
  sampler.nShared = 0;
  for (let i: u32 = 0; i < nPrompt; i++) if (load<u32>(input + (<usize>i << 2)) >= vocab) return UNKNOWN_ID;
  for (let i: u32 = 0; i < nBias; i++) if (load<u32>(bias + (<usize>i << 3)) >= vocab) return UNKNOWN_ID;
  if (nPrompt + nBias == 0) return 0;

  let count: u32 = 0;
  for (let i: u32 = 0; i < nPrompt; i++) count += setBit(present, load<u32>(input + (<usize>i << 2)));
  for (let i: u32 = 0; i < nBias; i++) count += setBit(present, load<u32>(bias + (<usize>i << 3)));
  if (<usize>count * EDIT_BYTES > sampler.sharedBytes) {
    const bytes = max(<usize>count * EDIT_BYTES, sampler.sharedBytes << 1);
    const at = alloc(bytes);
    if (at != 0) {
      sampler.shared = at;
      sampler.sharedBytes = bytes;
    } else count = 0;
  }
  let n: u32 = 0;
  for (let word: u32 = 0; word < (vocab + 31) >>> 5; word++) {
    let bits = load<u32>(present + (<usize>word << 2));
    if (bits == 0) continue;
    store<u32>(present + (<usize>word << 2), 0);
    for (; bits != 0 && n < count; bits &= bits - 1) putEdit(sampler.shared + n++ * EDIT_BYTES, (word << 5) + ctz(bits), 0, 1, 0);
  }
  if (n == 0) return NO_MEMORY;
  sampler.nShared = n;
  for (let i: u32 = 0; i < nPrompt; i++) {
    const id = load<u32>(input + (<usize>i << 2));
    store<f32>(sampler.shared + find(sampler.shared, n, EDIT_BYTES, id) * EDIT_BYTES, sampler.repetition, 8);
  }
  for (let i: u32 = 0; i < nBias; i++) {
    const id = load<u32>(bias + (<usize>i << 3));
    store<f32>(sampler.shared + find(sampler.shared, n, EDIT_BYTES, id) * EDIT_BYTES, load<f32>(bias + (<usize>i << 3), 4), 4);
  }
  return 0;
}

/** Gives a sample its seed, two words of a whole number in two's complement. */
export function samplerSeed(handle: usize, sample: u32, seedLow: u32, seedHigh: u32): void {
  const sampler = changetype<Sampler>(handle);
  const at = sampler.samples + sample * SAMPLE_BYTES;
  store<u32>(at, seedLow);
  store<u32>(at, seedHigh, 4);
}

/** Gives back what a sample counted. */
export function samplerEnd(handle: usize, sample: u32): void {
  const sampler = changetype<Sampler>(handle);
  const at = sampler.samples + sample * SAMPLE_BYTES;
  giveRun(sampler, load<u32>(at, 12), load<u32>(at, 16));
  store<u32>(at, 0, 12);
  store<u32>(at, 0, 16);
  store<u32>(at, 0, 20);
}

/** The edits of a sample's next row, written to samplerEditsAt: how many, ids rising, each once; or a code below 0. */
export function samplerEdits(handle: usize, sample: u32): i32 {
  const sampler = changetype<Sampler>(handle);
  const record = sampler.samples + sample * SAMPLE_BYTES;
  const own = load<u32>(record, 12);
  const nOwn = load<u32>(record, 20);
  const shared = sampler.shared;
  const nShared = sampler.nShared;
  const repetition = sampler.repetition;
  const most = <usize>(nShared + nOwn) * EDIT_BYTES;
  if (most > sampler.editsBytes) {
    const bytes = max(most, sampler.editsBytes << 1);
    const at = alloc(bytes);
    if (at == 0) return NO_MEMORY;
    sampler.edits = at;
    sampler.editsBytes = bytes;
  }
  // Two lists in rising order become one.
  let out = sampler.edits;
  let i: u32 = 0;
  for (let j: u32 = 0; j < nOwn; j++) {
    const id = load<u32>(own + j * COUNTED_BYTES);
    const times = load<u32>(own + j * COUNTED_BYTES, 4);
    const first = i;
    while (i < nShared && load<u32>(shared + i * EDIT_BYTES) < id) i++;
    memory.copy(out, shared + first * EDIT_BYTES, (i - first) * EDIT_BYTES);
    out += (i - first) * EDIT_BYTES;
    let bias: f32 = 0;
    if (i < nShared && load<u32>(shared + i * EDIT_BYTES) == id) bias = load<f32>(shared + i++ * EDIT_BYTES, 4);
    putEdit(out, id, bias, repetition, <f32>(<f64>sampler.presence + <f64>sampler.frequency * times));
    out += EDIT_BYTES;
  }
  memory.copy(out, shared + i * EDIT_BYTES, (nShared - i) * EDIT_BYTES);
  out += (nShared - i) * EDIT_BYTES;
  return <i32>((out - sampler.edits) / EDIT_BYTES);
}

/** Where samplerEdits wrote. */
export function samplerEditsAt(handle: usize): usize {
  const sampler = changetype<Sampler>(handle);
  return sampler.edits;
}

/** The sample takes `id` as its next token; its position moves on. */
export function samplerAccept(handle: usize, sample: u32, id: u32): i32 {
  const sampler = changetype<Sampler>(handle);
  if (id >= sampler.vocab) return UNKNOWN_ID;
  const record = sampler.samples + sample * SAMPLE_BYTES;
  if (sampler.counts) {
    let run: usize = load<u32>(record, 12);
    let places = load<u32>(record, 16);
    const count = load<u32>(record, 20);
    const index = find(run, count, COUNTED_BYTES, id);
    let at = run + index * COUNTED_BYTES;
    if (index < count && load<u32>(at) == id) {
      store<u32>(at, load<u32>(at, 4) + 1, 4);
    } else {
      if (count == places) {
        const wider = places == 0 ? FIRST_PLACES : places << 1;
        const fresh = takeRun(sampler, wider);
        if (fresh == 0) return NO_MEMORY;
        memory.copy(fresh, run, count * COUNTED_BYTES);
        giveRun(sampler, run, places);
        run = fresh;
        places = wider;
        store<u32>(record, run, 12);
        store<u32>(record, places, 16);
        at = run + index * COUNTED_BYTES;
      }
      memory.copy(at + COUNTED_BYTES, at, (count - index) * COUNTED_BYTES);
      store<u32>(at, id);
      store<u32>(at, 1, 4);
      store<u32>(record, count + 1, 20);
    }
  }
  store<u32>(record, load<u32>(record, 8) + 1, 8);
  return 0;
}

/**
 * The rank of the sample's next token among the k best of its row, whose adjusted logits (k) f32 lie at an address, best first.
 * adjustedLse: log-sum-exp over the whole row of the adjusted logits times inverseTemperature (not used when greedy). Returns the
 * rank, NEED_LOGITS, or another code below 0.
 */
export function sampleCandidates(handle: usize, sample: u32, adjusted: usize, k: u32, adjustedLse: f64): i32 {
  const sampler = changetype<Sampler>(handle);
  const top = load<f32>(adjusted);
  if (!(top < Infinity)) return NOT_FINITE;
  if (top == -Infinity) return NO_TOKEN;
  if (sampler.inverseTemperature == 0) return 0;
  if (!(Math.abs(adjustedLse) < Infinity)) return NOT_FINITE;
  const from = mark();
  masses = alloc(<usize>k << 3);
  if (masses == 0) return NO_MEMORY;
  ordered = adjusted;
  begin(sampler, adjustedLse, k);
  const rank = draw(sampler, uniformOf(sampler, sample));
  release(from);
  return rank;
}

/**
 * The sample's next token from the whole row. Input: raw logits (vocab) f32; the sample's edits are applied here. rawLse: log-sum-exp
 * of the raw logits; adjustedLse as above; NaN for either: it is computed here. With those that candidates came with, the token is
 * that of sampleCandidates wherever that decides. Returns the id, or a code below 0.
 */
export function sampleLogits(handle: usize, sample: u32, rawLse: f64, adjustedLse: f64): i32 {
  const sampler = changetype<Sampler>(handle);
  const nEdits = samplerEdits(handle, sample);
  if (nEdits < 0) return nEdits;
  const from = mark();
  const result = sampleRow(sampler, sample, nEdits, rawLse, adjustedLse);
  release(from);
  return result;
}

function sampleRow(sampler: Sampler, sample: u32, nEdits: u32, rawLse: f64, adjustedLse: f64): i32 {
  const input = sampler.input;
  const vocab = sampler.vocab;
  const inverseTemperature = sampler.inverseTemperature;
  const rowBytes = <usize>vocab << 2;
  const rawTop = highest(input, vocab);
  if (!(rawTop < Infinity)) return NOT_FINITE;
  if (rawTop == -Infinity) return NO_TOKEN;
  if (isNaN(rawLse)) rawLse = logSumExp(input, vocab, rawTop, 1);

  const adjusted = alloc(rowBytes);
  if (adjusted == 0) return NO_MEMORY;
  memory.copy(adjusted, input, rowBytes);
  for (let i: u32 = 0; i < nEdits; i++) {
    const edit = sampler.edits + i * EDIT_BYTES;
    const logit = adjusted + (<usize>load<u32>(edit) << 2);
    store<f32>(logit, adjust(load<f32>(logit), edit));
  }
  const top = nEdits > 0 ? highest(adjusted, vocab) : rawTop;
  if (!(top < Infinity)) return NOT_FINITE;
  if (top == -Infinity) return NO_TOKEN;

  let id: u32 = 0;
  if (inverseTemperature == 0) {
    while (load<f32>(adjusted + (<usize>id << 2)) != top) id++;
  } else {
    if (isNaN(adjustedLse))
      adjustedLse = nEdits == 0 && inverseTemperature == 1 ? rawLse : logSumExp(adjusted, vocab, top, inverseTemperature);
    ordered = alloc(rowBytes);
    orderedIds = alloc(rowBytes);
    spareIds = alloc(rowBytes);
    masses = alloc(rowBytes << 1);
    bucketEnds = alloc(BUCKETS << 2);
    if (ordered == 0 || orderedIds == 0 || spareIds == 0 || masses == 0 || bucketEnds == 0) return NO_MEMORY;
    bucket(adjusted, vocab);
    begin(sampler, adjustedLse, 0);
    const index = draw(sampler, uniformOf(sampler, sample));
    if (index < 0) return index;
    id = load<u32>(orderedIds + (<usize>index << 2));
  }
  sampler.logprob = <f64>load<f32>(input + (<usize>id << 2)) - rawLse;
  return id;
}

/** Raw log-probability of the last token sampled. */
export function sampledLogprob(handle: usize): f64 {
  const sampler = changetype<Sampler>(handle);
  return sampler.logprob;
}

/**
 * The k best ids of a row by logit, ties to the lower. Input: logits (vocab) f32. Out, written to samplerEditsAt: ids (k) u32,
 * logits (k) f32. Returns min(k, vocab) or a code below 0. k > 0.
 */
export function samplerBest(handle: usize, k: u32): i32 {
  const sampler = changetype<Sampler>(handle);
  const top = highest(sampler.input, sampler.vocab);
  if (!(top < Infinity)) return NOT_FINITE;
  if (top == -Infinity) return NO_TOKEN;
  k = min(k, sampler.vocab);
  const bytes = <usize>k << 3;
  if (bytes > sampler.editsBytes) {
    const at = alloc(bytes);
    if (at == 0) return NO_MEMORY;
    sampler.edits = at;
    sampler.editsBytes = bytes;
  }
  return best(sampler.input, sampler.vocab, k, sampler.edits, sampler.edits + (<usize>k << 2));
}

/** ln Σ exp of the input's logits (vocab) f32; NaN where one is NaN or +Infinity, or all are -Infinity. */
export function samplerLogSumExp(handle: usize): f64 {
  const sampler = changetype<Sampler>(handle);
  const top = highest(sampler.input, sampler.vocab);
  return top < Infinity && top > -Infinity ? logSumExp(sampler.input, sampler.vocab, top, 1) : NaN;
}

/**
 * The number in [0, 1) that the sample's next draw takes, or one `ahead` of it, where draws go down all tokens; -1 where anything can end
 * one sooner.
 */
export function samplerUniform(handle: usize, sample: u32, ahead: u32): f64 {
  const sampler = changetype<Sampler>(handle);
  return sampler.inverseTemperature > 0 && keepsAll(sampler) ? uniformOf(sampler, sample, ahead) : -1;
}

function uniformOf(sampler: Sampler, sample: u32, ahead: u32 = 0): f64 {
  const record = sampler.samples + sample * SAMPLE_BYTES;
  return uniform(load<u32>(record), load<u32>(record, 4), load<u32>(record, 8) + ahead);
}

// --- The walk down the tokens in order of probability ---------------------------------------------------------------------

let ordered: usize = 0; // (available) f32 adjusted logits, largest first
let available: u32 = 0; // how many of them are in order
let masses: usize = 0; // (weighed) f64 probabilities before anything is cut off
let weighed: u32 = 0;
let growing: bool = false; // whether more can be put in order
let slope: f64 = 0;
let shift: f64 = 0;

function begin(sampler: Sampler, adjustedLse: f64, count: u32): void {
  available = count;
  growing = count == 0;
  weighed = 0;
  slope = sampler.inverseTemperature;
  shift = adjustedLse;
}

/** Whether the token of this rank is in order, or can be put. */
// @ts-ignore: decorator
@inline
function reach(rank: u32): bool {
  while (rank >= available) {
    if (!growing) return false;
    sortNextBucket();
  }
  return true;
}

/** Probability of the token of a rank in reach. */
// @ts-ignore: decorator
@inline
function mass(rank: u32): f64 {
  if (rank == weighed) {
    store<f64>(masses + (<usize>rank << 3), Math.exp(<f64>load<f32>(ordered + (<usize>rank << 2)) * slope - shift));
    weighed++;
  }
  return load<f64>(masses + (<usize>rank << 3));
}

/** Whether neither top-k, top-p nor min-p cuts tokens off. */
function keepsAll(sampler: Sampler): bool {
  return (sampler.topK == 0 || sampler.topK >= sampler.vocab) && sampler.topP >= 1 && sampler.minP <= 0;
}

/** The rank that u in [0, 1) draws, or NEED_LOGITS. Ranks are asked for from 0 up without gaps. */
function draw(sampler: Sampler, u: f64): i32 {
  const vocab = sampler.vocab;
  const topP = sampler.topP;
  const minP = sampler.minP;
  const limit = sampler.topK == 0 || sampler.topK > vocab ? vocab : sampler.topK;
  let sum: f64 = 0;

  if (keepsAll(sampler)) {
    for (let rank: u32 = 0; rank < vocab; rank++) {
      if (!reach(rank)) return NEED_LOGITS;
      sum += mass(rank);
      if (sum > u) return rank;
    }
    // The masses of all tokens fall short of 1 by the rounding of the log-sum-exp: that gap is spread over all of them.
    return walk(((u - sum) / (1 - sum)) * sum, vocab);
  }

  // top-p takes its share of what top-k left.
  let enough: f64 = Infinity;
  if (topP < 1) {
    let total: f64 = 1;
    if (limit < vocab) {
      total = 0;
      for (let rank: u32 = 0; rank < limit; rank++) {
        if (!reach(rank)) return NEED_LOGITS;
        total += mass(rank);
      }
    }
    enough = topP * total;
  }
  if (!reach(0)) return NEED_LOGITS;
  const floor = minP * mass(0);
  let kept: u32 = 0;
  while (kept < limit) {
    if (!reach(kept)) return NEED_LOGITS;
    const p = mass(kept);
    if (p < floor) break;
    kept++;
    sum += p;
    if (sum >= enough) break;
  }
  return walk(u * sum, kept);
}

/** The first of `kept` ranks at which the running sum of masses exceeds `target`. */
function walk(target: f64, kept: u32): i32 {
  let sum: f64 = 0;
  let last: i32 = 0;
  for (let rank: u32 = 0; rank < kept; rank++) {
    const p = mass(rank);
    if (p > 0) last = rank;
    sum += p;
    if (sum > target) return rank;
  }
  return last;
}

// --- All tokens in order, as far as the walk comes: buckets by the high bits of the logit, each sorted when it is reached ----

const BUCKETS: u32 = 4096;
let orderedIds: usize = 0; // (vocab) u32
let spareIds: usize = 0; // (vocab) u32, spare places while a bucket is sorted
let spareLogits: usize = 0; // (vocab) f32
let bucketEnds: usize = 0; // (BUCKETS) u32
let nextBucket: u32 = 0;

/** Whole numbers in the reverse order of the floats: the largest logit has the lowest. -0 is 0. */
// @ts-ignore: decorator
@inline
function orderKey(x: f32): u32 {
  const bits = reinterpret<u32>(x + 0);
  return <i32>bits < 0 ? bits : ~bits & 0x7fffffff;
}

/** Puts a row's (vocab) logits into buckets, best bucket first, ids rising in each. The row becomes spare space. */
function bucket(row: usize, vocab: u32): void {
  memory.fill(bucketEnds, 0, BUCKETS << 2);
  for (let id: u32 = 0; id < vocab; id++) {
    const at = bucketEnds + ((orderKey(load<f32>(row + (<usize>id << 2))) >>> 20) << 2);
    store<u32>(at, load<u32>(at) + 1);
  }
  let start: u32 = 0;
  for (let i: u32 = 0; i < BUCKETS; i++) {
    const count = load<u32>(bucketEnds + (i << 2));
    store<u32>(bucketEnds + (i << 2), start);
    start += count;
  }
  // Each start moves on to its bucket's end.
  for (let id: u32 = 0; id < vocab; id++) {
    const x = load<f32>(row + (<usize>id << 2));
    const at = bucketEnds + ((orderKey(x) >>> 20) << 2);
    const place = load<u32>(at);
    store<u32>(at, place + 1);
    store<f32>(ordered + (<usize>place << 2), x);
    store<u32>(orderedIds + (<usize>place << 2), id);
  }
  spareLogits = row;
  nextBucket = 0;
}

function sortNextBucket(): void {
  let end = available;
  while (nextBucket < BUCKETS && end == available) end = load<u32>(bucketEnds + (nextBucket++ << 2));
  if (nextBucket == BUCKETS) growing = false;
  if (end - available > 64) {
    spread(available, end, 0, ordered, orderedIds, spareLogits, spareIds);
    spread(available, end, 10, spareLogits, spareIds, ordered, orderedIds);
  } else insert(available, end);
  available = end;
}

/** One pass of a stable radix sort by ten bits of the keys, over places start … end - 1. */
function spread(start: u32, end: u32, bit: u32, logits: usize, ids: usize, toLogits: usize, toIds: usize): void {
  const counts = memory.data(4096, 16);
  memory.fill(counts, 0, 4096);
  for (let i = start; i < end; i++) {
    const at = counts + (((orderKey(load<f32>(logits + (<usize>i << 2))) >>> bit) & 1023) << 2);
    store<u32>(at, load<u32>(at) + 1);
  }
  let place = start;
  for (let i: usize = 0; i < 4096; i += 4) {
    const count = load<u32>(counts + i);
    store<u32>(counts + i, place);
    place += count;
  }
  for (let i = start; i < end; i++) {
    const x = load<f32>(logits + (<usize>i << 2));
    const at = counts + (((orderKey(x) >>> bit) & 1023) << 2);
    const to = <usize>load<u32>(at) << 2;
    store<u32>(at, load<u32>(at) + 1);
    store<f32>(toLogits + to, x);
    store<u32>(toIds + to, load<u32>(ids + (<usize>i << 2)));
  }
}

/** Stable insertion sort of places start … end - 1. */
function insert(start: u32, end: u32): void {
  for (let i = start + 1; i < end; i++) {
    const x = load<f32>(ordered + (<usize>i << 2));
    const id = load<u32>(orderedIds + (<usize>i << 2));
    let at = i;
    while (at > start && load<f32>(ordered + (<usize>(at - 1) << 2)) < x) {
      store<f32>(ordered + (<usize>at << 2), load<f32>(ordered + (<usize>(at - 1) << 2)));
      store<u32>(orderedIds + (<usize>at << 2), load<u32>(orderedIds + (<usize>(at - 1) << 2)));
      at--;
    }
    store<f32>(ordered + (<usize>at << 2), x);
    store<u32>(orderedIds + (<usize>at << 2), id);
  }
}

// --- Tables ------------------------------------------------------------------------------------------------------------

function putEdit(at: usize, id: u32, bias: f32, scale: f32, less: f32): void {
  store<u32>(at, id);
  store<f32>(at, bias, 4);
  store<f32>(at, scale, 8);
  store<f32>(at, less, 12);
}

/** First of `count` records with rising ids whose id is not below `id`; `count` where all are. */
function find(records: usize, count: u32, bytes: u32, id: u32): u32 {
  let low: u32 = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (load<u32>(records + middle * bytes) < id) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Sets bit `id`; 1 where it was not set. */
function setBit(bits: usize, id: u32): u32 {
  const at = bits + ((id >>> 5) << 2);
  const word = load<u32>(at);
  const bit: u32 = 1 << (id & 31);
  store<u32>(at, word | bit);
  return word & bit ? 0 : 1;
}

/** A run of `places`, a power of two; 0 where there is no memory. */
function takeRun(sampler: Sampler, places: u32): usize {
  const list = sampler.freeRuns + (ctz(places) << 2);
  const run = load<u32>(list);
  if (run == 0) return alloc(<usize>places * COUNTED_BYTES);
  store<u32>(list, load<u32>(run));
  return run;
}

function giveRun(sampler: Sampler, run: usize, places: u32): void {
  if (run == 0) return;
  const list = sampler.freeRuns + (ctz(places) << 2);
  store<u32>(run, load<u32>(list));
  store<u32>(list, run);
}
