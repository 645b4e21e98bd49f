/* watch.h: what the threads of a long test are doing. A thread of its own says every ten seconds
 * how many cases are done and which calls have been running for long, so that a run which somebody
 * stops has said how far it came; and it ends the program where a call does not end, naming it. */
#ifndef TEST_WATCH_H
#define TEST_WATCH_H

/* The calling thread's present call; NULL: none. The text is copied. */
void watch_call(const char *call);
/* One case is done. */
void watch_case_done(void);

/* From here on, of so many cases. A call that lasts longer than `limit` seconds ends the program:
 * those that began before it are the ones that it may be waiting for. */
void watch_begin(int cases, double limit);
void watch_end(void);

#endif
