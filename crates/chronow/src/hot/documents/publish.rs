//! Publishing: numbers, then chunks, the head last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Document, doc};
use chronos_db::documents::{Batch, Guard, Namespace, Sequence, Write};

use super::chunk::{Body, Chunk};
use super::entities::Topic;
use super::fields::{damaged, delete, int, put_if, text, too_contended};
use super::keys::{chunk_id, message_id, sequence_key};
use super::store::Engine;
use super::topics::ATTEMPTS;
use crate::hot::millis::to_signed_millis;
use crate::hot::{OutboundMessage, PublishAck};
use crate::{Error, ErrorKind, Result, Timestamp, TopicName};

/// Messages and bytes in a chunk; a single larger message has one of its own.
const CHUNK_MESSAGES: usize = 512;
const CHUNK_BYTES: usize = 512 * 1024;

/// The largest payload: a document holds 16 MiB.
const MAX_PAYLOAD: usize = 15 * 1024 * 1024;

/// A gap this old belongs to a publisher that died.
pub(super) const GRACE_MS: i64 = 2_000;

/// How long a publisher waits to learn whether a message of the same dedup id is accepted: who publishes that
/// one is given up long before.
const TIMEOUT_MS: i64 = 5 * GRACE_MS;

/// Closed gaps stay closed so long; a publisher that needed half of it does not know whether its insert still
/// met one.
pub(super) const CLOSED_MS: i64 = 3_600_000;

/// What became of the batch that a document hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acceptance {
    Confirmed,
    Void,
    /// Its publisher is at it.
    Pending,
}

/// An entry of the dedup window.
struct Entry {
    id: String,
    until: i64,
    message: String,
    rev: ObjectId,
}

/// Cuts slots into chunks that hang together.
fn cut(first: i64, slots: Vec<Option<Arc<Body>>>, at: Timestamp) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut bytes = 0;
    for (sequence, slot) in (first..).zip(slots) {
        let size = slot.as_ref().map_or(1, |body| body.size());
        match chunks.last_mut() {
            Some(chunk) if chunk.slots.len() < CHUNK_MESSAGES && bytes + size <= CHUNK_BYTES => {
                chunk.slots.push(slot);
                chunk.last = sequence;
                bytes += size;
            }
            _ => {
                chunks.push(Chunk { slots: vec![slot], void: false, ..Chunk::void(sequence, sequence, at) });
                bytes = size;
            }
        }
    }
    if let Some((head, rest)) = chunks.split_first_mut() {
        rest.iter_mut().for_each(|chunk| chunk.head = Some(head.last));
    }
    chunks
}

fn dedup_key(topic: &Topic, id: &str) -> String {
    format!("{}/{id}", topic.id)
}

/// A batch that has its sequence numbers.
struct Numbered<'a> {
    topic: &'a Topic,
    messages: &'a [&'a OutboundMessage],
    ids: &'a [String],
    now: Timestamp,
    /// What ties a document to the head of the batch.
    link: Document,
}

impl Engine {
    pub(super) async fn publish(
        &self,
        name: &TopicName,
        messages: Vec<OutboundMessage>,
    ) -> Result<Vec<PublishAck>> {
        let Ok(count) = u32::try_from(messages.len()) else {
            return Err(Error::validation("too many messages for one batch"));
        };
        messages.iter().try_for_each(OutboundMessage::check)?;
        if let Some(large) = messages.iter().find(|message| message.payload.len() > MAX_PAYLOAD) {
            let message = format!("a payload has {} bytes; {MAX_PAYLOAD} are allowed", large.payload.len());
            return Err(Error::validation(message));
        }
        let atomic = self.ready().await?;
        let topic = self.make_room(name, i64::from(count)).await?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let plain = messages.iter().all(|message| message.dedup_id.is_none() && message.not_before.is_none());
        let published = match plain && atomic {
            true => self.publish_at_once(&topic, messages, count).await?,
            false => self.publish_in_steps(name, &topic, messages).await?,
        };
        self.tell_topic(&topic.id);
        Ok(published)
    }

