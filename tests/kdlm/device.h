/* Apart from the rest, since libdlm.h and linux/dlm_device.h cannot be included together. */
#ifndef KDLM_DEVICE_H
#define KDLM_DEVICE_H

/* The lockspace whose BASTs are looked at. */
extern int lockspace_descriptor;
/* The mode of the last one; -1: none was seen. */
extern int last_bast_mode;

#endif
