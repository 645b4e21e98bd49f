/* rope.h: how fast each pair of channels turns with position.
 *
 * Pair i of D channels turns by position * theta^(-2i/D). Llama-3 stretches what was trained on
 * short texts: pairs whose wavelength is beyond original_positions / low_freq_factor turn factor
 * times slower, those below original_positions / high_freq_factor as before, and between the two
 * the frequency goes over linearly in original_positions / wavelength. */
#ifndef NN_ROPE_H
#define NN_ROPE_H

#include <stdint.h>

struct rope {
    double theta;
    double factor; /* 0: no stretching, and the rest means nothing */
    double low_freq_factor, high_freq_factor;
    double original_positions;
};

/* Radians a position, 0 <= pair < channels / 2. */
double rope_frequency(const struct rope *rope, int64_t pair, int64_t channels);

#endif
