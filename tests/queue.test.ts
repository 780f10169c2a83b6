// Turns of calls on one model: order, aborts, errors, and calls whose request ended without a word, as edge workers end them.
// On steps made up here; that calls of a model keep to them is tested in model.test.ts, in workerd in worker.test.ts.

import { test } from "uvu";
import * as assert from "uvu/assert";
import { createQueue, type Steps, settled } from "../src/queue.ts";

/** Steps that note when they begin, move and end. */
function* noting(notes: string[], name: string, count = 3): Steps<string> {
  notes.push(`${name} begins`);
  try {
    for (let i = 0; i < count; i++) yield;
    return `${name}'s result`;
  } finally {
    notes.push(`${name} ends`);
  }
}

/** Steps that wait for what never comes: all that others see of a request that is gone. */
const never = () => new Promise<never>(() => {});

test("calls run one after another, in the order in which they were made", async () => {
  const inTurn = createQueue();
  const notes: string[] = [];
  const names = ["a", "b", "c", "d"];
  const results = await Promise.all(names.map((name) => inTurn(undefined, () => noting(notes, name))));
  assert.equal(
    results,
    names.map((name) => `${name}'s result`),
  );
  assert.equal(
    notes,
    names.flatMap((name) => [`${name} begins`, `${name} ends`]),
  );
});

test("steps get what their promises settle to, and errors end one call only", async () => {
  const inTurn = createQueue();
  const sum = inTurn(undefined, function* () {
    const one = yield* settled(Promise.resolve(1));
    try {
      yield* settled(Promise.reject(new Error("caught")));
    } catch (error) {
      return `${one} ${(error as Error).message}`;
    }
    return "not reached";
  });
  const broken = inTurn(undefined, function* (): Steps<void> {
    yield;
    throw new Error("broken");
  });
  const after = inTurn(undefined, () => noting([], "after"));
  assert.is(await sum, "1 caught");
  assert.is(await messageOf(broken), "broken");
  assert.is(await after, "after's result");
});

test("an abort ends a call where it stands, at once, and the next begins", async () => {
  const inTurn = createQueue();
  const notes: string[] = [];
  const [running, waiting] = [new AbortController(), new AbortController()];
  const first = inTurn(running.signal, () => noting(notes, "first", 1e9));
  const second = inTurn(waiting.signal, () => noting(notes, "second"));
  const third = inTurn(undefined, () => noting(notes, "third"));
  await new Promise((resolve) => setTimeout(resolve, 10));
  waiting.abort(new Error("waiting"));
  running.abort(new Error("running"));
  assert.equal(notes, ["first begins", "first ends"], "what it held is free in the abort itself");
  assert.is(await messageOf(first), "running");
  assert.is(await messageOf(second), "waiting");
  assert.is(await third, "third's result");
  assert.equal(notes, ["first begins", "first ends", "third begins", "third ends"]);
  assert.is(await messageOf(inTurn(running.signal, () => noting(notes, "late"))), "running");
  assert.is(notes.length, 4);
});

test("an abort while a promise is to settle waits for it before the next call begins", async () => {
  const inTurn = createQueue();
  const notes: string[] = [];
  let settle = () => {};
  const controller = new AbortController();
  const first = inTurn(controller.signal, function* (): Steps<void> {
    try {
      yield* settled(new Promise<void>((resolve) => (settle = resolve)));
      notes.push("not reached");
    } finally {
      notes.push("first ends");
    }
  });
  const second = inTurn(undefined, () => noting(notes, "second"));
  controller.abort(new Error("enough"));
  assert.is(await messageOf(first), "enough");
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(notes, []);
  settle();
  await second;
  assert.equal(notes, ["first ends", "second begins", "second ends"]);
});

test("calls whose requests are gone, running or waiting, are ended by those behind them", async () => {
  // A request that is gone has no timers any more: its calls neither move nor hear of anything.
  const inTurn = createQueue();
  const notes: string[] = [];
  withoutTimers(() => {
    for (const name of ["running", "waiting"]) inTurn(undefined, () => noting(notes, name)).catch(() => {});
  });
  const began = performance.now();
  const [third, fourth] = [1, 2].map((i) => inTurn(undefined, () => noting(notes, `live ${i}`)));
  assert.is(await third, "live 1's result");
  assert.is(await fourth, "live 2's result");
  assert.equal(notes.slice(0, 4), ["running begins", "running ends", "live 1 begins", "live 1 ends"]);
  console.log(`measured: two dead calls held up those behind them for ${Math.round(performance.now() - began)} ms`);
});

test("a call that is slow, or waits for a device, is left to itself by those behind it", async () => {
  const inTurn = createQueue();
  const slow = inTurn(undefined, function* (): Steps<string> {
    for (let i = 0; i < 3; i++) {
      const until = performance.now() + 150;
      while (performance.now() < until);
      yield;
    }
    yield* settled(new Promise((resolve) => setTimeout(resolve, 1200)));
    return "slow";
  });
  const behind = inTurn(undefined, () => noting([], "behind"));
  assert.is(await slow, "slow");
  assert.is(await behind, "behind's result");
});

/** Runs with timers that never fire for what is called in it. */
function withoutTimers(run: () => void): void {
  const { setTimeout: timeout, setImmediate: immediate } = globalThis;
  Object.assign(globalThis, { setTimeout: never, setImmediate: never });
  try {
    run();
  } finally {
    Object.assign(globalThis, { setTimeout: timeout, setImmediate: immediate });
  }
}

const messageOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "no error",
    (error: Error) => error.message,
  );

test.run();
