/* parallax.h: the public interface of libparallax, and its manual.
 *
 * Parallax attention (arXiv 2605.29157) keeps softmax attention and subtracts a learned correction.
 * For one query row i, its probe r_i and the keys j that the mask lets it see:
 *
 *     l_ij = scale q_i.k_j        p_ij = softmax_j(l_ij)        u_ij = r_i.k_j   (never scaled)
 *     t_i  = sum_j p_ij u_ij      m_i  = sum_j p_ij v_j
 *     o_i  = sum_j p_ij (1 + t_i - u_ij) v_j  =  m_i - sum_j p_ij (u_ij - t_i) (v_j - m_i)
 *
 * that is, the softmax mean of the values minus the softmax covariance of values and keys, probed
 * by r. With r = 0 it is softmax attention, bit for bit on the CPU and within rounding on a GPU.
 *
 * Letters used for shapes here and everywhere in the project:
 *     B batch   T query time   S key time   H query heads   G key/value heads   D head channels
 *
 * The contract of every call, stated once:
 *   - The library allocates nothing except a context, and frees nothing else. It never prints,
 *     exits, reads a file or the environment, and keeps no global state.
 *   - Whoever passes a pointer owns it. Outputs are overwritten, never accumulated. Inputs are
 *     never modified. Outputs may not overlap inputs or each other. Workspace contents are
 *     undefined before and after a call.
 *   - A failing call returns a status, leaves a sentence for plx_error(), and has written nothing.
 *   - Any zero extent but D's is a valid call that needs no workspace; outputs that exist are
 * written. Rows that see no key give a zero output, zero gradients, lse = -infinity, probe_mean =
 * 0.
 *   - Results on the CPU are the same bits on every run and for every number of threads.
 *   - Query head h reads key/value head h / (H / G); G must divide H.
 *
 * A context may be used by one host thread at a time; create one for each. They are cheap.
 *
 * The order of reading: status, context, tensor, attention (masks and caches), appending to a
 * cache, then Parallax; softmax repeats it without the probe.
 */
#ifndef PARALLAX_H
#define PARALLAX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PLX_VERSION_MAJOR 0
#define PLX_VERSION_MINOR 1
#define PLX_VERSION_PATCH 0

#if defined(__GNUC__)
#define PLX_API __attribute__((visibility("default")))
#else
#define PLX_API
#endif

/* ---- Status ---------------------------------------------------------------------------------- */

/* The one list of statuses: name, value, text. Values are frozen once released. */
#define PLX_STATUS_LIST(X)                                                                         \
    X(PLX_OK, 0, "success")                                                                        \
    X(PLX_INVALID_ARGUMENT, 1, "an argument can never work")                                       \
    X(PLX_UNSUPPORTED, 2, "this build, device or shape has no kernel")                             \
    X(PLX_OUT_OF_MEMORY, 3, "out of memory")                                                       \
    X(PLX_WORKSPACE_TOO_SMALL, 4, "the workspace is smaller than the call needs")                  \
    X(PLX_DEVICE_ERROR, 5, "the device reported an error")                                         \
    X(PLX_INTERNAL, 6, "an internal invariant does not hold")                                      \
    X(PLX_IO_ERROR, 7, "the system could not read or write")                                       \
    X(PLX_BAD_DATA, 8, "a file holds what its format does not allow")

/* PLX_IO_ERROR and PLX_BAD_DATA are never returned by the library, which touches no files; they are
 * in the list for programs built on it. PLX_UNSUPPORTED is the one a caller may answer by falling
 * back. */
typedef enum plx_status {
#define PLX_STATUS_ENUM(name, value, text) name = value,
    PLX_STATUS_LIST(PLX_STATUS_ENUM)
#undef PLX_STATUS_ENUM
} plx_status;

