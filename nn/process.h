/* process.h: what the running process knows about itself: a clock and memory. */
#ifndef NN_PROCESS_H
#define NN_PROCESS_H

#include <stddef.h>

/* Seconds of a clock that never goes backwards; only differences mean anything. */
double process_seconds(void);
/* Resident bytes now, and the most there ever were; 0 where the system does not tell. */
size_t process_resident(void);
size_t process_resident_peak(void);
/* Bytes that new allocations may take before the system swaps or kills; 0 where it does not tell.
 */
size_t process_available(void);

#endif
