// The one error class that furcate raises on purpose. Knows only the codes; messages say what, got and expected.

/**
 * - `format`: a file or its contents are broken - `unsupported`: sound, but not computed here - `memory`: would not fit
 * - `context-length`: more tokens than the context holds - `option`: an argument is wrong - `network`: bytes did not arrive
 * - `device-lost`: the GPU went away - `disposed`: used after dispose - `internal`: a defect of furcate
 */
export type ErrorCode =
  | "format"
  | "unsupported"
  | "memory"
  | "context-length"
  | "option"
  | "network"
  | "device-lost"
  | "disposed"
  | "internal";

/** Every error that furcate raises on purpose: `code` to branch on; the message says what, got and expected. */
export class FurcateError extends Error {
  override readonly name = "FurcateError";
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** A value as an error message shows it, short: a text in quotes, so that it is not taken for a number. */
export function show(value: unknown): string {
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "an array" : "an object";
  if (typeof value === "function") return "a function";
  const text =
    typeof value === "string" ? JSON.stringify(value) : typeof value === "bigint" ? `${value}n` : String(value);
  return text.length > 80 ? `${text.slice(0, 79)}…` : text;
}

/** Shorthand for `throw new FurcateError`, usable as an expression. */
export function fail(code: ErrorCode, message: string, options?: ErrorOptions): never {
  throw new FurcateError(code, message, options);
}
