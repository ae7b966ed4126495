// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Plays one script. The operations of a step run with preemption off, in order: who they wake is
 * runnable and does not run. Then the controller schedules, and the woken run in the order in which
 * they were woken (SCHED_FIFO, one processor), each till it sleeps again, before it goes on.
 */
#include <linux/jiffies.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "oracle.h"

#define MOST_NAPS 1000

static void to_actor(const struct oracle_op *op)
{
	struct actor *a = &stage.actor[op->actor];

	if (a->dead) {
		say("dead");
		return;
	}
	switch (op->what) {
	case OP_USR1:
		send_sig(SIGUSR1, a->task, 1);
		break;
	case OP_KILL:
		send_sig(SIGKILL, a->task, 1);
		break;
	case OP_TERM:
		send_sig(SIGTERM, a->task, 1);
		break;
	case OP_WAKE:
		wake_up_process(a->task);
		break;
	default:
		if (!give_command(a, op))
			say("full");
	}
}

static void arm(const struct oracle_op *op)
{
	struct actor *a = &stage.actor[op->whom];

	if (a->dead) {
		say("dead");
	} else if (a->armed) {
		say("full");
	} else {
		a->trap = *op;
		a->armed = true;
	}
}

static void perform(const struct oracle_op *op)
{
	long result;

	if (op->context == IN_FALLING) {
		arm(op);
	} else if (op->what == OP_TICK) {
		tick();
	} else if (op->actor != ORACLE_NOBODY) {
		to_actor(op);
	} else {
		result = in_context(op);
		if (result < 0)
			say("error %ld ", result);
		else if (op->what == OP_TRY || op->what == OP_DONE)
			say("%ld", result);
		say_completion(op->x);
	}
	say_awake();
}

static bool settle(void)
{
	int naps;

	/*
	 * All who are awake run in here, to their next sleep: their priority is higher. Explicitly,
	 * for preempt_enable() does it with preempt=full only. Only who dies takes more than one go:
	 * it may sleep on its way out.
	 */
	for (naps = 0; schedule(), !all_at_rest(); naps++) {
		if (naps > MOST_NAPS || fatal_signal_pending(current))
			return false;
		if (naps > 10)
			schedule_timeout_uninterruptible(1);
	}
	return true;
}

static bool play(const struct oracle_op *ops, unsigned int count, unsigned int *ticks)
{
	unsigned int i = 0;
	bool last;

	while (i < count) {
		preempt_disable();
		do {
			if (ops[i].what == OP_TICK)
				(*ticks)++;
			perform(&ops[i]);
			last = ops[i++].last || i == count;
			if (!last)
				say(" ");
		} while (!last);
		preempt_enable();
		if (!settle())
			return false;
		say_at_rest();
	}
	return true;
}

/* Ends every wait and delivers every signal. */
static bool clear_stage(void)
{
	static const struct oracle_op user = { .what = OP_USER };
	struct wait_queue_entry entry = {};
	int i;

	for (i = 0; i < ORACLE_ACTORS; i++) {
		stage.actor[i].head = stage.actor[i].tail;
		stage.actor[i].armed = false;
	}
	for (i = 0; i < ORACLE_COMPLETIONS; i++)
		complete_all(&stage.x[i]);
	for (i = 0; i < ORACLE_ACTORS; i++) {
		if (stage.actor[i].dead || stage.actor[i].waits_on < 0)
			continue;
		/* complete_all() does not reach a state outside TASK_NORMAL */
		entry.private = stage.actor[i].task;
		default_wake_function(&entry, TASK_NORMAL | TASK_WAKEKILL, 0, NULL);
	}
	if (!settle())
		return false;
	for (i = 0; i < ORACLE_ACTORS; i++)
		if (!stage.actor[i].dead && signal_pending(stage.actor[i].task))
			give_command(&stage.actor[i], &user);
	return settle();
}

static bool valid(const struct oracle_op *ops, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		bool by_actor = ops[i].actor < ORACLE_ACTORS;

		if (ops[i].x >= ORACLE_COMPLETIONS || (!by_actor && ops[i].actor != ORACLE_NOBODY))
			return false;
		if (ops[i].context == IN_FALLING &&
		    (ops[i].whom >= ORACLE_ACTORS || ops[i].what == OP_TICK || ops[i].what == OP_TERM))
			return false;
		if (ops[i].what > OP_SET && ops[i].what != OP_TICK && !by_actor)
			return false;
	}
	return true;
}

long run_script(struct oracle_run *run)
{
	struct oracle_op *ops;
	unsigned long before, edge;
	unsigned int ticks = 0;
	int i;

	if (run->count > ORACLE_MOST_OPS)
		return -E2BIG;
	ops = memdup_user(u64_to_user_ptr(run->ops), run->count * sizeof(*ops));
	if (IS_ERR(ops))
		return PTR_ERR(ops);
	if (!valid(ops, run->count)) {
		kfree(ops);
		return -EINVAL;
	}
	if (!settle()) {
		kfree(ops);
		return -ENODATA;
	}
	for (i = 0; i < ORACLE_COMPLETIONS; i++)
		init_completion(&stage.x[i]);
	stage.log_len = stage.events_len = 0;
	stage.events[0] = 0;
	stage.fragile = false;
	edge = jiffies;
	while (run->on_edge && jiffies == edge)
		cpu_relax();
	before = jiffies;
	run->stuck = !play(ops, run->count, &ticks);
	run->noise = jiffies - before - ticks * ORACLE_UNIT;
	run->fragile = stage.fragile;
	run->stuck |= !clear_stage();
	run->dead = 0;
	for (i = 0; i < ORACLE_ACTORS; i++)
		run->dead |= stage.actor[i].dead << i;
	run->written = min_t(size_t, run->room, stage.log_len);
	kfree(ops);
	return copy_to_user(u64_to_user_ptr(run->log), stage.log, run->written) ? -EFAULT : 0;
}
