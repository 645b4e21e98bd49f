/* mixers.c: the table of sequence mixers. A new mixer adds its row to a family (or a new file) and
 * its address here; configuration, command line and `parallax info` find it by walking this table.
 */
#include "mixers/mixer.h"

#include <string.h>

#include "mixers/attention_family.h"

static const struct mixer_kind *const mixers[] = {
    &attention_softmax,
    &attention_parallax,
};

enum { MIXER_COUNT = sizeof mixers / sizeof mixers[0] };

const struct mixer_kind *mixer_at(int index)
{
    return index >= 0 && index < MIXER_COUNT ? mixers[index] : NULL;
}

const struct mixer_kind *mixer_find(const char *name)
{
    for (int i = 0; i < MIXER_COUNT; i++)
        if (strcmp(mixers[i]->name, name) == 0) return mixers[i];
    return NULL;
}
