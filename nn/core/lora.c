/* lora.c: which projections have adapters, and what an adapter adds to its weight; see lora.h. */
#include "core/lora.h"

#include <stdio.h>
#include <string.h>

static const char *const targets_known[LORA_TARGETS] = {
    "q_proj", "k_proj", "v_proj", "o_proj", "r_proj", "gate_proj", "up_proj", "down_proj"};
#define LORA_NAMES "q_proj, k_proj, v_proj, o_proj, r_proj, gate_proj, up_proj, down_proj"

const char *lora_target(int index)
{
    return index >= 0 && index < LORA_TARGETS ? targets_known[index] : NULL;
}

unsigned lora_target_bit(const char *name, size_t length)
{
    for (int i = 0; i < LORA_TARGETS; i++)
        if (strlen(targets_known[i]) == length && memcmp(targets_known[i], name, length) == 0)
            return 1u << i;
    return 0;
}

plx_status lora_targets_parse(const char *text, const char *flag, unsigned *targets,
                              struct error *err)
{
    *targets = 0;
    if (strcmp(text, "all") == 0) {
        *targets = LORA_ALL;
        return PLX_OK;
    }
    for (const char *at = text;; at++) {
        size_t length = strcspn(at, ",");
        unsigned bit = lora_target_bit(at, length);
        REQUIRE(err, bit != 0, PLX_INVALID_ARGUMENT, "%s: \"%.*s\" is none of all, " LORA_NAMES,
                flag, (int)(length < 40 ? length : 40), at);
        *targets |= bit;
        at += length;
        if (*at == '\0') return PLX_OK;
    }
}

void lora_targets_print(unsigned targets, char text[LORA_TEXT])
{
    size_t used = 0;
    text[0] = '\0';
    if (targets == LORA_ALL) {
        snprintf(text, LORA_TEXT, "all");
        return;
    }
    for (int i = 0; i < LORA_TARGETS; i++)
        if (targets & 1u << i)
            used += (size_t)snprintf(text + used, LORA_TEXT - used, "%s%s", used > 0 ? "," : "",
                                     targets_known[i]);
}

double lora_scale(const struct lora *lora)
{
    return lora->alpha / (double)lora->rank;
}

void lora_merge(const struct lora *lora, const float *up, const float *down, int64_t first,
                int64_t count, int64_t columns, float *values)
{
    enum { STRIP = 512 };
    const double scale = lora_scale(lora);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < count; row++) {
        const float *weights = up + (first + row) * lora->rank;
        for (int64_t start = 0; start < columns; start += STRIP) {
            const int64_t width = columns - start < STRIP ? columns - start : STRIP;
            float *strip = values + row * columns + start;
            double sum[STRIP] = {0};
            for (int64_t k = 0; k < lora->rank; k++)
                for (int64_t c = 0; c < width; c++)
                    sum[c] += (double)weights[k] * down[k * columns + start + c];
            for (int64_t c = 0; c < width; c++)
                strip[c] = (float)((double)strip[c] + scale * sum[c]);
        }
    }
}