    /// Numbers and chunks in one transaction.
    async fn publish_at_once(
        &self,
        topic: &Topic,
        messages: Vec<OutboundMessage>,
        count: u32,
    ) -> Result<Vec<PublishAck>> {
        let (collection, id, ttl) = (self.collections.messages.clone(), topic.id.clone(), ttl_of(topic));
        let build = Box::new(move |given: Sequence| {
            let first = given.first + 1;
            let slots = (first..)
                .zip(&messages)
                .map(|(sequence, m)| Some(Arc::new(Body::of(m, message_id(sequence), given.now, ttl))));
            let mut batch = Batch::new();
            for chunk in cut(first, slots.collect(), given.now) {
                batch.push(&collection, Write::insert(chunk.to_document(&id)));
            }
            Ok(batch)
        });
        let chronos_db::documents::Numbered { sequence: given, outcomes } = self
            .documents
            .sequence_then(&self.collections.topics, &sequence_key(&topic.id), count, build)
            .await?;
        if outcomes.iter().any(|outcome| !outcome.is_applied()) {
            return Err(Error::new(
                ErrorKind::HotTier,
                "a place of the topic's sequence was taken already; not all of the batch was accepted",
            ));
        }
        let first = given.first + 1;
        Ok((first..first + i64::from(count))
            .map(|sequence| PublishAck { id: message_id(sequence), duplicate: false })
            .collect())
    }

    /// Numbers first, then what hangs on the head, then the head, which accepts the batch.
    async fn publish_in_steps(
        &self,
        name: &TopicName,
        topic: &Topic,
        messages: Vec<OutboundMessage>,
    ) -> Result<Vec<PublishAck>> {
        if messages.iter().any(|message| message.not_before.is_some()) && !topic.schedules {
            self.note_schedules(name).await?;
        }
        let patient_until = self.env.clock.now().plus_millis(TIMEOUT_MS);
        for _ in 0..ATTEMPTS {
            let (duplicates, replaced) = loop {
                match self.look_for_duplicates(topic, &messages).await? {
                    Some(known) => break known,
                    None if self.env.clock.now() > patient_until => {
                        return Err(too_contended("the dedup ids"));
                    }
                    // Another process is publishing one of them right now.
                    None => self.env.clock.sleep(Duration::from_millis(10)).await,
                }
            };
            let mine: Vec<&OutboundMessage> =
                messages.iter().zip(&duplicates).filter(|(_, twin)| twin.is_none()).map(|(m, _)| m).collect();
            let accepted = match mine.is_empty() {
                true => Some(Vec::new()),
                false => self.try_to_publish(topic, &mine, &replaced).await?,
            };
            let Some(accepted) = accepted else { continue };
            let mut accepted = accepted.into_iter();
            let mut published: Vec<PublishAck> = Vec::with_capacity(messages.len());
            for twin in duplicates {
                let (id, duplicate) = match twin {
                    Some(Twin::Stored(id)) => (Some(id), true),
                    Some(Twin::Earlier(index)) => (published.get(index).map(|p| p.id.clone()), true),
                    None => (accepted.next(), false),
                };
                let id = id.ok_or_else(|| Error::new(ErrorKind::HotTier, "a published message got no id"))?;
                published.push(PublishAck { id, duplicate });
            }
            return Ok(published);
        }
        Err(too_contended("the topic's sequence"))
    }

