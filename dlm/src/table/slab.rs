//! A vector with stable `u32` indices and a free list.

use std::ops::{Index, IndexMut};

/// The index of nothing.
pub(super) const NIL: u32 = u32::MAX;

/// Values at stable indices. Freed places are used again, the last freed first.
#[derive(Clone, Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    len: u32,
}

#[derive(Clone, Debug)]
enum Slot<T> {
    Free(u32),
    Used(T),
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Slab<T> {
        Slab { slots: Vec::new(), free: NIL, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether another value fits below `NIL`.
    pub(super) fn has_room(&self) -> bool {
        self.free != NIL || self.slots.len() < NIL as usize
    }

    /// Stores `value`. The caller has asked `has_room`.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if self.free == NIL {
            let index = self.slots.len() as u32;
            self.slots.push(Slot::Used(value));
            return index;
        }
        let index = self.free;
        let Slot::Free(next) = std::mem::replace(&mut self.slots[index as usize], Slot::Used(value)) else {
            unreachable!("the free list leads to place {index}, which is in use");
        };
        self.free = next;
        index
    }

    pub(super) fn remove(&mut self, index: u32) -> T {
        let Slot::Used(value) = std::mem::replace(&mut self.slots[index as usize], Slot::Free(self.free)) else {
            unreachable!("place {index} is removed but was free");
        };
        self.free = index;
        self.len -= 1;
        value
    }

    /// All values in the order of their places, which depends only on the history of operations.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slots.iter().zip(0..).filter_map(|(slot, index)| match slot {
            Slot::Used(value) => Some((index, value)),
            Slot::Free(_) => None,
        })
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        match &self.slots[index as usize] {
            Slot::Used(value) => value,
            Slot::Free(_) => unreachable!("place {index} is read but is free"),
        }
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        match &mut self.slots[index as usize] {
            Slot::Used(value) => value,
            Slot::Free(_) => unreachable!("place {index} is written but is free"),
        }
    }
}
