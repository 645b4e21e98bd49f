/* rope.c: see rope.h. In double, since an angle is a frequency times a position. */
#include "core/rope.h"

#include <math.h>

double rope_frequency(const struct rope *rope, int64_t pair, int64_t channels)
{
    const double pi = 3.14159265358979323846;
    double frequency = pow(rope->theta, -2.0 * (double)pair / (double)channels);
    if (rope->factor == 0) return frequency;
    double turns = rope->original_positions * frequency / (2 * pi);
    double share =
        (turns - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    return frequency * (share + (1 - share) / rope->factor);
}
