/*
 * What programs rely on, with a real daemon: run against both libraries (with _REENTRANT against the one for threads). The
 * socket is in MXLOCK_SOCKET. Says nothing and exits 0, or says what is wrong and exits 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <libdlm.h>

#ifdef _REENTRANT
#include <pthread.h>
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
#endif

#define CHECK_AT(line, what) do { \
        if (!(what)) { \
            fprintf(stderr, "%s:%d: not so: %s (errno %d)\n", __FILE__, line, #what, errno); \
            exit(1); \
        } } while (0)
#define CHECK(what) CHECK_AT(__LINE__, what)
#define FAILS(number, call) do { errno = 0; CHECK((call) == -1); CHECK(errno == (number)); } while (0)

/* ---- a lock with what was told about it ---- */

struct lock {
    struct dlm_lksb lksb;
    char value[DLM_LVB_LEN];
    int asts, basts;
    int status;               /* as the last AST found it */
    void (*then)(struct lock *);
};

static dlm_lshandle_t one, two;

static void enter(void)
{
#ifdef _REENTRANT
    pthread_mutex_lock(&mutex);
#endif
}

static void leave(void)
{
#ifdef _REENTRANT
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
#endif
}

static void ast(void *argument)
{
    struct lock *lock = argument;
    if (lock->then)
        lock->then(lock);
    enter();
    lock->status = lock->lksb.sb_status;
    lock->asts++;
    leave();
}

static void bast(void *argument)
{
    struct lock *lock = argument;
    enter();
    lock->basts++;
    leave();
}

/* Waits until *count is `wanted`. */
static void await_at(int line, dlm_lshandle_t ls, int *count, int wanted)
{
#ifdef _REENTRANT
    struct timespec until;
    (void)ls;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 60;
    enter();
    while (*count < wanted)
        CHECK_AT(line, pthread_cond_timedwait(&changed, &mutex, &until) == 0);
    pthread_mutex_unlock(&mutex);
#else
    struct pollfd fd = { .fd = dlm_ls_get_fd(ls), .events = POLLIN };
    while (*count < wanted) {
        CHECK_AT(line, poll(&fd, 1, 60000) == 1);
        CHECK_AT(line, dlm_dispatch(fd.fd) == 0);
    }
#endif
    CHECK_AT(line, *count == wanted);
}

#define await(ls, count, wanted) await_at(__LINE__, ls, count, wanted)

static void fresh(struct lock *lock)
{
    memset(lock, 0, sizeof *lock);
    lock->lksb.sb_lvbptr = lock->value;
}

static int submit(dlm_lshandle_t ls, struct lock *lock, int mode, unsigned flags, const char *name)
{
    return dlm_ls_lock(ls, mode, &lock->lksb, flags, name, strlen(name), 0, ast, lock, bast, NULL);
}

/* An asynchronous call and its AST: the status. */
static int done(dlm_lshandle_t ls, struct lock *lock, int mode, unsigned flags, const char *name)
{
    int before = lock->asts;
    CHECK(submit(ls, lock, mode, flags, name) == 0);
    await(ls, &lock->asts, before + 1);
    CHECK(lock->lksb.sb_lkid != 0);
    return lock->status;
}

static int undone(dlm_lshandle_t ls, struct lock *lock, unsigned flags)
{
    int before = lock->asts;
    CHECK(dlm_ls_unlock(ls, lock->lksb.sb_lkid, flags, &lock->lksb, NULL) == 0);
    await(ls, &lock->asts, before + 1);
    return lock->status;
}

/* A synchronous call: the status, checked to be told as the library does. */
static int wait_for(dlm_lshandle_t ls, struct lock *lock, int mode, unsigned flags, const char *name)
{
    errno = 0;
    int result = dlm_ls_lock_wait(ls, mode, &lock->lksb, flags, name, strlen(name), 0, lock, bast, NULL);
#ifdef _REENTRANT
    CHECK(result == 0);
#else
    CHECK(result == (lock->lksb.sb_status ? -1 : 0));
    CHECK(errno == lock->lksb.sb_status);
#endif
    return lock->lksb.sb_status;
}

