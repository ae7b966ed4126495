// SPDX-License-Identifier: MIT OR GPL-2.0
/* Where an operation is carried out: interrupts off, in a softirq, in a hardirq, in a waiter's fall. */
#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/jiffies.h>
#include <linux/sched/signal.h>

#include "oracle.h"

static struct {
	const struct oracle_op *op;
	long result;
	bool right;
} errand;

static void in_hardirq_context(struct irq_work *work)
{
	errand.right = in_hardirq();
	errand.result = one_shot(errand.op);
}

static void in_softirq_context(struct tasklet_struct *tasklet)
{
	errand.right = in_serving_softirq() && !in_hardirq();
	errand.result = one_shot(errand.op);
}

static struct irq_work work = IRQ_WORK_INIT_HARD(in_hardirq_context);
static DECLARE_TASKLET(tasklet, in_softirq_context);

long in_context(const struct oracle_op *op)
{
	unsigned long flags;

	errand.op = op;
	errand.right = true;
	switch (op->context) {
	case IN_IRQSOFF:
		local_irq_save(flags);
		errand.result = one_shot(op);
		local_irq_restore(flags);
		break;
	case IN_SOFTIRQ:
		local_bh_disable();
		tasklet_schedule(&tasklet);
		local_bh_enable(); /* it runs here */
		tasklet_unlock_spin_wait(&tasklet);
		break;
	case IN_HARDIRQ:
		irq_work_queue(&work);
		while (irq_work_is_busy(&work)) /* its interrupt is there at once */
			cpu_relax();
		break;
	default:
		errand.result = one_shot(op);
	}
	return errand.right ? errand.result : -EDOM;
}

/* A unit later: jiffies jumps, and the kernel's own timer softirq expires what is due. */
void tick(void)
{
	local_bh_disable();
	local_irq_disable();
	jiffies_64 += ORACLE_UNIT; /* one processor, interrupts off: nobody else writes it now */
	or_softirq_pending(1UL << TIMER_SOFTIRQ);
	local_irq_enable();
	local_bh_enable();
}

/*
 * The actor has queued, set its state and let go of the lock, and has not slept yet: we are on a
 * probe at the entry of schedule_timeout(), where an interrupt might come.
 */
void perform_trapped(struct actor *a)
{
	struct oracle_op op = a->trap;
	char text[40] = "";
	long result;

	a->armed = false;
	switch (op.what) {
	case OP_USR1:
		send_sig(SIGUSR1, a->task, 1);
		break;
	case OP_KILL:
		send_sig(SIGKILL, a->task, 1);
		break;
	case OP_WAKE:
		wake_up_process(a->task);
		break;
	default:
		result = one_shot(&op);
		tell_completion(text, sizeof(text), op.x);
		if (op.what == OP_TRY || op.what == OP_DONE) {
			happened("%d~%ld%s", (int)(a - stage.actor), result, text);
			return;
		}
	}
	happened("%d~%s", (int)(a - stage.actor), text);
}
