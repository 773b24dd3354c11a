//! From a batch to few commands: one per stage, namespace and kind of write.

use std::collections::{BTreeMap, HashMap};

use bson::raw::cstr;
use bson::{Bson, Document, RawArrayBuf, RawBson, RawBsonRef, RawDocumentBuf, doc};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream;

use super::call::Call;
use super::command::{Answer, Refusal, Via};
use super::failure::Failure;
use super::numbered::NumberedSessions;
use crate::documents::{Guard, Namespace, Operation, Outcome, Write, raw_bson};
use crate::fail::FailPoints;
use crate::{Error, Result};

/// Commands of one stage that are under way at once.
const COMMANDS_AT_ONCE: usize = 16;
/// How often puts that met other writers of the same documents are sent again.
const PUT_ATTEMPTS: usize = 20;

/// A checked batch, cut into stages.
pub(super) struct Plan {
    steps: Vec<Step>,
    stages: Vec<Vec<usize>>,
}

/// An operation, ready to be sent.
struct Step {
    namespace: Namespace,
    requires: Option<usize>,
    kind: Kind,
    /// What the command lists: the document of an insert, the statement of all others.
    sent: RawDocumentBuf,
}

/// Which writes share a command.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Insert,
    Put,
    Delete,
    /// A delete if a field has a value, with its index: the answer only counts, so each has a command of its
    /// own.
    DeleteIf(usize),
}

/// The writes of a stage that share a command each.
pub(super) type Groups<'a> = BTreeMap<Group<'a>, Vec<usize>>;
pub(super) type Outcomes = Vec<(usize, Outcome)>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group<'a>(&'a Namespace, Kind);

/// The server's code for a conversion that failed: what a statement makes it say if its guard does not hold.
const GUARD_FAILED: i32 = 241;

