/* sanitize_cases.c: see sanitize_cases.h. */
#include "sanitize_cases.h"

static const int32_t two[] = {41, 17}, packed[] = {0, 7, 7, 40};
static const int32_t many[32] = {1, 16, 7, 2, 3, 0, 9, 16, 1, 16, 7, 2, 3, 0, 9, 16,
                                 1, 16, 7, 2, 3, 0, 9, 16, 1, 16, 7, 2, 3, 0, 9, 16};

#define DECODES  PLX_DECODE, PLX_DECODE, true
#define FORWARD  PLX_FORWARD, PLX_FORWARD, true
#define TRAINS   PLX_FORWARD, PLX_BACKWARD, true
#define FALLBACK PLX_FORWARD, PLX_DECODE, false

const struct sanitize_case sanitize_cases[] = {
    /* Decode: even parts in clusters and through the workspace, wide blocks, lists of more pairs
     * than there is room for, chunks where there are no boxes, two heads a block, two sets of rows
     * (and blocks that have no second one), and f8. */
    {{"even_128", 1, 1, 8192, 1, 1, 128, .causal = true, .view = VIEW_ALIGNED}, DECODES},
    {{"even_128_page_16", 1, 3, 130, 4, 2, 128, .causal = true, .page = 16, .view = VIEW_ALIGNED},
     DECODES},
    {{"wide_128", 1, 1, 272, 17, 17, 128, .causal = true, .view = VIEW_ALIGNED}, DECODES},
    {{"list_128", 20, 2, 17, 16, 16, 128, .causal = true, .k_lengths = many, .view = VIEW_ALIGNED},
     DECODES},
    {{"chunks_128_page_100", 1, 2, 130, 8, 1, 128, .causal = true, .page = 100,
      .view = VIEW_ALIGNED},
     DECODES},
    {{"chunks_64", 1, 1, 70, 2, 1, 64, .causal = true, .view = VIEW_PADDED}, DECODES},
    {{"even_64", 1, 1, 300, 2, 1, 64, .causal = true, .window = 270, .view = VIEW_ALIGNED},
     DECODES},
    {{"wide_64", 1, 1, 160, 2, 1, 64, .causal = true, .view = VIEW_ALIGNED}, DECODES},
    {{"list_64_page_16", 20, 1, 17, 16, 16, 64, .causal = true, .k_lengths = many, .page = 16,
      .view = VIEW_ALIGNED},
     DECODES},
    {{"two_heads", 32, 4, 16, 32, 16, 64, .causal = true, .view = VIEW_ALIGNED}, DECODES},
    {{"two_heads_list", 20, 4, 16, 64, 32, 64, .causal = true, .k_lengths = many,
      .view = VIEW_ALIGNED},
     DECODES},
    {{"deep_128", 16, 5, 50, 32, 8, 128, .causal = true, .view = VIEW_ALIGNED}, DECODES},
    {{"deep_128_page_16", 20, 2, 50, 64, 8, 128, .causal = true, .k_lengths = many, .page = 16,
      .view = VIEW_ALIGNED},
     DECODES},
    {{"deep_64", 17, 1, 100, 72, 8, 64, .causal = true, .view = VIEW_ALIGNED}, DECODES},
    {{"deep_64_list_page_16", 20, 3, 100, 64, 16, 64, .causal = true, .k_lengths = many, .page = 16,
      .view = VIEW_ALIGNED},
     DECODES},
    {{"even_f8", 1, 1, 41, 4, 2, 128, .f8 = true, .view = VIEW_ALIGNED}, DECODES},
    {{"wide_f8_page_16", 1, 1, 160, 2, 1, 128, .f8 = true, .page = 16, .view = VIEW_ALIGNED},
     DECODES},
    {{"list_f8", 20, 1, 17, 16, 16, 128, .k_lengths = many, .f8 = true, .view = VIEW_ALIGNED},
     DECODES},
    {{"even_f8_64", 1, 1, 41, 4, 2, 64, .f8 = true, .view = VIEW_SLICED}, DECODES},
    {{"wide_f8_64_page_16", 1, 1, 300, 2, 1, 64, .f8 = true, .page = 16, .view = VIEW_ALIGNED},
     DECODES},
    {{"list_f8_64", 20, 1, 17, 16, 16, 64, .k_lengths = many, .f8 = true, .view = VIEW_ALIGNED},
     DECODES},
    {{"two_heads_f8", 32, 4, 16, 32, 2, 64, .causal = true, .f8 = true, .view = VIEW_ALIGNED},
     DECODES},
    {{"two_heads_list_f8", 20, 4, 16, 64, 4, 64, .causal = true, .k_lengths = many, .f8 = true,
      .view = VIEW_ALIGNED},
     DECODES},
    /* Forward and backward, each ring of stages more than once around, and as many keys as the
     * fused backward begins to pay with; then every kind of mask and border. */
    {{"train_128", 1, 136, 1540, 1, 1, 128, .view = VIEW_ALIGNED}, TRAINS},
    {{"train_64", 1, 136, 1030, 1, 1, 64, .view = VIEW_SLICED, .wide = true}, TRAINS},
    {{"train_128_window", 1, 150, 150, 2, 1, 128, .causal = true, .window = 80,
      .view = VIEW_SLICED},
     TRAINS},
    {{"train_64_packed", 1, 40, 40, 2, 1, 64, .causal = true, .q_offsets = packed, .sequences = 3,
      .view = VIEW_ALIGNED},
     TRAINS},
    {{"prefill_128_page_64", 1, 70, 130, 2, 1, 128, .causal = true, .page = 64,
      .view = VIEW_ALIGNED},
     FORWARD},
    {{"prefill_64_page_32", 1, 70, 130, 2, 1, 64, .causal = true, .page = 32, .view = VIEW_ALIGNED},
     FORWARD},
    /* The kernels for every GPU, and their sum over splits of a cache. */
    {{"any_7", 1, 5, 40, 2, 1, 7, .causal = true, .view = VIEW_PADDED}, FALLBACK},
    {{"any_256", 1, 20, 20, 1, 1, 256, .view = VIEW_HEAD_MAJOR}, FALLBACK},
    {{"any_splits", 1, 1, 300, 2, 1, 16, .causal = true}, PLX_DECODE, PLX_DECODE, false},
    {{"any_f8_page_16", 2, 1, 41, 2, 1, 64, .k_lengths = two, .page = 16, .f8 = true},
     PLX_DECODE,
     PLX_DECODE,
     false},
};
const int sanitize_case_count = sizeof sanitize_cases / sizeof sanitize_cases[0];