static void unlock_wait(dlm_lshandle_t ls, struct lock *lock, unsigned flags)
{
    CHECK(dlm_ls_unlock_wait(ls, lock->lksb.sb_lkid, flags, &lock->lksb) == 0);
    CHECK(lock->lksb.sb_status == EUNLOCK);
}

static dlm_lshandle_t opened(const char *name)
{
    dlm_lshandle_t ls = dlm_open_lockspace(name);
    CHECK(ls != NULL);
#ifdef _REENTRANT
    CHECK(dlm_ls_pthread_init(ls) == 0);
#endif
    return ls;
}

/* ---- the tests ---- */

static void versions(void)
{
    uint32_t major = 0, minor = 9, patch = 0;
    CHECK(dlm_kernel_version(&major, &minor, &patch) == 0);
    CHECK(major == 6 && minor == 0 && patch == 2);
}

static void lockspaces(void)
{
    errno = 0;
    CHECK(dlm_open_lockspace("alpha") == NULL && errno == ENOENT);
    one = dlm_new_lockspace("alpha", 0600, DLM_LSFL_NEWEXCL);
    CHECK(one != NULL);
    errno = 0;
    CHECK(dlm_new_lockspace("alpha", 0600, DLM_LSFL_NEWEXCL) == NULL && errno == EEXIST);
    dlm_lshandle_t again = dlm_create_lockspace("alpha", 0600);
    CHECK(again != NULL && again != one);
    CHECK(dlm_release_lockspace("alpha", again, 0) == 0);
    FAILS(EINVAL, dlm_close_lockspace(again));
    two = opened("alpha");
#ifdef _REENTRANT
    CHECK(dlm_ls_pthread_init(one) == 0);
    FAILS(EEXIST, dlm_ls_pthread_init(one));
    CHECK(dlm_pthread_cleanup() == 0);
#endif
}

static void asynchronous(void)
{
    struct lock a, b;
    fresh(&a), fresh(&b);
    CHECK(submit(one, &a, LKM_EXMODE, 0, "async") == 0);
    CHECK(a.lksb.sb_lkid != 0);
#ifndef _REENTRANT
    /* Nobody has dispatched. */
    CHECK(a.lksb.sb_status == EINPROG && a.asts == 0);
    int flags = fcntl(dlm_ls_get_fd(one), F_GETFL);
#endif
    await(one, &a.asts, 1);
    CHECK(a.status == 0);
#ifndef _REENTRANT
    struct pollfd fd = { .fd = dlm_ls_get_fd(one), .events = POLLIN };
    CHECK(poll(&fd, 1, 0) == 0);
    CHECK(dlm_dispatch(fd.fd) == 0);
    CHECK(fcntl(fd.fd, F_GETFL) == flags);
    CHECK(fcntl(fd.fd, F_GETFD) == FD_CLOEXEC);
#endif
    /* NOQUEUE fails by AST. */
    CHECK(done(two, &b, LKM_PRMODE, LKF_NOQUEUE, "async") == EAGAIN);
    FAILS(ENOENT, dlm_ls_unlock(two, b.lksb.sb_lkid, 0, &b.lksb, NULL));
    CHECK(a.basts == 0);
    /* A request that waits: the holder is told, with its own argument. */
    CHECK(submit(two, &b, LKM_PRMODE, 0, "async") == 0);
    await(one, &a.basts, 1);
    FAILS(EBUSY, submit(two, &b, LKM_EXMODE, LKF_CONVERT, ""));
    b.lksb.sb_status = EINPROG;
    CHECK(undone(one, &a, 0) == EUNLOCK);
    await(two, &b.asts, 2);
    CHECK(b.status == 0);
    CHECK(undone(two, &b, 0) == EUNLOCK);
    FAILS(ENOENT, dlm_ls_unlock(two, b.lksb.sb_lkid, 0, &b.lksb, NULL));
    FAILS(ENOENT, submit(two, &b, LKM_EXMODE, LKF_CONVERT, ""));
}

