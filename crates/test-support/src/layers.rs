use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use chronos_db::{Clock, Error, Result};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A kind of call of a seam: [`documents::Call`](crate::documents::Call) or
/// [`objects::Call`](crate::objects::Call).
pub trait CallKind: Copy + Debug + Eq + Hash + Ord + Send + Sync + 'static {
    /// The error a real store of this seam gives when it can't be reached.
    fn error(self, message: String) -> Error;
}

/// What a decorator does around every call of a store. One layer may be around many stores.
pub trait Layer<C: CallKind>: Debug + Send + Sync + 'static {
    /// Around a call with one answer.
    fn around<'a, T: Send + 'a>(
        &'a self,
        call: C,
        inner: BoxFuture<'a, Result<T>>,
    ) -> BoxFuture<'a, Result<T>>;
    /// Around a call with a stream of answers.
    fn around_stream<T: Send + 'static>(
        &self,
        call: C,
        inner: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>>;
}

/// Counts the calls by kind, whatever becomes of them.
///
/// A stream counts once, when it is asked for.
#[derive(Debug)]
pub struct Counting<C> {
    counts: Mutex<BTreeMap<C, u64>>,
}

impl<C> Default for Counting<C> {
    fn default() -> Self {
        Self { counts: Mutex::default() }
    }
}

impl<C: CallKind> Counting<C> {
    /// A layer that hasn't counted anything yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How many calls of this kind there were.
    #[must_use]
    pub fn count(&self, call: C) -> u64 {
        self.counts.lock().get(&call).copied().unwrap_or(0)
    }

    /// The kinds there were, with their numbers: good for asserting that there was nothing else.
    #[must_use]
    pub fn all(&self) -> Vec<(C, u64)> {
        self.counts.lock().iter().map(|(call, count)| (*call, *count)).collect()
    }

    /// Forgets everything, and returns it.
    pub fn take(&self) -> Vec<(C, u64)> {
        std::mem::take(&mut *self.counts.lock()).into_iter().collect()
    }

    fn add(&self, call: C) {
        *self.counts.lock().entry(call).or_insert(0) += 1;
    }
}

impl<C: CallKind> Layer<C> for Counting<C> {
    fn around<'a, T: Send + 'a>(
        &'a self,
        call: C,
        inner: BoxFuture<'a, Result<T>>,
    ) -> BoxFuture<'a, Result<T>> {
        self.add(call);
        inner
    }

    fn around_stream<T: Send + 'static>(
        &self,
        call: C,
        inner: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        self.add(call);
        inner
    }
}

/// Makes every call of the chosen kinds wait before it reaches the store.
///
/// With a [`MockClock`](crate::MockClock) this holds calls back until the test lets them go.
#[derive(Debug)]
pub struct Delaying<C> {
    clock: Arc<dyn Clock>,
    delays: Mutex<HashMap<C, Duration>>,
}

impl<C: CallKind> Delaying<C> {
    /// A layer that doesn't delay anything yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, delays: Mutex::default() })
    }

    /// Delays the calls of this kind from now on; zero for not at all.
    pub fn delay(&self, call: C, by: Duration) {
        self.delays.lock().insert(call, by);
    }

    fn wait(&self, call: C) -> Option<BoxFuture<'static, ()>> {
        let by = self.delays.lock().get(&call).copied().unwrap_or_default();
        (!by.is_zero()).then(|| self.clock.sleep(by))
    }
}

impl<C: CallKind> Layer<C> for Delaying<C> {
    fn around<'a, T: Send + 'a>(
        &'a self,
        call: C,
        inner: BoxFuture<'a, Result<T>>,
    ) -> BoxFuture<'a, Result<T>> {
        match self.wait(call) {
            None => inner,
            Some(wait) => Box::pin(async move {
                wait.await;
                inner.await
            }),
        }
    }

    fn around_stream<T: Send + 'static>(
        &self,
        call: C,
        inner: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        match self.wait(call) {
            None => inner,
            Some(wait) => stream::once(async move {
                wait.await;
                inner
            })
            .flatten()
            .boxed(),
        }
    }
}

/// Holds calls of a kind back, before they reach the store, until the test lets them go.
#[derive(Debug)]
pub struct Holding<C> {
    holds: Mutex<Holds<C>>,
    changed: Notify,
}

#[derive(Debug)]
struct Holds<C> {
    /// How many more calls of the kind are let through before one is held.
    kinds: HashMap<C, u64>,
    held: HashMap<C, u64>,
    seen: HashMap<C, u64>,
}

impl<C> Default for Holding<C> {
    fn default() -> Self {
        let holds = Holds { kinds: HashMap::new(), held: HashMap::new(), seen: HashMap::new() };
        Self { holds: Mutex::new(holds), changed: Notify::new() }
    }
}

impl<C: CallKind> Holding<C> {
    /// A layer that lets everything through.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Holds the calls of this kind from now on, after letting `passes` of them through.
    pub fn hold(&self, call: C, passes: u64) {
        self.holds.lock().kinds.insert(call, passes);
    }

    /// Returns when a call of this kind is held.
    pub async fn reached(&self, call: C) {
        self.until(|holds| holds.held.get(&call).is_some_and(|held| *held > 0)).await;
    }

    /// Lets the calls of this kind go, and those that come.
    pub fn release(&self, call: C) {
        self.holds.lock().kinds.remove(&call);
        self.changed.notify_waiters();
    }