    /// Which messages were accepted before, and the entries that others may replace; none if that is being
    /// decided just now.
    #[allow(clippy::type_complexity)]
    async fn look_for_duplicates(
        &self,
        topic: &Topic,
        messages: &[OutboundMessage],
    ) -> Result<Option<(Vec<Option<Twin>>, HashMap<String, ObjectId>)>> {
        let mut twins: Vec<Option<Twin>> = Vec::with_capacity(messages.len());
        let (mut first, mut replaced) = (HashMap::new(), HashMap::new());
        let keys: Vec<String> =
            messages.iter().filter_map(|m| m.dedup_id.as_ref()).map(|id| dedup_key(topic, id)).collect();
        if keys.is_empty() {
            return Ok(Some((messages.iter().map(|_| None).collect(), replaced)));
        }
        let (mut known, now) = futures::try_join!(self.get_map(&self.collections.dedup, keys), async {
            Ok::<_, Error>(self.documents.now().await?)
        })?;
        for (index, message) in messages.iter().enumerate() {
            let Some(key) = message.dedup_id.as_ref().map(|id| dedup_key(topic, id)) else {
                twins.push(None);
                continue;
            };
            if let Some(earlier) = first.get(&key) {
                twins.push(Some(Twin::Earlier(*earlier)));
                continue;
            }
            let stored = match known.remove(&key) {
                Some(entry) => {
                    let acceptance = self.acceptance(topic, &self.collections.dedup, &entry).await?;
                    let entry = Entry::read(&entry)?;
                    match acceptance {
                        Acceptance::Pending => return Ok(None),
                        Acceptance::Confirmed if entry.until > now.as_millis() => Some(entry.message),
                        _ => {
                            replaced.insert(entry.id, entry.rev);
                            None
                        }
                    }
                }
                None => None,
            };
            first.insert(key, index);
            twins.push(stored.map(Twin::Stored));
        }
        Ok(Some((twins, replaced)))
    }

    /// The entries of dedup ids of a batch; they hang on its head.
    fn link_dedup(
        &self,
        numbered: &Numbered<'_>,
        replaced: &HashMap<String, ObjectId>,
        head: &mut Chunk,
    ) -> Vec<Write> {
        let Numbered { topic, messages, ids, now, link } = numbered;
        let mut entries = Vec::new();
        let window = to_signed_millis(topic.options.dedup_window);
        for (message, id) in messages.iter().zip(*ids) {
            let Some(dedup) = message.dedup_id.as_ref().map(|dedup| dedup_key(topic, dedup)) else {
                continue;
            };
            let until = now.plus_millis(window).as_millis();
            let mut entry = doc! { "_id": &dedup, "id": id, "until": until, "rev": self.new_revision() };
            entry.extend(link.clone());
            entries.push(match replaced.get(&dedup) {
                Some(rev) => put_if(entry, *rev),
                None => Write::insert(entry),
            });
            head.dedup.push(dedup);
        }
        entries
    }

    /// A message that waits for its time, as stored.
    fn scheduled_document(
        &self,
        numbered: &Numbered<'_>,
        message: &OutboundMessage,
        id: &str,
        body: &Body,
    ) -> Document {
        let Numbered { topic, now, link, .. } = numbered;
        let due = message.not_before.unwrap_or(*now).as_millis();
        let scheduled = format!("{}/{id}", topic.id);
        let mut later =
            doc! { "_id": scheduled, "due": due, "rev": self.new_revision(), "b": body.to_document() };
        if let Some(dedup) = &message.dedup_id {
            later.insert("dd", dedup_key(topic, dedup));
        }
        later.extend(link.clone());
        later
    }

