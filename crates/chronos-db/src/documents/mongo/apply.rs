//! From a batch to few commands: one per stage, namespace and kind of write.

use std::collections::{BTreeMap, HashMap};

use bson::raw::cstr;
use bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, doc};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream;

use super::client::Lease;
use super::command::{Answer, Via};
use super::failure::Failure;
use super::retries::Retries;
use crate::documents::filter::order;
use crate::documents::{Guard, Namespace, Operation, Outcome, Write};
use crate::fail::FailPoints;
use crate::{Error, Result};

/// Commands of one stage that are under way at once.
const COMMANDS_AT_ONCE: usize = 16;
/// How often puts that met other writers of the same documents are sent again.
const PUT_ATTEMPTS: usize = 20;

/// A checked batch, cut into stages.
pub(super) struct Plan {
    operations: Vec<Operation>,
    stages: Vec<Vec<usize>>,
}

/// Which writes share a command.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Insert,
    /// Puts that are decided one by one within a command.
    Put,
    /// Puts if a field has a value.
    Swap,
    Delete,
    /// A delete if a field has a value, with its index: the answer only counts, so each has a command of its own.
    DeleteIf(usize),
}

/// The writes of a stage that share a command each.
pub(super) type Groups<'a> = BTreeMap<Group<'a>, Vec<usize>>;
pub(super) type Told = Vec<(usize, Outcome)>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group<'a>(&'a Namespace, Kind);

/// The server's code for a conversion that failed: what [`swap_statement`] makes it say if it finds nothing.
const NOTHING_FOUND: i32 = 241;

/// A put on its way.
struct Put<'a> {
    index: usize,
    id: &'a Bson,
    /// The field and the value that what is stored must stay below.
    newer: Option<(&'a str, &'a Bson)>,
    statement: RawDocumentBuf,
}

impl Plan {
    pub(super) fn new(operations: Vec<Operation>) -> Result<Self> {
        let mut depths: Vec<usize> = Vec::with_capacity(operations.len());
        let mut stages: Vec<Vec<usize>> = Vec::new();
        for (index, operation) in operations.iter().enumerate() {
            check(operation)?;
            let depth = match operation.requires {
                None => 0,
                Some(required) => {
                    1 + *depths
                        .get(required)
                        .ok_or_else(|| Error::validation(format!("operation {index} requires {required}, which does not come before it")))?
                }
            };
            depths.push(depth);
            if stages.len() <= depth {
                stages.resize_with(depth + 1, Vec::new);
            }
            stages[depth].push(index);
        }
        Ok(Self { operations, stages })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Whether it only inserts, which the driver retries itself.
    pub(super) fn only_inserts(&self) -> bool {
        self.operations.iter().all(|operation| matches!(operation.write, Write::Insert(_)))
    }

    pub(super) fn len(&self) -> usize {
        self.operations.len()
    }

    pub(super) fn stages(&self) -> &[Vec<usize>] {
        &self.stages
    }

    /// Runs the stages, each operation for itself.
    pub(super) async fn run(&self, lease: &Lease, retries: Option<&Retries>, fail: &FailPoints) -> Result<Vec<Outcome>, Failure> {
        let mut outcomes = vec![Outcome::Skipped; self.operations.len()];
        for (stage, members) in self.stages.iter().enumerate() {
            if stage > 0 {
                fail.hit("mongo.between_stages")?;
            }
            let groups = self.groups(members, &outcomes);
            let mut under_way: Vec<BoxFuture<'_, Result<Told, Failure>>> = Vec::with_capacity(groups.len());
            for (group, members) in groups {
                under_way.push(Box::pin(async move { self.write(&mut Via::server(&lease.client, retries), group, &members).await }));
            }
            let several = under_way.len() > 1;
            let mut failed = None;
            // All of them are awaited, also after a failure: who is told of it should find the store at rest.
            let mut told = stream::iter(under_way).buffer_unordered(COMMANDS_AT_ONCE);
            while let Some(told) = told.next().await {
                match told {
                    Ok(told) => told.into_iter().for_each(|(index, outcome)| outcomes[index] = outcome),
                    Err(failure) => failed = failed.or(Some(if several || stage > 0 { failure.after_others() } else { failure })),
                }
            }
            if let Some(failure) = failed {
                return Err(failure);
            }
        }
        fail.hit("mongo.after_apply")?;
        Ok(outcomes)
    }

    /// The members of a stage whose requirement was met, by what shares a command.
    pub(super) fn groups(&self, members: &[usize], outcomes: &[Outcome]) -> Groups<'_> {
        let mut groups = Groups::new();
        for &index in members {
            let operation = &self.operations[index];
            if operation.requires.is_none_or(|required| outcomes[required].is_applied()) {
                let kind = match &operation.write {
                    Write::Insert(_) => Kind::Insert,
                    Write::Put { guard: Guard::Equals { .. }, .. } => Kind::Swap,
                    Write::Put { .. } => Kind::Put,
                    Write::Delete { guard: Guard::Any, .. } => Kind::Delete,
                    Write::Delete { .. } => Kind::DeleteIf(index),
                };
                groups.entry(Group(&operation.namespace, kind)).or_default().push(index);
            }
        }
        groups
    }