/* "PLX_OK" and so on; "PLX_UNKNOWN" for a value that is not in the list. Static storage. */
PLX_API const char *plx_status_name(plx_status status);
/* The list's short text. Static storage. */
PLX_API const char *plx_status_text(plx_status status);

/* MAJOR * 10000 + MINOR * 100 + PATCH of the library that is running. */
PLX_API int plx_version(void);
/* One line: version, commit, compiler, CPU kernels, CUDA architectures or "no CUDA". Static
 * storage. */
PLX_API const char *plx_build(void);

/* ---- Context --------------------------------------------------------------------------------- */

typedef enum plx_device { PLX_CPU = 0, PLX_CUDA = 1 } plx_device;

/* What the processor can do and the operating system permits; bits of plx_context_features(). */
typedef enum plx_feature {
    PLX_FEATURE_AVX2 = 1,
    PLX_FEATURE_AVX512 = 2, /* F, BW, DQ and VL */
    PLX_FEATURE_AVX512_BF16 = 4,
    PLX_FEATURE_AMX_BF16 = 8, /* tile data granted by the kernel */
    PLX_FEATURE_AVX512_VNNI = 16
} plx_feature;

/* Zero means default in every member, so a designated initialiser states only what differs. */
struct plx_context_config {
    plx_device device;  /* default PLX_CPU */
    int device_index;   /* which GPU; default 0 */
    int threads;        /* CPU threads a call may use; 0: as many as the process may run on */
    const char *kernel; /* run only the kernel of this name (see plx_kernel_name); a call
                           that it cannot serve, or that has no such kernel, returns
                           PLX_UNSUPPORTED. Copied. NULL: the first that supports the call */
    uint32_t disabled_features; /* plx_feature bits to treat as absent */
    bool validate; /* PLX_CUDA: before launching anything, wait for the stream, copy lengths,
                      offsets and page tables to the host and check them, as the CPU always does;
                      such a call cannot be captured in a graph. Without it entries out of range
                      are the caller's fault: kernels clamp lengths, and believe page tables */
};

typedef struct plx_context plx_context;

/* Creates a context; config may be NULL. On failure *context is NULL: PLX_OUT_OF_MEMORY,
 * PLX_INVALID_ARGUMENT (negative threads, a kernel name of 64 characters or more, a GPU that does
 * not exist), PLX_UNSUPPORTED (PLX_CUDA in a build without it or on a machine without a GPU). */
PLX_API plx_status plx_context_create(const struct plx_context_config *config,
                                      plx_context **context);
/* Destroys a context. NULL is allowed. */
PLX_API void plx_context_destroy(plx_context *context);
/* The sentence about the last failure in this context, naming the argument and both values, for
 * example "k: 6 heads do not divide the 8 heads of q". Empty after a success. Never NULL; valid
 * until the next call with this context. */
PLX_API const char *plx_error(const plx_context *context);
/* plx_feature bits that kernels may use in this context. */
PLX_API uint32_t plx_context_features(const plx_context *context);
/* Number of CPU threads a call may use. */
PLX_API int plx_context_threads(const plx_context *context);

/* ---- Tensor ---------------------------------------------------------------------------------- */

typedef enum plx_dtype {
    PLX_F32 = 0,
    PLX_BF16 = 1,  /* upper half of an f32; stored as uint16_t */
    PLX_F64 = 2,   /* reference kernels only */
    PLX_I32 = 3,   /* lengths, offsets and page tables */
    PLX_F16 = 4,   /* IEEE half; stored as uint16_t */
    PLX_F8E4M3 = 5 /* 1 sign, 4 exponent and 3 mantissa bits, largest 448, no infinity: keys and
                      values of a cache only; stored as uint8_t */
} plx_dtype;

/* Bytes of one element; 0 for a value that is not a dtype. */
PLX_API size_t plx_dtype_size(plx_dtype dtype);
/* "f32", "bf16", "f64", "i32", "f16", "f8e4m3", or "unknown". Static storage. */
PLX_API const char *plx_dtype_name(plx_dtype dtype);

