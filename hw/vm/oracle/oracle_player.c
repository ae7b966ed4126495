/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * oracle_player SCRIPTS LOGS: plays every script of the one file, writes a log for each to the other.
 * A record is its length in bytes (u32), then the bytes: struct oracle_op, or text.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "oracle_abi.h"

#define MOST_TRIES 60

static pid_t actor[ORACLE_ACTORS];
static volatile sig_atomic_t handled;

static void die(const char *what)
{
	fprintf(stderr, "oracle_player: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void on_usr1(int number)
{
	(void)number;
	handled++;
}

static void set_priority(int priority)
{
	struct sched_param param = { .sched_priority = priority };

	if (sched_setscheduler(0, SCHED_FIFO, &param))
		die("SCHED_FIFO");
}

static void be_actor(int id, int control)
{
	struct sigaction action = { .sa_handler = on_usr1 };
	int device;
	long result;

	close(control);
	mlockall(MCL_CURRENT | MCL_FUTURE); /* a page fault in a script would be a sleep nobody asked for */
	sigaction(SIGUSR1, &action, NULL);
	device = open("/dev/" ORACLE_DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0)
		_exit(1);
	set_priority(10);
	do {
		int count = handled;

		handled = 0;
		result = ioctl(device, ORACLE_ACT, id | count << 8);
	} while (!result);
	_exit(0);
}

static void start_actor(int id, int control)
{
	fflush(NULL);
	actor[id] = fork();
	if (actor[id] < 0)
		die("fork");
	if (!actor[id])
		be_actor(id, control);
	sched_yield(); /* same priority until it raises its own: it runs first, till it sleeps */
}

static void play(int control, struct oracle_run *run)
{
	int tries, id;

	for (tries = 0; tries < MOST_TRIES; tries++) {
		run->on_edge = tries > 0;
		if (ioctl(control, ORACLE_RUN, run))
			die("ORACLE_RUN");
		if (run->stuck) {
			errno = EDEADLK;
			die("an actor never came to rest");
		}
		for (id = 0; id < ORACLE_ACTORS; id++) {
			if (!(run->dead >> id & 1))
				continue;
			waitpid(actor[id], NULL, 0);
			start_actor(id, control);
		}
		if (run->noise <= (run->fragile ? 0 : ORACLE_MOST_NOISE))
			return;
	}
	run->written = snprintf((char *)(unsigned long)run->log, run->room, "disturbed\n");
}

int main(int argc, char **argv)
{
	static struct oracle_op ops[ORACLE_MOST_OPS];
	static char log[65536];
	FILE *in, *out;
	__u32 size;
	int control, id;

	if (argc != 3) {
		fprintf(stderr, "usage: oracle_player SCRIPTS LOGS\n");
		return 2;
	}
	in = fopen(argv[1], "rb");
	out = fopen(argv[2], "wb");
	if (!in || !out)
		die(in ? argv[2] : argv[1]);
	setvbuf(out, NULL, _IOFBF, 1 << 20);
	control = open("/dev/" ORACLE_DEVICE, O_RDWR | O_CLOEXEC);
	if (control < 0)
		die("/dev/" ORACLE_DEVICE);
	set_priority(1);
	for (id = 0; id < ORACLE_ACTORS; id++)
		start_actor(id, control);
	while (fread(&size, sizeof(size), 1, in) == 1) {
		struct oracle_run run = {
			.ops = (unsigned long)ops, .log = (unsigned long)log, .room = sizeof(log),
		};

		if (size > sizeof(ops) || fread(ops, 1, size, in) != size)
			die("a script");
		run.count = size / sizeof(ops[0]);
		play(control, &run);
		fwrite(&run.written, sizeof(run.written), 1, out);
		fwrite(log, 1, run.written, out);
	}
	close(control); /* dismisses the actors */
	if (fclose(out))
		die(argv[2]);
	return 0;
}
