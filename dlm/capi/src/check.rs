//! Which arguments are refused at once, with which errno: the rules of the kernel DLM (fs/dlm/lock.c `set_lock_args`,
//! `set_unlock_args`, `__quecvt_compat_matrix`).

use crate::abi::lkf;
use mxlock_client::Mode;
use nix::errno::Errno;

/// The flags of a request, or of a conversion of a lock that holds `held`.
pub(crate) fn lock_flags(flags: u32, mode: Mode) -> Result<(), Errno> {
    let all = |set: u32| flags & set == set;
    let bad = all(lkf::CANCEL)
        || (flags & (lkf::QUECVT | lkf::CONVDEADLK) != 0 && !all(lkf::CONVERT))
        || all(lkf::CONVDEADLK | lkf::NOQUEUE)
        || (all(lkf::EXPEDITE) && (flags & (lkf::CONVERT | lkf::QUECVT | lkf::NOQUEUE) != 0 || mode != Mode::NL));
    if bad { Err(Errno::EINVAL) } else { Ok(()) }
}

/// QUECVT is for conversions to a mode that the held one does not cover.
pub(crate) fn conversion(flags: u32, held: Mode, mode: Mode) -> Result<(), Errno> {
    if flags & lkf::QUECVT != 0 && held.covers(mode) { Err(Errno::EINVAL) } else { Ok(()) }
}

/// The flags of an unlock or a cancellation.
pub(crate) fn unlock_flags(flags: u32) -> Result<(), Errno> {
    let known = lkf::CANCEL | lkf::VALBLK | lkf::IVVALBLK | lkf::FORCEUNLOCK | lkf::WAIT;
    let both = lkf::CANCEL | lkf::FORCEUNLOCK;
    if flags & !known != 0 || flags & both == both { Err(Errno::EINVAL) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// fs/dlm/lock.c, `set_lock_args`.
    #[test]
    fn requests_contradict_themselves_as_in_the_kernel() {
        let good = [
            (0, Mode::EX),
            (lkf::NOQUEUE | lkf::NOQUEUEBAST, Mode::PR),
            (lkf::EXPEDITE, Mode::NL),
            (lkf::CONVERT | lkf::QUECVT, Mode::EX),
            (lkf::CONVERT | lkf::CONVDEADLK | lkf::QUECVT, Mode::EX),
            (lkf::PERSISTENT | lkf::VALBLK | lkf::IVVALBLK | lkf::WAIT, Mode::PW),
        ];
        let bad = [
            (lkf::CANCEL, Mode::NL),
            (lkf::QUECVT, Mode::EX),
            (lkf::CONVDEADLK, Mode::EX),
            (lkf::CONVERT | lkf::CONVDEADLK | lkf::NOQUEUE, Mode::EX),
            (lkf::EXPEDITE | lkf::CONVERT, Mode::NL),
            (lkf::EXPEDITE | lkf::NOQUEUE, Mode::NL),
            (lkf::EXPEDITE, Mode::CR),
        ];
        assert!(good.iter().all(|&(flags, mode)| lock_flags(flags, mode).is_ok()));
        for (flags, mode) in bad {
            assert_eq!(lock_flags(flags, mode), Err(Errno::EINVAL), "{flags:#x} {mode:?}");
        }
    }

    /// fs/dlm/lock.c, `__quecvt_compat_matrix`: what it allows is exactly what the held mode does not cover.
    #[test]
    fn quecvt_is_for_conversions_that_go_up() {
        const ALLOWED: [[u8; 6]; 6] = [
            [0, 1, 1, 1, 1, 1],
            [0, 0, 1, 1, 1, 1],
            [0, 0, 0, 1, 1, 1],
            [0, 0, 1, 0, 1, 1],
            [0, 0, 0, 0, 0, 1],
            [0, 0, 0, 0, 0, 0],
        ];
        for (held, row) in ALLOWED.iter().enumerate() {
            for (wanted, allowed) in row.iter().enumerate() {
                let (held, wanted) = (Mode::from_number(held as u8).unwrap(), Mode::from_number(wanted as u8).unwrap());
                assert_eq!(conversion(lkf::QUECVT, held, wanted).is_ok(), *allowed == 1, "{held:?} to {wanted:?}");
                assert_eq!(conversion(0, held, wanted), Ok(()));
            }
        }
    }

    /// fs/dlm/lock.c, `set_unlock_args`.
    #[test]
    fn unlocks_take_four_flags() {
        for flags in [0, lkf::CANCEL, lkf::FORCEUNLOCK | lkf::IVVALBLK, lkf::VALBLK | lkf::WAIT] {
            assert_eq!(unlock_flags(flags), Ok(()));
        }
        for flags in [lkf::CANCEL | lkf::FORCEUNLOCK, lkf::NOQUEUE, lkf::PERSISTENT, 0x4000_0000] {
            assert_eq!(unlock_flags(flags), Err(Errno::EINVAL));
        }
    }
}
