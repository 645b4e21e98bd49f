/* bench_peer.h: times of another project's kernels, from the lines of peer_attention.py. */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include "bench_case.h"

struct bench_peer_row {
    bool decode, cold, causal;
    struct bench_shape shape;
    double us[3]; /* by pass; 0: none */
};

struct bench_peers {
    struct bench_peer_row *rows;
    int count;
};

/* cuDNN's times of the lines whose layout is "bthd". */
plx_status bench_peers_read(struct bench_peers *peers, const char *path, struct error *err);
void bench_peers_destroy(struct bench_peers *peers);
/* Microseconds of the same shape, pass, mask and state of the caches; 0 where there is none. */
double bench_peers_find(const struct bench_peers *peers, const struct bench_case *c);

#endif