static void synchronous(void)
{
    struct lock a, b;
    fresh(&a), fresh(&b);
    CHECK(wait_for(one, &a, LKM_PWMODE, 0, "sync") == 0);
    CHECK(wait_for(two, &b, LKM_EXMODE, LKF_NOQUEUE, "sync") == EAGAIN);
    CHECK(b.lksb.sb_lkid != 0);
    CHECK(wait_for(two, &b, LKM_CRMODE, 0, "sync") == 0);
    CHECK(wait_for(two, &b, LKM_EXMODE, LKF_CONVERT | LKF_NOQUEUE, "") == EAGAIN);
    unlock_wait(one, &a, 0);
    CHECK(wait_for(two, &b, LKM_EXMODE, LKF_CONVERT | LKF_NOQUEUE, "") == 0);
    /* The lock of one handle is known to the other one. */
    unlock_wait(one, &b, 0);
    /* WAIT is a flag of dlm_ls_lockx as well. */
    CHECK(dlm_ls_lockx(one, LKM_EXMODE, &a.lksb, LKF_WAIT, "sync", 4, 0, ast, &a, bast, NULL, NULL) == 0);
    CHECK(a.lksb.sb_status == 0 && a.asts == 0);
    unlock_wait(one, &a, 0);
}

static void arguments(void)
{
    struct lock a;
    fresh(&a);
    FAILS(EINVAL, submit(one, &a, 6, 0, "a"));
    FAILS(EINVAL, submit(one, &a, LKM_EXMODE, LKF_CANCEL, "a"));
    FAILS(EINVAL, submit(one, &a, LKM_EXMODE, LKF_EXPEDITE, "a"));
    FAILS(EINVAL, submit(one, &a, LKM_EXMODE, LKF_QUECVT, "a"));
    a.lksb.sb_lvbptr = NULL;
    FAILS(EINVAL, submit(one, &a, LKM_EXMODE, LKF_VALBLK, "a"));
    CHECK(wait_for(one, &a, LKM_PRMODE, 0, "a") == 0);
    FAILS(EINVAL, submit(one, &a, LKM_CRMODE, LKF_CONVERT | LKF_QUECVT, ""));
    FAILS(EINVAL, dlm_ls_unlock(one, a.lksb.sb_lkid, LKF_CANCEL | LKF_FORCEUNLOCK, &a.lksb, NULL));
    FAILS(EINVAL, dlm_ls_unlock(one, a.lksb.sb_lkid, LKF_NOQUEUE, &a.lksb, NULL));
    unlock_wait(one, &a, 0);
}

/* A later conversion brings functions and argument of its own; an unlock only an argument. */
static void replaced(void)
{
    struct lock a, b, c;
    fresh(&a), fresh(&b), fresh(&c);
    CHECK(done(one, &a, LKM_PRMODE, 0, "replaced") == 0);
    b.lksb.sb_lkid = a.lksb.sb_lkid;
    CHECK(done(one, &b, LKM_EXMODE, LKF_CONVERT, "") == 0);
    CHECK(a.asts == 1 && b.asts == 1);
    CHECK(submit(two, &c, LKM_PRMODE, 0, "replaced") == 0);
    await(one, &b.basts, 1);
    CHECK(a.basts == 0);
    CHECK(dlm_ls_unlock(one, b.lksb.sb_lkid, 0, &a.lksb, &a) == 0);
    await(one, &a.asts, 2);
    CHECK(a.status == EUNLOCK && b.asts == 1);
    await(two, &c.asts, 1);
    unlock_wait(two, &c, 0);
}

