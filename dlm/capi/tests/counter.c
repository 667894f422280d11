/*
 * Counts in the value block of a lock, with four threads of which each does so `argv[1]` times, then says what the count is, and keeps
 * the value alive until its input ends. Two of these count as far as both together, or the lock is none.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <libdlm.h>

static dlm_lshandle_t ls;
static int rounds;

static void *count(void *unused)
{
    (void)unused;
    for (int i = 0; i < rounds; i++) {
        char value[DLM_LVB_LEN];
        unsigned long number;
        struct dlm_lksb lksb;
        memset(&lksb, 0, sizeof lksb);
        lksb.sb_lvbptr = value;
        if (dlm_ls_lock_wait(ls, LKM_EXMODE, &lksb, LKF_VALBLK, "counter", 7, 0, NULL, NULL, NULL) != 0 ||
            lksb.sb_status != 0 || lksb.sb_flags != 0) {
            fprintf(stderr, "not locked: status %d, flags %d\n", lksb.sb_status, lksb.sb_flags);
            exit(1);
        }
        memcpy(&number, value, sizeof number);
        number++;
        memcpy(value, &number, sizeof number);
        if (dlm_ls_unlock_wait(ls, lksb.sb_lkid, LKF_VALBLK, &lksb) != 0 || lksb.sb_status != EUNLOCK) {
            fprintf(stderr, "not unlocked: status %d\n", lksb.sb_status);
            exit(1);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[4];
    char value[DLM_LVB_LEN], byte;
    struct dlm_lksb lksb;
    unsigned long number;
    if (argc != 2)
        return 64;
    rounds = atoi(argv[1]);
    memset(&lksb, 0, sizeof lksb);
    lksb.sb_lvbptr = value;
    ls = dlm_create_lockspace("alpha", 0600);
    if (!ls || dlm_ls_pthread_init(ls) != 0 ||
        dlm_ls_lock_wait(ls, LKM_NLMODE, &lksb, LKF_VALBLK, "counter", 7, 0, NULL, NULL, NULL) != 0 || lksb.sb_status != 0) {
        perror("counter");
        return 1;
    }
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, count, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    if (dlm_ls_lock_wait(ls, LKM_PRMODE, &lksb, LKF_CONVERT | LKF_VALBLK, "", 0, 0, NULL, NULL, NULL) != 0 ||
        lksb.sb_status != 0)
        return 1;
    memcpy(&number, value, sizeof number);
    /* Others still count. */
    if (dlm_ls_lock_wait(ls, LKM_NLMODE, &lksb, LKF_CONVERT, "", 0, 0, NULL, NULL, NULL) != 0 || lksb.sb_status != 0)
        return 1;
    printf("%lu\n", number);
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    return dlm_close_lockspace(ls);
}
