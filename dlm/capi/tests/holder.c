/* Holds an EX lock in lockspace "alpha" without calling anything, until its input ends: a program that sits on its locks. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <libdlm.h>

int main(int argc, char **argv)
{
    struct dlm_lksb lksb;
    char byte;
    memset(&lksb, 0, sizeof lksb);
    if (argc != 2)
        return 64;
    dlm_lshandle_t ls = dlm_create_lockspace("alpha", 0600);
    if (!ls || dlm_ls_lock_wait(ls, LKM_EXMODE, &lksb, 0, argv[1], strlen(argv[1]), 0, NULL, NULL, NULL) != 0) {
        perror("holder");
        return 1;
    }
    puts("held");
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    if (dlm_ls_unlock_wait(ls, lksb.sb_lkid, 0, &lksb) != 0 || lksb.sb_status != EUNLOCK) {
        perror("holder");
        return 1;
    }
    return dlm_release_lockspace("alpha", ls, 1);
}