static void values(void)
{
    struct lock keeper, a, b;
    fresh(&keeper), fresh(&a), fresh(&b);
    memset(a.value, 'x', DLM_LVB_LEN);
    CHECK(done(one, &keeper, LKM_NLMODE, 0, "value") == 0);
    /* A resource without a value has zeros. */
    CHECK(done(one, &a, LKM_EXMODE, LKF_VALBLK, "value") == 0);
    CHECK(a.value[0] == 0 && a.value[31] == 0);
    /* An unlock from EX writes. */
    strcpy(a.value, "first");
    CHECK(undone(one, &a, LKF_VALBLK) == EUNLOCK);
    CHECK(done(two, &b, LKM_NLMODE, LKF_VALBLK, "value") == 0);
    CHECK(strcmp(b.value, "first") == 0 && b.lksb.sb_flags == 0);
    /* A conversion down from EX writes; one up reads. */
    CHECK(done(two, &b, LKM_EXMODE, LKF_CONVERT | LKF_VALBLK, "") == 0);
    strcpy(b.value, "second");
    CHECK(done(two, &b, LKM_NLMODE, LKF_CONVERT | LKF_VALBLK, "") == 0);
    fresh(&a);
    CHECK(done(one, &a, LKM_NLMODE, 0, "value") == 0);
    CHECK(a.value[0] == 0);
    CHECK(done(one, &a, LKM_PRMODE, LKF_CONVERT | LKF_VALBLK, "") == 0);
    CHECK(strcmp(a.value, "second") == 0);
    CHECK(undone(one, &a, 0) == EUNLOCK);
    /* An unlock from EX without VALBLK leaves the value, whatever the buffer holds. */
    CHECK(done(two, &b, LKM_EXMODE, LKF_CONVERT | LKF_VALBLK, "") == 0);
    strcpy(b.value, "never");
    CHECK(undone(two, &b, 0) == EUNLOCK);
    fresh(&a);
    CHECK(done(one, &a, LKM_EXMODE, LKF_VALBLK, "value") == 0);
    CHECK(strcmp(a.value, "second") == 0);
    /* IVVALBLK: the value cannot be trusted. */
    CHECK(done(one, &a, LKM_NLMODE, LKF_CONVERT | LKF_IVVALBLK, "") == 0);
    CHECK(done(one, &a, LKM_PRMODE, LKF_CONVERT | LKF_VALBLK, "") == 0);
    CHECK(a.lksb.sb_flags == DLM_SBF_VALNOTVALID);
    CHECK(undone(one, &a, 0) == EUNLOCK);
    CHECK(undone(one, &keeper, 0) == EUNLOCK);
}

static void cancelled(void)
{
    struct lock a, b;
    fresh(&a), fresh(&b);
    CHECK(done(one, &a, LKM_EXMODE, 0, "cancel") == 0);
    /* There is nothing to cancel: no AST. */
    CHECK(dlm_ls_unlock(one, a.lksb.sb_lkid, LKF_CANCEL, &a.lksb, NULL) == 0);
    /* A request. */
    CHECK(submit(two, &b, LKM_EXMODE, 0, "cancel") == 0);
    CHECK(undone(two, &b, LKF_CANCEL) == ECANCEL);
    FAILS(ENOENT, dlm_ls_unlock(two, b.lksb.sb_lkid, 0, &b.lksb, NULL));
    /* A conversion: the lock stays. */
    CHECK(done(two, &b, LKM_NLMODE, 0, "cancel") == 0);
    CHECK(submit(two, &b, LKM_EXMODE, LKF_CONVERT, "") == 0);
    CHECK(undone(two, &b, LKF_CANCEL) == ECANCEL);
    FAILS(EINVAL, dlm_ls_unlock(two, b.lksb.sb_lkid, LKF_CANCEL, &b.lksb, NULL));
    CHECK(submit(two, &b, LKM_EXMODE, LKF_CONVERT, "") == 0);
    int before = b.asts;
    CHECK(dlm_ls_deadlock_cancel(two, b.lksb.sb_lkid, 0) == 0);
    await(two, &b.asts, before + 1);
    CHECK(b.status == EDEADLK);
    /* An unlock ends a request that waits, with one AST for both. */
    unlock_wait(two, &b, 0);
    CHECK(submit(two, &b, LKM_EXMODE, 0, "cancel") == 0);
    before = b.asts;
    CHECK(undone(two, &b, LKF_FORCEUNLOCK) == EUNLOCK);
    CHECK(b.asts == before + 1);
    CHECK(undone(one, &a, 0) == EUNLOCK);
}

static void limited(void)
{
    struct lock a, b;
    uint64_t centiseconds = 20, xid = 7;
    fresh(&a), fresh(&b);
    CHECK(done(one, &a, LKM_EXMODE, 0, "time") == 0);
    CHECK(dlm_ls_lockx(two, LKM_EXMODE, &b.lksb, LKF_TIMEOUT, "time", 4, 0, ast, &b, bast, &xid, &centiseconds) == 0);
    await(two, &b.asts, 1);
    CHECK(b.status == ETIMEDOUT);
    CHECK(undone(one, &a, 0) == EUNLOCK);
}

