// SPDX-License-Identifier: MIT OR GPL-2.0
/* The device: one process plays scripts on it, ORACLE_ACTORS others are in them. */
#define pr_fmt(text) KBUILD_MODNAME ": " text
#include <linux/cpumask.h>
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "oracle.h"

struct stage stage;

/* What a descriptor is: nothing yet, the controller's, or one actor's. */
enum { NEW = -2, CONTROLLER = -1 };

static int oracle_open(struct inode *inode, struct file *file)
{
	file->private_data = (void *)(long)NEW;
	return 0;
}

static long become_actor(struct file *file, unsigned int id)
{
	struct actor *a = &stage.actor[id];

	if (a->task && !a->dead)
		return -EBUSY;
	if (a->task)
		put_task_struct(a->task);
	memset(a, 0, sizeof(*a));
	a->waits_on = -1;
	a->task = get_task_struct(current);
	file->private_data = (void *)(long)id;
	return 0;
}

static long oracle_ioctl(struct file *file, unsigned int what, unsigned long arg)
{
	long role = (long)file->private_data;
	struct oracle_run run;
	long error;

	switch (what) {
	case ORACLE_ACT:
		if ((arg & 0xff) >= ORACLE_ACTORS)
			return -EINVAL;
		error = role == NEW ? become_actor(file, arg & 0xff) : 0;
		return error ? error : act(arg & 0xff, arg >> 8);
	case ORACLE_RUN:
		if (copy_from_user(&run, (void __user *)arg, sizeof(run)))
			return -EFAULT;
		file->private_data = (void *)(long)CONTROLLER;
		error = run_script(&run);
		if (!error && copy_to_user((void __user *)arg, &run, sizeof(run)))
			error = -EFAULT;
		return error;
	}
	return -ENOTTY;
}

static int oracle_release(struct inode *inode, struct file *file)
{
	long role = (long)file->private_data;

	if (role == CONTROLLER)
		dismiss_actors();
	if (role >= 0) {
		stage.actor[role].leaving = false;
		WRITE_ONCE(stage.actor[role].dead, true);
	}
	return 0;
}

static const struct file_operations oracle_fops = {
	.owner = THIS_MODULE,
	.open = oracle_open,
	.release = oracle_release,
	.unlocked_ioctl = oracle_ioctl,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = ORACLE_DEVICE,
	.fops = &oracle_fops,
};

/* Not exported to modules: its address is where a probe on its name would be put. */
static int find_complete_on_current_cpu(void)
{
	struct kprobe probe = { .symbol_name = "complete_on_current_cpu" };
	int error = register_kprobe(&probe);

	if (error)
		return error;
	stage.complete_on_current_cpu = (void *)probe.addr;
	unregister_kprobe(&probe);
	return 0;
}

static int on_schedule_timeout(struct kprobe *probe, struct pt_regs *registers)
{
	int i;

	for (i = 0; i < ORACLE_ACTORS; i++) {
		struct actor *a = &stage.actor[i];

		if (a->task != current || a->dead || READ_ONCE(a->waits_on) < 0)
			continue;
		a->fell = true;
		if (a->armed)
			perform_trapped(a);
	}
	return 0;
}

static struct kprobe falling = {
	.symbol_name = "schedule_timeout",
	.pre_handler = on_schedule_timeout,
};

static int __init oracle_init(void)
{
	int error;

	if (num_online_cpus() != 1) {
		pr_err("one processor only: with two, who is woken runs before the step is over\n");
		return -EOPNOTSUPP;
	}
	error = find_complete_on_current_cpu();
	if (error)
		return error;
	spin_lock_init(&stage.lock);
	stage.log = kmalloc(LOG_ROOM, GFP_KERNEL);
	if (!stage.log)
		return -ENOMEM;
	error = register_kprobe(&falling);
	if (error)
		goto no_probe;
	error = misc_register(&device);
	if (!error)
		return 0;
	unregister_kprobe(&falling);
no_probe:
	kfree(stage.log);
	return error;
}

static void __exit oracle_exit(void)
{
	int i;

	misc_deregister(&device);
	unregister_kprobe(&falling);
	for (i = 0; i < ORACLE_ACTORS; i++)
		if (stage.actor[i].task)
			put_task_struct(stage.actor[i].task);
	kfree(stage.log);
}

module_init(oracle_init);
module_exit(oracle_exit);
MODULE_DESCRIPTION("Drives struct completion by script, for comparison");
MODULE_LICENSE("Dual MIT/GPL");
