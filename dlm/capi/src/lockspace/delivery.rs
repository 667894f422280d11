//! What the program is told, and how: its status block is filled, then its function is called.

use crate::abi::{DLM_LVB_LEN, LksbAt};
use libc::{c_char, c_int, c_void};

/// A function of the program with its argument, as addresses: they are the program's, and nothing is done with them but to call
/// one with the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Callback {
    pub(crate) function: usize,
    pub(crate) argument: usize,
}

/// No code is in the first page: lvmlockd gives 1 for functions that are never to be called.
const FIRST_CODE: usize = 4096;

impl Callback {
    /// Whether there is something to call.
    pub(crate) fn is_callable(self) -> bool {
        self.function >= FIRST_CODE
    }

    /// # Safety
    /// `function`, if it is callable, is a function that takes a pointer, and may be called with `argument` now.
    pub(crate) unsafe fn call(self) {
        if self.is_callable() {
            // SAFETY: a function pointer and an address have the same size; the caller vouches for what is there.
            let function = unsafe { std::mem::transmute::<usize, extern "C" fn(*mut c_void)>(self.function) };
            function(self.argument as *mut c_void);
        }
    }
}

/// How an operation ended, as a status block shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) lksb: LksbAt,
    pub(crate) lkid: u32,
    pub(crate) status: c_int,
    pub(crate) flags: c_char,
    pub(crate) value: Option<[u8; DLM_LVB_LEN]>,
}

impl Completion {
    /// Fills the program's status block.
    ///
    /// # Safety
    /// As [`LksbAt::end`].
    pub(crate) unsafe fn fill(&self) {
        // SAFETY: the caller's word.
        unsafe { self.lksb.end(self.lkid, self.status, self.flags, self.value.as_ref()) };
    }
}

/// Something that waits to be dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// An operation ended.
    Ast(Completion, Callback),
    /// The lock is in somebody's way.
    Bast(Callback),
}

impl Delivery {
    /// # Safety
    /// As [`Completion::fill`] and [`Callback::call`].
    pub(crate) unsafe fn deliver(&self) {
        match self {
            Delivery::Ast(completion, callback) => {
                // SAFETY: the caller's word.
                unsafe {
                    completion.fill();
                    callback.call();
                }
            }
            // SAFETY: the caller's word.
            Delivery::Bast(callback) => unsafe { callback.call() },
        }
    }
}
