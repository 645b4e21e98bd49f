/* flops.c: see flops.h for the formula. Norms, activations, softmax and the optimiser are left out,
 * as is usual: they are a few operations a number where products are thousands. */
#include "flops.h"

#include "mixers/mixer.h"

static double linear_flops(const struct model_config *config, const struct param_list *params)
{
    double sum = 0;
    for (int i = 0; i < params->count; i++) {
        const struct param *param = &params->items[i];
        bool multiplied = param->group != PARAM_EMBEDDING || config->tie_embeddings;
        if (param->value.rank != 2 || !multiplied) continue;
        sum += (param->frozen ? 4 : 6) * (double)plx_tensor_count(&param->value);
    }
    return sum;
}

static double mean_keys(int64_t window, int64_t context)
{
    if (window == 0 || window > context) window = context;
    return (double)window * (1 - (double)window / (2 * (double)context));
}

struct flops flops_per_token(const struct model_config *config, const struct param_list *params,
                             int64_t context)
{
    struct flops flops = {.linear = linear_flops(config, params)};
    const double unit = 2 * (double)config->heads * (double)config->head_dim;
    for (int64_t l = 0; l < config->layers; l++)
        flops.attention +=
            config->layer[l].mixer->products * unit * mean_keys(config->layer[l].window, context);
    flops.total = flops.linear + flops.attention;
    return flops;
}