/* Transactions that wait for each other are found; locks without one may wait for whatever their program holds. */
static void deadlocks(void)
{
    struct lock a, b, c, d;
    uint64_t seven = 7, eight = 8;
    fresh(&a), fresh(&b), fresh(&c), fresh(&d);
    CHECK(dlm_ls_lockx(one, LKM_EXMODE, &a.lksb, LKF_WAIT, "cycle 1", 7, 0, ast, &a, bast, &seven, NULL) == 0);
    CHECK(dlm_ls_lockx(two, LKM_EXMODE, &b.lksb, LKF_WAIT, "cycle 2", 7, 0, ast, &b, bast, &eight, NULL) == 0);
    CHECK(dlm_ls_lockx(two, LKM_PRMODE, &c.lksb, 0, "cycle 1", 7, 0, ast, &c, bast, &eight, NULL) == 0);
    await(one, &a.basts, 1);
    CHECK(dlm_ls_lockx(one, LKM_PRMODE, &d.lksb, 0, "cycle 2", 7, 0, ast, &d, bast, &seven, NULL) == 0);
    await(one, &d.asts, 1);
    CHECK(d.status == EDEADLK && c.asts == 0);
    unlock_wait(one, &a, 0);
    await(two, &c.asts, 1);
    CHECK(c.status == 0);
    unlock_wait(two, &b, 0);
    unlock_wait(two, &c, 0);

    fresh(&a), fresh(&b);
    CHECK(done(one, &a, LKM_EXMODE, 0, "own") == 0);
    CHECK(submit(one, &b, LKM_EXMODE, 0, "own") == 0);
    await(one, &a.basts, 1);
    CHECK(b.asts == 0);
    CHECK(undone(one, &a, 0) == EUNLOCK);
    await(one, &b.asts, 1);
    CHECK(b.status == 0);
    unlock_wait(one, &b, 0);

    /* Two conversions up that wait for each other: the second one is refused. */
    fresh(&a), fresh(&b);
    CHECK(done(one, &a, LKM_PRMODE, 0, "convert") == 0);
    CHECK(done(two, &b, LKM_PRMODE, 0, "convert") == 0);
    CHECK(submit(one, &a, LKM_EXMODE, LKF_CONVERT, "") == 0);
    await(two, &b.basts, 1);
    CHECK(done(two, &b, LKM_EXMODE, LKF_CONVERT, "") == EDEADLK);
    unlock_wait(two, &b, 0);
    await(one, &a.asts, 2);
    CHECK(a.status == 0);
    unlock_wait(one, &a, 0);
}

static void ranges(void)
{
    struct dlm_range low = { 0, 9 }, high = { 10, 19 }, both = { 9, 10 }, bad = { 2, 1 };
    struct lock a, b, c;
    fresh(&a), fresh(&b), fresh(&c);
    CHECK(dlm_ls_lock_wait(one, LKM_EXMODE, &a.lksb, LKF_NOQUEUE, "range", 5, 0, NULL, NULL, &low) == 0);
    CHECK(dlm_ls_lock_wait(two, LKM_EXMODE, &b.lksb, LKF_NOQUEUE, "range", 5, 0, NULL, NULL, &high) == 0);
    CHECK(a.lksb.sb_status == 0 && b.lksb.sb_status == 0);
    dlm_ls_lock_wait(two, LKM_PRMODE, &c.lksb, LKF_NOQUEUE, "range", 5, 0, NULL, NULL, &both);
    CHECK(c.lksb.sb_status == EAGAIN);
    FAILS(EINVAL, dlm_ls_lock_wait(two, LKM_PRMODE, &c.lksb, 0, "range", 5, 0, NULL, NULL, &bad));
    unlock_wait(one, &a, 0);
    unlock_wait(two, &b, 0);
}

