//! Turns of the writers of one item.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::records::model::ItemId;

/// Writers of one item in this process take turns, since only one of them could win anyway.
#[derive(Debug, Default)]
pub(crate) struct KeyedMutex(Mutex<HashMap<ItemId, Arc<tokio::sync::Mutex<()>>>>);

impl KeyedMutex {
    pub(crate) async fn take(&self, id: ItemId) -> Turn<'_> {
        let lock = Arc::clone(self.0.lock().entry(id).or_default());
        // Made before the wait, so that who gives up waiting leaves nothing behind.
        let mut turn = Turn { turns: self, id, lock, held: None };
        turn.held = Some(Arc::clone(&turn.lock).lock_owned().await);
        turn
    }
}

#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a KeyedMutex,
    id: ItemId,
    lock: Arc<tokio::sync::Mutex<()>>,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.held.take();
        let mut turns = self.turns.0.lock();
        // The map's and this one: nobody else waits.
        if Arc::strong_count(&self.lock) == 2 {
            turns.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_gives_up_waiting_for_a_turn_leaves_nothing_behind() {
        let turns = KeyedMutex::default();
        let id = ItemId::new(bson::oid::ObjectId::new());
        let held = turns.take(id).await;
        let mut waiting = Box::pin(turns.take(id));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(held);
        // It has its turn, and never takes it.
        drop(waiting);
        assert!(turns.0.lock().is_empty());
        drop(turns.take(id).await);
        assert!(turns.0.lock().is_empty());
    }
}
