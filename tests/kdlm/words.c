/* The text of scripts and transcripts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "kdlm.h"

const struct names modes[] = {
    { "NL", 0 }, { "CR", 1 }, { "CW", 2 }, { "PR", 3 }, { "PW", 4 }, { "EX", 5 }, { "M6", 6 }, { NULL, 0 },
};

const struct names flags[] = {
    { "NOQUEUE", LKF_NOQUEUE }, { "CANCEL", LKF_CANCEL }, { "CONVERT", LKF_CONVERT }, { "VALBLK", LKF_VALBLK },
    { "QUECVT", LKF_QUECVT }, { "IVVALBLK", LKF_IVVALBLK }, { "CONVDEADLK", LKF_CONVDEADLK },
    { "PERSISTENT", LKF_PERSISTENT }, { "NODLCKWT", LKF_NODLCKWT }, { "NODLCKBLK", LKF_NODLCKBLK },
    { "EXPEDITE", LKF_EXPEDITE }, { "NOQUEUEBAST", LKF_NOQUEUEBAST }, { "HEADQUE", LKF_HEADQUE },
    { "NOORDER", LKF_NOORDER }, { "ORPHAN", LKF_ORPHAN }, { "ALTPR", LKF_ALTPR }, { "ALTCW", LKF_ALTCW },
    { "FORCEUNLOCK", LKF_FORCEUNLOCK }, { NULL, 0 },
};

const struct names verbs[] = {
    { "lock", LOCK }, { "conv", CONVERT }, { "unlock", UNLOCK }, { "cancel", CANCEL },
    { "deadlock-cancel", DEADLOCK_CANCEL }, { "purge", PURGE }, { "die", DIE }, { "start", START }, { NULL, 0 },
};

static const struct names statuses[] = {
    { "0", 0 }, { "EAGAIN", EAGAIN }, { "EBUSY", EBUSY }, { "EDEADLK", EDEADLK }, { "EINVAL", EINVAL },
    { "ENOENT", ENOENT }, { "ETIMEDOUT", ETIMEDOUT }, { "ECANCEL", ECANCEL }, { "EUNLOCK", EUNLOCK },
    { "EINPROG", EINPROG }, { "TAKEN", EEXIST }, { NULL, 0 },
};

static const struct names results[] = {
    { "DEMOTED", DLM_SBF_DEMOTED }, { "VALNOTVALID", DLM_SBF_VALNOTVALID }, { "ALTMODE", DLM_SBF_ALTMODE }, { NULL, 0 },
};

const char *name_of(const struct names *names, int number)
{
    for (; names->name; names++)
        if (names->number == number)
            return names->name;
    return "?";
}

const char *status_name(int status)
{
    static char other[16];
    const char *name = name_of(statuses, status);
    if (*name != '?')
        return name;
    snprintf(other, sizeof other, "%d", status);
    return other;
}

static bool number_of(const struct names *names, const char *word, int *number)
{
    for (; word && names->name; names++)
        if (!strcmp(names->name, word))
            return *number = names->number, true;
    return false;
}

static bool small(const char *word, int *number, int end)
{
    char *rest = NULL;
    long value = word ? strtol(word, &rest, 10) : -1;
    *number = (int)value;
    return rest && !*rest && value >= 0 && value < end;
}

static bool letter(const char *word, int *session)
{
    *session = word ? word[0] - 'A' : -1;
    return word && !word[1] && *session >= 0 && *session < SESSIONS;
}

/*
 * SESSION lock LOCK MODE RESOURCE [FLAG | v=HEX]...
 * SESSION conv LOCK MODE [FLAG | v=HEX]...
 * SESSION unlock LOCK [FLAG | v=HEX]...
 * SESSION cancel|deadlock-cancel LOCK [FLAG]...
 * SESSION purge NODE SESSION|0
 * SESSION die|start
 */
bool parse(const char *line, struct request *request, const char **why)
{
    char copy[LINE], *rest = NULL, *word;
    int verb;
    memset(request, 0, sizeof *request);
    request->value = -1;
    snprintf(copy, sizeof copy, "%s", line);
    *why = "a line begins with a session, A to C";
    if (!letter(strtok_r(copy, " \n", &rest), &request->session))
        return false;
    *why = "there is no such request";
    if (!number_of(verbs, strtok_r(NULL, " \n", &rest), &verb))
        return false;
    request->verb = (enum verb)verb;
    if (verb == PURGE) {
        *why = "purge takes a node and a session or 0";
        if (!small(strtok_r(NULL, " \n", &rest), &request->node, 64))
            return false;
        word = strtok_r(NULL, " \n", &rest);
        request->process = -1;
        if (!word || (strcmp(word, "0") && !letter(word, &request->process)))
            return false;
    } else if (verb != DIE && verb != START) {
        *why = "a lock has a number from 1 to 9";
        if (!small(strtok_r(NULL, " \n", &rest), &request->lock, LOCKS) || !request->lock)
            return false;
    }
    *why = "there is no such mode";
    if ((verb == LOCK || verb == CONVERT) && !number_of(modes, strtok_r(NULL, " \n", &rest), &request->mode))
        return false;
    if (verb == LOCK) {
        *why = "a resource is r0 to r99";
        word = strtok_r(NULL, " \n", &rest);
        if (!word || *word != 'r' || !small(word + 1, &request->resource, 100))
            return false;
    }
    *why = "there is no such flag";
    while ((word = strtok_r(NULL, " \n", &rest))) {
        int flag;
        if (!strncmp(word, "v=", 2))
            request->value = (int)strtol(word + 2, NULL, 16) & 0xff;
        else if (number_of(flags, word, &flag))
            request->flags |= (unsigned)flag;
        else
            return false;
    }
    return true;
}

#define ADD(...) (used += (size_t)snprintf(line + used, used < size ? size - used : 0, __VA_ARGS__))

void print(const struct request *request, char *line, size_t size)
{
    size_t used = 0;
    ADD("%c %s", 'A' + request->session, name_of(verbs, request->verb));
    if (request->verb == DIE || request->verb == START)
        return;
    if (request->verb == PURGE) {
        ADD(" %d %c", request->node, request->process < 0 ? '0' : 'A' + request->process);
        return;
    }
    ADD(" %d", request->lock);
    if (request->verb == LOCK || request->verb == CONVERT)
        ADD(" %s", name_of(modes, request->mode));
    if (request->verb == LOCK)
        ADD(" r%d", request->resource);
    for (const struct names *flag = flags; flag->name; flag++)
        if (request->flags & (unsigned)flag->number)
            ADD(" %s", flag->name);
    if (request->value >= 0)
        ADD(" v=%02x", request->value);
}

void print_event(int session, const struct event *event, char *line, size_t size)
{
    size_t used = 0;
    ADD("%c%d ", 'A' + session, event->lock);
    if (event->blocking) {
        ADD("bast %s", name_of(modes, event->mode));
        return;
    }
    ADD("ast %s", status_name(event->status));
    for (const struct names *flag = results; flag->name; flag++)
        if (event->flags & flag->number)
            ADD(" %s", flag->name);
    if (!event->has_value)
        return;
    bool same = true;
    for (int i = 1; i < DLM_LVB_LEN; i++)
        same &= event->value[i] == event->value[0];
    // Scripts name values of equal bytes. Anything else is what happened to be in the memory of libdlm.
    if (same)
        ADD(" v=%02x", event->value[0]);
    else
        ADD(" v=?");
}
