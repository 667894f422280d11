/* Arguments that no program should pass: errors, not crashes. Needs no daemon. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <libdlm.h>

#define FAILS(number, call) do { \
        errno = 0; \
        if ((call) != -1 || errno != (number)) { \
            printf("%s: errno %d instead of %d\n", #call, errno, (number)); \
            return 1; \
        } } while (0)
#define IS_NULL(number, call) do { \
        errno = 0; \
        if ((call) != 0 || errno != (number)) { \
            printf("%s: errno %d instead of %d\n", #call, errno, (number)); \
            return 1; \
        } } while (0)

int main(void)
{
    struct dlm_lksb lksb;
    dlm_lshandle_t none = (dlm_lshandle_t)4711;
    memset(&lksb, 0, sizeof lksb);

    IS_NULL(EINVAL, dlm_create_lockspace(NULL, 0600));
    IS_NULL(EINVAL, dlm_new_lockspace("", 0600, 0));
    IS_NULL(EINVAL, dlm_open_lockspace("a/b"));
    IS_NULL(ENOTCONN, dlm_open_lockspace("alpha"));
    FAILS(EINVAL, dlm_close_lockspace(NULL));
    FAILS(EINVAL, dlm_close_lockspace(none));
    FAILS(EINVAL, dlm_release_lockspace(NULL, NULL, 0));
    FAILS(EINVAL, dlm_ls_get_fd(NULL));
    FAILS(EBADF, dlm_dispatch(-1));
    FAILS(EBADF, dlm_dispatch(0));
    FAILS(EINVAL, dlm_ls_lock(NULL, LKM_EXMODE, &lksb, 0, "a", 1, 0, (void *)1, NULL, NULL, NULL));
    FAILS(EINVAL, dlm_ls_lock(none, LKM_EXMODE, NULL, 0, "a", 1, 0, (void *)1, NULL, NULL, NULL));
    FAILS(EINVAL, dlm_ls_lock(none, LKM_EXMODE, &lksb, 0, "a", 1, 0, NULL, NULL, NULL, NULL));
    FAILS(EINVAL, dlm_ls_lock(none, LKM_EXMODE, &lksb, 0, NULL, 1, 0, (void *)1, NULL, NULL, NULL));
    FAILS(EINVAL, dlm_ls_lock(none, LKM_EXMODE, &lksb, LKF_VALBLK, "a", 1, 0, (void *)1, NULL, NULL, NULL));
    FAILS(EINVAL, dlm_ls_lock_wait(none, LKM_EXMODE, &lksb, 0, "a", 1, 0, NULL, NULL, NULL));
    FAILS(EINVAL, dlm_ls_lockx(none, LKM_EXMODE, &lksb, 0, "a", 65, 0, (void *)1, NULL, NULL, NULL, NULL));
    FAILS(ENOTCONN, dlm_lock(LKM_EXMODE, &lksb, 0, "a", 1, 0, (void *)1, NULL, NULL, NULL));
    FAILS(ENOTCONN, dlm_lock_wait(LKM_EXMODE, &lksb, 0, "a", 1, 0, NULL, NULL, NULL));
    FAILS(ENOTCONN, dlm_unlock(1, 0, &lksb, NULL));
    FAILS(ENOTCONN, dlm_unlock_wait(1, 0, &lksb));
    FAILS(ENOTCONN, dlm_ls_unlock(NULL, 1, 0, &lksb, NULL));
    FAILS(EINVAL, dlm_ls_unlock(none, 0, 0, &lksb, NULL));
    FAILS(EINVAL, dlm_ls_unlock_wait(none, 1, 0, NULL));
    FAILS(ENOTCONN, dlm_ls_deadlock_cancel(NULL, 1, 0));
    FAILS(EINVAL, dlm_ls_deadlock_cancel(none, 0, 0));
    FAILS(ENOTCONN, dlm_ls_purge(NULL, 0, 0));
    FAILS(ENOTCONN, dlm_get_fd());
    FAILS(ENOTCONN, dlm_kernel_version(NULL, NULL, NULL));
    dlm_library_version(NULL, NULL, NULL);
#ifdef _REENTRANT
    int lockid = 0;
    FAILS(EINVAL, dlm_ls_pthread_init(NULL));
    FAILS(ENOTCONN, dlm_pthread_init());
    FAILS(ENOTCONN, lock_resource("a", LKM_EXMODE, 0, &lockid));
    FAILS(ENOTCONN, unlock_resource(1));
    if (dlm_pthread_cleanup() != 0)
        return 1;
#endif
    return 0;
}
