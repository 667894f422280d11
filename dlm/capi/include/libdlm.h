/*
 * libdlm.h - the interface of libdlm.so.3 and libdlm_lt.so.3, as mxlock's libraries of these names have it.
 *
 * Programs built with this header run with the libraries of the kernel DLM as well, and the other way round; only struct dlm_range
 * is mxlock's own. Define _REENTRANT (as cc -pthread does) for what only libdlm.so.3 has. See docs/libdlm.md.
 */
#ifndef MXLOCK_LIBDLM_H
#define MXLOCK_LIBDLM_H

#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- limits ---- */

#define DLM_LVB_LEN 32        /* bytes of a value block */
#define DLM_LOCKSPACE_LEN 64  /* longest name of a lockspace */
#define DLM_RESNAME_MAXLEN 64 /* longest name of a resource, which may be any bytes */

/* ---- modes ---- */

#define LKM_NLMODE 0 /* null */
#define LKM_CRMODE 1 /* concurrent read */
#define LKM_CWMODE 2 /* concurrent write */
#define LKM_PRMODE 3 /* protected read */
#define LKM_PWMODE 4 /* protected write */
#define LKM_EXMODE 5 /* exclusive */

/* ---- flags of a call ---- */

#define LKF_NOQUEUE 0x00000001     /* EAGAIN instead of waiting */
#define LKF_CANCEL 0x00000002      /* unlock: end the request or conversion that waits */
#define LKF_CONVERT 0x00000004     /* sb_lkid gets another mode */
#define LKF_VALBLK 0x00000008      /* sb_lvbptr is read or written */
#define LKF_QUECVT 0x00000010      /* a conversion waits its turn */
#define LKF_IVVALBLK 0x00000020    /* the value block cannot be trusted any more */
#define LKF_CONVDEADLK 0x00000040  /* give up the old mode rather than deadlock */
#define LKF_PERSISTENT 0x00000080  /* outlives the process, as an orphan */
#define LKF_NODLCKWT 0x00000100    /* no victim of deadlock detection */
#define LKF_NODLCKBLK 0x00000200   /* blocks nobody in deadlock detection */
#define LKF_EXPEDITE 0x00000400    /* NL only: at once */
#define LKF_NOQUEUEBAST 0x00000800 /* with NOQUEUE: blocking notices all the same */
#define LKF_HEADQUE 0x00001000     /* at the head of the queue */
#define LKF_NOORDER 0x00002000     /* as soon as it is compatible */
#define LKF_ORPHAN 0x00004000      /* take over an orphan */
#define LKF_ALTPR 0x00008000       /* or else PR */
#define LKF_ALTCW 0x00010000       /* or else CW */
#define LKF_FORCEUNLOCK 0x00020000 /* unlock whatever is under way */
#define LKF_TIMEOUT 0x00040000     /* dlm_ls_lockx: the timeout counts */
#define LKF_WAIT 0x80000000        /* return when it has ended */

/* ---- the status block ---- */

struct dlm_lksb {
    int sb_status;      /* 0, an errno, or one of the three below */
    uint32_t sb_lkid;   /* the lock */
    char sb_flags;      /* DLM_SBF_* */
    char *sb_lvbptr;    /* DLM_LVB_LEN bytes, with LKF_VALBLK */
};

#define DLM_SBF_DEMOTED 0x01     /* CONVDEADLK has given up the old mode */
#define DLM_SBF_VALNOTVALID 0x02 /* the value block cannot be trusted */
#define DLM_SBF_ALTMODE 0x04     /* granted in the alternative mode */

#define ECANCEL 0x10001 /* cancelled */
#define EUNLOCK 0x10002 /* unlocked */
#define EINPROG 0x10003 /* under way */

/* The bytes that a lock covers, the last one included: for the `range` of dlm_lock() and its like. Null: all. */
struct dlm_range {
    uint64_t ra_start;
    uint64_t ra_end;
};

/* ---- versions ---- */

extern int dlm_kernel_version(uint32_t *major, uint32_t *minor, uint32_t *patch);
extern void dlm_library_version(uint32_t *major, uint32_t *minor, uint32_t *patch);

