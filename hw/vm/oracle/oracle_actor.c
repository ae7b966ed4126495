// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * An actor is a process inside one ioctl: it sleeps for a command, carries it out, says what came
 * of it. It is a process and not a kthread, so that its signals are delivered, its fatal ones kill.
 */
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "oracle.h"

static const unsigned int states[] = {
	TASK_IDLE, TASK_INTERRUPTIBLE | TASK_FREEZABLE, TASK_KILLABLE, TASK_WAKEKILL,
};
static const unsigned int counts[] = { 1, 2, UINT_MAX - 1, UINT_MAX };

bool give_command(struct actor *a, const struct oracle_op *op)
{
	unsigned long flags;
	bool room;

	spin_lock_irqsave(&stage.lock, flags);
	room = a->tail - a->head < MOST_COMMANDS;
	if (room)
		a->command[a->tail++ % MOST_COMMANDS] = *op;
	spin_unlock_irqrestore(&stage.lock, flags);
	if (room && a->idle) /* never in a wait: that would be a spurious wake-up */
		wake_up_process(a->task);
	return room;
}

static bool take_command(struct actor *a, struct oracle_op *op)
{
	unsigned long flags;
	bool some;

	spin_lock_irqsave(&stage.lock, flags);
	some = a->head != a->tail;
	if (some)
		*op = a->command[a->head++ % MOST_COMMANDS];
	spin_unlock_irqrestore(&stage.lock, flags);
	return some;
}

/* TASK_IDLE: neither a signal nor a fatal one wakes it; both stay pending for the next wait. */
static bool next_command(struct actor *a, struct oracle_op *op)
{
	for (;;) {
		set_current_state(TASK_IDLE);
		if (READ_ONCE(a->quit) || take_command(a, op))
			break;
		WRITE_ONCE(a->idle, true);
		schedule();
	}
	WRITE_ONCE(a->idle, false);
	__set_current_state(TASK_RUNNING);
	return !READ_ONCE(a->quit);
}

static unsigned long timeout_of(const struct actor *a, u8 arg)
{
	if (arg == ORACLE_MAX)
		return MAX_SCHEDULE_TIMEOUT;
	if (arg == ORACLE_NEGATIVE)
		return (unsigned long)-5;
	if (!arg)
		return 0;
	return arg * ORACLE_UNIT - ORACLE_SLACK + (a - stage.actor) * ORACLE_SLOT;
}

/* What any context may do; for try and done, what it returned. */
long one_shot(const struct oracle_op *op)
{
	struct completion *x = &stage.x[op->x];

	switch (op->what) {
	case OP_COMPLETE:
		complete(x);
		return 0;
	case OP_COMPLETE_ALL:
		complete_all(x);
		return 0;
	case OP_ON_CPU:
		stage.complete_on_current_cpu(x);
		return 0;
	case OP_REINIT:
		reinit_completion(x);
		return 0;
	case OP_TRY:
		return try_wait_for_completion(x);
	case OP_DONE:
		return completion_done(x);
	case OP_SET:
		WRITE_ONCE(x->done, counts[op->arg % ARRAY_SIZE(counts)]);
		return 0;
	}
	return -EINVAL;
}

static long wait(struct completion *x, u8 what, unsigned long timeout, unsigned int state)
{
	switch (what) {
	case OP_WAIT:
		wait_for_completion(x);
		return 0;
	case OP_IO:
		wait_for_completion_io(x);
		return 0;
	case OP_TIMEOUT:
		return wait_for_completion_timeout(x, timeout);
	case OP_IO_TIMEOUT:
		return wait_for_completion_io_timeout(x, timeout);
	case OP_INTERRUPTIBLE:
		return wait_for_completion_interruptible(x);
	case OP_INTERRUPTIBLE_TIMEOUT:
		return wait_for_completion_interruptible_timeout(x, timeout);
	case OP_KILLABLE:
		return wait_for_completion_killable(x);
	case OP_KILLABLE_TIMEOUT:
		return wait_for_completion_killable_timeout(x, timeout);
	case OP_STATE:
		return wait_for_completion_state(x, state);
	}
	return -EINVAL;
}

/* Real ticks pass too, so what is left of a sleep is told in units; everything else exactly. */
static void tell_left(char *text, size_t room, long left, long timeout, bool fell)
{
	if (left == MAX_SCHEDULE_TIMEOUT)
		strscpy(text, "max", room);
	else if (left > 1 && fell)
		snprintf(text, room, "%ldu", DIV_ROUND_UP(left, ORACLE_UNIT));
	else if (left == timeout && left > 1)
		strscpy(text, "arg", room);
	else
		snprintf(text, room, "%ld", left);
}

static const char *pending(void)
{
	return fatal_signal_pending(current) ? "f" : signal_pending(current) ? "p" : "";
}

/* A SIGTERM that found another signal pending is not fatal yet, but kills all the same. */
static bool about_to_die(void)
{
	return fatal_signal_pending(current) || sigismember(&current->pending.signal, SIGTERM);
}

static void do_wait(struct actor *a, const struct oracle_op *op)
{
	unsigned long timeout = timeout_of(a, op->arg);
	unsigned long slept = current->nvcsw;
	char text[24];
	long result;

	/* any real tick from here on ends it, asleep or not yet */
	if (has_timeout(op->what) && !timeout && !READ_ONCE(stage.x[op->x].done))
		stage.fragile = true;
	a->fell = false;
	WRITE_ONCE(a->waits_on, op->x);
	result = wait(&stage.x[op->x], op->what, timeout, states[op->arg % ARRAY_SIZE(states)]);
	WRITE_ONCE(a->waits_on, -1);
	slept = current->nvcsw - slept;
	if (has_timeout(op->what)) {
		tell_left(text, sizeof(text), result, timeout, a->fell);
	} else {
		snprintf(text, sizeof(text), "%ld", result);
	}
	happened("%d=%s/%lu%s", (int)(a - stage.actor), text, slept, pending());
}

/* Returns to user mode on OP_USER, where signals are delivered; the player calls again. */
long act(unsigned int id, unsigned int handled)
{
	struct actor *a = &stage.actor[id];
	struct oracle_op op;

	if (a->leaving) {
		happened("%u:user%u", id, handled);
		WRITE_ONCE(a->leaving, false);
	}
	while (next_command(a, &op)) {
		if (op.what == OP_USER) {
			if (about_to_die())
				happened("%u:killed", id);
			WRITE_ONCE(a->leaving, true);
			return 0;
		}
		if (op.what >= OP_WAIT)
			do_wait(a, &op);
		else
			happened("%u=%ld", id, one_shot(&op));
	}
	return -ESHUTDOWN;
}

static bool at_rest(const struct actor *a)
{
	if (a->dead)
		return true;
	/*
	 * One processor, and the actors' real-time priority is above the controller's: when it has
	 * scheduled and runs again, none of them can; a state set means asleep.
	 */
	return !READ_ONCE(a->leaving) && READ_ONCE(a->task->__state) != TASK_RUNNING &&
	       (READ_ONCE(a->idle) || READ_ONCE(a->waits_on) >= 0);
}

bool all_at_rest(void)
{
	int i;

	for (i = 0; i < ORACLE_ACTORS; i++)
		if (!stage.actor[i].task || !at_rest(&stage.actor[i]))
			return false;
	return true;
}

void dismiss_actors(void)
{
	int i;

	for (i = 0; i < ORACLE_ACTORS; i++) {
		WRITE_ONCE(stage.actor[i].quit, true);
		if (stage.actor[i].task && !stage.actor[i].dead)
			wake_up_process(stage.actor[i].task);
	}
}