/* Names are bytes, in number 0 to 64; lockspaces do not share them. */
static void names(void)
{
    static const char bytes[64] = "\0a\1b";
    struct lock a, b;
    fresh(&a), fresh(&b);
    for (unsigned length = 0; length <= 64; length += 4) {
        CHECK(dlm_ls_lock_wait(one, LKM_EXMODE, &a.lksb, LKF_NOQUEUE, bytes, length, 0, NULL, NULL, NULL) == 0);
        CHECK(a.lksb.sb_status == 0);
        dlm_ls_lock_wait(two, LKM_EXMODE, &b.lksb, LKF_NOQUEUE, bytes, length, 0, NULL, NULL, NULL);
        CHECK(b.lksb.sb_status == EAGAIN);
        unlock_wait(one, &a, 0);
    }
    dlm_lshandle_t beta = dlm_create_lockspace("beta", 0600);
    CHECK(beta != NULL);
    CHECK(wait_for(one, &a, LKM_EXMODE, 0, "same") == 0);
    CHECK(wait_for(beta, &b, LKM_EXMODE, LKF_NOQUEUE, "same") == 0);
    FAILS(ENOENT, dlm_ls_unlock_wait(one, b.lksb.sb_lkid, 0, &b.lksb));
    unlock_wait(one, &a, 0);
    /* The last release with force ends its locks, and the lockspace. */
    CHECK(dlm_release_lockspace("beta", beta, 1) == 0);
    errno = 0;
    CHECK(dlm_open_lockspace("beta") == NULL && errno == ENOENT);
    beta = dlm_create_lockspace("beta", 0600);
    CHECK(wait_for(beta, &b, LKM_EXMODE, LKF_NOQUEUE, "same") == 0);
    unlock_wait(beta, &b, 0);
    CHECK(dlm_release_lockspace("beta", beta, 0) == 0);
}

/* lvmlockd has its status blocks at addresses that no compiler would choose. */
static void unaligned(void)
{
    static char memory[1 + sizeof(struct dlm_lksb)], value[DLM_LVB_LEN] = "odd";
    struct dlm_lksb *odd = (void *)(memory + 1), copy;
    memset(&copy, 0, sizeof copy);
    copy.sb_lvbptr = value;
    memcpy(odd, &copy, sizeof copy);
    CHECK(dlm_ls_lock_wait(one, LKM_EXMODE, odd, LKF_VALBLK, "odd", 3, 0, NULL, NULL, NULL) == 0);
    memcpy(&copy, odd, sizeof copy);
    CHECK(copy.sb_status == 0 && copy.sb_lkid != 0 && value[0] == 0);
    CHECK(dlm_ls_lock_wait(one, LKM_NLMODE, odd, LKF_CONVERT | LKF_VALBLK, "", 0, 0, NULL, NULL, NULL) == 0);
    CHECK(dlm_ls_unlock_wait(one, copy.sb_lkid, LKF_VALBLK, odd) == 0);
    memcpy(&copy, odd, sizeof copy);
    CHECK(copy.sb_status == EUNLOCK);
}

static int adopt(dlm_lshandle_t ls, struct lock *lock, int mode, unsigned flags, const char *name)
{
    /* As lvmlockd does it: no function is given, but something that is not null. */
    return dlm_ls_lockx(ls, mode, &lock->lksb, LKF_ORPHAN | flags, name, strlen(name), 0, (void *)1, (void *)1, (void *)1,
                        NULL, NULL);
}

static void orphans(void)
{
    struct lock a, b;
    dlm_lshandle_t third = opened("alpha");
    fresh(&a), fresh(&b);
    /* PERSISTENT by the last call: the first lock is, the second is not any more. */
    CHECK(wait_for(third, &a, LKM_NLMODE, LKF_EXPEDITE, "orphan") == 0);
    CHECK(wait_for(third, &a, LKM_EXMODE, LKF_CONVERT | LKF_PERSISTENT | LKF_NOQUEUE, "") == 0);
    CHECK(wait_for(third, &b, LKM_EXMODE, LKF_PERSISTENT, "no orphan") == 0);
    CHECK(wait_for(third, &b, LKM_EXMODE, LKF_CONVERT, "") == 0);
    CHECK(dlm_close_lockspace(third) == 0);
    CHECK(wait_for(one, &b, LKM_EXMODE, 0, "no orphan") == 0);
    unlock_wait(one, &b, 0);
    CHECK(wait_for(one, &b, LKM_CRMODE, LKF_NOQUEUE, "orphan") == EAGAIN);
    fresh(&a);
    FAILS(ENOENT, adopt(one, &a, LKM_EXMODE, 0, "no orphan"));
    FAILS(EAGAIN, adopt(one, &a, LKM_PRMODE, 0, "orphan"));
    CHECK(adopt(one, &a, LKM_EXMODE, LKF_PERSISTENT, "orphan") == 0);
    CHECK(a.lksb.sb_lkid != 0 && a.lksb.sb_status == EINPROG);
    FAILS(ENOENT, adopt(one, &b, LKM_EXMODE, 0, "orphan"));
    unlock_wait(one, &a, 0);
    CHECK(wait_for(one, &b, LKM_EXMODE, LKF_NOQUEUE, "orphan") == 0);
    unlock_wait(one, &b, 0);
}

