//! Counting what goes over the wire.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use mongodb::event::command::CommandEvent;
use parking_lot::Mutex;

use super::client::Observer;

/// The commands and connections of one client since it was made or [`reset`](Self::reset). Monitoring of the
/// servers doesn't count.
#[derive(Debug, Default)]
pub struct CommandStats {
    commands: Mutex<BTreeMap<String, u64>>,
    connections: AtomicU64,
}

impl CommandStats {
    /// Returns how many commands of each name were sent.
    #[must_use]
    pub fn commands(&self) -> BTreeMap<String, u64> {
        self.commands.lock().clone()
    }

    /// Returns how many commands were sent.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.commands().values().sum()
    }

    /// Returns how many connections were opened.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Starts counting from zero.
    pub fn reset(&self) {
        self.commands.lock().clear();
        self.connections.store(0, Ordering::SeqCst);
    }

    pub(super) fn observer(self: &Arc<Self>) -> Observer {
        let stats = Arc::clone(self);
        Box::new(move |options| {
            let commands = Arc::clone(&stats);
            options.command_event_handler = Some(EventHandler::callback(move |event| {
                if let CommandEvent::Started(event) = event {
                    *commands.commands.lock().entry(event.command_name).or_default() += 1;
                }
            }));
            let connections = Arc::clone(&stats);
            options.cmap_event_handler = Some(EventHandler::callback(move |event| {
                if let CmapEvent::ConnectionCreated(_) = event {
                    connections.connections.fetch_add(1, Ordering::SeqCst);
                }
            }));
        })
    }
}
