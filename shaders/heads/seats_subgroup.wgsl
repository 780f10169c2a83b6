// A vector's seats are neighbours in a subgroup, which has at least as many lanes: what they find goes without memory and barriers.
enable subgroups;
diagnostic(off, subgroup_uniformity);

fn greatest(lane: u32, x: Rows) -> Rows {
  var most = x;
  for (var other = 1u; other < SEATS; other *= 2) { most = max(most, subgroupShuffleXor(most, other)); }
  return most;
}
fn total(lane: u32, x: Rows) -> Rows {
  var sum = x;
  for (var other = 1u; other < SEATS; other *= 2) { sum += subgroupShuffleXor(sum, other); }
  return sum;
}
