/* process.h: what the running process knows about itself: a clock and its resident memory. */
#ifndef NN_PROCESS_H
#define NN_PROCESS_H

#include <stddef.h>

/* Seconds of a clock that never goes backwards; only differences mean anything. */
double process_seconds(void);
/* Resident bytes now, and the most there ever were; 0 where the system does not tell. */
size_t process_resident(void);
size_t process_resident_peak(void);

#endif