    /// Sends one group.
    pub(super) async fn write(&self, via: &mut Via<'_>, Group(namespace, kind): Group<'_>, members: &[usize]) -> Result<Told, Failure> {
        match kind {
            Kind::Insert => self.insert(via, namespace, members).await,
            Kind::Put => self.put(via, namespace, members).await,
            Kind::Swap => self.swap(via, namespace, members).await,
            Kind::Delete => self.delete(via, namespace, members).await,
            Kind::DeleteIf(_) => self.delete_if(via, namespace, members).await,
        }
    }

    async fn insert(&self, via: &mut Via<'_>, namespace: &Namespace, members: &[usize]) -> Result<Told, Failure> {
        let documents: Vec<&Document> = members.iter().filter_map(|&index| document(&self.operations[index].write)).collect();
        let mut told: Told = members.iter().map(|&index| (index, Outcome::Applied)).collect();
        for refusal in via.insert(namespace, &documents).await? {
            let index = refusal.duplicate(namespace).ok_or_else(|| refusal.failure())?;
            told[refusal.at].1 = Outcome::Conflict { index };
        }
        Ok(told)
    }

    /// Puts that create what is absent. The filter of one with [`Guard::Newer`] only finds an older document; if it finds none, the server tries to
    /// insert, and a stored document that is as new answers with a duplicate `_id`. So one command decides every put by itself.
    async fn put(&self, via: &mut Via<'_>, namespace: &Namespace, members: &[usize]) -> Result<Told, Failure> {
        let mut told = Told::with_capacity(members.len());
        let mut pending: Vec<Put<'_>> = members.iter().map(|&index| self.put_statement(index)).collect::<Result<_, Failure>>()?;
        for _ in 0..PUT_ATTEMPTS {
            let statements: Vec<&RawDocumentBuf> = pending.iter().map(|put| &put.statement).collect();
            let mut met = HashMap::new();
            for refusal in via.update(namespace, &statements).await?.refusals {
                let index = refusal.duplicate(namespace).ok_or_else(|| refusal.failure())?;
                met.insert(refusal.at, index);
            }
            let mut doubtful = Vec::new();
            for (at, put) in pending.into_iter().enumerate() {
                match met.remove(&at) {
                    None => told.push((put.index, Outcome::Applied)),
                    Some(index) if index.as_deref() == Some("_id_") => doubtful.push(put),
                    Some(index) => told.push((put.index, Outcome::Conflict { index })),
                }
            }
            if via.in_transaction() {
                // The server has ended the transaction; its snapshot had the document that was in the way.
                told.extend(doubtful.into_iter().map(|put| (put.index, Outcome::Refused)));
                return Ok(told);
            }
            pending = self.settle(via, namespace, doubtful, &mut told).await?;
            if pending.is_empty() {
                return Ok(told);
            }
        }
        Err(Error::database("other writers of the same documents were always faster").retryable().into())
    }

