// Tiles of products by subgroup matrices, which no software GPU computes: legal on every device that has them, and the same shares of
// the columns however many rows come together. That kernels compute them right is kernels.test.ts's, on a GPU that has matrices.

import { test } from "uvu";
import * as assert from "uvu/assert";
import type { GgmlType } from "../src/formats/gguf.ts";
import { layoutOf, type WeightLayout } from "../src/webgpu/layout.ts";
import { type MatrixProduct, type MatrixTile, matrixTile } from "../src/webgpu/matrix-tile.ts";

const UNITS = [
  { side: 8, subgroup: 16 },
  { side: 8, subgroup: 32 },
  { side: 16, subgroup: 32 },
  { side: 16, subgroup: 64 },
] as const;
const LIMITS = [
  [256, 256, 16],
  [1024, 256, 32],
  [512, 512, 32],
  [1024, 1024, 48],
].map(([lanes, along, kib]) => ({
  maxComputeInvocationsPerWorkgroup: lanes,
  maxComputeWorkgroupSizeX: along,
  maxComputeWorkgroupStorageSize: kib << 10,
}));
const TYPES: GgmlType[] = ["F16", "BF16", "F32", "Q8_0", "Q4_0", "Q5_1", "Q4_K", "Q6_K"];
const layout = (type: GgmlType) => layoutOf(type) as WeightLayout;

test("tiles are legal, and shares and columns at a time are those of any number of rows", () => {
  let tried = 0;
  for (const unit of UNITS)
    for (const limits of LIMITS)
      for (const type of TYPES)
        for (const prompt of [false, true])
          for (const gated of [false, true])
            for (const outputs of [16, 48, 576, 2048, 6144, 22016, 151936])
              for (const columns of [32, 64, 96, 256, 576, 1056, 2048, 4096, 8192, 14336]) {
                const { head, tileColumns } = layout(type);
                if (columns % tileColumns !== 0) continue;
                const ways = new Set<string>();
                for (const rows of [1, 5, 8, 16, 17, 33, 64, 65, 128, 256]) {
                  const tile = matrixTile(unit, limits, {
                    rows,
                    prompt,
                    gated,
                    outputs: gated ? 2 * outputs : outputs,
                    columns,
                    layout: layout(type),
                  });
                  const { LEFTS, SHARES, TEAMS, AHEAD } = tile;
                  const what = JSON.stringify({ unit, limits, type, prompt, gated, outputs, columns, rows, tile });
                  for (const [name, values] of Object.entries({ LEFTS: [1, 2], RIGHTS: [1, 2, 4], AHEAD: [1, 2, 4] }))
                    assert.ok(values.includes(tile[name]), `${name} in ${what}`);
                  if (gated) assert.is(LEFTS, 2, what);
                  assert.is(columns % (AHEAD * unit.side), 0, what);
                  if (head) assert.is((AHEAD * unit.side) % tileColumns, 0, what);
                  assert.ok(SHARES * TEAMS * unit.subgroup <= limits.maxComputeWorkgroupSizeX, what);
                  const sums = 4 * LEFTS * unit.side ** 2 * SHARES * TEAMS;
                  const unpacked = head ? 2 * LEFTS * unit.side * (AHEAD * unit.side + 8) * SHARES : 0;
                  assert.ok(sums + unpacked <= limits.maxComputeWorkgroupStorageSize, what);
                  ways.add([SHARES, AHEAD, LEFTS].join());
                  tried++;
                }
                assert.is(ways.size, 1, `${[...ways].join(" and ")}: ${type}, ${outputs} × ${columns}`);
              }
  assert.ok(tried > 100_000, `${tried} tiles`);
});

test("few workgroups have fewer rows, and subgroups share as many columns as are worth it", () => {
  const picked = (rows: number, outputs: number, columns: number, type: GgmlType = "F16"): Partial<MatrixTile> => {
    const product: MatrixProduct = { rows, prompt: false, outputs, columns, gated: false, layout: layout(type) };
    const { RIGHTS, SHARES, AHEAD } = matrixTile(UNITS[2], LIMITS[3], product);
    return { RIGHTS, SHARES, AHEAD };
  };
  assert.equal(picked(16, 3072, 2048), { RIGHTS: 1, SHARES: 8, AHEAD: 4 });
  assert.equal(picked(32, 3072, 2048), { RIGHTS: 1, SHARES: 8, AHEAD: 4 });
  assert.equal(picked(64, 3072, 2048), { RIGHTS: 2, SHARES: 8, AHEAD: 4 });
  assert.equal(picked(32, 12288, 4096), { RIGHTS: 2, SHARES: 8, AHEAD: 4 });
  assert.equal(picked(128, 128256, 2048), { RIGHTS: 2, SHARES: 4, AHEAD: 4 });
  assert.equal(picked(32, 4096, 11008), { RIGHTS: 2, SHARES: 16, AHEAD: 4 });
  assert.equal(picked(32, 576, 99 * 16), { RIGHTS: 1, SHARES: 8, AHEAD: 1 });
  // What is unpacked is so by few workgroups, unless they are very few.
  assert.equal(picked(64, 2048, 2048, "Q8_0"), { RIGHTS: 4, SHARES: 8, AHEAD: 4 });
  assert.equal(picked(64, 192, 512, "Q8_0"), { RIGHTS: 1, SHARES: 8, AHEAD: 4 });
  assert.equal(picked(64, 512, 512, "Q8_0"), { RIGHTS: 2, SHARES: 8, AHEAD: 4 });
});

test.run();
