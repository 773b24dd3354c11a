//! Publishing, taking back, and putting back from copies.

use redis::Value;

use super::RedisHot;
use super::batches::{Batch, key_of};
use super::errors::is_refusal;
use super::keys::{join_id, shard_of, split_id};
use super::reply::{Parts, text, write_message};
use super::script::{Args, scripts};
use super::script_result::{Known, ScriptError, ScriptResult};
use super::state::Confirm;
use crate::hot::{OutboundMessage, PublishAck, StoredMessage};
use crate::{Error, ErrorKind, SubscriptionName, TopicName};

pub(super) const MAX_PER_SCRIPT: usize = 500;

impl RedisHot {
    async fn ask_to_publish(
        &self,
        topic: &TopicName,
        shard: u16,
        known: &Known,
        batch: &Batch,
        confirm: Option<Confirm>,
    ) -> ScriptResult<Parts> {
        if batch.is_plain && confirm.is_none() {
            let args = batch.args(&known.stamp, None);
            match self
                .ask_with(topic, shard, &scripts::publish_plain, &self.keys.few(topic, shard), &args)
                .await
            {
                Err(ScriptError::Other) => {}
                other => return other,
            }
        }
        let mut last = false;
        loop {
            let args = batch.args(&known.stamp, Some(last));
            let published = match confirm {
                Some(confirm) => self.ask_and_confirm(topic, shard, &scripts::publish, &args, confirm).await,
                None => self.ask_topic(topic, shard, &scripts::publish, &args).await,
            };
            let Err(ScriptError::Crowded(names)) = published else { return published };
            // What one of those that are furthest behind needs no more may make room. If they need it all,
            // there is none.
            last = true;
            for name in names {
                if self.gc(&SubscriptionName::stored(topic, &name), shard, known).await? {
                    last = false;
                    break;
                }
            }
        }
    }

    pub(super) async fn accept(
        &self,
        topic: &TopicName,
        messages: &[OutboundMessage],
        known: &Known,
        confirm: Option<Confirm>,
    ) -> ScriptResult<Vec<PublishAck>> {
        let shards = known.shards;
        let mut batches: Vec<Batch> = (0..shards).map(|_| Batch::new()).collect();
        let spread = self.turn();
        for (index, message) in messages.iter().enumerate() {
            // Messages that may be the same must meet; order comes first.
            let shard = match (key_of(message), &message.dedup_id) {
                (Some(text), _) => shard_of(text, shards),
                (None, Some(text)) => shard_of(text, shards),
                (None, None) => u16::try_from((spread + index as u64) % u64::from(shards)).unwrap_or(0),
            };
            batches[usize::from(shard)].push(message, index)?;
        }
        let mut published: Vec<Option<PublishAck>> = vec![None; messages.len()];
        for (shard, mut batch) in (0..shards).zip(batches) {
            if batch.at.is_empty() {
                continue;
            }
            batch.end_run();
            let mut reply = match self.ask_to_publish(topic, shard, known, &batch, confirm).await {
                // That says that nothing was changed.
                Err(ScriptError::Failed(error))
                    if is_refusal(&error) && published.iter().any(Option::is_some) =>
                {
                    let accepted = published.iter().flatten().count();
                    let message = format!(
                        "{accepted} of {} messages, those of other shards, were accepted, and no more: {error}",
                        messages.len()
                    );
                    return Err(Error::new(ErrorKind::HotTier, message).retryable().caused_by(error).into());
                }
                asked => asked?,
            };
            match reply.next() {
                Value::Array(ids) => {
                    let duplicates = reply.text()?;
                    for ((index, id), duplicate) in batch.at.into_iter().zip(ids).zip(duplicates.bytes()) {
                        published[index] =
                            Some(PublishAck { id: join_id(shard, &text(id)?), duplicate: duplicate == b'1' });
                    }
                    self.note_revision(topic, shard, Some(reply.text()?));
                }
                prefix => {
                    let (prefix, first) = (text(prefix)?, reply.count()?);
                    for (index, sequence) in batch.at.into_iter().zip(first..) {
                        published[index] = Some(PublishAck {
                            id: join_id(shard, &format!("{prefix}{sequence}")),
                            duplicate: false,
                        });
                    }
                    self.note_revision(topic, shard, Some(reply.text()?));
                }
            }
        }
        published.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| {
            Error::new(ErrorKind::HotTier, "Redis accepted messages without returning their ids").into()
        })
    }

    pub(super) async fn take_back(&self, topic: &TopicName, id: &str) -> ScriptResult<bool> {
        let (shard, inner) = split_id(id);
        Ok(self.ask_topic(topic, shard, &scripts::cancel, &Args::new().arg(inner)).await?.number()? == 1)
    }

    pub(super) async fn put_back(
        &self,
        subscription: &SubscriptionName,
        messages: &[StoredMessage],
        known: &Known,
    ) -> ScriptResult<u64> {
        let shards = known.shards;
        let mut put = 0;
        for shard in 0..shards {
            let own: Vec<_> =
                messages.iter().filter(|message| split_id(&message.id).0 % shards == shard).collect();
            for own in own.chunks(MAX_PER_SCRIPT) {
                let mut args = Args::new().arg(&known.stamp).arg(subscription.name());
                for message in own {
                    args.push(split_id(&message.id).1);
                    write_message(&mut args, message)?;
                }
                put += self.ask(subscription, shard, &scripts::replay, &args).await?.count()?;
            }
        }
        Ok(put)
    }
}