    /// A duplicate `_id` means a stored document that is as new, or one that somebody else created just now and that may be older: looks which.
    async fn settle<'p>(
        &self,
        via: &mut Via<'_>,
        namespace: &Namespace,
        doubtful: Vec<Put<'p>>,
        told: &mut Told,
    ) -> Result<Vec<Put<'p>>, Failure> {
        if doubtful.is_empty() {
            return Ok(doubtful);
        }
        let ids: Vec<Bson> = doubtful.iter().map(|put| put.id.clone()).collect();
        let fields: Document = doubtful.iter().filter_map(|put| put.newer).map(|(field, _)| (field.to_owned(), Bson::Int32(1))).collect();
        let found = via.find(namespace, &ids, Some(fields)).await?;
        let stored: HashMap<Vec<u8>, Document> = found.into_iter().filter_map(|d| Some((order::encode(d.get("_id")?), d))).collect();
        let mut again = Vec::new();
        for put in doubtful {
            let stored = stored.get(&order::encode(put.id));
            let as_new = |(field, value): (&str, &Bson)| {
                stored.and_then(|d| d.get(field)).is_some_and(|have| number(have) && order::compare(have, value).is_ge())
            };
            if put.newer.is_some_and(as_new) {
                told.push((put.index, Outcome::Refused));
            } else {
                again.push(put);
            }
        }
        Ok(again)
    }

    fn put_statement(&self, index: usize) -> Result<Put<'_>, Failure> {
        let Write::Put { document, guard } = &self.operations[index].write else {
            return Err(Error::database("a write that is no put was grouped with puts").into());
        };
        let id = id(document)?;
        let newer = match guard {
            Guard::Newer { field } => Some((field.as_str(), document.get(field).unwrap_or(&Bson::Null))),
            _ => None,
        };
        let mut filter = by_id(id);
        if let Some((field, value)) = newer {
            filter.insert(field, doc! { "$not": { "$gte": value } });
        }
        Ok(Put { index, id, newer, statement: update_statement(&filter, document, true)? })
    }

    /// Puts if a field has a value. The answer to one statement counts what it found; of several only the errors are told apart, so there a
    /// statement that finds nothing must be an error: see [`swap_statement`].
    async fn swap(&self, via: &mut Via<'_>, namespace: &Namespace, members: &[usize]) -> Result<Told, Failure> {
        let alone = members.len() == 1;
        let mut statements = Vec::with_capacity(members.len());
        for &index in members {
            let Write::Put { document, guard: Guard::Equals { field, value } } = &self.operations[index].write else {
                return Err(Error::database("a write that is no guarded put was grouped with guarded puts").into());
            };
            statements.push(match alone {
                true => update_statement(&guarded(by_id(id(document)?), field, value), document, false)?,
                false => swap_statement(document, field, value)?,
            });
        }
        let statements: Vec<&RawDocumentBuf> = statements.iter().collect();
        let mut told: Told = members.iter().map(|&index| (index, Outcome::Applied)).collect();
        let Answer { n, refusals } = via.update(namespace, &statements).await?;
        if alone && n == 0 {
            told[0].1 = Outcome::Refused;
        }
        for refusal in refusals {
            told[refusal.at].1 = match refusal.duplicate(namespace) {
                Some(index) => Outcome::Conflict { index },
                None if !alone && refusal.code == NOTHING_FOUND => Outcome::Refused,
                None => return Err(refusal.failure()),
            };
        }
        Ok(told)
    }

    async fn delete(&self, via: &mut Via<'_>, namespace: &Namespace, members: &[usize]) -> Result<Told, Failure> {
        let statements: Vec<RawDocumentBuf> =
            members.iter().map(|&index| delete_statement(&self.operations[index].write)).collect::<Result<_, Failure>>()?;
        let statements: Vec<&RawDocumentBuf> = statements.iter().collect();
        match via.delete(namespace, &statements).await?.refusals.first() {
            Some(refusal) => Err(refusal.failure()),
            None => Ok(members.iter().map(|&index| (index, Outcome::Applied)).collect()),
        }
    }

    async fn delete_if(&self, via: &mut Via<'_>, namespace: &Namespace, members: &[usize]) -> Result<Told, Failure> {
        let mut told = Told::with_capacity(members.len());
        for &index in members {
            let statement = delete_statement(&self.operations[index].write)?;
            let Answer { n, refusals } = via.delete(namespace, &[&statement]).await?;
            if let Some(refusal) = refusals.first() {
                return Err(refusal.failure());
            }
            told.push((index, if n == 0 { Outcome::Refused } else { Outcome::Applied }));
        }
        Ok(told)
    }
}

