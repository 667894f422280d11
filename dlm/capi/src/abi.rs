//! The binary interface of libdlm.so.3: structures, flags and status codes, as libdlm.h of Debian's libdlm-dev 4.2 has
//! them.

use libc::{c_char, c_int, c_void};
use mxlock_client::{LockFlags, Mode};

/// Bytes of a value block.
pub const DLM_LVB_LEN: usize = 32;
/// Longest name of a lockspace.
pub const DLM_LOCKSPACE_LEN: usize = 64;
/// Longest name of a resource.
pub const DLM_RESNAME_MAXLEN: usize = 64;

/// `struct dlm_lksb`: where the caller finds out what became of its request.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Lksb {
    pub sb_status: c_int,
    pub sb_lkid: u32,
    pub sb_flags: c_char,
    pub sb_lvbptr: *mut c_char,
}

/// A program's status block. Programs exist that put it at any address (lvmlockd), so it is never referred to as a whole, and
/// its fields are read and written without regard to alignment. 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LksbAt(pub usize);

impl LksbAt {
    fn pointer(self) -> *mut Lksb {
        std::ptr::with_exposed_provenance_mut(self.0)
    }

    /// The lock id in it.
    ///
    /// # Safety
    /// There is a status block.
    pub unsafe fn lkid(self) -> u32 {
        // SAFETY: the caller's word.
        unsafe { (&raw const (*self.pointer()).sb_lkid).read_unaligned() }
    }

    /// A copy of the value that it points to.
    ///
    /// # Safety
    /// There is a status block, whose `sb_lvbptr` is null or points to 32 bytes.
    pub unsafe fn value(self) -> Option<[u8; DLM_LVB_LEN]> {
        // SAFETY: the caller's word.
        unsafe {
            let buffer = (&raw const (*self.pointer()).sb_lvbptr).read_unaligned().cast::<[u8; DLM_LVB_LEN]>();
            if buffer.is_null() { None } else { Some(buffer.read()) }
        }
    }

    /// Marks it as that of an operation under way, of the lock `lkid` if that is new.
    ///
    /// # Safety
    /// There is a status block, or none at 0.
    pub unsafe fn begin(self, lkid: Option<u32>) {
        if self.0 == 0 {
            return;
        }
        // SAFETY: the caller's word.
        unsafe {
            if let Some(lkid) = lkid {
                (&raw mut (*self.pointer()).sb_lkid).write_unaligned(lkid);
            }
            (&raw mut (*self.pointer()).sb_status).write_unaligned(EINPROG);
        }
    }

    /// Says how an operation has ended; the status comes last, since programs look for it.
    ///
    /// # Safety
    /// There is a status block, or none at 0; where a value is told, its `sb_lvbptr` is null or points to 32 bytes.
    pub unsafe fn end(self, lkid: u32, status: c_int, flags: c_char, value: Option<&[u8; DLM_LVB_LEN]>) {
        if self.0 == 0 {
            return;
        }
        // SAFETY: the caller's word.
        unsafe {
            if let Some(value) = value {
                let buffer = (&raw const (*self.pointer()).sb_lvbptr).read_unaligned();
                if !buffer.is_null() {
                    std::ptr::copy_nonoverlapping(value.as_ptr(), buffer.cast::<u8>(), DLM_LVB_LEN);
                }
            }
            (&raw mut (*self.pointer()).sb_lkid).write_unaligned(lkid);
            (&raw mut (*self.pointer()).sb_flags).write_unaligned(flags);
            std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
            (&raw mut (*self.pointer()).sb_status).write_unaligned(status);
        }
    }
}

/// `struct dlm_range`: which bytes, the last one included. (The original takes the argument and refuses it.)
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Range {
    pub ra_start: u64,
    pub ra_end: u64,
}

/// The lock was granted after its conversion had given up what it held.
pub const DLM_SBF_DEMOTED: c_char = 0x01;
/// The value block cannot be trusted.
pub const DLM_SBF_VALNOTVALID: c_char = 0x02;
/// The lock was granted in its alternative mode.
pub const DLM_SBF_ALTMODE: c_char = 0x04;

/// `dlm_new_lockspace`: it must not exist yet.
pub const DLM_LSFL_NEWEXCL: u32 = 0x0000_0008;

/// `LKF_*`.
#[allow(missing_docs)]
pub mod lkf {
    pub const NOQUEUE: u32 = 0x0000_0001;
    pub const CANCEL: u32 = 0x0000_0002;
    pub const CONVERT: u32 = 0x0000_0004;
    pub const VALBLK: u32 = 0x0000_0008;
    pub const QUECVT: u32 = 0x0000_0010;
    pub const IVVALBLK: u32 = 0x0000_0020;
    pub const CONVDEADLK: u32 = 0x0000_0040;
    pub const PERSISTENT: u32 = 0x0000_0080;
    pub const NODLCKWT: u32 = 0x0000_0100;
    pub const NODLCKBLK: u32 = 0x0000_0200;
    pub const EXPEDITE: u32 = 0x0000_0400;
    pub const NOQUEUEBAST: u32 = 0x0000_0800;
    pub const HEADQUE: u32 = 0x0000_1000;
    pub const NOORDER: u32 = 0x0000_2000;
    pub const ORPHAN: u32 = 0x0000_4000;
    pub const ALTPR: u32 = 0x0000_8000;
    pub const ALTCW: u32 = 0x0001_0000;
    pub const FORCEUNLOCK: u32 = 0x0002_0000;
    pub const TIMEOUT: u32 = 0x0004_0000;
    pub const WAIT: u32 = 0x8000_0000;
}

/// The request or conversion was cancelled.
pub const ECANCEL: c_int = 0x10001;
/// The lock is no more, as was asked for.
pub const EUNLOCK: c_int = 0x10002;
/// It has not ended yet.
pub const EINPROG: c_int = 0x10003;

/// What the original reports of a kernel without the fault in value blocks that 6.0.1 has.
pub const KERNEL_VERSION: [u32; 3] = [6, 0, 2];

/// The flags of a request or conversion in the words of mxlockd. The others are not the lock table's business.
pub fn lock_flags(flags: u32) -> LockFlags {
    const PAIRS: [(u32, LockFlags); 13] = [
        (lkf::NOQUEUE, LockFlags::NOQUEUE),
        (lkf::QUECVT, LockFlags::QUECVT),
        (lkf::IVVALBLK, LockFlags::IVVALBLK),
        (lkf::CONVDEADLK, LockFlags::CONVDEADLK),
        (lkf::NODLCKWT, LockFlags::NODLCKWT),
        (lkf::NODLCKBLK, LockFlags::NODLCKBLK),
        (lkf::EXPEDITE, LockFlags::EXPEDITE),
        (lkf::NOQUEUEBAST, LockFlags::NOQUEUEBAST),
        (lkf::HEADQUE, LockFlags::HEADQUE),
        (lkf::NOORDER, LockFlags::NOORDER),
        (lkf::ALTPR, LockFlags::ALTPR),
        (lkf::ALTCW, LockFlags::ALTCW),
        (lkf::PERSISTENT, LockFlags::PERSISTENT),
    ];
    PAIRS.iter().filter(|(flag, _)| flags & flag != 0).fold(LockFlags::NONE, |all, (_, ours)| all | *ours)
}

/// `LKM_*MODE`.
pub fn mode(number: u32) -> Option<Mode> {
    Mode::from_number(u8::try_from(number).ok()?)
}

/// The opaque handle of an open lockspace.
pub type Handle = *mut c_void;
