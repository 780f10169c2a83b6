// Calls that run one after another, a step at a time, so that the host's events run between. A call's steps run where the call was
// made: on edge workers each request has timers of its own, which end with it, so a call waits for its turn by its own timer
// alone, awaits nothing of another's, and ends a call before it whose request is gone. Knows nothing of what calls do.

/**
 * A call as steps: where it yields nothing, the host's events run; where it yields a promise, it gets back what that settles to.
 * What it holds it gives back in `finally`, without another yield, since it may be ended wherever it yields.
 */
export type Steps<T> = Generator<Promise<unknown> | undefined, T, unknown>;

/** Runs a call when those made before are over. An abort ends it at once, waiting or begun, and rejects with signal.reason. */
export type Queue = <T>(signal: AbortSignal | undefined, begin: () => Steps<T>) => Promise<T>;

/** Waits for a promise within steps. */
export function* settled<T>(promise: Promise<T>): Steps<T> {
  return (yield promise) as T;
}

/** Milliseconds between two looks of the first that waits; the others look less often, since they have longer to wait. */
const LOOK_MS = 4;
const SELDOM_MS = 500;
/** Milliseconds of looks in a row, five at least, that find a call before it without a sign of life; then its request is gone. */
const PATIENCE_MS = 400;

interface Job {
  /** Moves with every look and every step: the sign that the call's own timers run. */
  beats: number;
  steps?: Steps<unknown>;
  /** Whether its promise is still to settle, so that what it works on cannot be taken from it yet. */
  busy: boolean;
  over: boolean;
  /** Has the job look at once. */
  wake(): void;
}

export function createQueue(): Queue {
  const jobs: Job[] = [];

  /** Ends a job, begun or not, finished or not: it gives back what it holds, and the next may begin. */
  function end(job: Job): void {
    job.over = true;
    if (job.busy) return; // its own run comes back here
    job.steps?.return(undefined);
    const place = jobs.indexOf(job);
    if (place >= 0) jobs.splice(place, 1);
    if (place === 0 && !CONTEXTS) jobs[0]?.wake();
  }

  async function run<T>(job: Job, begin: () => Steps<T>): Promise<T> {
    try {
      const seen = new Map<Job, { beats: number; idle: number }>();
      let pause = 0;
      while (jobs[0] !== job && !job.over) {
        for (const before of jobs.slice(0, jobs.indexOf(job))) {
          const last = seen.get(before);
          if (before.busy || last?.beats !== before.beats) seen.set(before, { beats: before.beats, idle: 0 });
          else {
            last.idle += Math.min(pause, PATIENCE_MS / 5);
            if (last.idle >= PATIENCE_MS) end(before);
          }
        }
        pause = Math.min(SELDOM_MS, LOOK_MS * jobs.indexOf(job));
        await look(job, pause);
        job.beats++;
      }
      if (job.over) throw gone();
      const steps = begin();
      job.steps = steps;
      let step = steps.next();
      while (!step.done) {
        job.beats++;
        const { value } = step;
        if (value === undefined) {
          await nextTask();
          if (job.over) throw gone();
          step = steps.next();
        } else {
          job.busy = true;
          const outcome = await value.then(
            (value) => ({ value }),
            (error: unknown) => ({ error }),
          );
          job.busy = false;
          if (job.over) throw gone();
          step = "error" in outcome ? steps.throw(outcome.error) : steps.next(outcome.value);
        }
      }
      return step.value;
    } finally {
      end(job);
    }
  }

  return async (signal, begin) => {
    signal?.throwIfAborted();
    const job: Job = { beats: 0, busy: false, over: false, wake() {} };
    jobs.push(job);
    return unlessAborted(run(job, begin), signal, () => {
      end(job);
      job.wake();
    });
  };
}

/** A promise's outcome, or the signal's reason as soon as it aborts; then `onAbort` runs, too. */
export function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined, onAbort = () => {}): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const abort = () => {
      onAbort();
      reject(signal.reason);
    };
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

/** Whether each request has an event loop of its own, whose promises nobody else should settle. */
const CONTEXTS = globalThis.navigator?.userAgent === "Cloudflare-Workers";

const gone = () => new DOMException("The call was ended: its request was gone", "AbortError");

/** Resolves after a while, or when the job is woken. */
function look(job: Job, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    job.wake = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

/** Resolves in a task of its own, without the delay that timers have in browsers. */
export function nextTask(): Promise<void> {
  if (typeof setImmediate === "function") return new Promise((resolve) => setImmediate(resolve));
  if (typeof MessageChannel !== "function" || CONTEXTS) return new Promise((resolve) => setTimeout(resolve, 0));
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(0);
  });
}
