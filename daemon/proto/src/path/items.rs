//! What lanes put into one message: nearly always one or two things.

use super::Item;

/// Things in one message, in the order in which they were put there; the first two need no memory of
/// their own
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Items {
    few: [Option<Item>; 2],
    #[allow(clippy::box_collection, reason = "one word in place of three, in rings of thousands")]
    more: Option<Box<Vec<Item>>>,
}

impl Items {
    /// Adds a thing
    pub fn push(&mut self, item: Item) {
        match self.few.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(item),
            None => self.more.get_or_insert_default().push(item),
        }
    }

    /// Goes through all of them
    pub fn iter(&self) -> impl Iterator<Item = &Item> {
        let more = self.more.as_deref().map(Vec::as_slice).unwrap_or_default();
        self.few.iter().flatten().chain(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_things_keep_their_order() {
        let mut items = Items::default();
        (0..5).for_each(|sn| items.push(Item::Segment(sn)));

        let seen: Vec<_> = items.iter().copied().collect();

        assert_eq!(seen, (0..5).map(Item::Segment).collect::<Vec<_>>());
        assert_eq!(Items::default().iter().count(), 0);
    }
}
