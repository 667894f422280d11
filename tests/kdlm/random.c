/* Requests made up at random, knowing what each lock holds and waits for, so that most of them make sense. */
#include <string.h>
#include "kdlm.h"

/* What a lock is known to be. */
static struct {
    bool there, waits, held;
    int mode;    /* asked for last */
    bool values; /* its requests name a value block */
} known[SESSIONS][LOCKS];
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
enum { PLAIN, VALUES, ORDER, ALTERNATIVES, DEATHS, FLAVOURS, DEADLOCKS };

void random_start(unsigned long long seed)
{
    memset(known, 0, sizeof known);
    for (int i = 0; i < SESSIONS; i++)
        alive[i] = true;
    state = seed;
    next_value = 0;
    // From 1000 on they are about CONVDEADLK, which mxlock's daemon refuses: its table alone is compared.
    flavour = seed >= 1000 ? DEADLOCKS : (int)(seed % FLAVOURS);
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
    draw_value(request);
    return true;
}

static bool ask_for_conversion(struct request *request)
{
    request->verb = CONVERT;
    request->mode = flavour == DEADLOCKS && !one_in(3) ? LKM_PWMODE + below(2) : below(6);
    // The value handed over with a conversion that is refused with EBUSY may come back with an earlier one.
    bool waits = known[request->session][request->lock].waits;
    request->flags = lock_flags(true, known[request->session][request->lock].values && !waits);
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
        if (flavour == DEATHS && one_in(15)) {
            request->verb = DIE;
            return true;
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

void random_result(const struct request *request, const struct reply *replies, bool living[SESSIONS])
{
    int who = request->session;
    if (request->verb == LOCK && replies[who].error == 0) {
        known[who][request->lock].there = known[who][request->lock].waits = true;
        known[who][request->lock].held = false;
        known[who][request->lock].values = request->flags & LKF_VALBLK;
        known[who][request->lock].mode = request->mode;
    } else if (request->verb == CONVERT && replies[who].error == 0) {
        known[who][request->lock].waits = true;
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
            if (event->status == 0)
                known[i][event->lock].held = true;
            else if (event->status == EUNLOCK || !known[i][event->lock].held)
                known[i][event->lock].there = false;
        }
    }
}
