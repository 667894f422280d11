/* Requests made up at random, knowing what each lock holds and waits for, so that most of them make sense. */
#include <string.h>
#include "kdlm.h"

/* What a lock is known to be. */
static struct {
    bool there, waits, held;
    int mode;    /* asked for last */
    bool values; /* its requests name a value block */
    bool persistent;
    int resource, asked, granted; /* ORPHANS: to know what a process leaves */
} known[SESSIONS][LOCKS];
/* What processes have left, as far as is known here. */
static struct { int resource, mode; } orphans[32];
static int orphan_count;
static bool alive[SESSIONS];
static unsigned long long state;
static int next_value;
static int flavour;

/* splitmix64 (Steele, Lea, Flood 2014). */
static unsigned long long draw(void)
{
    unsigned long long z = state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static int below(int end)
{
    return (int)(draw() % (unsigned)end);
}

static bool one_in(int n)
{
    return below(n) == 0;
}

/* What the scripts of a number are about: plain requests, then more and more of the rest. */
enum { PLAIN, VALUES, ORDER, ALTERNATIVES, DEATHS, FLAVOURS, DEADLOCKS, ORPHANS };

void random_start(unsigned long long seed)
{
    memset(known, 0, sizeof known);
    for (int i = 0; i < SESSIONS; i++)
        alive[i] = true;
    state = seed;
    next_value = 0;
    orphan_count = 0;
    // From 1000 on they are about CONVDEADLK, from 2000 on about PERSISTENT locks.
    flavour = seed >= 2000 ? ORPHANS : seed >= 1000 ? DEADLOCKS : (int)(seed % FLAVOURS);
}

/*
 * Debian's libdlm clears the buffer of a lock that had a value block when it is converted without one, and unlocks it with what
 * happens to be on the stack. So a lock has value blocks always or never, and writers go by way of NL or give no value.
 */
static unsigned lock_flags(bool convert, bool values)
{
    unsigned set = 0;
    if (one_in(5))
        set |= LKF_NOQUEUE | (one_in(2) ? LKF_NOQUEUEBAST : 0);
    switch (flavour) {
    case VALUES:
    case DEATHS:
        if (values)
            set |= LKF_VALBLK;
        if (one_in(8))
            set |= LKF_IVVALBLK;
        break;
    case ORDER:
        if (convert && one_in(3))
            set |= LKF_QUECVT;
        if (!convert && one_in(6))
            set |= LKF_HEADQUE;
        if (one_in(8))
            set |= LKF_NOORDER;
        if (!convert && one_in(8) && !(set & LKF_NOQUEUE))
            set |= LKF_EXPEDITE;
        break;
    case ALTERNATIVES:
        if (one_in(2))
            set |= one_in(2) ? LKF_ALTPR : LKF_ALTCW;
        break;
    case DEADLOCKS:
        if (convert && !one_in(3) && !(set & LKF_NOQUEUE))
            set |= LKF_CONVDEADLK;
        break;
    default:
        break;
    }
    return set;
}

static void draw_value(struct request *request)
{
    if (request->flags & LKF_VALBLK)
        request->value = next_value = next_value % 200 + 1;
}

static bool ask_for_lock(struct request *request)
{
    request->verb = LOCK;
    for (request->lock = 1; request->lock < LOCKS; request->lock++)
        if (!known[request->session][request->lock].there)
            break;
    if (request->lock == LOCKS)
        return false;
    request->mode = below(6);
    request->resource = one_in(4) ? 1 : 0;
    if (flavour == DEADLOCKS) {
        // What can be held together can wait for each other.
        request->mode = one_in(3) ? LKM_CRMODE : LKM_PRMODE;
        request->resource = 0;
    }
    request->flags = lock_flags(false, !one_in(3));
    if (request->flags & LKF_EXPEDITE && !one_in(10))
        request->mode = 0;
    if (flavour == ORPHANS) {
        request->flags |= one_in(3) ? 0 : LKF_PERSISTENT;
        if (orphan_count && one_in(2)) {
            int which = below(orphan_count);
            request->flags = LKF_ORPHAN | (request->flags & LKF_PERSISTENT);
            request->resource = orphans[which].resource;
            if (!one_in(5))
                request->mode = orphans[which].mode;
        }
    }
    draw_value(request);
    return true;
}

/*
 * Ends all locks of the own process. (A purge of orphans, of which scripts by hand have some, stops the kernel sooner or later:
 * Linux 6.1 takes one off a list that it is not on any more, "list_del corruption" in dlm_user_purge.)
 */
static bool ask_for_purge(struct request *request)
{
    request->verb = PURGE;
    request->process = request->session;
    for (int i = 1; i < LOCKS; i++)
        if (known[request->session][i].waits)
            return false;
    return true;
}

static bool ask_for_conversion(struct request *request)
{
    request->verb = CONVERT;
    request->mode = flavour == DEADLOCKS && !one_in(3) ? LKM_PWMODE + below(2) : below(6);
    // The value handed over with a conversion that is refused with EBUSY may come back with an earlier one.
    bool waits = known[request->session][request->lock].waits;
    request->flags = lock_flags(true, known[request->session][request->lock].values && !waits);
    // A conversion without it would end that, and one that fails does so in the kernel only.
    if (known[request->session][request->lock].persistent)
        request->flags |= LKF_PERSISTENT;
    draw_value(request);
    return true;
}

static bool ask_for_end(struct request *request)
{
    request->verb = UNLOCK;
    if (known[request->session][request->lock].values && known[request->session][request->lock].mode >= LKM_PWMODE) {
        if (!known[request->session][request->lock].waits && one_in(2)) {
            request->verb = CONVERT;
            request->flags = LKF_VALBLK;
            draw_value(request);
            return true;
        }
        request->flags = LKF_IVVALBLK;
    }
    if (one_in(12) || (known[request->session][request->lock].waits && one_in(2)))
        request->flags |= LKF_FORCEUNLOCK;
    return true;
}

/* What a dead process waits for with PERSISTENT, the kernel grants if the end of its other locks comes first. */
static bool may_die(int session)
{
    for (int i = 1; i < LOCKS; i++)
        if (known[session][i].persistent && known[session][i].waits)
            return false;
    return true;
}

bool random_request(struct request *request)
{
    for (;;) {
        memset(request, 0, sizeof *request);
        request->value = -1;
        request->session = below(SESSIONS);
        if (!alive[request->session]) {
            if (!one_in(4))
                continue;
            request->verb = START;
            return true;
        }
        if ((flavour == DEATHS || flavour == ORPHANS) && one_in(15) && may_die(request->session)) {
            request->verb = DIE;
            return true;
        }
        if (flavour == ORPHANS && one_in(25)) {
            if (ask_for_purge(request))
                return true;
            continue;
        }
        int there[LOCKS], count = 0;
        for (int i = 1; i < LOCKS; i++)
            if (known[request->session][i].there)
                there[count++] = i;
        if (count == 0 || (count < 4 && one_in(3))) {
            if (ask_for_lock(request))
                return true;
            continue;
        }
        request->lock = there[below(count)];
        bool waits = known[request->session][request->lock].waits;
        if (waits && !one_in(10)) {
            // Most of what waits is left alone.
            if (one_in(2))
                continue;
            request->verb = one_in(2) ? CANCEL : UNLOCK;
            return request->verb == CANCEL ? true : ask_for_end(request);
        }
        if (one_in(25)) {
            request->verb = CANCEL;
            return true;
        }
        return one_in(3) ? ask_for_end(request) : ask_for_conversion(request);
    }
}

/* What a session leaves that has died. */
static void leave(int session)
{
    for (int i = 1; i < LOCKS; i++)
        if (known[session][i].persistent && known[session][i].held && orphan_count < 32) {
            orphans[orphan_count].resource = known[session][i].resource;
            orphans[orphan_count++].mode = known[session][i].granted;
        }
}

static void adopted(const struct request *request)
{
    int who = request->session;
    memset(&known[who][request->lock], 0, sizeof known[who][request->lock]);
    known[who][request->lock].there = known[who][request->lock].held = true;
    known[who][request->lock].mode = known[who][request->lock].granted = request->mode;
    known[who][request->lock].resource = request->resource;
    known[who][request->lock].persistent = request->flags & LKF_PERSISTENT;
    for (int i = 0; i < orphan_count; i++)
        if (orphans[i].resource == request->resource && orphans[i].mode == request->mode) {
            orphans[i] = orphans[--orphan_count];
            return;
        }
}

void random_result(const struct request *request, const struct reply *replies, bool living[SESSIONS])
{
    int who = request->session;
    if (request->verb == PURGE)
        memset(known[who], 0, sizeof known[who]);
    if (request->verb == DIE)
        leave(who);
    if (request->verb == LOCK && request->flags & LKF_ORPHAN) {
        if (replies[who].error == 0)
            adopted(request);
    } else if (request->verb == LOCK && replies[who].error == 0) {
        known[who][request->lock].there = known[who][request->lock].waits = true;
        known[who][request->lock].held = false;
        known[who][request->lock].values = request->flags & LKF_VALBLK;
        known[who][request->lock].mode = known[who][request->lock].asked = request->mode;
        known[who][request->lock].resource = request->resource;
        known[who][request->lock].persistent = request->flags & LKF_PERSISTENT;
    } else if (request->verb == CONVERT && replies[who].error == 0) {
        known[who][request->lock].waits = true;
        known[who][request->lock].asked = request->mode;
        if (request->mode > known[who][request->lock].mode || request->mode == 0)
            known[who][request->lock].mode = request->mode;
    }
    for (int i = 0; i < SESSIONS; i++) {
        alive[i] = living[i];
        if (!alive[i])
            memset(known[i], 0, sizeof known[i]);
        for (int e = 0; e < replies[i].events; e++) {
            const struct event *event = &replies[i].event[e];
            if (event->blocking)
                continue;
            known[i][event->lock].waits = false;
            if (event->status == 0) {
                known[i][event->lock].held = true;
                known[i][event->lock].granted = known[i][event->lock].asked;
            } else if (event->status == EUNLOCK || !known[i][event->lock].held)
                known[i][event->lock].there = false;
        }
    }
}