fn check(operation: &Operation) -> Result<()> {
    match &operation.write {
        Write::Insert(document) => id(document).map(drop),
        Write::Put { document, guard } => {
            id(document)?;
            match guard {
                Guard::Newer { field } if !document.get(field).is_some_and(number) => {
                    Err(Error::validation(format!("a put that is guarded by a newer `{field}` needs a number in that field")))
                }
                _ => Ok(()),
            }
        }
        Write::Delete { guard: Guard::Newer { .. }, .. } => Err(Error::validation("a delete cannot be guarded by a newer field")),
        Write::Delete { .. } => Ok(()),
    }
}

fn id(document: &Document) -> Result<&Bson> {
    document.get("_id").ok_or_else(|| Error::validation("a document has no _id"))
}

fn document(write: &Write) -> Option<&Document> {
    match write {
        Write::Insert(document) | Write::Put { document, .. } => Some(document),
        Write::Delete { .. } => None,
    }
}

fn number(value: &Bson) -> bool {
    matches!(value, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_))
}

/// The filter for one `_id`, in the shape that the server answers without planning wherever the value allows it.
fn by_id(id: &Bson) -> Document {
    match id {
        Bson::Document(_) | Bson::Array(_) | Bson::RegularExpression(_) => doc! { "_id": { "$eq": id } },
        plain => doc! { "_id": plain },
    }
}

/// Narrows a filter to documents with a value in a top-level field.
fn guarded(mut filter: Document, field: &str, value: &Bson) -> Document {
    let equal = match value {
        Bson::Array(_) => doc! { "$eq": value },
        // Without the type, an array that holds the value would do.
        _ => doc! { "$eq": value, "$not": { "$type": "array" } },
    };
    if filter.contains_key(field) {
        return doc! { "$and": [filter, { field: equal }] };
    }
    filter.insert(field, equal);
    filter
}

/// A put if a field has a value, which fails with [`NOTHING_FOUND`] if nothing is found.
///
/// It may insert, and what it would insert has no `_id` yet (the filter names a range, from which the server takes none): then the replacement is a
/// conversion that cannot succeed. The conversion reads the document so that the server doesn't try it beforehand.
fn swap_statement(document: &Document, field: &str, value: &Bson) -> Result<RawDocumentBuf, Failure> {
    let id = id(document)?;
    let filter = guarded(doc! { "_id": { "$gte": id, "$lte": id } }, field, value);
    let mut literal = RawDocumentBuf::new();
    literal.append(cstr!("$literal"), RawDocumentBuf::try_from(document)?);
    let mut choice = RawArrayBuf::new();
    choice.push(RawDocumentBuf::try_from(&doc! { "$eq": ["$_id", { "$literal": id }] })?);
    choice.push(literal);
    choice.push(RawDocumentBuf::try_from(&doc! { "$toObjectId": { "$type": "$_id" } })?);
    let mut replacement = RawDocumentBuf::new();
    replacement.append(cstr!("$cond"), choice);
    let mut stage = RawDocumentBuf::new();
    stage.append(cstr!("$replaceWith"), replacement);
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(stage);
    let mut statement = RawDocumentBuf::new();
    statement.append(cstr!("q"), RawDocumentBuf::try_from(&filter)?);
    statement.append(cstr!("u"), pipeline);
    statement.append(cstr!("upsert"), true);
    Ok(statement)
}

fn update_statement(filter: &Document, document: &Document, upsert: bool) -> Result<RawDocumentBuf, Failure> {
    let mut statement = RawDocumentBuf::new();
    statement.append(cstr!("q"), RawDocumentBuf::try_from(filter)?);
    statement.append(cstr!("u"), RawDocumentBuf::try_from(document)?);
    statement.append(cstr!("upsert"), upsert);
    Ok(statement)
}

fn delete_statement(write: &Write) -> Result<RawDocumentBuf, Failure> {
    let filter = match write {
        Write::Delete { id, guard: Guard::Equals { field, value } } => guarded(by_id(id), field, value),
        Write::Delete { id, .. } => by_id(id),
        _ => return Err(Error::database("a write that is no delete was grouped with deletes").into()),
    };
    let mut statement = RawDocumentBuf::new();
    statement.append(cstr!("q"), RawDocumentBuf::try_from(&filter)?);
    statement.append(cstr!("limit"), 1);
    Ok(statement)
}
