// The loop: prefill the prompt once, draw n first tokens from it, then step all samples together until each has ended. Where the backend
// can tell what they draw, a step begins before the tokens of the one before are read: two are on their way then.
// Samples that have drawn the same tokens so far are one row; where they draw different ones, the row's tail forks. Finished
// rows leave the batch at once, waiting samples take their places. Knows the order of work and what a call reports; nothing of
// layers, of kernels, or of how prompts became ids.

import type { Choice, Chunk, Result, TokenLogprob } from "./api.ts";
import {
  type AttentionPath,
  type Batch,
  type Candidates,
  DRAWN,
  type Edits,
  type Request,
  type Tensor,
} from "./backend.ts";
import type { Tail } from "./cache.ts";
import type { Engine } from "./engine.ts";
import type { Row } from "./model.ts";
import type { CallOptions } from "./options.ts";
import { missingBlocks, planTokens } from "./plan.ts";
import { breathe, prefill, reserve, trim } from "./prefill.ts";
import { type Steps, settled } from "./queue.ts";
import { choiceSeed, type Drawn, NO_EDITS } from "./sampler.ts";
import { stopwatch } from "./stats.ts";
import { type ChoiceText, createChoiceText, tokenLogprob } from "./text.ts";
import type { ModelTokenizer } from "./tokenizer.ts";

/** What a stream hears of a call, and how it ends choices. */
export interface Listener {
  emit(chunk: Chunk): void;
  /** Whether this choice was stopped from outside. */
  isStopped(index: number): boolean;
}

/** Candidates that come back for each row: enough for nine draws of ten at temperature 1. */
const CANDIDATES = 64;
/** Draws of a row that the backend follows beyond the candidates. Of a row with more, all logits come back where one goes on. */
const DRAWS = 128;
/** One choice on its way. */
interface Sample {
  readonly index: number;
  readonly text: ChoiceText;
  readonly ids: number[];
  readonly logprobs: TokenLogprob[];
  /** Sum of the raw log-probabilities of the tokens drawn, and how many they are. */
  logprobSum: number;
  drawn: number;
  finishReason?: Choice["finishReason"];
}

/** Samples that have drawn the same tokens so far: one row computes them all, as within a step its bits depend on its own tokens alone. */
interface Branch {
  /** By index; never empty. */
  readonly samples: readonly Sample[];
  readonly tail: Tail;
}

/** The request for a branch's row, filled anew for each step. */
interface Asking extends Request {
  edits: Edits;
  readonly uniforms: number[];
}

/** What samples are about to draw from: a row of logits for those of each branch. */
interface Asked {
  readonly out: Tensor;
  readonly of: readonly Pick<Branch, "samples">[];
  readonly requests: readonly Asking[];
  readonly found: Promise<Candidates>;
}

/** A step on its way: what its branches' samples are about to draw from, and the rows that run. */
interface Step extends Asked {
  readonly of: readonly Branch[];
  readonly rows: readonly Row[];
  readonly attention: { readonly path: AttentionPath; readonly reason: string };
}

/**
 * Generates n choices from a prompt (1 … contextLength known ids), in the order of their index. Errors: `context-length`, `memory`,
 * `disposed`; an abort throws signal.reason.
 */
