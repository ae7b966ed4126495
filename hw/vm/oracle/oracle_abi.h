/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What the module, its player and script.py agree on. */
#ifndef ORACLE_ABI_H
#define ORACLE_ABI_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define ORACLE_DEVICE "completion_oracle"
#define ORACLE_ACTORS 4
#define ORACLE_COMPLETIONS 3
#define ORACLE_MOST_OPS 128
#define ORACLE_NOBODY 0xff

/*
 * Time. A `tick` of a script adds ORACLE_UNIT to jiffies; a timeout of k units is shorter than k of
 * them by ORACLE_SLACK, which is more than the wheel is late at this distance (128) plus what real
 * ticks add while a script runs; and each actor has a slot of its own in a unit, farther from the
 * next than the wheel is coarse (64). So at the k-th tick the timer has fired, at the one before it
 * had not, and who fires before whom is known. Three units stay below 4032, where it gets coarser.
 */
#define ORACLE_UNIT 1300
#define ORACLE_SLACK 768
#define ORACLE_SLOT 128
#define ORACLE_MOST_UNITS 3
#define ORACLE_MOST_NOISE 60 /* real ticks a script may take */

enum oracle_what {
	OP_COMPLETE, OP_COMPLETE_ALL, OP_ON_CPU, OP_REINIT, OP_TRY, OP_DONE, OP_SET,
	OP_WAIT = 16, OP_IO, OP_TIMEOUT, OP_IO_TIMEOUT, OP_INTERRUPTIBLE, OP_INTERRUPTIBLE_TIMEOUT,
	OP_KILLABLE, OP_KILLABLE_TIMEOUT, OP_STATE,
	OP_USER = 32,
	OP_USR1 = 48, OP_KILL, OP_TERM, OP_WAKE, OP_TICK,
};

enum oracle_context { IN_TASK, IN_IRQSOFF, IN_SOFTIRQ, IN_HARDIRQ, IN_FALLING };

/* `arg` of a timed wait beside 0..3 units; of OP_STATE and OP_SET it is an index. */
#define ORACLE_MAX 10      /* MAX_SCHEDULE_TIMEOUT */
#define ORACLE_NEGATIVE 11 /* (unsigned long)-5 */

struct oracle_op {
	__u8 what, actor, x, context;
	__u8 last; /* of its step */
	__u8 arg;
	__u8 whom; /* IN_FALLING: the actor that is about to sleep */
	__u8 unused;
};

struct oracle_run {
	__u64 ops, log; /* user addresses */
	__u32 count, room;
	__u32 written;   /* bytes of log */
	__u32 noise;     /* real ticks while it ran */
	__u32 fragile;   /* a timeout of 0 began: any noise may have changed the outcome */
	__u32 dead;      /* bit mask of actors to be started again */
	__u32 on_edge;   /* in: begin just after a real tick */
	__u32 stuck;     /* an actor never came to rest */
};

#define ORACLE_RUN _IOWR('O', 1, struct oracle_run)
#define ORACLE_ACT _IO('O', 2)     /* argument: actor, or'ed with the signals handled << 8 */

#endif