/* ---- lockspaces ---- */

typedef void *dlm_lshandle_t;

#define DLM_LSFL_TIMEWARN 0x00000002 /* has no effect */
#define DLM_LSFL_FS 0x00000004       /* has no effect */
#define DLM_LSFL_NEWEXCL 0x00000008  /* it must not exist yet */

/* Null and errno on failure. Creating and releasing are for those who may write the run directory of mxlockd. */
extern dlm_lshandle_t dlm_create_lockspace(const char *name, mode_t mode);
extern dlm_lshandle_t dlm_new_lockspace(const char *name, mode_t mode, uint32_t flags);
extern dlm_lshandle_t dlm_open_lockspace(const char *name);
extern int dlm_close_lockspace(dlm_lshandle_t lockspace);
extern int dlm_release_lockspace(const char *name, dlm_lshandle_t lockspace, int force);

/* ---- being told ---- */

/* The descriptor is readable while something waits for dlm_dispatch(), which calls the program's functions. */
extern int dlm_get_fd(void);
extern int dlm_ls_get_fd(dlm_lshandle_t lockspace);
extern int dlm_dispatch(int fd);

#ifdef _REENTRANT
/* Or a thread does so. */
extern int dlm_pthread_init(void);
extern int dlm_ls_pthread_init(dlm_lshandle_t lockspace);
extern int dlm_pthread_cleanup(void);
#endif

/* ---- locks of the default lockspace, which is created when it is used first ---- */

extern int dlm_lock(uint32_t mode, struct dlm_lksb *lksb, uint32_t flags, const void *name, unsigned int namelen,
                    uint32_t parent, void (*astaddr)(void *astarg), void *astarg, void (*bastaddr)(void *astarg),
                    void *range);
extern int dlm_lock_wait(uint32_t mode, struct dlm_lksb *lksb, uint32_t flags, const void *name, unsigned int namelen,
                         uint32_t parent, void *bastarg, void (*bastaddr)(void *bastarg), void *range);
extern int dlm_unlock(uint32_t lkid, uint32_t flags, struct dlm_lksb *lksb, void *astarg);
extern int dlm_unlock_wait(uint32_t lkid, uint32_t flags, struct dlm_lksb *lksb);

#ifdef _REENTRANT
extern int lock_resource(const char *resource, int mode, int flags, int *lockid);
extern int unlock_resource(int lockid);
#endif

/* ---- locks of a lockspace ---- */

extern int dlm_ls_lock(dlm_lshandle_t lockspace, uint32_t mode, struct dlm_lksb *lksb, uint32_t flags, const void *name,
                       unsigned int namelen, uint32_t parent, void (*astaddr)(void *astarg), void *astarg,
                       void (*bastaddr)(void *astarg), void *range);
extern int dlm_ls_lockx(dlm_lshandle_t lockspace, uint32_t mode, struct dlm_lksb *lksb, uint32_t flags, const void *name,
                        unsigned int namelen, uint32_t parent, void (*astaddr)(void *astarg), void *astarg,
                        void (*bastaddr)(void *astarg), uint64_t *xid, uint64_t *timeout);
extern int dlm_ls_lock_wait(dlm_lshandle_t lockspace, uint32_t mode, struct dlm_lksb *lksb, uint32_t flags,
                            const void *name, unsigned int namelen, uint32_t parent, void *bastarg,
                            void (*bastaddr)(void *bastarg), void *range);
extern int dlm_ls_unlock(dlm_lshandle_t lockspace, uint32_t lkid, uint32_t flags, struct dlm_lksb *lksb, void *astarg);
extern int dlm_ls_unlock_wait(dlm_lshandle_t lockspace, uint32_t lkid, uint32_t flags, struct dlm_lksb *lksb);
extern int dlm_ls_deadlock_cancel(dlm_lshandle_t lockspace, uint32_t lkid, uint32_t flags);
extern int dlm_ls_purge(dlm_lshandle_t lockspace, int nodeid, int pid);

#ifdef __cplusplus
}
#endif

#endif
