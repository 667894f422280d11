/* One process of a script: it has one handle, does what it is told, and notes what it is told. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#include "device.h"
#include "kdlm.h"

enum { PATIENCE_MS = 20000, UNTOUCHED = 0xee, UNKNOWN_ID = 0x70000001 };

struct lock {
    int number;
    bool taken;      /* its id is the kernel's or the daemon's */
    bool new;        /* its first request has not ended */
    bool shows;      /* the request named a value block */
    unsigned char before[DLM_LVB_LEN];
    unsigned char value[DLM_LVB_LEN];
    struct dlm_lksb lksb;
};

static dlm_lshandle_t lockspace;
static struct lock locks[LOCKS];
static struct reply reply;
static struct lock witness, probe;
static int probes, own_letter;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static struct event *note(struct lock *lock)
{
    if (reply.events == EVENTS) {
        fprintf(stderr, "kdlm: more than %d events in one step\n", EVENTS);
        exit(1);
    }
    struct event *event = &reply.event[reply.events++];
    memset(event, 0, sizeof *event);
    event->lock = lock->number;
    return event;
}

static void ast(void *argument)
{
    struct lock *lock = argument;
    struct event *event = note(lock);
    event->status = lock->lksb.sb_status;
    event->flags = lock->lksb.sb_flags;
    event->has_value = lock->shows || memcmp(lock->value, lock->before, DLM_LVB_LEN) != 0;
    memcpy(event->value, lock->value, DLM_LVB_LEN);
    memcpy(lock->before, lock->value, DLM_LVB_LEN);
    if (event->status == EUNLOCK || (lock->new && event->status != 0))
        lock->taken = false;
    lock->new = false;
}

static void bast(void *argument)
{
    struct event *event = note(argument);
    event->blocking = true;
    event->mode = last_bast_mode;
}

static void own_ast(void *argument)
{
    (void)argument;
    probes++;
}

static long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Takes in what has been said; waits for at most `patience_ms` for something. */
static bool listen_for(int patience_ms)
{
    struct pollfd fd = { .fd = lockspace_descriptor, .events = POLLIN };
    int ready = poll(&fd, 1, patience_ms);
    if (ready < 0 || (ready > 0 && dlm_dispatch(lockspace_descriptor) < 0))
        fail("kdlm: dispatch");
    return ready > 0;
}

/* An operation of the session's own. */
static void await_probe(int before)
{
    long long until = now_ms() + PATIENCE_MS;
    while (probes == before && now_ms() < until)
        listen_for(1000);
    if (probes == before) {
        fprintf(stderr, "kdlm: a lock of the session's own is not granted within %d ms\n", PATIENCE_MS);
        exit(1);
    }
}

static void own(struct lock *lock, int mode, unsigned how, const char *name)
{
    int before = probes;
    if (dlm_ls_lock(lockspace, (uint32_t)mode, &lock->lksb, how, name, (unsigned)strlen(name), 0, own_ast, lock, NULL, NULL))
        fail("kdlm: a lock of the session's own");
    await_probe(before);
}

/* A session that is alive holds this. */
static void witness_name(const char *script, int letter, char *name, size_t size)
{
    snprintf(name, size, "%s.%c", script, 'A' + letter);
}

static void await_death(const char *script, int letter)
{
    struct lock lock = { 0 };
    char name[DLM_RESNAME_MAXLEN + 1];
    witness_name(script, letter, name, sizeof name);
    own(&lock, LKM_EXMODE, 0, name);
    int before = probes;
    if (dlm_ls_unlock(lockspace, lock.lksb.sb_lkid, 0, &lock.lksb, &lock))
        fail("kdlm: a lock of the session's own");
    await_probe(before);
}

/* The locks that say that the session is alive, and that all has been heard. */
static void stand_up(const char *script, int letter)
{
    char name[DLM_RESNAME_MAXLEN + 1];
    own_letter = letter;
    witness_name(script, letter, name, sizeof name);
    own(&witness, LKM_EXMODE, 0, name);
    strcat(name, ".probe");
    own(&probe, LKM_NLMODE, 0, name);
}

