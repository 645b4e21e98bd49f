/* mechanisms.c: the list of mechanisms, for whoever wants to walk all kernels. */
#include "parallax/parallax_impl.h"
#include "softmax/softmax_impl.h"

const char *plx_kernel_name(plx_mechanism mechanism, plx_pass pass, int index)
{
    static struct kernel_table (*const tables[])(plx_pass) = {
        [PLX_SOFTMAX] = softmax_table, [PLX_PARALLAX] = parallax_table};
    if ((int)mechanism < PLX_SOFTMAX || (int)mechanism > PLX_PARALLAX) return NULL;
    if ((int)pass < PLX_FORWARD || (int)pass > PLX_DECODE) return NULL;
    struct kernel_table table = tables[mechanism](pass);
    return index >= 0 && index < table.count ? table.rows[index]->name : NULL;
}
