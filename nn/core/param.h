/* param.h: the table of a model's parameters. One row a tensor; the rows drive initialisation,
 * loading, saving, names, optimiser groups, counts and the table that `parallax info` prints.
 * Layers add their rows when the model is built and keep pointers to them. */
#ifndef NN_PARAM_H
#define NN_PARAM_H

#include "core/arena.h"
#include "core/lora.h"
#include "core/packed.h"
#include "core/quantised.h"
#include "core/random.h"

enum param_init {
    PARAM_INIT_NORMAL, /* N(0, init_std) */
    PARAM_INIT_ONE,
    PARAM_INIT_ZERO
};

/* Which update a parameter gets; the optimiser maps groups to rules, rates and decay. */
enum param_group {
    PARAM_MATRIX,    /* hidden 2-D weights: Muon's */
    PARAM_THIN,      /* 2-D weights with fewer than 64 rows, such as gates */
    PARAM_EMBEDDING, /* token embedding (and the head where tied) */
    PARAM_HEAD,      /* untied output head */
    PARAM_NORM,      /* gains */
    PARAM_BIAS,
    PARAM_GROUPS
};

/* Dtypes of a model. They differ where matrices are kept in f32 but read in bf16. */
struct precision {
    plx_dtype storage;    /* of parameters, their gradients, and statistics of activations */
    plx_dtype activation; /* of activations and of the weights that products read */
    bool fp8_linear;      /* products of linear layers read quantised matrices instead */
};

#define PARAM_NAME_MAX 128

/* The rows of A and B that adapt a weight; they stand behind it, so that down is 0 where there are
 * none. */
struct adapter {
    int down, up;
    double scale;
};

struct param {
    char name[PARAM_NAME_MAX]; /* as in model.safetensors */
    struct plx_tensor value;   /* f32, or f64 in the reference; rank 1 or 2, dense */
    struct plx_tensor active;  /* what products and embeddings read: value, or a matrix's copy in
                                  the activation dtype, which backend_refresh brings up to date */
    struct plx_tensor grad;    /* same shape; data NULL until gradients are reserved */
    struct quantised rows;     /* where it is quantised, for y = x W^T: as it is */
    struct quantised columns;  /* and for dx = dy W: its transpose */
    struct packed packed;      /* where it is packed: holds the values instead, and value.data is
                                  NULL; kind PACKING_NONE otherwise */
    enum param_init init;
    double init_std;
    enum param_group group;
    struct adapter adapter;
    bool adapts; /* is the A or B of another row */
    bool probe;  /* belongs to Parallax's probe: r_proj, r_norm, r_gate */
    bool frozen; /* not trained: no update, no decay, no optimiser state, no part in the norm; and
                    of a matrix no gradient */
    bool remote; /* updated by another process, which keeps its state and knows its norm */
};

struct param_list {
    struct param *items;
    int count;
    int capacity;
    struct lora lora; /* of the projections that are added from now on */
};

/* Adds a row and returns its index (rows move while the list grows, so layers store indices until
 * the model is complete); -1 when out of memory. Only shape, rank and dtype of value are set;
 * memory comes with param_list_allocate. */
int param_add(struct param_list *list, plx_dtype dtype, int rank, const int64_t *shape,
              enum param_init init, double init_std, enum param_group group,
              const char *name_format, ...) __attribute__((format(printf, 8, 9)));
void param_list_destroy(struct param_list *list);
/* Has every matrix but those of adapters held packed; before values are carved. */
void param_list_pack(struct param_list *list, enum packing packing);
/* Carves every value (or every gradient but those of frozen matrices) from an arena. */
void param_list_carve_values(struct param_list *list, struct arena *arena);
/* Makes active views of the values, or, for matrices of another dtype, carves copies; after the
 * values. Matrices that are quantised get these two copies instead. */
void param_list_carve_active(struct param_list *list, struct precision precision,
                             struct arena *arena);
/* Whether the precision has the matrix quantised: those of linear layers, but not adapters, whose
 * products are thin. PLX_UNSUPPORTED where one of them cannot be. */
bool param_is_quantised(const struct param *param, struct precision precision);
plx_status param_list_check_precision(const struct param_list *list, struct precision precision,
                                      struct error *err);
void param_list_carve_grads(struct param_list *list, struct arena *arena);
/* Each row draws from its own stream, derived from seed and name, so adding a parameter does not
 * change the start of the others. The values are in the device's memory. Packed rows have no start
 * values: they are read from a file. */
plx_status param_list_init(struct param_list *list, uint64_t seed, const struct device *device,
                           plx_stream stream, struct error *err);
plx_status param_init_value(const struct param *param, uint64_t seed, const struct device *device,
                            plx_stream stream, struct error *err);
/* The same in pieces: the stream of a row, and the next count of its start values as f32 or f64. */
struct rng param_stream(const struct param *param, uint64_t seed);
void param_start(const struct param *param, struct rng *stream, plx_dtype dtype, void *values,
                 int64_t count);
struct param *param_find(struct param_list *list, const char *name);
int64_t param_list_elements(const struct param_list *list);
/* Freezes every row that is not of the parts to train; and the elements that stay trained. */
void param_list_train_only(struct param_list *list, bool probe, bool adapters);
int64_t param_list_trained(const struct param_list *list);
/* Whether backward needs memory for the gradient: it leaves out frozen matrices, but a norm's gain
 * comes with the gradient of its input. */
bool param_has_grad(const struct param *param);
/* "matrix", "thin", "embedding", "head", "norm", "bias". */
const char *param_group_name(enum param_group group);

#endif