static int purge(const struct request *request, const char *script)
{
    errno = 0;
    if (dlm_ls_purge(lockspace, request->node, request->pid))
        return errno;
    if (request->pid == getpid()) {
        // That ends all locks of the process without a word.
        for (int i = 0; i < LOCKS; i++)
            locks[i].taken = false;
        stand_up(script, own_letter);
    }
    return 0;
}

static int lock_or_convert(const struct request *request, const char *script)
{
    struct lock *lock = &locks[request->lock];
    char name[DLM_RESNAME_MAXLEN + 1];
    unsigned how = request->flags;
    bool convert = request->verb == CONVERT;
    snprintf(name, sizeof name, "%s.r%d", script, request->resource);
    if (!convert && lock->taken)
        return EEXIST;
    if (convert)
        how |= LKF_CONVERT;
    uint32_t kept = lock->lksb.sb_lkid;
    if (!convert || !lock->taken)
        lock->lksb.sb_lkid = UNKNOWN_ID;
    bool shows = how & LKF_VALBLK;
    unsigned char old[DLM_LVB_LEN];
    memcpy(old, lock->value, DLM_LVB_LEN);
    memset(lock->value, request->value >= 0 ? request->value : UNTOUCHED, DLM_LVB_LEN);
    lock->lksb.sb_lvbptr = (char *)lock->value;
    lock->lksb.sb_flags = 0;
    errno = 0;
    if (dlm_ls_lock(lockspace, (uint32_t)request->mode, &lock->lksb, how, name, (unsigned)strlen(name), 0, ast, lock, bast,
                    NULL)) {
        int error = errno;
        lock->lksb.sb_lkid = kept;
        memcpy(lock->value, old, DLM_LVB_LEN);
        return error;
    }
    lock->shows = shows;
    memcpy(lock->before, lock->value, DLM_LVB_LEN);
    if (!convert) {
        lock->taken = true;
        // An adoption is not told.
        lock->new = !(how & LKF_ORPHAN);
    }
    return 0;
}

static int end(const struct request *request)
{
    struct lock *lock = &locks[request->lock];
    unsigned how = request->flags | (request->verb == CANCEL ? LKF_CANCEL : 0);
    if (request->verb == UNLOCK && request->value >= 0) {
        memset(lock->value, request->value, DLM_LVB_LEN);
        memcpy(lock->before, lock->value, DLM_LVB_LEN);
    }
    lock->shows = false;
    uint32_t id = lock->taken ? lock->lksb.sb_lkid : UNKNOWN_ID;
    errno = 0;
    if (request->verb == DEADLOCK_CANCEL)
        return dlm_ls_deadlock_cancel(lockspace, id, how) ? errno : 0;
    return dlm_ls_unlock(lockspace, id, how, &lock->lksb, lock) ? errno : 0;
}

static int perform(const struct request *request, const char *script)
{
    switch (request->verb) {
    case LOCK:
    case CONVERT:
        return lock_or_convert(request, script);
    case PURGE:
        return purge(request, script);
    case DIE:
        await_death(script, request->lock);
        return 0;
    default:
        return end(request);
    }
}

/* What the session is asked by the one that reads the script. */
void session(int commands, int replies, const char *script, int letter)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 0; i < LOCKS; i++)
        locks[i].number = i;
    lockspace = dlm_create_lockspace("kdlm", 0600);
    if (!lockspace)
        fail("kdlm: dlm_create_lockspace");
    lockspace_descriptor = dlm_ls_get_fd(lockspace);
    stand_up(script, letter);
    if (write(replies, "", 1) != 1)
        exit(0);

    struct command { struct request request; int expected; } command;
    for (;;) {
        if (read(commands, &command, sizeof command) != sizeof command)
            exit(0);
        if (command.expected == -2) {
            reply.error = perform(&command.request, script);
        } else {
            // What is expected is waited for; what is not may still come before the answer to a probe.
            long long until = now_ms() + PATIENCE_MS / 10;
            while (reply.events < command.expected && now_ms() < until)
                listen_for(50);
            own(&probe, LKM_NLMODE, LKF_CONVERT, "");
            while (listen_for(0))
                ;
        }
        // Events are told with the answer to the second question.
        struct reply sent = reply;
        if (command.expected == -2)
            sent.events = 0;
        else
            reply.events = 0;
        if (write(replies, &sent, sizeof sent) != sizeof sent)
            exit(0);
    }
}