    /// One attempt; none if others came in between. Nothing of it is visible then.
    async fn try_to_publish(
        &self,
        topic: &Topic,
        messages: &[&OutboundMessage],
        replaced: &HashMap<String, ObjectId>,
    ) -> Result<Option<Vec<String>>> {
        let count = u32::try_from(messages.len())
            .map_err(|_| Error::validation("too many messages for one batch"))?;
        let begun = self.env.clock.now();
        let given =
            self.documents.sequence(&self.collections.topics, &sequence_key(&topic.id), count).await?;
        self.env.fail.hit("bus.after_numbers")?;
        let (first, now) = (given.first + 1, given.now);
        let ids: Vec<String> = (first..).take(messages.len()).map(message_id).collect();
        let is_later = |message: &OutboundMessage| message.not_before.is_some_and(|at| at > now);
        let bodies: Vec<Arc<Body>> = messages
            .iter()
            .zip(&ids)
            .map(|(m, id)| Arc::new(Body::of(m, id.clone(), now, ttl_of(topic))))
            .collect();
        let slots =
            messages.iter().zip(&bodies).map(|(m, body)| (!is_later(m)).then(|| body.clone())).collect();
        let mut chunks = cut(first, slots, now);
        let Some((head, rest)) = chunks.split_first_mut() else { return Ok(Some(Vec::new())) };
        let link = doc! { "w": &topic.id, "hd": head.last, "at": now.as_millis(), "ok": false };
        let numbered = Numbered { topic, messages, ids: &ids, now, link };

        let entries = self.link_dedup(&numbered, replaced, head);
        let mut side = Batch::new();
        for ((message, id), body) in messages.iter().zip(&ids).zip(&bodies).filter(|((m, _), _)| is_later(m))
        {
            let later = self.scheduled_document(&numbered, message, id, body);
            head.scheduled.push(format!("{}/{id}", topic.id));
            side.push(&self.collections.scheduled, Write::insert(later));
        }
        for chunk in rest {
            side.push(&self.collections.messages, Write::insert(chunk.to_document(&topic.id)));
        }
        let (head_document, scheduled) = (head.to_document(&topic.id), head.scheduled.clone());
        let spans: Vec<(i64, i64)> = chunks.iter().map(|chunk| (chunk.first, chunk.last)).collect();

        let mut accepted =
            self.write(&self.collections.dedup, entries).await?.iter().all(|outcome| outcome.is_applied());
        if accepted && !side.operations.is_empty() {
            accepted = self.documents.apply(side).await?.iter().all(|outcome| outcome.is_applied());
        }
        self.env.fail.hit("bus.before_head")?;
        if accepted
            && self.write_one(&self.collections.messages, Write::insert(head_document)).await?.is_applied()
        {
            if self.env.clock.now() > begun.plus_millis(CLOSED_MS / 2) {
                let message =
                    "the publish was interrupted for too long; whether the messages were accepted is unknown";
                return Err(Error::new(ErrorKind::HotTier, message));
            }
            return Ok(Some(ids));
        }
        // Readers need not wait for these sequence numbers. A head that readers closed is left alone; the
        // others were never visible.
        let voids = spans.into_iter().enumerate().map(|(index, (first, last))| {
            let void = Chunk::void(first, last, now).to_document(&topic.id);
            if index == 0 { Write::insert(void) } else { put(void) }
        });
        self.write(&self.collections.messages, voids).await?;
        self.write(&self.collections.scheduled, scheduled.into_iter().map(delete)).await?;
        Ok(None)
    }

    /// Whether the batch that `linked` hangs on was accepted. One whose publisher died is decided here.
    pub(super) async fn acceptance(
        &self,
        topic: &Topic,
        collection: &Namespace,
        linked: &Document,
    ) -> Result<Acceptance> {
        let is_confirmed = |linked: &Document| linked.get_bool("ok").unwrap_or(false);
        if is_confirmed(linked) {
            return Ok(Acceptance::Confirmed);
        }
        let head = int(linked, "hd")?;
        for _ in 0..ATTEMPTS {
            if let Some(head) = self.get_one(&self.collections.messages, chunk_id(&topic.id, head)).await? {
                let void = head.get_bool("void").unwrap_or(false);
                return Ok(if void { Acceptance::Void } else { Acceptance::Confirmed });
            }
            // Who removes a head confirms what hangs on it first.
            match self.get_one(collection, text(linked, "_id")?).await? {
                Some(again) if is_confirmed(&again) => return Ok(Acceptance::Confirmed),
                Some(again) if again.get_object_id("rev").ok() == linked.get_object_id("rev").ok() => {}
                _ => return Ok(Acceptance::Pending),
            }
            let now = self.documents.now().await?;
            if int(linked, "at")? + GRACE_MS > now.as_millis() {
                return Ok(Acceptance::Pending);
            }
            let void = Chunk::void(head, head, now).to_document(&topic.id);
            if self.write_one(&self.collections.messages, Write::insert(void)).await?.is_applied() {
                return Ok(Acceptance::Void);
            }
        }
        Err(too_contended("the topic's sequence"))
    }

