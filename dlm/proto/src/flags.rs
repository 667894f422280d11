//! Flags of lock and convert requests: the kernel DLM's, by their names there.

use serde::{Deserialize, Serialize};

/// A set of request flags.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LockFlags(pub u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        impl LockFlags {
            $($(#[$doc])* pub const $name: LockFlags = LockFlags(1 << $bit);)*

            /// All flags and their names.
            pub const NAMES: &'static [(LockFlags, &'static str)] = &[$((LockFlags::$name, stringify!($name))),*];
        }
    };
}

flags! {
    /// Deny instead of queueing.
    NOQUEUE = 0;
    /// With NOQUEUE: still send blocking notices.
    NOQUEUEBAST = 1;
    /// A conversion waits its turn behind other conversions.
    QUECVT = 2;
    /// A conversion that would deadlock on its resource is demoted to NL and queued again.
    CONVDEADLK = 3;
    /// While this request waits, its owner may do other things: it counts for no deadlock, and is no victim of one.
    NODLCKWT = 4;
    /// Grant as soon as compatible, whatever the order.
    NOORDER = 5;
    /// NL only: grant at once.
    EXPEDITE = 6;
    /// Queue at the head.
    HEADQUE = 7;
    /// If the mode cannot be granted at once, try PR.
    ALTPR = 8;
    /// If the mode cannot be granted at once, try CW.
    ALTCW = 9;
    /// The lock outlives its owner: it becomes an orphan that others may adopt. With a conversion that is granted, from then
    /// on.
    PERSISTENT = 10;
    /// Its owner releases the lock whatever it waits for: being in the way of others counts for no deadlock.
    NODLCKBLK = 11;
    /// A conversion that is granted makes the lock end with its owner again. (In the kernel any call without PERSISTENT
    /// does that.)
    TRANSIENT = 13;
    /// A conversion down from PW or EX says that the value can no longer be trusted.
    IVVALBLK = 14;
    /// For new requests: what the same session holds in the same transaction is not in the way. So a client can put byte
    /// ranges together, divide them, or change the mode of a part, without letting go of what it keeps. (Not in the
    /// kernel.)
    OWN = 15;
}

impl LockFlags {
    /// No flag.
    pub const NONE: LockFlags = LockFlags(0);

    /// Whether all of `other` are set.
    pub const fn contains(self, other: LockFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// What a grant with these flags says about whether the lock outlives its owner, if anything.
    pub const fn persistence(self) -> Option<bool> {
        match (self.contains(LockFlags::PERSISTENT), self.contains(LockFlags::TRANSIENT)) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    /// Bits that no flag has.
    pub fn unknown(self) -> u32 {
        self.0 & !LockFlags::NAMES.iter().fold(0, |all, (flag, _)| all | flag.0)
    }
}

impl std::ops::BitOr for LockFlags {
    type Output = LockFlags;

    fn bitor(self, other: LockFlags) -> LockFlags {
        LockFlags(self.0 | other.0)
    }
}

impl std::ops::BitAnd for LockFlags {
    type Output = LockFlags;

    fn bitand(self, other: LockFlags) -> LockFlags {
        LockFlags(self.0 & other.0)
    }
}

impl std::fmt::Debug for LockFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> =
            LockFlags::NAMES.iter().filter(|(flag, _)| self.contains(*flag)).map(|(_, name)| *name).collect();
        f.write_str(&names.join("|"))
    }
}