impl Plan {
    pub(super) fn new(operations: Vec<Operation>) -> Result<Self> {
        let mut depths: Vec<usize> = Vec::with_capacity(operations.len());
        let mut stages: Vec<Vec<usize>> = Vec::new();
        let mut steps = Vec::with_capacity(operations.len());
        for (index, Operation { namespace, write, requires }) in operations.into_iter().enumerate() {
            let depth = match requires {
                None => 0,
                Some(required) => {
                    1 + *depths.get(required).ok_or_else(|| {
                        Error::validation(format!(
                            "operation {index} requires {required}, which does not come before it"
                        ))
                    })?
                }
            };
            depths.push(depth);
            if stages.len() <= depth {
                stages.resize_with(depth + 1, Vec::new);
            }
            stages[depth].push(index);
            let (kind, sent) = ready(write, index)?;
            steps.push(Step { namespace, requires, kind, sent });
        }
        Ok(Self { steps, stages })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    pub(super) fn stages(&self) -> &[Vec<usize>] {
        &self.stages
    }

    /// Runs the stages, each operation for itself.
    pub(super) async fn run(
        &self,
        call: &Call,
        sessions: Option<&NumberedSessions>,
        fail: &FailPoints,
    ) -> Result<Vec<Outcome>, Failure> {
        let mut outcomes = vec![Outcome::Skipped; self.steps.len()];
        for (stage, members) in self.stages.iter().enumerate() {
            if stage > 0 {
                fail.hit("mongo.between_stages")?;
            }
            let groups = self.groups(members, &outcomes);
            let mut under_way: Vec<BoxFuture<'_, Result<Outcomes, Failure>>> =
                Vec::with_capacity(groups.len());
            for (group, members) in groups {
                under_way.push(Box::pin(async move {
                    self.write(&mut Via::server(call, sessions), group, &members).await
                }));
            }
            let several = under_way.len() > 1;
            let mut failed = None;
            // All of them are awaited, also after a failure: a caller that gets the error should find the store at rest.
            let mut answers = stream::iter(under_way).buffer_unordered(COMMANDS_AT_ONCE);
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(answered) => {
                        answered.into_iter().for_each(|(index, outcome)| outcomes[index] = outcome)
                    }
                    Err(failure) => {
                        failed = failed.or(Some(if several || stage > 0 {
                            failure.after_others()
                        } else {
                            failure
                        }))
                    }
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
            let step = &self.steps[index];
            if step.requires.is_none_or(|required| outcomes[required].is_applied()) {
                groups.entry(Group(&step.namespace, step.kind)).or_default().push(index);
            }
        }
        groups
    }

    fn sent(&self, members: &[usize]) -> Vec<&RawDocumentBuf> {
        members.iter().map(|&index| &self.steps[index].sent).collect()
    }

    /// Sends one group.
    pub(super) async fn write(
        &self,
        via: &mut Via<'_>,
        Group(namespace, kind): Group<'_>,
        members: &[usize],
    ) -> Result<Outcomes, Failure> {
        match kind {
            Kind::Insert => self.insert(via, namespace, members).await,
            Kind::Put => self.put(via, namespace, members).await,
            Kind::Delete => self.delete(via, namespace, members).await,
            Kind::DeleteIf(_) => self.delete_if(via, namespace, members).await,
        }
    }

    async fn insert(
        &self,
        via: &mut Via<'_>,
        namespace: &Namespace,
        members: &[usize],
    ) -> Result<Outcomes, Failure> {
        let mut answered: Outcomes = members.iter().map(|&index| (index, Outcome::Applied)).collect();
        for refusal in via.insert(namespace, &self.sent(members)).await?.refusals {
            let index = refusal.duplicate(via, namespace).ok_or_else(|| refusal.failure())?;
            answered[refusal.at].1 = Outcome::Conflict { index };
        }
        Ok(answered)
    }

    /// One command decides every put by itself: the answer tells the statements that failed apart, so a guard
    /// that does not hold is made to fail.
    async fn put(
        &self,
        via: &mut Via<'_>,
        namespace: &Namespace,
        members: &[usize],
    ) -> Result<Outcomes, Failure> {
        let mut answered = Outcomes::with_capacity(members.len());
        let mut pending = members.to_vec();
        for _ in 0..PUT_ATTEMPTS {
            let refusals = via.update(namespace, &self.sent(&pending)).await?.refusals;
            let mut refusals: HashMap<usize, Refusal> =
                refusals.into_iter().map(|refusal| (refusal.at, refusal)).collect();
            let mut again = Vec::new();
            for (at, index) in pending.into_iter().enumerate() {
                let outcome = match refusals.remove(&at) {
                    None => Outcome::Applied,
                    Some(refusal) if refusal.code == GUARD_FAILED => Outcome::Refused,
                    Some(refusal) => {
                        match refusal.duplicate(via, namespace).ok_or_else(|| refusal.failure())? {
                            // Another client created the document just now. The server has ended a
                            // transaction that meets this.
                            Some(name) if name == "_id_" && via.in_transaction() => Outcome::Refused,
                            Some(name) if name == "_id_" => {
                                again.push(index);
                                continue;
                            }
                            name => Outcome::Conflict { index: name },
                        }
                    }
                };
                answered.push((index, outcome));
            }
            if again.is_empty() {
                return Ok(answered);
            }
            pending = again;
        }
        Err(Error::database("other writers of the same documents were always faster").retryable().into())
    }

    async fn delete(
        &self,
        via: &mut Via<'_>,
        namespace: &Namespace,
        members: &[usize],
    ) -> Result<Outcomes, Failure> {
        match via.delete(namespace, &self.sent(members)).await?.refusals.first() {
            Some(refusal) => Err(refusal.failure()),
            None => Ok(members.iter().map(|&index| (index, Outcome::Applied)).collect()),
        }
    }

    async fn delete_if(
        &self,
        via: &mut Via<'_>,
        namespace: &Namespace,
        members: &[usize],
    ) -> Result<Outcomes, Failure> {
        let mut answered = Outcomes::with_capacity(members.len());
        for &index in members {
            let Answer { n, refusals } = via.delete(namespace, &self.sent(&[index])).await?;
            if let Some(refusal) = refusals.first() {
                return Err(refusal.failure());
            }
            answered.push((index, if n == 0 { Outcome::Refused } else { Outcome::Applied }));
        }
        Ok(answered)
    }
}

/// What a write, the one at `index` of its batch, sends.
fn ready(write: Write, index: usize) -> Result<(Kind, RawDocumentBuf)> {
    match write {
        Write::Insert(document) => {
            let document = document.into_bytes()?;
            raw_bson::id(&document)?;
            Ok((Kind::Insert, document))
        }
        Write::Put { document, guard } => Ok((Kind::Put, put_statement(document.into_bytes()?, &guard)?)),
        Write::Delete { id, guard: Guard::Any } => Ok((Kind::Delete, delete_statement(&by_id(&id))?)),
        Write::Delete { id, guard: Guard::Equals { field, value } } => {
            Ok((Kind::DeleteIf(index), delete_statement(&guarded(by_id(&id), &field, &value))?))
        }
        Write::Delete { guard: Guard::Newer { .. }, .. } => {
            Err(Error::validation("a delete cannot be guarded by a newer field"))
        }
    }
}

fn is_number(value: &RawBsonRef<'_>) -> bool {
    matches!(
        value,
        RawBsonRef::Int32(_) | RawBsonRef::Int64(_) | RawBsonRef::Double(_) | RawBsonRef::Decimal128(_)
    )
}

/// The filter for one `_id`, in the shape that the server answers without planning wherever the value allows
/// it.
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

/// The statement of a put, which fails with [`GUARD_FAILED`] if its guard does not hold.
///
/// A guard is part of what is put in place of the stored document, and not of the filter: a filter by
/// `_id` alone is answered without planning, which halves the time that a statement takes the server.
fn put_statement(document: RawDocumentBuf, guard: &Guard) -> Result<RawDocumentBuf> {
    let id = &raw_bson::id(&document)?;
    let (filter, replacement) = match guard {
        Guard::Any => (by_id(id), RawBson::Document(document)),
        Guard::Newer { field } => {
            let Some(value) = raw_bson::get(&document, field)?.filter(is_number) else {
                return Err(Error::validation(format!(
                    "a put that is guarded by a newer `{field}` needs a number in that field"
                )));
            };
            let (seen, value) = (format!("${field}"), raw_bson::value(value)?);
            let older = doc! { "$not": [{ "$and": [{ "$isNumber": &seen }, { "$gte": [&seen, value] }] }] };
            (by_id(id), replace_if(&older, document, &seen)?)
        }
        // What an absent document would be made of has an `_id` alone, so a guard that such a one passes goes
        // by a filter that gives it none.
        Guard::Equals { field, value } if field == "_id" || matches!(value, Bson::Null | Bson::Undefined) => {
            let filter = guarded(doc! { "_id": { "$gte": id, "$lte": id } }, field, value);
            (filter, replace_if(&doc! { "$eq": ["$_id", { "$literal": id }] }, document, "$_id")?)
        }
        Guard::Equals { field, value } => {
            let seen = format!("${field}");
            (by_id(id), replace_if(&doc! { "$eq": [&seen, { "$literal": value }] }, document, &seen)?)
        }
    };
    let mut statement = RawDocumentBuf::new();
    statement.append(cstr!("q"), raw_bson::encode(&filter)?);
    statement.append(cstr!("u"), replacement);
    statement.append(cstr!("upsert"), true);
    Ok(statement)
}

/// An update that puts `new` in place of what is there if `condition` holds. Otherwise it is a conversion
/// that cannot succeed; it looks at the field `seen`, so that the server does not try it beforehand.
fn replace_if(condition: &Document, new: RawDocumentBuf, seen: &str) -> Result<RawBson> {
    let mut literal = RawDocumentBuf::new();
    literal.append(cstr!("$literal"), new);
    let mut choice = RawArrayBuf::new();
    choice.push(raw_bson::encode(condition)?);
    choice.push(literal);
    choice.push(raw_bson::encode(&doc! { "$toObjectId": { "$type": seen } })?);
    let mut replacement = RawDocumentBuf::new();
    replacement.append(cstr!("$cond"), choice);
    let mut stage = RawDocumentBuf::new();
    stage.append(cstr!("$replaceWith"), replacement);
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(stage);
    Ok(RawBson::Array(pipeline))
}

fn delete_statement(filter: &Document) -> Result<RawDocumentBuf> {
    let mut statement = RawDocumentBuf::new();
    statement.append(cstr!("q"), raw_bson::encode(filter)?);
    statement.append(cstr!("limit"), 1);
    Ok(statement)
}
