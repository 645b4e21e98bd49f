/* consumer.c: a program of somebody who installed the library: one small call. C11 and C++ alike.
 */
#include <parallax/parallax.h>

#include <stdio.h>

int main(void)
{
    static float q[8], o[8];
    static unsigned char memory[(1 << 20) + 64];
    unsigned char *workspace = memory + (64 - (size_t)memory % 64) % 64;
    plx_context *context;
    struct plx_attention attention = {};
    struct plx_softmax_args args = {};
    for (int n = 0; n < 8; n++) q[n] = 0.5f;
    args.q = args.k = args.v = plx_tensor_4d(q, PLX_F32, 1, 2, 1, 4);
    args.o = plx_tensor_4d(o, PLX_F32, 1, 2, 1, 4);
    if (plx_context_create(NULL, &context) != PLX_OK) return 1;
    if (plx_softmax_forward(context, &attention, &args, workspace, 1 << 20, NULL) != PLX_OK) {
        fprintf(stderr, "%s\n", plx_error(context));
        return 1;
    }
    plx_context_destroy(context);
    printf("%s: %g\n", plx_build(), (double)o[7]);
    return o[7] > 0.499f && o[7] < 0.501f ? 0 : 1;
}