/* A process that takes a lock and ends without a word. */
static int child_with(const char *name, unsigned flags)
{
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0);
    int pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct lock a;
        fresh(&a);
        /* The parent's handle is not the child's. */
        FAILS(ENOTCONN, dlm_ls_lock_wait(one, LKM_EXMODE, &a.lksb, 0, "child", 5, 0, NULL, NULL, NULL));
        dlm_lshandle_t ls = dlm_open_lockspace("alpha");
        CHECK(ls != NULL);
        CHECK(wait_for(ls, &a, LKM_EXMODE, flags, name) == 0);
        CHECK(write(ready[1], "x", 1) == 1);
        pause();
        _exit(1);
    }
    close(ready[1]);
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    return pid;
}

static void deaths(void)
{
    struct lock keeper, a;
    fresh(&keeper), fresh(&a);
    CHECK(wait_for(one, &keeper, LKM_NLMODE, LKF_VALBLK, "mortal") == 0);
    CHECK(wait_for(one, &keeper, LKM_EXMODE, LKF_CONVERT | LKF_VALBLK, "") == 0);
    strcpy(keeper.value, "of the living");
    CHECK(wait_for(one, &keeper, LKM_NLMODE, LKF_CONVERT | LKF_VALBLK, "") == 0);
    int pid = child_with("mortal", 0);
    CHECK(submit(two, &a, LKM_PRMODE, LKF_VALBLK, "mortal") == 0);
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
    await(two, &a.asts, 1);
    CHECK(a.status == 0 && a.lksb.sb_flags == DLM_SBF_VALNOTVALID);
    unlock_wait(two, &a, 0);
    unlock_wait(one, &keeper, 0);

    int first = child_with("orphan 1", LKF_PERSISTENT), second = child_with("orphan 2", LKF_PERSISTENT);
    CHECK(kill(first, SIGKILL) == 0 && waitpid(first, NULL, 0) == first);
    CHECK(kill(second, SIGKILL) == 0 && waitpid(second, NULL, 0) == second);
    fresh(&a);
    /* They are orphans as soon as the daemon has noticed. */
    while (adopt(one, &a, LKM_PRMODE, 0, "orphan 1") == -1 && errno == ENOENT)
        usleep(1000);
    while (adopt(one, &a, LKM_PRMODE, 0, "orphan 2") == -1 && errno == ENOENT)
        usleep(1000);
    CHECK(dlm_ls_purge(one, 0, first) == 0);
    FAILS(ENOENT, adopt(one, &a, LKM_EXMODE, 0, "orphan 1"));
    FAILS(EAGAIN, adopt(one, &a, LKM_PRMODE, 0, "orphan 2"));
    CHECK(dlm_ls_purge(one, 0, 0) == 0);
    FAILS(ENOENT, adopt(one, &a, LKM_EXMODE, 0, "orphan 2"));
}