export function* generate(
  engine: Engine,
  promptIds: Uint32Array,
  options: CallOptions,
  listener?: Listener,
): Steps<Result> {
  const { backend, cache, sampler } = engine;
  const { blockTokens } = backend;
  const { n, sampling, signal } = options;
  const watch = stopwatch();
  const path = cache.acquire(promptIds);
  const samples: Sample[] = Array.from({ length: n }, (_, index) => ({
    index,
    text: createChoiceText(engine.tokenizer.newDecoder(), options.stop),
    ids: [],
    logprobs: [],
    logprobSum: 0,
    drawn: 0,
  }));
  // Of a step's rows; filled anew for each.
  const tailLengths = new Uint32Array(backend.maxSamples);
  const tailBlocks: Uint32Array[] = [];
  let [requests, spare]: Asking[][] = [[], []]; // two steps may be on their way
  let latest: Promise<Candidates> | undefined; // of the logits that are there to be read
  let satOut = false; // a branch, the step before
  let context: Batch["context"];
  let waiting: Sample[] = [];
  /** Whether texts are read as they grow; else each is made when its sample is over. */
  const readsAlong = listener !== undefined || options.stop.length > 0;
  let maxTokens = 0;
  let active: Branch[] = [];
  try {
    const missing = missingBlocks(backend, promptIds.length, path.length, path.blocks().length);
    maxTokens = planTokens(backend, cache.room(), promptIds.length, missing, engine.contextLength, options.maxTokens);
    sampler.begin(sampling, promptIds, n);
    // The last token runs in any case: its logits are wanted.
    const cachedTokens = Math.min(path.length, promptIds.length - 1);
    const isOver = () => samples.every(({ index }) => listener?.isStopped(index));
    const logits = yield* prefill(engine, path, promptIds, signal, maxTokens > 0 ? 1 : 0, isOver);
    watch.prefilled(path.blocks().length, n);

    endStopped();
    const begun = samples.filter((sample) => !sample.finishReason);
    if (maxTokens === 0) for (const sample of begun) finish(sample, "length");
    else if (begun.length > 0) {
      // All first tokens are drawn from the one row of logits, each by its own sample.
      yield* drawAll(askFor(logits as Tensor, [{ samples: begun }]));
    }

    context = { blocks: path.blocks(), length: promptIds.length };
    waiting = samples.filter((sample) => !sample.finishReason);
    let step: Step | undefined; // on its way
    while (waiting.length + active.length > 0) {
      yield* breathe(engine, signal);
      if (endStopped()) {
        active = grown(active);
        continue;
      }
      step ??= yield* nextStep();
      if (!step) continue;
      const ahead = stepAhead(step);
      const isFollowed = yield* drawAll(step);
      watch.stepEnds(step.attention);
      active = grown(active);
      step = ahead && !isFollowed ? stepAgain(ahead) : ahead;
      if (step) watch.stepBegins();
    }

    const choices = samples.map((sample) => choiceOf(sample));
    const completionTokens = samples.reduce((sum, sample) => sum + sample.ids.length, 0);
    return {
      choices,
      usage: { promptTokens: promptIds.length, cachedTokens, completionTokens },
      stats: watch.stats(
        engine,
        options,
        samples.reduce((sum, sample) => sum + sample.drawn, 0),
      ),
    };
  } finally {
    for (const { tail } of active) tail.release();
    path.release();
    trim(engine);
  }

  /** Ends samples that were stopped from outside; whether there were any. */
  function endStopped(): boolean {
    let found = false;
    if (!listener) return found;
    for (const sample of samples) {
      if (sample.finishReason || !listener.isStopped(sample.index)) continue;
      finish(sample, "abort");
      found = true;
    }
    return found;
  }

  /** Begins a step of all that find memory; none where nobody is left. */
  function* nextStep(): Steps<Step | undefined> {
    // Each may come to be a row of its own.
    const places = backend.maxSamples - count(active);
    const comers = waiting.splice(0, places).filter((sample) => !sample.finishReason);
    active.push(...alike(comers).map((samples) => ({ samples, tail: cache.newTail() })));
    // Where memory runs short some sit a step out: the first can always go on to its end, and frees its blocks then.
    const running: Branch[] = [];
    const rows: Row[] = [];
    let takes = false; // a block, any of them
    for (const branch of active) {
      if (branch.tail.takesBlock) {
        if (!(yield* makeRoom(branch, active[0]))) continue;
        takes = true;
      }
      running.push(branch);
      rows.push(nextRow(branch, lastId(branch.samples[0])));
    }
    if (running.length === 0) return undefined;

    watch.stepBegins();
    const step = begin(running, rows);
    // One that comes back may find that it needs no block after all.
    if (takes || satOut) watch.stepHolds(context.blocks.length, running);
    satOut = running.length < active.length;
    return step;
  }

  /**
   * Begins the step behind one whose tokens nobody has read yet, where the backend can tell them: it need not wait for them then. For
   * samples that turn out to have ended with these it is in vain. None where something else would have to be known before.
   */
  function stepAhead({ of }: Step): Step | undefined {
    const canFollow = backend.drawsAhead && sampler.isFollowed && sampling.logprobs <= CANDIDATES;
    if (!canFollow || satOut || waiting.length > 0 || !active.every(goesOn)) return undefined;
    let row = -1; // of what it draws
    const rows = active.map((branch) => {
      row = of.indexOf(branch, row + 1);
      return nextRow(branch, DRAWN + row);
    });
    return begin(active, rows, 1);
  }

  /** Whether a branch's next token but one can be nothing but another row of it, on memory that it has. */
  function goesOn({ samples, tail }: Branch): boolean {
    return samples.length === 1 && samples[0].ids.length + 1 < maxTokens && !tail.takesBlock;
  }

  /** A step from the tokens that samples drew, where it began with another: what it left in the cache is written anew. */
  function stepAgain({ of, rows }: Step): Step | undefined {
    const running: Branch[] = [];
    const again: Row[] = [];
    for (const [i, branch] of of.entries()) {
      const [sample] = branch.samples;
      if (sample.finishReason) continue;
      running.push(branch);
      again.push({ ...rows[i], id: lastId(sample) });
    }
    return running.length > 0 ? begin(running, again) : undefined;
  }

  /** ahead: whether the step before is still on its way. */
  function begin(running: readonly Branch[], rows: readonly Row[], ahead = 0): Step {
    const attention =
      options.attention === "auto"
        ? backend.choosePath(count(running), context.length)
        : { path: options.attention, reason: "asked for by the option attention" };
    const out = engine.forward.decode(rows, context, tailsOf(running), attention.path);
    return { ...askFor(out, running, ahead), of: running, rows, attention };
  }

  /** Asks the backend for what samples draw from: a row of logits for each branch. */
  function askFor(out: Tensor, of: Asked["of"], ahead = 0): Asked {
    [requests, spare] = [spare, requests];
    requests.length = Math.min(requests.length, of.length);
    for (let row = 0; row < of.length; row++) {
      const { samples } = of[row];
      requests[row] ??= { edits: NO_EDITS, inverseTemperature: sampler.inverseTemperature, uniforms: [] };
      requests[row].edits = sampler.edits(samples[0].index);
      fillUniforms(requests[row].uniforms, samples, ahead);
    }
    const found = backend.candidates(out, requests, Math.max(CANDIDATES, sampling.logprobs));
    found.catch(() => {}); // of a step in vain nobody hears
    latest = found;
    return { out, of, requests, found };
  }

  /** All logits of a row. Where others have taken their place since, its token runs again. */
  function* logitsOf(asked: Asked, row: number): Steps<Float32Array> {
    if (latest === asked.found) return yield* settled(backend.logits(asked.out, row));
    const { of, rows, attention } = asked as Step;
    const { samples, tail } = of[row];
    const again = { ...rows[row], id: lastId(samples[0]) };
    const tails = { blocks: [tail.blocks()], lengths: Uint32Array.of(again.position + 1 - promptIds.length) };
    latest = undefined;
    const out = engine.forward.decode([again], context, tails, attention.path);
    return yield* settled(backend.logits(out, 0));
  }

  /** Numbers of the samples' draws, as far as the backend follows them; none where no draw has one. */
  function fillUniforms(uniforms: number[], samples: readonly Sample[], ahead: number): void {
    let count = 0;
    for (; count < samples.length && count < DRAWS; count++) {
      const uniform = sampler.uniform(samples[count].index, ahead);
      if (uniform === undefined) break;
      uniforms[count] = uniform;
    }
    if (uniforms.length > count) uniforms.length = count;
  }

  /** All samples draw their tokens, and take them; whether those of samples that go on are what the backend drew. */
  function* drawAll(asked: Asked): Steps<boolean> {
    const { of, requests, found } = asked;
    const candidates = yield* settled(found);
    let isFollowed = true;
    let first = 0; // of the row's draws
    for (let row = 0; row < of.length; row++) {
      let all: Float32Array | undefined;
      const { edits, uniforms } = requests[row];
      const { samples } = of[row];
      for (let i = 0; i < samples.length; i++) {
        const sample = samples[i];
        if (sample.finishReason) continue; // since the step began
        let drawn = sampler.draw(sample.index, candidates, row, i < uniforms.length ? first + i : undefined);
        if (!drawn) {
          all ??= yield* logitsOf(asked, row);
          drawn = sampler.drawFromLogits(sample.index, all, candidates, row);
        }
        const top = options.wantsLogprobs ? yield* alternatives(asked, row, edits, candidates, all) : NO_TOP;
        take(sample, drawn, top);
        isFollowed &&= drawn.id === candidates.drawn?.[row] || sample.finishReason !== undefined;
      }
      first += uniforms.length;
    }
    return isFollowed;
  }

  function* alternatives(
    asked: Asked,
    row: number,
    edits: Edits,
    candidates: Candidates,
    all: Float32Array | undefined,
  ): Steps<Drawn[]> {
    const count = sampling.logprobs;
    if (count === 0) return [];
    return (
      sampler.top(count, edits, candidates, row) ?? sampler.topFromLogits(count, all ?? (yield* logitsOf(asked, row)))
    );
  }

  /** A drawn token becomes part of its sample, or ends it. */
  function take(sample: Sample, { id, logprob }: Drawn, top: readonly Drawn[]): void {
    const { tokenizer } = engine;
    sampler.accept(sample.index, id);
    sample.logprobSum += logprob;
    sample.drawn++;
    if (tokenizer.eosIds.has(id) && !options.ignoreEos) {
      finish(sample, "stop", { tokenId: id, logprob });
      return;
    }
    sample.ids.push(id);
    const logprobs = options.wantsLogprobs ? describe(tokenizer, id, logprob, top) : undefined;
    if (logprobs) sample.logprobs.push(logprobs);
    const { text, stopped } = readsAlong ? sample.text.push(id) : NO_TEXT;
    const reason = stopped ? "stop" : sample.ids.length >= maxTokens ? "length" : undefined;
    if (!reason && !listener) return;
    const { index } = sample;
    // Written out: a spread is slow, and this runs for every token.
    const chunk: Chunk = logprobs
      ? { index, text, tokenId: id, logprob, logprobs }
      : { index, text, tokenId: id, logprob };
    if (reason) finish(sample, reason, chunk);
    else listener?.emit(chunk);
  }

  /** Ends a sample. Its place is free at once, its blocks when nobody shares them. */
  function finish(sample: Sample, reason: Choice["finishReason"], last: Last = NO_TOKEN): void {
    sample.finishReason = reason;
    if (!readsAlong) for (const id of sample.ids) sample.text.push(id);
    const text = (last.text ?? "") + sample.text.end();
    sampler.end(sample.index);
    listener?.emit({ ...last, index: sample.index, text, finishReason: reason });
  }

  /**
   * What has become of branches: of each one for each token that its samples drew, the first on its tail, the others on forks; none
   * where all have ended. A branch that sat the step out stays one, since its samples' last tokens are still the same.
   *
   * A later fork shares more of the tail and stands nearer to it in the list. So whoever comes to be the first branch sees most of
   * each block that it shares, and goes on in place: it never needs more blocks than a sample alone.
   */
  function grown(branches: Branch[]): Branch[] {
    if (branches.every(({ samples }) => samples.length === 1 && !samples[0].finishReason)) return branches;
    const all: Branch[] = [];
    for (const branch of branches) {
      const { samples, tail } = branch;
      if (samples.length === 1 && !samples[0].finishReason) {
        all.push(branch);
        continue;
      }
      const parts = alike(samples.filter((sample) => !sample.finishReason));
      parts.forEach((samples, i) => {
        all.push({ samples, tail: i === 0 ? tail : tail.fork() });
      });
      if (parts.length === 0) tail.release();
    }
    return all;
  }

  /** Memory for the block that the branch's next token takes; false where the first branch may need that block. */
  function* makeRoom({ tail }: Branch, first: Branch): Steps<boolean> {
    const needed = Math.ceil((maxTokens - 1) / blockTokens) - first.tail.blocks().length;
    if (tail !== first.tail && cache.room() <= needed) return false;
    yield* reserve(engine, 1);
    return true;
  }

  /** A place for the branch's next token in its tail. */
  function nextRow({ tail }: Branch, id: number): Row {
    const position = promptIds.length + tail.length;
    const { block, place, copy } = tail.append();
    if (copy) backend.copyBlock(copy.from, copy.to, copy.tokens);
    return { id, position, block, place };
  }

  function tailsOf(branches: readonly Branch[]): NonNullable<Batch["tails"]> {
    tailBlocks.length = branches.length;
    for (let row = 0; row < branches.length; row++) {
      const { tail } = branches[row];
      tailLengths[row] = tail.length;
      tailBlocks[row] = tail.blocks();
    }
    return { blocks: tailBlocks, lengths: tailLengths.subarray(0, branches.length) };
  }

  function choiceOf(sample: Sample): Choice {
    const { index, text, ids, logprobs, logprobSum, drawn, finishReason } = sample;
    return {
      index,
      text: text.text,
      tokenIds: Uint32Array.from(ids),
      finishReason: finishReason as Choice["finishReason"],
      seed: choiceSeed(engine.text, sampling.seed, index),
      meanLogprob: drawn > 0 ? logprobSum / drawn : 0,
      ...(options.wantsLogprobs ? { logprobs } : {}),
    };
  }
}

const lastId = ({ ids }: Sample) => ids[ids.length - 1];
const count = (branches: readonly Branch[]) => branches.reduce((sum, { samples }) => sum + samples.length, 0);

/** Samples whose tokens but the last are the same, as lists of those that share the last too. */
function alike(samples: readonly Sample[]): Sample[][] {
  const lists = new Map<number, Sample[]>();
  for (const sample of samples) {
    const list = lists.get(lastId(sample));
    if (list) list.push(sample);
    else lists.set(lastId(sample), [sample]);
  }
  return [...lists.values()];
}

/** What a sample's last chunk says of its token; `text`: what that settled. */
type Last = Pick<Chunk, "tokenId" | "logprob" | "logprobs"> & { readonly text?: string };
const NO_TOKEN: Last = { tokenId: -1, logprob: 0 };
const NO_TEXT = { text: "", stopped: false };
const NO_TOP: readonly Drawn[] = [];

function describe(tokenizer: ModelTokenizer, id: number, logprob: number, top: readonly Drawn[]): TokenLogprob {
  return { ...tokenLogprob(tokenizer, { id, logprob }), top: top.map((drawn) => tokenLogprob(tokenizer, drawn)) };
}
