//! The pages of a disk by number: a table without holes, because a run looks them up millions of times.

use bytes::Bytes;

#[derive(Clone, Default)]
pub struct Pages(Vec<Option<Bytes>>);

impl Pages {
    pub fn get(&self, page: u64) -> Option<&Bytes> {
        self.0.get(page as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, page: u64) -> Option<&mut Bytes> {
        self.0.get_mut(page as usize)?.as_mut()
    }

    pub fn contains(&self, page: u64) -> bool {
        self.get(page).is_some()
    }

    pub fn put(&mut self, page: u64, content: Bytes) {
        let page = page as usize;
        if self.0.len() <= page {
            self.0.resize(page + 1, None);
        }
        self.0[page] = Some(content);
    }
}

/// A set of pages, in order.
#[derive(Clone, Default)]
pub struct PageSet(Vec<bool>);

impl PageSet {
    pub fn insert(&mut self, page: u64) {
        let page = page as usize;
        if self.0.len() <= page {
            self.0.resize(page + 1, false);
        }
        self.0[page] = true;
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().enumerate().filter(|(_, is_in)| **is_in).map(|(page, _)| page as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_there_and_the_rest_is_not() {
        let (mut pages, mut set) = (Pages::default(), PageSet::default());
        for page in [7, 3, 7] {
            pages.put(page, Bytes::from(vec![page as u8]));
            set.insert(page);
        }
        let there: Vec<u64> = (0..10).filter(|&page| pages.contains(page)).collect();
        assert_eq!((there, set.iter().collect()), (vec![3, 7], vec![3, 7]));
        assert_eq!((pages.get(7).map(|content| content[0]), pages.get(1000)), (Some(7), None));
    }
}
