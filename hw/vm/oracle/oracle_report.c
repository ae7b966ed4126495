// SPDX-License-Identifier: MIT OR GPL-2.0
/* The log: what each operation did, in what order actors came back, what is so at rest. */
#include <linux/kernel.h>
#include <linux/sched/signal.h>
#include <linux/swait.h>

#include "oracle.h"

void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	stage.log_len += vscnprintf(stage.log + stage.log_len, LOG_ROOM - stage.log_len, format, args);
	va_end(args);
}

void happened(const char *format, ...)
{
	unsigned long flags;
	va_list args;

	spin_lock_irqsave(&stage.lock, flags);
	stage.events_len += scnprintf(stage.events + stage.events_len,
				      sizeof(stage.events) - stage.events_len, " ");
	va_start(args, format);
	stage.events_len += vscnprintf(stage.events + stage.events_len,
				       sizeof(stage.events) - stage.events_len, format, args);
	va_end(args);
	spin_unlock_irqrestore(&stage.lock, flags);
}

static char actor_of(const struct task_struct *task)
{
	int i;

	for (i = 0; i < ORACLE_ACTORS; i++)
		if (stage.actor[i].task == task)
			return '0' + i;
	return '?';
}

/* x3[02]: done is 3, actor 0 is at the head, 2 behind it. */
int tell_completion(char *text, size_t room, int index)
{
	struct completion *x = &stage.x[index];
	char queue[2 * ORACLE_ACTORS + 1];
	struct swait_queue *entry;
	unsigned long flags;
	unsigned int done;
	size_t length = 0;

	raw_spin_lock_irqsave(&x->wait.lock, flags);
	list_for_each_entry(entry, &x->wait.task_list, task_list)
		if (length < sizeof(queue) - 1)
			queue[length++] = actor_of(entry->task);
	done = x->done;
	raw_spin_unlock_irqrestore(&x->wait.lock, flags);
	queue[length] = 0;
	return scnprintf(text, room, "%c%u[%s]", 'x' + index, done, queue);
}

void say_completion(int index)
{
	char text[40];

	tell_completion(text, sizeof(text), index);
	say("%s", text);
}

/* *02: these would run if they were let. */
void say_awake(void)
{
	bool some = false;
	int i;

	for (i = 0; i < ORACLE_ACTORS; i++) {
		struct actor *a = &stage.actor[i];

		if (a->dead || READ_ONCE(a->task->__state) != TASK_RUNNING)
			continue;
		say(some ? "%d" : "*%d", i);
		some = true;
	}
}

static void say_actor(const struct actor *a)
{
	struct task_struct *task = a->task;

	if (a->dead) {
		say(" -");
		return;
	}
	if (a->waits_on < 0)
		say(" .");
	else
		say(" %c%x%s", 'x' + a->waits_on, READ_ONCE(task->__state), task->in_iowait ? "i" : "");
	say("%s", fatal_signal_pending(task) ? "f" : signal_pending(task) ? "p" : "");
}

void say_at_rest(void)
{
	int i;

	say(" |%s |", stage.events);
	for (i = 0; i < ORACLE_COMPLETIONS; i++) {
		say(" ");
		say_completion(i);
	}
	for (i = 0; i < ORACLE_ACTORS; i++)
		say_actor(&stage.actor[i]);
	say("\n");
	stage.events_len = 0;
	stage.events[0] = 0;
}