#define PLX_MAX_RANK 4

/* A view of memory that somebody else owns. data == NULL means absent where a member is optional.
 * Strides are in elements, not negative; the last must be 1 (an extent of 1 excepts it), the others
 * are free, so a slice of a fused projection, a [B,H,T,D] buffer or a cache is passed without a
 * copy. */
struct plx_tensor {
    void *data;
    plx_dtype dtype;
    plx_device device;
    int rank; /* 1..4 */
    int64_t shape[PLX_MAX_RANK];
    int64_t stride[PLX_MAX_RANK];
};

/* A dense row-major CPU view; shape has rank entries. */
PLX_API struct plx_tensor plx_tensor_dense(void *data, plx_dtype dtype, int rank,
                                           const int64_t *shape);
/* The same for the usual case of rank 4: [B,T,H,D]. */
PLX_API struct plx_tensor plx_tensor_4d(void *data, plx_dtype dtype, int64_t batch, int64_t time,
                                        int64_t heads, int64_t channels);
/* Entries start .. start + count - 1 along an axis. Out of range gives a view with rank 0, which
 * every call refuses. */
PLX_API struct plx_tensor plx_tensor_slice(struct plx_tensor tensor, int axis, int64_t start,
                                           int64_t count);
/* [..., heads * D] as [..., heads, D]; rank at most 3 before, and heads must divide the last
 * extent. */
PLX_API struct plx_tensor plx_tensor_split_heads(struct plx_tensor tensor, int64_t heads);
/* Product of the extents; 0 for rank 0. */
PLX_API int64_t plx_tensor_count(const struct plx_tensor *tensor);

/* Copies src into dst element by element, converting between the floating-point dtypes: rounds to
 * nearest even, and f8e4m3 saturates at 448. Equal shapes; any strides. CPU. */
PLX_API plx_status plx_convert(plx_context *context, const struct plx_tensor *src,
                               const struct plx_tensor *dst);

/* ---- Attention: what every mechanism shares -------------------------------------------------- */

/* Which keys a query sees, and how the batch is laid out. Zero-initialised: full attention over a
 * dense batch with scale 1/sqrt(D).
 *
 * Three layouts:
 *   dense   q is [B,T,H,D], k is [B,S,G,D].
 *   ragged  the same with q_lengths and/or k_lengths, i32 [B]: sequence b has only its first so
 *           many queries or keys. What lies behind a length is never read; o, dq, dr, dk and dv
 *           are zero there, lse is -infinity.
 *   packed  B = 1 and q_offsets, i32 [N+1], non-decreasing from 0 to T: sequence n is the queries
 *           q_offsets[n] .. q_offsets[n+1]-1. k_offsets likewise over S; absent means q_offsets.
 *           Offsets and lengths exclude each other.
 *
 * For a sequence of T queries and S keys, query i sits at key position S - T + i (the mask is
 * aligned to the end). causal: it sees keys at positions <= its own. window W > 0: of these only
 * the last W, its own included (FlashAttention's window_size = (W-1, 0)); window requires causal.
 * Keys and values that only causal or window hides are read all the same and must be finite,
 * because zero times NaN is NaN.
 *
 * Forward and decode also read caches, dense or ragged:
 *   paged   with k_pages, i32 [B,P], k and v are pools [N,page,G,D] of any page size, and key j of
 *           sequence b is row j % page of page k_pages[b][j / page], in 0..N-1; S is P * page.
 *           k_lengths is required; entries of pages that no key of a length lies in are not looked
 *           at. Sequences may share pages.
 *   f8e4m3  k and v may have this dtype beside a q of f32, bf16 or f16. The key is k_scales[g]
 * times what is stored, the value v_scales[g]; absent scales are 1.
 */