    /// Notes on what hangs on a head that it was accepted.
    pub(super) async fn confirm(&self, collection: &Namespace, ids: &[String]) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let found = self.get_map(collection, ids.to_vec()).await?;
            let mut puts = Vec::new();
            for (_, mut linked) in found {
                if !linked.get_bool("ok").unwrap_or(false) {
                    let rev = linked.get_object_id("rev").map_err(|_| damaged("linked document", "rev"))?;
                    linked.insert("ok", true);
                    linked.insert("rev", self.new_revision());
                    puts.push(put_if(linked, rev));
                }
            }
            if puts.is_empty()
                || self.write(collection, puts).await?.iter().all(|outcome| outcome.is_applied())
            {
                return Ok(());
            }
        }
        Err(too_contended("a dedup entry or a scheduled message"))
    }

    /// Closes a gap of the sequence that ends before what was accepted at `before`, so that a process that
    /// wanted to write there takes new sequence numbers.
    ///
    /// Nobody knows where in it chunks would end, so every sequence number is closed, from the last one down:
    /// who sees a closed sequence number then knows that all behind it are decided, and that a chunk which
    /// made it in time, and covers the sequence number, is to be seen as well.
    pub(super) async fn close_gap(
        &self,
        topic: &Topic,
        first: i64,
        last: i64,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<()> {
        tracing::warn!(topic = %topic.key, first, last, "closing a gap that a publisher left");
        let voids = (first..=last).rev().map(|sequence| {
            let mut void = Chunk::void(sequence, sequence, before).to_document(&topic.id);
            void.insert("cl", now.as_millis());
            Write::insert(void)
        });
        self.write(&self.collections.messages, voids.collect::<Vec<_>>()).await.map(drop)
    }
}

/// Where an earlier copy of a message is.
enum Twin {
    Stored(String),
    /// In the same batch.
    Earlier(usize),
}

impl Entry {
    fn read(entry: &Document) -> Result<Self> {
        Ok(Self {
            id: text(entry, "_id")?.to_owned(),
            until: int(entry, "until")?,
            message: text(entry, "id")?.to_owned(),
            rev: entry.get_object_id("rev").map_err(|_| damaged("dedup entry", "rev"))?,
        })
    }
}

fn ttl_of(topic: &Topic) -> Option<i64> {
    topic.options.ttl.map(to_signed_millis)
}

/// An unconditional put.
pub(super) fn put(document: Document) -> Write {
    Write::put(document, Guard::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cut_by_messages_and_bytes_and_hangs_on_its_head() {
        let at = Timestamp::from_millis(1);
        let body = |bytes: usize| {
            let message = OutboundMessage { payload: vec![0; bytes].into(), ..OutboundMessage::default() };
            Some(Arc::new(Body::of(&message, "x".to_owned(), at, None)))
        };
        let chunks = cut(10, (0..1_100).map(|_| body(10)).collect(), at);
        assert_eq!(
            chunks.iter().map(|c| (c.first, c.last)).collect::<Vec<_>>(),
            [(10, 521), (522, 1033), (1034, 1109)]
        );
        assert_eq!(chunks.iter().map(|c| c.head).collect::<Vec<_>>(), [None, Some(521), Some(521)]);
        assert_eq!(cut(1, vec![body(CHUNK_BYTES), body(1)], at).len(), 2);
    }
}
