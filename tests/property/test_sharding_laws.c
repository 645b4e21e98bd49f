/* test_sharding_laws.c: laws of a step that ranks share: the model tells of every gradient once,
 * and only when it is complete; every parameter has one owner, the same on all ranks, and no rank
 * has much more than its share; rank 0 can borrow the states of all others. */
#include "../model_case.h"

#include "comm/sharding.h"

struct fixture {
    struct case_model m;
    struct case_batch batch;
};

static void open_fixture(struct fixture *f, bool tied, enum recompute recompute)
{
    struct model_config config = case_config(3, "parallax");
    struct rng rng = rng_make(5, 5);
    config.tie_embeddings = tied;
    case_open(&f->m, &config, &ops_cpu, PLX_F32, 5);
    case_batch_fill(&f->batch, (int64_t[]){13, 8}, 2, config.vocab_size, &rng);
    struct model_memory memory;
    CASE_OK(&f->m, model_reserve(f->m.model, 21, 2, true, recompute, &memory));
    CASE_OK(&f->m, model_zero_grads(f->m.model));
}

/* ---- Telling ---- */

struct told {
    const struct param_list *params;
    int times[64], last_first;
    struct plx_tensor grads[64];
};

static plx_status note(void *user, int first, int count)
{
    struct told *told = user;
    for (int i = first; i < first + count; i++) {
        const struct plx_tensor *grad = &told->params->items[i].grad;
        told->grads[i] = case_tensor(grad->dtype, grad->rank, grad->shape);
        memcpy(told->grads[i].data, grad->data, (size_t)plx_tensor_count(grad) * sizeof(float));
        told->times[i]++;
    }
    assert_true(first < told->last_first);
    told->last_first = first;
    return PLX_OK;
}

static void test_gradients_are_told_complete(void **state)
{
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        struct fixture f;
        struct told told = {.last_first = 1000};
        open_fixture(&f, variant & 1, variant & 2 ? RECOMPUTE_FULL : RECOMPUTE_NONE);
        told.params = model_params(f.m.model);
        struct model_loss loss;
        model_tell_gradients(f.m.model, note, &told);
        CASE_OK(&f.m, model_loss_backward(f.m.model, &f.batch.batch, 0.25, &loss));
        for (int i = 0; i < told.params->count; i++) {
            assert_int_equal(told.times[i], 1);
            case_assert_same_bits(&told.grads[i], &told.params->items[i].grad);
            free(told.grads[i].data);
        }
        model_tell_gradients(f.m.model, NULL, NULL);
        CASE_OK(&f.m, model_loss_backward(f.m.model, &f.batch.batch, 0.25, &loss));
        assert_int_equal(told.times[0], 1);
        case_close(&f.m);
    }
}

/* ---- Owners ---- */

/* Owners as one of several ranks deals them out; no other rank is needed for that. */
static void deal(struct fixture *f, int rank, int size, const struct optim_config *config,
                 int owners[64])
{
    struct comm comm = {.rank = rank, .size = size, .err = &f->m.err};
    struct param_list *params = model_params(f->m.model);
    struct sharding sharding;
    CASE_OK(&f->m, sharding_create(&sharding, &comm, &f->m.be, params, config));
    for (int i = 0; i < params->count; i++) {
        owners[i] = sharding.owners[i];
        assert_true(owners[i] >= 0 && owners[i] < size);
        assert_int_equal(params->items[i].remote, owners[i] != rank);
    }
    sharding_destroy(&sharding);
}

static void check_balance(const struct param_list *params, const struct optim_config *config,
                          const int *owners, int size)
{
    double loads[8] = {0}, total = 0, largest = 0;
    for (int i = 0; i < params->count; i++) {
        double cost = optim_cost(config, &params->items[i]);
        loads[owners[i]] += cost;
        total += cost;
        if (cost > largest) largest = cost;
    }
    for (int r = 0; r < size; r++) assert_true(loads[r] <= total / size + largest);
}

static void test_owners(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, false, RECOMPUTE_NONE);
    const struct param_list *params = model_params(f.m.model);
    for (int variant = 0; variant < 2; variant++) {
        struct optim_config config = optim_config_default(variant ? "muon" : "adamw");
        for (int size = 1; size <= 7; size++) {
            int first[64], own[64];
            deal(&f, 0, size, &config, first);
            check_balance(params, &config, first, size);
            for (int rank = 1; rank < size; rank++) {
                deal(&f, rank, size, &config, own);
                assert_memory_equal(own, first, (size_t)params->count * sizeof *own);
            }
        }
    }
    case_close(&f.m);
}

/* ---- States ---- */

static void test_borrowed_states(void **state)
{
    (void)state;
    struct fixture f;
    struct optim_config config = optim_config_default("muon");
    int owners[64], named = 0, here = 0;
    open_fixture(&f, true, RECOMPUTE_NONE);
    deal(&f, 0, 3, &config, owners);
    struct optim *optim;
    struct optim_tensor tensor;
    CASE_OK(&f.m, optim_create(&f.m.be, &config, model_params(f.m.model), &optim));
    for (; optim_state(optim, named, &tensor); named++) {
        assert_int_equal(tensor.tensor.data != NULL, owners[tensor.param] == 0);
        here += tensor.tensor.data != NULL;
    }
    assert_true(here > 0 && here < named);
    CASE_OK(&f.m, optim_borrow(optim));
    for (int i = 0; i < named; i++) {
        assert_true(optim_state(optim, i, &tensor));
        assert_non_null(tensor.tensor.data);
        assert_int_equal(tensor.tensor.device, PLX_CPU);
    }
    optim_return(optim);
    for (int i = 0; i < named; i++) {
        assert_true(optim_state(optim, i, &tensor));
        assert_int_equal(tensor.tensor.data != NULL, owners[tensor.param] == 0);
    }
    optim_destroy(optim);
    case_close(&f.m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_are_told_complete),
        cmocka_unit_test(test_owners),
        cmocka_unit_test(test_borrowed_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