struct plx_attention {
    bool causal;
    int64_t window;              /* keys a query sees, its own included; 0: unlimited */
    double scale;                /* multiplies q.k only; 0: 1/sqrt(D) */
    struct plx_tensor q_lengths; /* i32 [B], 0..T; optional */
    struct plx_tensor k_lengths; /* i32 [B], 0..S; optional */
    struct plx_tensor q_offsets; /* i32 [N+1]; optional */
    struct plx_tensor k_offsets; /* i32 [N+1]; optional, only with q_offsets */
    bool deterministic;          /* the same bits on every run, also from devices whose fastest
                                    backward adds in no fixed order; the CPU always keeps them */
    struct plx_tensor k_pages;   /* i32 [B,P]; optional; not in backward */
    struct plx_tensor k_scales;  /* f32 [G]; optional, only with k of f8e4m3 */
    struct plx_tensor v_scales;  /* f32 [G]; optional, only with v of f8e4m3 */
};

typedef enum plx_pass { PLX_FORWARD = 0, PLX_BACKWARD = 1, PLX_DECODE = 2 } plx_pass;
typedef enum plx_mechanism { PLX_SOFTMAX = 0, PLX_PARALLAX = 1 } plx_mechanism;

/* Opaque stream: a cudaStream_t cast to a pointer on CUDA, NULL on the CPU, where calls are
 * synchronous. */
typedef void *plx_stream;

/* Name of the index-th kernel of a mechanism and pass in order of preference, or NULL past the
 * last. Tests and benchmarks force each in turn through plx_context_config.kernel. */
PLX_API const char *plx_kernel_name(plx_mechanism mechanism, plx_pass pass, int index);

/* ---- Cache ----------------------------------------------------------------------------------- */

/* New keys and values, the cache that they join, and what a decode step turns with them. F f32,
 * bf16 or f16, q, r, k and v alike; C f32, bf16, f16 or f8e4m3, both caches alike. Without tables,
 * on the CPU, F and C may both be f64. */
struct plx_cache_append_args {
    struct plx_tensor k;         /* F [B,T,G,D] new keys */
    struct plx_tensor v;         /* F [B,T,G,D] new values */
    struct plx_tensor k_cache;   /* C [B,S,G,D], or with k_pages [N,page,G,D] */
    struct plx_tensor v_cache;   /* C the same */
    struct plx_tensor cosines;   /* f32 [positions,D/2]; optional: rotary positions */
    struct plx_tensor sines;     /* f32 the same; with cosines */
    struct plx_tensor q;         /* F [B,T,H,D] optional, with the tables only: turned like k ... */
    struct plx_tensor r;         /* F [B,T,H,D] optional, with q: likewise */
    struct plx_tensor q_rotated; /* F ... and written here, which may be q itself */
    struct plx_tensor r_rotated; /* F likewise for r */
};

/* Writes new row t of sequence b as key and value number k_lengths[b] - T + t of the cache, so that
 * k_lengths counts the new rows already: one list, raised once a step, serves the append and the
 * decode after it, also in a captured graph. Rows whose number is negative are skipped, and with
 * length 0 a sequence is left out. Nothing else of the cache is touched; two sequences may not
 * append to the same page.
 *
 * Looks at k_lengths (required), k_pages, k_scales and v_scales of attention; q_lengths and offsets
 * are refused, masks ignored. f8e4m3 stores key / scale, rounded.
 *
 * With the tables, the channels (x, y) = (i, i + D/2) of a key, of q and of r become
 * (x cos - y sin, y cos + x sin) with entry i of the row of the key's number (of row 0 where that
 * is negative), computed in f32 and rounded once. D is even and positions at least S. */
PLX_API plx_status plx_cache_append(plx_context *context, const struct plx_attention *attention,
                                    const struct plx_cache_append_args *args, plx_stream stream);

/* ---- Parallax -------------------------------------------------------------------------------- */

