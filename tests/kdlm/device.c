/*
 * The mode of a BAST is in what the kernel's device says, and libdlm keeps it to itself. So the program has a read() of its
 * own, which the dynamic linker gives to libdlm_lt too. (mxlock's library has no such device, and says no mode.)
 */
#include <linux/dlm_device.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>
#include "device.h"

int lockspace_descriptor = -1;
int last_bast_mode = -1;

ssize_t read(int fd, void *buffer, size_t size)
{
    ssize_t got = syscall(SYS_read, fd, buffer, size);
    if (fd == lockspace_descriptor && got >= (ssize_t)sizeof(struct dlm_lock_result))
        last_bast_mode = ((struct dlm_lock_result *)buffer)->bast_mode;
    return got;
}

/* What a hardened libdlm calls. */
ssize_t __read_chk(int fd, void *buffer, size_t size, size_t room)
{
    if (size > room)
        abort();
    return read(fd, buffer, size);
}
