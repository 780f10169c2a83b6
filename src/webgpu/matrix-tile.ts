// What a workgroup of linear_matrix.wgsl computes: how a product's outputs, rows and columns are parted among subgroups. Knows sizes, and
// what GPUs are quick with; nothing of kernels and buffers.

import type { MatrixUnit } from "./device.ts";
import type { Constants } from "./kernels.ts";
import type { WeightLayout } from "./layout.ts";

/** LEFTS matrices' outputs for TEAMS · RIGHTS matrices of rows. */
export interface MatrixTile extends Constants {
  readonly LEFTS: number;
  readonly RIGHTS: number;
  /** Subgroups that share a team's columns. */
  readonly SHARES: number;
  readonly TEAMS: number;
  /** Matrices of columns that a subgroup takes at a time: 1, 2 or 4. */
  readonly AHEAD: number;
}

/** A product of so many rows, of a prompt or of samples. */
export interface MatrixProduct {
  readonly rows: number;
  readonly prompt: boolean;
  /** Of a gate up's too; columns are whole tiles. */
  readonly outputs: number;
  readonly columns: number;
  readonly gated: boolean;
  readonly layout: Pick<WeightLayout, "head" | "tileColumns" | "parts">;
}

/** Workgroups that keep a GPU busy: with fewer, more subgroups share the columns. */
const BUSY_GROUPS = 256;
/** With fewer than these, others share the rows. */
const FEW_GROUPS = 64;
/** Columns of such a share. */
const SHARE_COLUMNS = 512;
/** Samples that a workgroup computes at most; half as many where this makes fewer than so many subgroups in all. */
const GROUP_ROWS = 32;
const BUSY_SUBGROUPS = 1536;

type Limits = Pick<
  GPUSupportedLimits,
  "maxComputeInvocationsPerWorkgroup" | "maxComputeWorkgroupSizeX" | "maxComputeWorkgroupStorageSize"
>;

/**
 * The tile of a product, within a device's limits. Shares, and columns at a time, follow from the weight alone, so that neither the
 * number of samples nor the parting of a prompt changes a row's bits.
 */
export function matrixTile(unit: MatrixUnit, limits: Limits, product: MatrixProduct): MatrixTile {
  const { side, subgroup } = unit;
  const { SHARES, TEAMS, ...tile } = product.layout.head ? ofUnpacked(unit, product) : ofStored(unit, product);
  // In workgroup memory are each subgroup's sums, two matrices at a time, and each share's unpacked weights.
  const sums = tile.LEFTS * side * side * 4;
  const unpacked = product.layout.head ? tile.LEFTS * side * (tile.AHEAD * side + 8) * 2 : 0;
  const lanes = Math.min(limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX);
  let [shares, teams] = [SHARES, TEAMS];
  const fits = () =>
    shares * teams * subgroup <= lanes &&
    shares * (teams * sums + unpacked) + 512 <= limits.maxComputeWorkgroupStorageSize;
  while (!fits() && teams > 1) teams /= 2;
  while (!fits() && shares > 1) shares /= 2;
  return { ...tile, SHARES: shares, TEAMS: teams };
}

/** Matrices that hold so many rows: 1, 2 or 4. */
const matricesOf = (rows: number, side: number) => (rows <= side ? 1 : rows <= 2 * side ? 2 : 4);

/** The most matrices of columns at a time that the columns are whole multiples of, and that `may` be. */
const mostAhead = (columns: number, side: number, may = (_: number) => true) =>
  [4, 2].find((ahead) => columns % (ahead * side) === 0 && may(ahead));

/** Of weights that are loaded as they lie in storage. */
function ofStored({ side }: MatrixUnit, { rows, prompt, outputs, columns }: MatrixProduct): MatrixTile {
  const rights = matricesOf(rows, side);
  if (prompt) return { LEFTS: 2, RIGHTS: rights, SHARES: 8, TEAMS: 1, AHEAD: 1 };
  const groups = outputs / (2 * side);
  const least = groups < BUSY_GROUPS ? 8 : 4;
  const SHARES = Math.min(16, Math.max(least, 2 ** Math.floor(Math.log2(columns / SHARE_COLUMNS))));
  // With few rows a workgroup has registers left for loads ahead; with fewer still there are more workgroups.
  const subgroups = groups * Math.ceil(rows / GROUP_ROWS) * SHARES;
  const most = (subgroups < BUSY_SUBGROUPS ? GROUP_ROWS / 2 : GROUP_ROWS) / side;
  return { LEFTS: 2, RIGHTS: Math.min(rights, most), SHARES, TEAMS: 1, AHEAD: mostAhead(columns, side) ?? 1 };
}

/**
 * Of weights that are unpacked. Those who share columns wait for each other at each chunk: no more of them than keep a GPU busy. Of a
 * prompt teams of them unpack what they have in common once.
 */
function ofUnpacked({ side, subgroup }: MatrixUnit, product: MatrixProduct): MatrixTile {
  const { rows, prompt, outputs, columns, gated, layout } = product;
  const isNarrow = outputs / (2 * side) < BUSY_GROUPS;
  const sharing = 2 ** Math.floor(Math.log2((4 * BUSY_GROUPS * side) / outputs));
  const SHARES = prompt ? (isNarrow ? 2 : 1) : Math.min(8, Math.max(1, sharing));
  const TEAMS = prompt ? (isNarrow ? 2 : 4) : 1;
  const LEFTS = !prompt && SHARES > 1 && !gated ? 1 : 2;
  // A chunk is whole tiles; four units a lane come beforehand.
  const least = Math.max(1, layout.tileColumns / side);
  const units = (ahead: number) => (2 * side * ahead * side * layout.parts) / layout.tileColumns;
  const AHEAD = mostAhead(columns, side, (ahead) => ahead > least && units(ahead) <= 4 * subgroup) ?? least;
  // Very few outputs are rather unpacked by several workgroups, each for some of the rows.
  let RIGHTS = matricesOf(rows, side);
  const groups = () => (outputs / (LEFTS * side)) * Math.ceil(rows / (RIGHTS * side));
  while (!prompt && RIGHTS > 1 && groups() < FEW_GROUPS) RIGHTS /= 2;
  return { LEFTS, RIGHTS, SHARES, TEAMS, AHEAD };
}