/* The tensors of every pass. A pass looks only at the members marked for it: F forward, B backward,
 * D decode; lower case means optional there.
 *
 * dtypes: q, r, k, v share one of f32, bf16, f16, f64 (k and v of a cache: see above). o,
 * value_mean, d_o and the gradients have that dtype or f32. lse and probe_mean are f32, or f64
 * where q is f64. D is 1..256 (any value with the reference kernel). k and v of decode are a cache:
 * S is its capacity and k_lengths says how much of it is filled. */
struct plx_parallax_args {
    struct plx_tensor q;          /* FBD  [B,T,H,D] query */
    struct plx_tensor r;          /* FBD  [B,T,H,D] probe */
    struct plx_tensor k;          /* FBD  [B,S,G,D] key */
    struct plx_tensor v;          /* FBD  [B,S,G,D] value */
    struct plx_tensor o;          /* FBD  [B,T,H,D] written by F and D, read by B */
    struct plx_tensor lse;        /* fBd  [B,T,H]   natural log of sum_j exp(l_ij) */
    struct plx_tensor probe_mean; /* fBd  [B,T,H]   t_i */
    struct plx_tensor value_mean; /* fBd  [B,T,H,D] m_i, the softmax attention output */
    struct plx_tensor d_o;        /*  B   [B,T,H,D] gradient of o */
    struct plx_tensor dq;         /*  B   [B,T,H,D] written, as are the next three */
    struct plx_tensor dr;         /*  B   [B,T,H,D] */
    struct plx_tensor dk;         /*  B   [B,S,G,D] */
    struct plx_tensor dv;         /*  B   [B,S,G,D] */
};

/* Bytes of scratch that a pass needs, for a pointer aligned to 64. They follow from shapes, strides
 * and dtypes only, so data may be NULL in required members; an optional member counts as present
 * where its rank is not 0. A kernel that plx_context_config forces may refuse data that is given,
 * with PLX_UNSUPPORTED, as the call would. */
PLX_API plx_status plx_parallax_workspace(plx_context *context,
                                          const struct plx_attention *attention, plx_pass pass,
                                          const struct plx_parallax_args *args, size_t *bytes);
/* o, and lse, probe_mean, value_mean where given (backward needs all three). */
PLX_API plx_status plx_parallax_forward(plx_context *context, const struct plx_attention *attention,
                                        const struct plx_parallax_args *args, void *workspace,
                                        size_t workspace_bytes, plx_stream stream);
/* dq, dr, dk, dv from d_o and what forward saved. With a_ij = d_o_i.v_j, b_i = d_o_i.m_i and
 * delta_ij = a_ij - b_i:
 *     dl_ij = p_ij (a_ij - d_o_i.o_i + (t_i - u_ij) delta_ij)      du_ij = -p_ij delta_ij
 *     dq_i = scale sum_j dl_ij k_j      dk_j = sum_i (scale dl_ij q_i + du_ij r_i)
 *     dr_i = sum_j du_ij k_j            dv_j = sum_i p_ij (1 + t_i - u_ij) d_o_i
 * (paper, appendix D). Beside f16 tensors cuda_sm90 multiplies dl and du as f16: above 16,000 they
 * become infinite and below 2^-26 zero, so scale the loss, as f16 needs anyway. Other kernels keep
 * them in f32. */
PLX_API plx_status plx_parallax_backward(plx_context *context,
                                         const struct plx_attention *attention,
                                         const struct plx_parallax_args *args, void *workspace,
                                         size_t workspace_bytes, plx_stream stream);
/* The forward for few queries against a long cache: work is split over keys, so that one query
 * keeps every core busy. Equal to the last T rows of the forward over the filled cache. */
PLX_API plx_status plx_parallax_decode(plx_context *context, const struct plx_attention *attention,
                                       const struct plx_parallax_args *args, void *workspace,
                                       size_t workspace_bytes, plx_stream stream);
/* *name becomes the kernel that the call would run (static storage). Otherwise PLX_UNSUPPORTED, and
 * plx_error says why none would. Data that is NULL counts as well aligned. */
