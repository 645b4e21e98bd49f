/* clip_state.h: what clipping leaves on the device; see struct clip in op.h. For C and CUDA. */
#ifndef NN_OPS_CLIP_STATE_H
#define NN_OPS_CLIP_STATE_H

/* Doubles all, as a tensor of f64 [CLIP_STATE]. */
struct clip_state {
    double factor; /* of the gradients; first, so that it is a view of one number */
    double norm;
    double bad_step, bad_index; /* 0 while all is well */
};
enum { CLIP_STATE = sizeof(struct clip_state) / sizeof(double) };

#endif