/* With the own process id: all locks of the handle end, and nobody is told. */
static void purged(void)
{
    struct lock a, b, c;
    fresh(&a), fresh(&b), fresh(&c);
    CHECK(done(two, &a, LKM_EXMODE, LKF_PERSISTENT, "purge 1") == 0);
    CHECK(done(one, &b, LKM_EXMODE, 0, "purge 2") == 0);
    CHECK(submit(two, &c, LKM_EXMODE, 0, "purge 2") == 0);
    CHECK(dlm_ls_purge(two, 0, getpid()) == 0);
    CHECK(a.asts == 1 && c.asts == 0);
    CHECK(undone(one, &b, 0) == EUNLOCK);
    CHECK(wait_for(one, &b, LKM_EXMODE, LKF_NOQUEUE, "purge 1") == 0);
    unlock_wait(one, &b, 0);
    CHECK(wait_for(one, &b, LKM_EXMODE, LKF_NOQUEUE, "purge 2") == 0);
    unlock_wait(one, &b, 0);
    FAILS(ENOENT, dlm_ls_unlock(two, a.lksb.sb_lkid, 0, &a.lksb, NULL));
}

/* Inside an AST everything may be called, also what waits. */
static void call_inside(struct lock *lock)
{
    struct lock inner;
    lock->then = NULL;
    fresh(&inner);
    CHECK(wait_for(one, &inner, LKM_EXMODE, 0, "inside") == 0);
    unlock_wait(one, &inner, 0);
    CHECK(dlm_ls_lock_wait(one, LKM_PRMODE, &lock->lksb, LKF_CONVERT, "", 0, 0, lock, bast, NULL) == 0);
}

static void reentrant(void)
{
    struct lock a;
    fresh(&a);
    a.then = call_inside;
    CHECK(done(one, &a, LKM_EXMODE, 0, "outside") == 0);
    unlock_wait(one, &a, 0);
}

static void default_lockspace(void)
{
    struct dlm_lksb lksb;
    struct lock a;
    memset(&lksb, 0, sizeof lksb);
    fresh(&a);
    FAILS(ENOTCONN, dlm_unlock_wait(1, 0, &lksb));
#ifdef _REENTRANT
    int lockid = 0, other = 0;
    CHECK(lock_resource("simple", LKM_EXMODE, 0, &lockid) == 0 && lockid != 0);
    FAILS(EEXIST, dlm_pthread_init());
    FAILS(EAGAIN, lock_resource("simple", LKM_EXMODE, LKF_NOQUEUE, &other));
    CHECK(lock_resource("simple", LKM_PRMODE, LKF_CONVERT, &lockid) == 0);
    CHECK(lock_resource("simple", LKM_PRMODE, LKF_NOQUEUE, &other) == 0);
    CHECK(unlock_resource(lockid) == 0 && unlock_resource(other) == 0);
    FAILS(ENOENT, unlock_resource(other));
#endif
    CHECK(dlm_lock(LKM_EXMODE, &a.lksb, 0, "simple", 6, 0, ast, &a, bast, NULL) == 0);
#ifndef _REENTRANT
    struct pollfd fd = { .fd = dlm_get_fd(), .events = POLLIN };
    CHECK(poll(&fd, 1, 60000) == 1 && dlm_dispatch(fd.fd) == 0);
#else
    await(NULL, &a.asts, 1);
#endif
    CHECK(a.asts == 1 && a.status == 0);
    CHECK(dlm_unlock_wait(a.lksb.sb_lkid, 0, &a.lksb) == 0 && a.lksb.sb_status == EUNLOCK);
    CHECK(dlm_lock_wait(LKM_EXMODE, &a.lksb, 0, "simple", 6, 0, NULL, NULL, NULL) == 0);
    CHECK(dlm_unlock(a.lksb.sb_lkid, 0, &a.lksb, NULL) == 0);
#ifdef _REENTRANT
    CHECK(dlm_pthread_cleanup() == 0);
    CHECK(dlm_pthread_cleanup() == 0);
#endif
}

int main(void)
{
    versions();
    lockspaces();
    asynchronous();
    synchronous();
    arguments();
    replaced();
    values();
    cancelled();
    limited();
    deadlocks();
    ranges();
    names();
    unaligned();
    orphans();
    deaths();
    purged();
    reentrant();
    default_lockspace();
    CHECK(dlm_close_lockspace(two) == 0);
    CHECK(dlm_release_lockspace("alpha", one, 1) == 0);
    errno = 0;
    CHECK(dlm_open_lockspace("alpha") == NULL && errno == ENOENT);
    return 0;
}
