/* Compiled with Debian's libdlm.h where there is one, and with ours: what both must agree on, one fact a line. */
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>
#include <libdlm.h>

#define NUMBER(what) printf("%s %lld\n", #what, (long long)(what))
#define OFFSET(field) printf("%s %zu %zu\n", #field, offsetof(struct dlm_lksb, field), sizeof(((struct dlm_lksb *)0)->field))
/* The signature, checked by the compiler; the address, by the linker. */
#define FUNCTION(type, name, arguments) do { type (*f) arguments = name; printf("%s %d\n", #name, f != 0); } while (0)

typedef void (*routine)(void *);

int main(void)
{
    NUMBER(sizeof(struct dlm_lksb));
    OFFSET(sb_status); OFFSET(sb_lkid); OFFSET(sb_flags); OFFSET(sb_lvbptr);
    NUMBER(DLM_LVB_LEN); NUMBER(DLM_LOCKSPACE_LEN); NUMBER(DLM_RESNAME_MAXLEN);
    NUMBER(LKM_NLMODE); NUMBER(LKM_CRMODE); NUMBER(LKM_CWMODE); NUMBER(LKM_PRMODE); NUMBER(LKM_PWMODE); NUMBER(LKM_EXMODE);
    NUMBER(LKF_NOQUEUE); NUMBER(LKF_CANCEL); NUMBER(LKF_CONVERT); NUMBER(LKF_VALBLK); NUMBER(LKF_QUECVT);
    NUMBER(LKF_IVVALBLK); NUMBER(LKF_CONVDEADLK); NUMBER(LKF_PERSISTENT); NUMBER(LKF_NODLCKWT); NUMBER(LKF_NODLCKBLK);
    NUMBER(LKF_EXPEDITE); NUMBER(LKF_NOQUEUEBAST); NUMBER(LKF_HEADQUE); NUMBER(LKF_NOORDER); NUMBER(LKF_ORPHAN);
    NUMBER(LKF_ALTPR); NUMBER(LKF_ALTCW); NUMBER(LKF_FORCEUNLOCK); NUMBER(LKF_TIMEOUT); NUMBER(LKF_WAIT);
    NUMBER(DLM_SBF_DEMOTED); NUMBER(DLM_SBF_VALNOTVALID); NUMBER(DLM_SBF_ALTMODE);
    NUMBER(DLM_LSFL_TIMEWARN); NUMBER(DLM_LSFL_FS); NUMBER(DLM_LSFL_NEWEXCL);
    NUMBER(ECANCEL); NUMBER(EUNLOCK); NUMBER(EINPROG);
    FUNCTION(int, dlm_kernel_version, (uint32_t *, uint32_t *, uint32_t *));
    FUNCTION(void, dlm_library_version, (uint32_t *, uint32_t *, uint32_t *));
    FUNCTION(int, dlm_lock, (uint32_t, struct dlm_lksb *, uint32_t, const void *, unsigned int, uint32_t, routine, void *, routine, void *));
    FUNCTION(int, dlm_lock_wait, (uint32_t, struct dlm_lksb *, uint32_t, const void *, unsigned int, uint32_t, void *, routine, void *));
    FUNCTION(int, dlm_unlock, (uint32_t, uint32_t, struct dlm_lksb *, void *));
    FUNCTION(int, dlm_unlock_wait, (uint32_t, uint32_t, struct dlm_lksb *));
    FUNCTION(int, dlm_get_fd, (void));
    FUNCTION(int, dlm_dispatch, (int));
    FUNCTION(dlm_lshandle_t, dlm_create_lockspace, (const char *, mode_t));
    FUNCTION(dlm_lshandle_t, dlm_new_lockspace, (const char *, mode_t, uint32_t));
    FUNCTION(dlm_lshandle_t, dlm_open_lockspace, (const char *));
    FUNCTION(int, dlm_release_lockspace, (const char *, dlm_lshandle_t, int));
    FUNCTION(int, dlm_close_lockspace, (dlm_lshandle_t));
    FUNCTION(int, dlm_ls_get_fd, (dlm_lshandle_t));
    FUNCTION(int, dlm_ls_lock, (dlm_lshandle_t, uint32_t, struct dlm_lksb *, uint32_t, const void *, unsigned int, uint32_t, routine, void *, routine, void *));
    FUNCTION(int, dlm_ls_lockx, (dlm_lshandle_t, uint32_t, struct dlm_lksb *, uint32_t, const void *, unsigned int, uint32_t, routine, void *, routine, uint64_t *, uint64_t *));
    FUNCTION(int, dlm_ls_unlock, (dlm_lshandle_t, uint32_t, uint32_t, struct dlm_lksb *, void *));
    FUNCTION(int, dlm_ls_lock_wait, (dlm_lshandle_t, uint32_t, struct dlm_lksb *, uint32_t, const void *, unsigned int, uint32_t, void *, routine, void *));
    FUNCTION(int, dlm_ls_unlock_wait, (dlm_lshandle_t, uint32_t, uint32_t, struct dlm_lksb *));
    FUNCTION(int, dlm_ls_deadlock_cancel, (dlm_lshandle_t, uint32_t, uint32_t));
    FUNCTION(int, dlm_ls_purge, (dlm_lshandle_t, int, int));
#ifdef _REENTRANT
    FUNCTION(int, dlm_pthread_init, (void));
    FUNCTION(int, dlm_ls_pthread_init, (dlm_lshandle_t));
    FUNCTION(int, dlm_pthread_cleanup, (void));
    FUNCTION(int, lock_resource, (const char *, int, int, int *));
    FUNCTION(int, unlock_resource, (int));
#endif
    return 0;
}