    /// How many calls of this kind there were.
    #[must_use]
    pub fn count(&self, call: C) -> u64 {
        self.holds.lock().seen.get(&call).copied().unwrap_or(0)
    }

    async fn until(&self, done: impl Fn(&Holds<C>) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on, not from its first poll on.
            changed.as_mut().enable();
            if done(&self.holds.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// Whether this call has to wait.
    fn begin(&self, call: C) -> bool {
        let mut holds = self.holds.lock();
        *holds.seen.entry(call).or_insert(0) += 1;
        let waits = match holds.kinds.get_mut(&call) {
            None => false,
            Some(0) => true,
            Some(passes) => {
                *passes -= 1;
                false
            }
        };
        if waits {
            *holds.held.entry(call).or_insert(0) += 1;
            self.changed.notify_waiters();
        }
        waits
    }

    async fn wait(&self, call: C) {
        self.until(|holds| !holds.kinds.contains_key(&call)).await;
        if let Some(held) = self.holds.lock().held.get_mut(&call) {
            *held -= 1;
        }
    }
}

impl<C: CallKind> Layer<C> for Holding<C> {
    fn around<'a, T: Send + 'a>(
        &'a self,
        call: C,
        inner: BoxFuture<'a, Result<T>>,
    ) -> BoxFuture<'a, Result<T>> {
        if !self.begin(call) {
            return inner;
        }
        Box::pin(async move {
            self.wait(call).await;
            inner.await
        })
    }

    /// Streams are not held, only counted.
    fn around_stream<T: Send + 'static>(
        &self,
        call: C,
        inner: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        *self.holds.lock().seen.entry(call).or_insert(0) += 1;
        inner
    }
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It doesn't reach the store; the error is retryable.
    Before,
    /// It takes place, but the caller gets a retryable error instead of the answer. A stream gives all its
    /// items, then the error.
    After,
    /// It doesn't reach the store; the error says that trying again is pointless.
    Refused,
    /// It doesn't reach the store, and the caller that waits for the answer panics.
    Panic,
}

/// Fails the calls a test names.
#[derive(Debug)]
pub struct Failing<C> {
    plan: Mutex<Plan<C>>,
}

#[derive(Debug)]
struct Plan<C> {
    /// Calls still to pass before the fault, and the fault.
    nth: HashMap<C, Vec<(u64, Fault)>>,
    on: HashMap<C, Fault>,
    all: Option<Fault>,
    injected: u64,
}

impl<C> Default for Failing<C> {
    fn default() -> Self {
        Self { plan: Mutex::new(Plan { nth: HashMap::new(), on: HashMap::new(), all: None, injected: 0 }) }
    }
}

impl<C: CallKind> Failing<C> {
    /// A layer that lets everything through.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Fails the `n`th call of this kind from now on: 1 is the next. May be called several times for one
    /// kind.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn fail_nth(&self, call: C, n: u64, fault: Fault) {
        let before = n.checked_sub(1).expect("calls are counted from 1");
        self.plan.lock().nth.entry(call).or_default().push((before, fault));
    }

    /// Fails every call of this kind until [`switch_off`](Self::switch_off).
    pub fn switch_on(&self, call: C, fault: Fault) {
        self.plan.lock().on.insert(call, fault);
    }

    /// Fails every call of any kind until [`switch_off`](Self::switch_off): an outage.
    pub fn switch_all_on(&self, fault: Fault) {
        self.plan.lock().all = Some(fault);
    }

    /// Ends what `switch_on` and `switch_all_on` began. Faults of [`fail_nth`](Self::fail_nth) stay planned.
    pub fn switch_off(&self) {
        let mut plan = self.plan.lock();
        plan.on.clear();
        plan.all = None;
    }

    /// How many calls were failed.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.plan.lock().injected
    }

    fn decide(&self, call: C) -> Option<Fault> {
        let mut plan = self.plan.lock();
        let mut due = None;
        if let Some(waiting) = plan.nth.get_mut(&call) {
            waiting.retain_mut(|(before, fault)| {
                if *before == 0 {
                    due = Some(*fault);
                    return false;
                }
                *before -= 1;
                true
            });
        }
        let fault = due.or_else(|| plan.on.get(&call).copied()).or(plan.all);
        plan.injected += u64::from(fault.is_some());
        fault
    }
}

fn error<C: CallKind>(call: C, fault: Fault) -> Error {
    match fault {
        Fault::Before => call.error(format!("injected: {call:?} did not reach the store")).retryable(),
        Fault::After => call.error(format!("injected: the answer to {call:?} was lost")).retryable(),
        Fault::Refused => call.error(format!("injected: the store refuses {call:?}")),
        Fault::Panic => panic!("injected: {call:?} panics"),
    }
}

impl<C: CallKind> Layer<C> for Failing<C> {
    fn around<'a, T: Send + 'a>(
        &'a self,
        call: C,
        inner: BoxFuture<'a, Result<T>>,
    ) -> BoxFuture<'a, Result<T>> {
        let Some(fault) = self.decide(call) else { return inner };
        Box::pin(async move {
            if fault == Fault::After {
                // A failure of the store itself comes first.
                inner.await?;
            }
            Err(error(call, fault))
        })
    }

    fn around_stream<T: Send + 'static>(
        &self,
        call: C,
        inner: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let Some(fault) = self.decide(call) else { return inner };
        let end = stream::once(async move { Err(error(call, fault)) });
        if fault == Fault::After { inner.chain(end).boxed() } else { end.boxed() }
    }
}
