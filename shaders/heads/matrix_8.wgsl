const SIDE: u32 = 8u; // of a subgroup matrix
alias Left = subgroup_matrix_left<f16, 8, 8>;
alias Right = subgroup_matrix_right<f16, 8, 8>;
alias Result = subgroup_matrix_result<f32, 8, 8>;
/// Where a matrix begins in its tile of 16 × 16.
fn in_tile(row: u32, column: u32) -> u32 { return row % 16u * 16u + column % 16u; }
