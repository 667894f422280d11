/*
 * kdlm play < SCRIPTS            plays scripts; prints them with what came of each request
 * kdlm random FIRST COUNT STEPS  makes scripts up, each from its number, as it plays them
 *
 * One program for the kernel DLM and for mxlock: it calls libdlm_lt, and which one that is, the dynamic linker says. With
 * mxlock, MXLOCK_SOCKETS names the daemons' sockets, separated by colons, which the sessions take in turn.
 *
 * A text has comments (# ...) and scripts; a script begins with its name (## NAME) and has a request on each line (words.c).
 * Behind " -> " is what came of it: what the call returned, then what each session was told before everybody was quiet. A
 * text that has these results already is told them as well: then, all that they promise is waited for.
 *
 * What one session is told of one lock is in order; of several locks, it is sorted by their numbers.
 */
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "kdlm.h"

struct command { struct request request; int expected; };

static struct { pid_t pid, last; int pipe; } processes[SESSIONS];
static char script[40];
static int line_number;

static void refuse(const char *why)
{
    fprintf(stderr, "kdlm: line %d: %s\n", line_number, why);
    exit(65);
}

/* The socket of a session, if there is a list of them. */
static void choose_daemon(int letter)
{
    const char *list = getenv("MXLOCK_SOCKETS");
    char copy[LINE], *sockets[SESSIONS], *rest = NULL;
    int count = 0;
    if (!list)
        return;
    snprintf(copy, sizeof copy, "%s", list);
    for (char *word = strtok_r(copy, ":", &rest); word && count < SESSIONS; word = strtok_r(NULL, ":", &rest))
        sockets[count++] = word;
    if (count)
        setenv("MXLOCK_SOCKET", sockets[letter % count], 1);
}

static void start(int letter)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends)) {
        perror("kdlm: socketpair");
        exit(1);
    }
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        for (int i = 0; i < SESSIONS; i++)
            if (processes[i].pid)
                close(processes[i].pipe);
        choose_daemon(letter);
        session(ends[1], ends[1], script, letter);
    }
    close(ends[1]);
    processes[letter].pid = processes[letter].last = pid;
    processes[letter].pipe = ends[0];
    // One after the other: of two that create the lockspace at once, the kernel refuses one.
    char ready;
    if (read(ends[0], &ready, 1) != 1) {
        fprintf(stderr, "kdlm: script %s: session %c does not start\n", script, 'A' + letter);
        exit(1);
    }
}

static void ask(int letter, const struct request *request, int expected, struct reply *reply)
{
    struct command command = { *request, expected };
    if (write(processes[letter].pipe, &command, sizeof command) != sizeof command ||
        read(processes[letter].pipe, reply, sizeof *reply) != sizeof *reply) {
        fprintf(stderr, "kdlm: script %s, line %d: session %c has ended\n", script, line_number, 'A' + letter);
        exit(1);
    }
}

static void end(int letter)
{
    kill(processes[letter].pid, SIGKILL);
    waitpid(processes[letter].pid, NULL, 0);
    close(processes[letter].pipe);
    processes[letter].pid = 0;
}

static void end_all(void)
{
    for (int i = 0; i < SESSIONS; i++)
        if (processes[i].pid)
            end(i);
}

static void begin(const char *name)
{
    end_all();
    snprintf(script, sizeof script, "%s", name);
    for (int i = 0; i < SESSIONS; i++)
        start(i);
}

/* How many events of a session a result promises. */
static int promised(const char *result, int letter)
{
    int count = 0;
    for (; result && (result = strstr(result, ", ")); result += 2)
        count += result[2] == 'A' + letter && isdigit((unsigned char)result[3]);
    return count;
}

static int by_lock(const void *a, const void *b)
{
    const struct event *const *one = a, *const *two = b;
    if ((*one)->lock != (*two)->lock)
        return (*one)->lock - (*two)->lock;
    return *one < *two ? -1 : 1;
}

/* Does it and prints it with its result. */
static void play(struct request *request, const char *expected, struct reply replies[SESSIONS])
{
    char text[LINE];
    struct reply done = { 0 };
    int who = request->session;
    print(request, text, sizeof text);
    if (request->verb == START) {
        if (processes[who].pid)
            refuse("the session is there");
        start(who);
    } else if (!processes[who].pid) {
        refuse("the session is not there: start it");
    } else if (request->verb == DIE) {
        end(who);
        // Whoever is left waits until the death is known.
        request->lock = who;
        for (int i = 0; i < SESSIONS; i++)
            if (processes[i].pid) {
                ask(i, request, -2, &done);
                break;
            }
    } else {
        if (request->verb == PURGE)
            request->pid = request->process < 0 ? 0 : processes[request->process].last;
        ask(who, request, -2, &done);
    }
    printf("%s -> %s", text, status_name(done.error));
    for (int i = 0; i < SESSIONS; i++) {
        const struct event *sorted[EVENTS];
        replies[i].events = 0;
        if (!processes[i].pid)
            continue;
        ask(i, request, promised(expected, i), &replies[i]);
        if (i == who)
            replies[i].error = done.error;
        for (int e = 0; e < replies[i].events; e++)
            sorted[e] = &replies[i].event[e];
        qsort(sorted, (size_t)replies[i].events, sizeof sorted[0], by_lock);
        for (int e = 0; e < replies[i].events; e++) {
            print_event(i, sorted[e], text, sizeof text);
            printf(", %s", text);
        }
    }
    putchar('\n');
}

static void play_text(void)
{
    char line[LINE];
    while (fgets(line, sizeof line, stdin)) {
        struct request request;
        struct reply replies[SESSIONS];
        const char *why;
        line_number++;
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "## ", 3))
            begin(line + 3);
        if (!*line || *line == '#') {
            puts(line);
            continue;
        }
        char *result = strstr(line, " -> ");
        if (result)
            *result = 0;
        if (!parse(line, &request, &why))
            refuse(why);
        play(&request, result ? result + 4 : NULL, replies);
    }
    end_all();
}

static void make_up(int number, int steps)
{
    char name[40];
    struct request request;
    struct reply replies[SESSIONS];
    bool alive[SESSIONS];
    snprintf(name, sizeof name, "random-%03d", number);
    printf("## %s\n", name);
    begin(name);
    random_start((unsigned long long)number);
    while (steps-- > 0 && random_request(&request)) {
        play(&request, NULL, replies);
        for (int i = 0; i < SESSIONS; i++)
            alive[i] = processes[i].pid != 0;
        random_result(&request, replies, alive);
    }
    end_all();
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc == 2 && !strcmp(argv[1], "play")) {
        play_text();
    } else if (argc == 5 && !strcmp(argv[1], "random")) {
        for (int i = 0; i < atoi(argv[3]); i++)
            make_up(atoi(argv[2]) + i, atoi(argv[4]));
    } else {
        fprintf(stderr, "usage: kdlm play < SCRIPTS | kdlm random FIRST COUNT STEPS\n");
        return 64;
    }
    return fflush(stdout) ? 1 : 0;
}