PLX_API plx_status plx_parallax_kernel(plx_context *context, const struct plx_attention *attention,
                                       plx_pass pass, const struct plx_parallax_args *args,
                                       const char **name);

/* The result over a subset of the keys, which is all that is needed to join it with the result over
 * the rest: m, t and o are a weighted mean, another, and a weighted covariance. */
struct plx_parallax_partial {
    struct plx_tensor o;          /* [B,T,H,D] */
    struct plx_tensor lse;        /* [B,T,H]   */
    struct plx_tensor probe_mean; /* [B,T,H]   */
    struct plx_tensor value_mean; /* [B,T,H,D] */
};

/* Joins count >= 1 partial results over disjoint key ranges into *out, whose lse, probe_mean and
 * value_mean are optional and whose tensors may not overlap the parts. With w_s = exp(lse_s - lse):
 *     t = sum w_s t_s     m = sum w_s m_s     o = m - sum w_s ((m_s - o_s) + (t_s - t)(m_s - m))
 * which no common offset of the keys can upset. dtypes as in the args. */
PLX_API plx_status plx_parallax_merge(plx_context *context,
                                      const struct plx_parallax_partial *parts, int count,
                                      const struct plx_parallax_partial *out);

/* ---- Softmax attention ----------------------------------------------------------------------- */

/* The same without the probe: o_i = sum_j p_ij v_j. Members, dtypes and passes as above. */
struct plx_softmax_args {
    struct plx_tensor q;   /* FBD  [B,T,H,D] */
    struct plx_tensor k;   /* FBD  [B,S,G,D] */
    struct plx_tensor v;   /* FBD  [B,S,G,D] */
    struct plx_tensor o;   /* FBD  [B,T,H,D] */
    struct plx_tensor lse; /* fBd  [B,T,H]   */
    struct plx_tensor d_o; /*  B   [B,T,H,D] */
    struct plx_tensor dq;  /*  B   [B,T,H,D] */
    struct plx_tensor dk;  /*  B   [B,S,G,D] */
    struct plx_tensor dv;  /*  B   [B,S,G,D] */
};

PLX_API plx_status plx_softmax_workspace(plx_context *context,
                                         const struct plx_attention *attention, plx_pass pass,
                                         const struct plx_softmax_args *args, size_t *bytes);
PLX_API plx_status plx_softmax_forward(plx_context *context, const struct plx_attention *attention,
                                       const struct plx_softmax_args *args, void *workspace,
                                       size_t workspace_bytes, plx_stream stream);
/* dl_ij = p_ij (d_o_i.v_j - d_o_i.o_i); dq = scale sum_j dl k, dk = scale sum_i dl q, dv = sum_i p
 * d_o. */
PLX_API plx_status plx_softmax_backward(plx_context *context, const struct plx_attention *attention,
                                        const struct plx_softmax_args *args, void *workspace,
                                        size_t workspace_bytes, plx_stream stream);
PLX_API plx_status plx_softmax_decode(plx_context *context, const struct plx_attention *attention,
                                      const struct plx_softmax_args *args, void *workspace,
                                      size_t workspace_bytes, plx_stream stream);
PLX_API plx_status plx_softmax_kernel(plx_context *context, const struct plx_attention *attention,
                                      plx_pass pass, const struct plx_softmax_args *args,
                                      const char **name);

struct plx_softmax_partial {
    struct plx_tensor o;   /* [B,T,H,D] */
    struct plx_tensor lse; /* [B,T,H]   */
};

/* o = sum w_s o_s with w_s = exp(lse_s - lse); out->lse is optional. */
PLX_API plx_status plx_softmax_merge(plx_context *context, const struct plx_softmax_partial *parts,
                                     int count, const struct plx_softmax_partial *out);

#ifdef __cplusplus
}
#endif

#endif
