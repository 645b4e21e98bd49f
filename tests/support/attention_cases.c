/* attention_cases.c: the case table of attention; see attention_case.h. One table for every device:
 * lengths around tile sizes, head ratios, head channels, windows, memory layouts, batch layouts,
 * caches and values that strain the arithmetic. */
#include "attention_case.h"

static const int32_t ragged_q[] = {37, 0, 64, 1}, ragged_k[] = {37, 5, 64, 70};
static const int32_t short_k[] = {3, 0, 33}, cache_k[] = {300, 17, 128};
static const int32_t packed_q[] = {0, 5, 5, 69, 70, 130};
static const int32_t packed_k[] = {0, 9, 12, 12, 100, 117};

/* B, T, S, H, G, D, then what differs from full dense attention over normal values. */
const struct attention_case attention_cases[] = {
    /* Lengths: nothing, one, and around the tile sizes. */
    {"length_0", 2, 0, 0, 2, 1, 64, .causal = true},
    {"no_queries", 2, 0, 5, 2, 1, 64, .causal = true},
    {"no_keys", 2, 5, 0, 2, 1, 64, .causal = false},
    {"length_1", 2, 1, 1, 2, 1, 64, .causal = true},
    {"length_2", 1, 2, 2, 2, 2, 64, .causal = true},
    {"length_63", 1, 63, 63, 2, 1, 64, .causal = true},
    {"length_64", 1, 64, 64, 2, 1, 64, .causal = true},
    {"length_65", 1, 65, 65, 2, 1, 64, .causal = true},
    {"length_65_full", 2, 65, 65, 2, 1, 64, .causal = false},
    {"length_127", 1, 127, 127, 1, 1, 64, .causal = true},
    {"length_128", 1, 128, 128, 1, 1, 128, .causal = true},
    {"length_129", 1, 129, 129, 1, 1, 64, .causal = true},
    {"length_129_full", 1, 129, 129, 1, 1, 64, .causal = false},
    {"length_1000", 1, 1000, 1000, 1, 1, 8, .causal = true},
    {"length_4096_window", 1, 4096, 4096, 1, 1, 8, .causal = true, .window = 70},
    {"cache_4096", 1, 3, 4096, 2, 1, 64, .causal = true},
    /* T != S. */
    {"T_less_causal", 2, 33, 100, 2, 1, 64, .causal = true},
    {"T_less_full", 1, 33, 100, 2, 1, 64, .causal = false},
    {"T_more_causal", 2, 100, 33, 2, 1, 64, .causal = true},
    {"T_more_full", 1, 100, 33, 2, 1, 64, .causal = false},
    {"one_query", 2, 1, 300, 4, 2, 64, .causal = true},
    {"four_queries", 1, 4, 257, 4, 1, 128, .causal = true},
    /* Heads. */
    {"gqa_1", 1, 33, 33, 4, 4, 32, .causal = true},
    {"gqa_2", 2, 33, 33, 4, 2, 32, .causal = true},
    {"gqa_4", 1, 33, 33, 4, 1, 32, .causal = true},
    {"gqa_8", 1, 33, 33, 8, 1, 64, .causal = true},
    {"gqa_3", 1, 33, 33, 6, 2, 32, .causal = true},
    {"gqa_5", 1, 33, 33, 5, 1, 32, .causal = true},
    {"gqa_7", 1, 17, 40, 14, 2, 32, .causal = true},
    /* Head channels. */
    {"D_1", 1, 40, 40, 2, 1, 1, .causal = true},
    {"D_3", 1, 40, 40, 2, 1, 3, .causal = true},
    {"D_16", 1, 40, 40, 2, 1, 16, .causal = true},
    {"D_60", 1, 40, 40, 2, 1, 60, .causal = true},
    {"D_80", 1, 70, 70, 2, 1, 80, .causal = true},
    {"D_100", 1, 40, 40, 2, 1, 100, .causal = true},
    {"D_128", 1, 70, 70, 2, 1, 128, .causal = true},
    {"D_200", 1, 40, 40, 2, 1, 200, .causal = true},
    {"D_256", 1, 70, 70, 2, 1, 256, .causal = true},
    {"D_300", 1, 20, 20, 1, 1, 300, .causal = true},
    /* Windows: the tile edges, a window over several tiles, and one wider than everything. */
    {"window_1", 1, 70, 70, 2, 1, 64, .causal = true, .window = 1},
    {"window_7", 1, 130, 130, 2, 1, 64, .causal = true, .window = 7},
    {"window_200", 1, 1024, 1024, 1, 1, 8, .causal = true, .window = 200},
    {"window_wide", 1, 70, 70, 2, 1, 64, .causal = true, .window = 1000},
    {"window_T_less", 1, 20, 150, 2, 1, 64, .causal = true, .window = 65},
    {"window_T_more", 1, 150, 20, 2, 1, 64, .causal = true, .window = 9},
    /* Memory. */
    {"padded", 2, 66, 66, 4, 2, 64, .causal = true, .view = VIEW_PADDED},
    {"padded_odd", 1, 35, 50, 2, 1, 60, .view = VIEW_PADDED},
    {"head_major", 2, 66, 66, 4, 2, 64, .causal = true, .view = VIEW_HEAD_MAJOR},
    {"left_padded", 2, 66, 70, 4, 2, 60, .causal = true, .view = VIEW_LEFT_PADDED},
    {"odd_queries", 2, 4, 300, 8, 4, 64, .causal = true, .view = VIEW_ODD_QUERIES},
    {"odd_queries_page", 3, 1, 300, 8, 2, 128, .causal = true, .k_lengths = cache_k, .page = 16,
     .view = VIEW_ODD_QUERIES},
    {"odd_queries_f8", 2, 3, 300, 6, 2, 128, .causal = true, .f8 = true, .view = VIEW_ODD_QUERIES},
    {"odd_queries_f8_page", 3, 2, 300, 8, 4, 64, .causal = true, .k_lengths = cache_k, .page = 64,
     .f8 = true, .view = VIEW_ODD_QUERIES},
    {"wide", 2, 66, 66, 4, 2, 64, .causal = true, .wide = true},
    {"wide_padded", 1, 40, 70, 2, 1, 80, .wide = true, .view = VIEW_PADDED},
    /* Layouts. */
    {"ragged", 4, 64, 70, 2, 1, 64, .causal = true, .q_lengths = ragged_q, .k_lengths = ragged_k},
    {"ragged_full", 4, 64, 70, 2, 1, 64, .q_lengths = ragged_q, .k_lengths = ragged_k},
    {"ragged_keys", 3, 33, 33, 2, 1, 64, .causal = true, .k_lengths = short_k},
    {"ragged_queries", 4, 64, 64, 2, 1, 64, .causal = true, .q_lengths = ragged_q},
    {"packed", 1, 130, 130, 4, 2, 64, .causal = true, .q_offsets = packed_q, .sequences = 5},
    {"packed_full", 1, 130, 130, 2, 1, 64, .q_offsets = packed_q, .sequences = 5},
    {"packed_window", 1, 130, 130, 2, 1, 64, .causal = true, .window = 20, .q_offsets = packed_q,
     .sequences = 5},
    {"packed_keys", 1, 130, 117, 2, 1, 64, .causal = true, .q_offsets = packed_q,
     .k_offsets = packed_k, .sequences = 5},
    {"packed_keys_full", 1, 130, 117, 2, 1, 64, .q_offsets = packed_q, .k_offsets = packed_k,
     .sequences = 5},
    /* Caches: pages of sizes that divide tiles and of others, f8e4m3 with scales, and both. */
    {"page_1", 2, 3, 37, 4, 2, 64, .causal = true, .page = 1},
    {"page_16", 3, 1, 300, 8, 2, 64, .causal = true, .k_lengths = cache_k, .page = 16},
    {"page_16_window", 1, 20, 150, 2, 1, 64, .causal = true, .window = 65, .page = 16},
    {"page_64", 3, 2, 300, 4, 1, 128, .causal = true, .k_lengths = cache_k, .page = 64},
    {"page_64_full", 4, 64, 70, 2, 1, 64, .q_lengths = ragged_q, .k_lengths = ragged_k, .page = 64},
    {"page_100", 3, 4, 300, 6, 2, 128, .causal = true, .k_lengths = cache_k, .page = 100},
    {"page_100_prefill", 1, 100, 250, 2, 1, 80, .causal = true, .page = 100, .view = VIEW_PADDED},
    {"page_heads", 2, 5, 70, 4, 2, 64, .causal = true, .page = 16, .view = VIEW_HEAD_MAJOR},
    {"page_empty", 2, 5, 0, 2, 1, 64, .causal = true, .page = 16},
    {"page_key_offset", 1, 40, 150, 2, 1, 64, .causal = true, .page = 64, .values = VALUES_OFFSET},
    {"f8", 2, 1, 300, 8, 2, 128, .causal = true, .f8 = true},
    {"f8_lengths", 3, 4, 300, 6, 2, 64, .causal = true, .k_lengths = cache_k, .f8 = true},
    {"f8_prefill", 1, 100, 150, 4, 2, 60, .causal = true, .f8 = true, .view = VIEW_PADDED},
    {"f8_wide", 1, 7, 257, 4, 1, 128, .causal = true, .f8 = true, .wide = true},
    {"f8_large_logits", 1, 5, 150, 2, 1, 64, .causal = true, .f8 = true, .values = VALUES_LARGE},
    {"f8_page_16", 3, 1, 300, 8, 2, 128, .causal = true, .k_lengths = cache_k, .page = 16,
     .f8 = true},
    {"f8_page_100", 3, 40, 300, 2, 1, 64, .causal = true, .k_lengths = cache_k, .page = 100,
     .f8 = true},
    /* Values. */
    {"scale", 1, 66, 66, 2, 1, 64, .causal = true, .scale = 0.03},
    {"negative_scale", 1, 66, 66, 2, 1, 64, .causal = true, .scale = -0.1},
    {"large_logits", 1, 150, 150, 2, 1, 64, .causal = true, .values = VALUES_LARGE},
    {"constant_rows", 1, 66, 66, 2, 1, 64, .causal = true, .values = VALUES_CONSTANT},
    {"one_hot", 1, 66, 66, 2, 1, 64, .causal = true, .values = VALUES_ONE_HOT},
    {"key_offset", 1, 150, 150, 2, 1, 64, .causal = true, .values = VALUES_OFFSET},
    {"nan_query", 1, 66, 66, 2, 1, 64, .causal = true, .values = VALUES_NAN_QUERY},
};

const int attention_case_count = sizeof attention_cases / sizeof attention_cases[0];
