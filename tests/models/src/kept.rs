//! Parts of a state that many states share.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// A value that is shared between states and hashed once.
///
/// A step changes one part of a state and keeps the rest: cloning is a pointer, and hashing a number.
#[derive(Clone)]
pub struct Kept<T> {
    hash: u64,
    value: Arc<T>,
}

impl<T: Hash> Kept<T> {
    /// Keeps a value.
    pub fn new(value: T) -> Kept<T> {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Kept { hash: hasher.finish(), value: Arc::new(value) }
    }
}

impl<T: Hash + Clone> Kept<T> {
    /// Replaces it by a changed copy.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut value = (*self.value).clone();
        let result = change(&mut value);
        *self = Kept::new(value);
        result
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Kept<T> {
    fn eq(&self, other: &Kept<T>) -> bool {
        self.hash == other.hash && self.value == other.value
    }
}

impl<T: Eq> Eq for Kept<T> {}

impl<T> Hash for Kept<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<T: fmt::Debug> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// A value that is shared between states and told apart by its hash alone: for parts of the code that cannot be compared.
///
/// [`Hashed::seal`] takes the hash when a step is over; until then the value can be changed in place.
#[derive(Clone)]
pub struct Hashed<T> {
    hash: Option<u64>,
    value: Arc<T>,
}

impl<T: Hash + Clone> Hashed<T> {
    /// Keeps a value.
    pub fn new(value: T) -> Hashed<T> {
        let mut hashed = Hashed { hash: None, value: Arc::new(value) };
        hashed.seal();
        hashed
    }

    /// Keeps a value that is still being changed.
    pub fn unsealed(value: T) -> Hashed<T> {
        Hashed { hash: None, value: Arc::new(value) }
    }

    /// The value, to be changed.
    pub fn change(&mut self) -> &mut T {
        self.hash = None;
        Arc::make_mut(&mut self.value)
    }

    /// The changes are over.
    pub fn seal(&mut self) {
        if self.hash.is_none() {
            let mut hasher = DefaultHasher::new();
            self.value.hash(&mut hasher);
            self.hash = Some(hasher.finish());
        }
    }
}

impl<T> Deref for Hashed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> PartialEq for Hashed<T> {
    fn eq(&self, other: &Hashed<T>) -> bool {
        self.hash == other.hash
    }
}

impl<T> Hash for Hashed<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash.expect("a state is hashed when its step is over"));
    }
}

impl<T: fmt::Debug> fmt::Debug for Hashed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
