/* try.h: how a failure goes up. */
#ifndef PLX_TRY_H
#define PLX_TRY_H

/* Leaves the calling function with the status of a call that failed. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        plx_status try_status_ = (call);                                                           \
        if (try_status_ != PLX_OK) return try_status_;                                             \
    } while (0)

#endif
