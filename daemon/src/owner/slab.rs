//! Numbered things with numbers that are not used again soon, so that a late event finds nobody.

/// A slab; a number is `generation << 32 | index`, at most 60 bits.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

const GENERATION_BITS: u32 = 28;

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Adds the value that `make` makes of its number.
    pub(crate) fn insert(&mut self, make: impl FnOnce(u64) -> T) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, value: None });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = (slot.generation + 1) % (1 << GENERATION_BITS);
        let number = u64::from(slot.generation) << 32 | u64::from(index);
        slot.value = Some(make(number));
        number
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let slot = self.slots.get_mut(number as u32 as usize)?;
        if u64::from(slot.generation) == number >> 32 { slot.value.as_mut() } else { None }
    }

    pub(crate) fn get(&self, number: u64) -> Option<&T> {
        let slot = self.slots.get(number as u32 as usize)?;
        if u64::from(slot.generation) == number >> 32 { slot.value.as_ref() } else { None }
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        let slot = self.slots.get_mut(number as u32 as usize)?;
        if u64::from(slot.generation) != number >> 32 {
            return None;
        }
        let value = slot.value.take()?;
        self.free.push(number as u32);
        Some(value)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.value.as_mut())
    }

    pub(crate) fn numbers(&self) -> Vec<u64> {
        let numbered = |(index, slot): (usize, &Slot<T>)| {
            slot.value.is_some().then_some(u64::from(slot.generation) << 32 | index as u64)
        };
        self.slots.iter().enumerate().filter_map(numbered).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_number_finds_nobody() {
        let mut slab = Slab::default();
        let first = slab.insert(|n| n);
        assert_eq!(slab.remove(first), Some(first));
        let second = slab.insert(|n| n);
        assert_eq!(first as u32, second as u32, "the place is used again");
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get_mut(second), Some(&mut second.clone()));
        assert_eq!(slab.remove(first), None);
        assert_eq!((slab.len(), slab.numbers()), (1, vec![second]));
        assert!(second < 1 << 60);
    }
}
