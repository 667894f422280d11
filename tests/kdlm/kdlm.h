/* Plays scripts of lock requests through libdlm_lt and notes what comes of each: see docs in kdlm.c. */
#ifndef KDLM_H
#define KDLM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <libdlm.h>

enum {
    SESSIONS = 3, /* processes, A to C */
    LOCKS = 10,   /* of each, 1 to 9 */
    EVENTS = 64,  /* of one session in one step */
    LINE = 4096,
};

enum verb { LOCK, CONVERT, UNLOCK, CANCEL, DEADLOCK_CANCEL, PURGE, DIE, START };

/* One line of a script. */
struct request {
    enum verb verb;
    int session;
    int lock;
    int mode;
    int resource;
    unsigned flags;
    int value;   /* every byte of the value block handed over; -1: none is named */
    int node;    /* PURGE */
    int process; /* PURGE: a session, whose process is meant; -1: pid 0 */
    pid_t pid;
};

/* What a session was told of a lock. */
struct event {
    int lock;
    bool blocking;
    int mode; /* of a BAST; -1: the library does not say */
    int status;
    int flags;
    bool has_value;
    unsigned char value[DLM_LVB_LEN];
};

/* What a session did and was told. */
struct reply {
    int error; /* errno, 0: the call succeeded */
    int events;
    struct event event[EVENTS];
};

struct names {
    const char *name;
    int number;
};

extern const struct names modes[], flags[], verbs[];

/* words.c: the text of scripts */
const char *name_of(const struct names *names, int number);
const char *status_name(int status);
bool parse(const char *line, struct request *request, const char **why);
void print(const struct request *request, char *line, size_t size);
void print_event(int session, const struct event *event, char *line, size_t size);

/* session.c: one process with one handle */
void session(int commands, int replies, const char *script, int letter);

/* random.c: what to do next, knowing what came of the rest */
void random_start(unsigned long long seed);
bool random_request(struct request *request);
void random_result(const struct request *request, const struct reply *replies, bool alive[SESSIONS]);

#endif
