// The forward of a llama-like transformer, spelled out once over the backend's operations: token ids in, logits out.
// Knows layers and their order; nothing of kernels, of where blocks come from, or of sampling.

import type { AttentionPath, Backend, Batch, Norm, PreparedBatch, States, Tensor } from "./backend.ts";
import type { ModelConfig } from "./config.ts";
import { rotarySpeeds, rotaryTurns } from "./config.ts";
import type { LayerWeights, Weights } from "./weights.ts";

/** One row of a forward to come: its token, which may be a DRAWN one (backend.ts), its position, and the block and place that take its K and V. */
export interface Row {
  readonly id: number;
  readonly position: number;
  readonly block: number;
  readonly place: number;
}

export interface Forward {
  /**
   * Runs consecutive tokens of one sequence. blocks: the sequence's blocks in order, those of the rows included.
   * Returns the logits of the last `wanted` rows: (wanted, vocab); nothing where 0 are wanted.
   */
  prefill(rows: readonly Row[], blocks: Uint32Array, wanted: number): Tensor | undefined;
  /**
   * Runs one token of each sample. context: the shared blocks and tokens; tails: each sample's own blocks and length, the
   * row's token included. Returns the logits of all rows, and perhaps of some behind them that mean nothing: (rows or more, vocab).
   */
  decode(
    rows: readonly Row[],
    context: Batch["context"],
    tails: NonNullable<Batch["tails"]>,
    path: AttentionPath,
  ): Tensor;
}

/** A forward for up to backend.maxRows rows of prompt or backend.maxSamples samples at a time; takes its activations from the backend once. */
export function createForward(backend: Backend, config: ModelConfig, weights: Weights): Forward {
  const { dim, hiddenDim, headDim, nHeads, nKvHeads, vocab, normEps } = config;
  const { maxRows, maxSamples } = backend;
  const x = backend.tensor(maxRows, dim); // the residual stream
  const [q, k, v] = backend.tensors(maxRows, [nHeads * headDim, nKvHeads * headDim, nKvHeads * headDim]);
  const attended = backend.tensor(maxRows, nHeads * headDim);
  const gated = backend.tensor(maxRows, hiddenDim);
  const logits = backend.tensor(maxSamples, vocab);
  const states: States = backend.states(maxSamples);
  const speeds = rotarySpeeds(config, weights.ropeDivisors);
  // Of a batch; filled anew for each, since all together they take longer to be made than to be filled.
  const positions = new Uint32Array(maxRows);
  const ids = new Uint32Array(maxRows);
  const slots = new Uint32Array(2 * maxRows);
  const turns = new Float32Array(2 * speeds.length * maxRows);

  type Attend = (q: Tensor, layer: number, batch: PreparedBatch, out: Tensor) => void;

  const twoPart: Attend = (q, layer, batch, out) => {
    backend.attendContext(q, layer, batch, states);
    backend.attendDecode(q, layer, batch, states);
    backend.mergeStates(states, batch, out);
  };

  // Of this forward's own, so that they stand for its work (backend.forward).
  const onePart: Attend = (q, layer, batch, out) => backend.attendOnePart(q, layer, batch, out);
  const causal: Attend = (q, layer, batch, out) => backend.attendPrefill(q, layer, batch, out);

  const norm = (weight: Tensor): Norm => ({ weight, eps: normEps });

  function runLayer(w: LayerWeights, layer: number, batch: PreparedBatch, attend: Attend): void {
    const first = (tensor: Tensor) => backend.view(tensor, 0, batch.rows);
    const [residual, queries, keys, values, out, hidden] = [x, q, k, v, attended, gated].map(first);
    const [input, projections, qkv] = [norm(w.attnNorm), [w.q, w.k, w.v], [queries, keys, values]];
    const [ffnNorm, next] = [norm(w.ffnNorm), norm(weights.layers[layer + 1]?.attnNorm ?? weights.outputNorm)];
    if (w.qBias || w.kBias || w.vBias || w.qNorm || w.kNorm) {
      backend.linear(residual, input, projections, qkv);
      if (w.qBias) backend.addBias(queries, w.qBias);
      if (w.kBias) backend.addBias(keys, w.kBias);
      if (w.vBias) backend.addBias(values, w.vBias);
      if (w.qNorm) backend.rmsNorm(queries, norm(w.qNorm));
      if (w.kNorm) backend.rmsNorm(keys, norm(w.kNorm));
      backend.ropeAppend(queries, keys, values, layer, batch);
    } else backend.linearRopeAppend(residual, input, projections, qkv, layer, batch);
    attend(queries, layer, batch, out);
    backend.linearAdd(out, w.o, residual, w.oBias ? undefined : ffnNorm);
    if (w.oBias) backend.addBias(residual, w.oBias);

    backend.linearGated(residual, ffnNorm, w.gate, w.up, hidden);
    backend.linearAdd(hidden, w.down, residual, next);
  }

  /** All layers, then the logits of the last `wanted` rows, or of all. */
  function run(batch: Batch, attend: Attend, wanted?: number): Tensor | undefined {
    const prepared = backend.prepare(batch);
    const { rows } = prepared;
    const last = wanted ?? rows;
    const out = backend.view(logits, 0, last);
    backend.forward([attend, last], prepared, () => {
      backend.embed(weights.embedding, prepared, backend.view(x, 0, rows));
      weights.layers.forEach((w, layer) => {
        runLayer(w, layer, prepared, attend);
      });
      if (last > 0) backend.unembed(backend.view(x, rows - last, last), norm(weights.outputNorm), weights.output, out);
    });
    return last > 0 ? out : undefined;
  }

  function batchOf(rows: readonly Row[], context: Batch["context"], tails?: Batch["tails"]): Batch {
    const count = rows.length;
    for (let row = 0; row < count; row++) {
      const { id, position, block, place } = rows[row];
      ids[row] = id;
      positions[row] = position;
      slots[2 * row] = block;
      slots[2 * row + 1] = place;
    }
    rotaryTurns(speeds, positions.subarray(0, count), turns);
    return {
      ids: ids.subarray(0, count),
      turns: turns.subarray(0, 2 * speeds.length * count),
      slots: slots.subarray(0, 2 * count),
      context,
      tails,
    };
  }

  return {
    prefill: (rows, blocks, wanted) => run(batchOf(rows, { blocks, length: rows[0].position }), causal, wanted),
    decode(rows, context, tails, path) {
      return run(batchOf(rows, context, tails), path === "two-part" ? twoPart : onePart) as Tensor;
    },
  };
}
