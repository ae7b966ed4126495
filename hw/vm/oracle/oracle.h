/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef ORACLE_H
#define ORACLE_H

#include <linux/completion.h>
#include <linux/sched.h>
#include <linux/spinlock.h>

#include "oracle_abi.h"

#define MOST_COMMANDS 4
#define LOG_ROOM 32768

struct actor {
	struct task_struct *task;
	struct oracle_op command[MOST_COMMANDS];
	unsigned int head, tail;
	bool idle;       /* sleeps for want of a command, not in a wait */
	bool leaving;    /* on its way to user mode and back */
	bool dead;       /* was killed; the player starts another for the next script */
	bool quit;
	int waits_on;    /* index of a completion, or -1 */
	bool fell;       /* the wait came as far as schedule_timeout() */
	bool armed;      /* `trap` is to be done when it comes there */
	struct oracle_op trap;
};

struct stage {
	struct actor actor[ORACLE_ACTORS];
	struct completion x[ORACLE_COMPLETIONS];
	void (*complete_on_current_cpu)(struct completion *x);
	spinlock_t lock; /* the commands and the events */
	char events[4096];
	size_t events_len;
	char *log;
	size_t log_len;
	bool fragile;
};

extern struct stage stage;

/* oracle_actor.c */
long act(unsigned int id, unsigned int handled);
bool give_command(struct actor *a, const struct oracle_op *op);
bool all_at_rest(void);
void dismiss_actors(void);
long one_shot(const struct oracle_op *op);

/* oracle_script.c */
long run_script(struct oracle_run *run);

/* oracle_context.c */
long in_context(const struct oracle_op *op);
void tick(void);
void perform_trapped(struct actor *a);

/* oracle_report.c */
void say(const char *format, ...) __printf(1, 2);
void happened(const char *format, ...) __printf(1, 2);
int tell_completion(char *text, size_t room, int index);
void say_completion(int index);
void say_awake(void);
void say_at_rest(void);

static inline bool has_timeout(u8 what)
{
	return what == OP_TIMEOUT || what == OP_IO_TIMEOUT || what == OP_INTERRUPTIBLE_TIMEOUT ||
	       what == OP_KILLABLE_TIMEOUT;
}

#endif
