//! Time and chance, behind traits so that a simulation can own both.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use futures::future::BoxFuture;
use jiff::SignedDuration;
use jiff::civil::{DateTime, Time};
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;

use crate::fail::FailPoints;
use crate::telemetry::Telemetry;
use crate::{Error, Result};

/// The whole milliseconds of a time, at most as many as there can be.
pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A moment in milliseconds since 1970-01-01T00:00:00Z, the resolution of every stored date.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Returns the moment `millis` milliseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns this moment moved by `millis` milliseconds.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// This moment, that much later.
    pub(crate) fn plus(self, time: Duration) -> Self {
        self.plus_millis(millis(time))
    }

    /// This moment, that much earlier.
    pub(crate) fn minus(self, time: Duration) -> Self {
        self.plus_millis(-millis(time))
    }

    /// Reads an ISO-8601 date (`2015-12-31`, midnight UTC) or date-time with an offset
    /// (`2015-12-31T10:00:00Z`).
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if it is neither. Digits below a millisecond are cut off.
    ///
    /// ```
    /// use chronos_db::Timestamp;
    /// assert_eq!(Timestamp::parse("2012-12-27T20:17:58Z")?.to_string(), "2012-12-27T20:17:58.000Z");
    /// assert_eq!(Timestamp::parse("2015-12-31")?.to_string(), "2015-12-31T00:00:00.000Z");
    /// assert_eq!(Timestamp::parse("9999-12-31T23:59:59Z")?.to_string(), "9999-12-31T23:59:59.000Z");
    /// # Ok::<(), chronos_db::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::validation(format!(
                "`{text}` is not an ISO-8601 date or date-time with an offset, such as 2015-12-31T10:00:00Z"
            ))
        };
        let pieces = Pieces::parse(text).map_err(|_| wrong())?;
        // A civil time reaches from the year -9999 to the last moment of 9999; jiff's own timestamps end a
        // day earlier, for the sake of time zones.
        let (time, offset) = match (pieces.time(), pieces.to_numeric_offset()) {
            (Some(time), Some(offset)) => (time, offset),
            (None, None) if pieces.time_zone_annotation().is_none() => (Time::midnight(), Offset::UTC),
            _ => return Err(wrong()),
        };
        let since_epoch = pieces.date().to_datetime(time).duration_since(EPOCH).as_millis()
            - i128::from(offset.seconds()) * 1000;
        i64::try_from(since_epoch).map(Self).map_err(|_| wrong())
    }
}

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

impl Timestamp {
    /// The date and time in UTC, if its year has at most four digits.
    pub(crate) fn civil(self) -> Option<DateTime> {
        EPOCH.checked_add(SignedDuration::from_millis(self.0)).ok()
    }

    /// The moment of a date and time in UTC. Digits below a millisecond are cut off.
    pub(crate) fn of_civil(at: DateTime) -> Option<Self> {
        i64::try_from(at.duration_since(EPOCH).as_millis()).ok().map(Self)
    }
}

/// ISO-8601; beyond the year 9999, milliseconds since 1970 (`300000000000000ms`).
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.civil() {
            Some(at) => write!(f, "{at:.3}Z"),
            None => write!(f, "{}ms", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<bson::DateTime> for Timestamp {
    fn from(at: bson::DateTime) -> Self {
        Self(at.timestamp_millis())
    }
}

impl From<Timestamp> for bson::RawBsonRef<'_> {
    fn from(at: Timestamp) -> Self {
        Self::DateTime(bson::DateTime::from_millis(at.0))
    }
}

impl From<Timestamp> for bson::Bson {
    fn from(at: Timestamp) -> Self {
        Self::DateTime(bson::DateTime::from_millis(at.0))
    }
}

/// Where "now" and waiting come from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the present.
    fn now(&self) -> Timestamp;
    /// Returns when `duration` has passed on this clock.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
    /// Returns how much time has passed since some moment of this process. It never goes back when the
    /// clock is set; a clock that is never set may leave this as it is.
    fn steady(&self) -> Duration {
        Duration::from_millis(self.now().as_millis().max(0).unsigned_abs())
    }
}

/// A moment of this process, by both of its clocks: one of them may be set, the other may stand still while the
/// machine sleeps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    at: Timestamp,
    steady: Duration,
}

impl Moment {
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self { at: clock.now(), steady: clock.steady() }
    }

    pub(crate) fn at(self) -> Timestamp {
        self.at
    }

    /// How long ago it is, by the clock that says longer.
    pub(crate) fn age(self, clock: &dyn Clock) -> Duration {
        let by_date = clock.now().as_millis().saturating_sub(self.at.as_millis());
        Duration::from_millis(by_date.max(0).unsigned_abs()).max(clock.steady().saturating_sub(self.steady))
    }

    /// Returns when `duration` has passed since, however the clock was set meanwhile.
    pub(crate) async fn passed(self, clock: &dyn Clock, duration: Duration) {
        loop {
            let left = (self.steady + duration).saturating_sub(clock.steady());
            if left.is_zero() {
                return;
            }
            // Some clocks count milliseconds only.
            clock.sleep(left.max(Duration::from_millis(1))).await;
        }
    }
}

/// The present by the steady clock, as milliseconds since its beginning: for waits of one process, which nobody who
/// sets its clock is to lengthen. No date, and not to be stored.
pub(crate) fn steady_now(clock: &dyn Clock) -> Timestamp {
    Timestamp::from_millis(millis(clock.steady()))
}

/// Returns when the steady clock has reached `end`, however early its sleeps return.
pub(crate) async fn sleep_until_steady(clock: &dyn Clock, end: Timestamp) {
    sleep_until_on(clock, end, steady_now).await;
}

/// Returns when the clock has reached `end`, however early its sleeps return.
pub(crate) async fn sleep_until(clock: &dyn Clock, end: Timestamp) {
    sleep_until_on(clock, end, |clock| clock.now()).await;
}

async fn sleep_until_on(clock: &dyn Clock, end: Timestamp, now: fn(&dyn Clock) -> Timestamp) {
    loop {
        let left = end.as_millis().saturating_sub(now(clock).as_millis());
        if left <= 0 {
            return;
        }
        clock.sleep(Duration::from_millis(left.unsigned_abs())).await;
    }
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn steady(&self) -> Duration {
        static FIRST: OnceLock<Instant> = OnceLock::new();
        FIRST.get_or_init(Instant::now).elapsed()
    }

    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_millisecond())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Where identifiers and jitter come from.
pub trait Random: Send + Sync + fmt::Debug {
    /// Makes a new identifier, unique among all processes and growing roughly with time.
    fn object_id(&self) -> ObjectId;
    /// Makes a uniformly distributed number.
    fn next_u64(&self) -> u64;
}

/// The random source of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn object_id(&self) -> ObjectId {
        ObjectId::new()
    }

    fn next_u64(&self) -> u64 {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(ObjectId::new())
    }
}

/// Clock, chance, fail points and measurements of one [`Chronos`](crate::Chronos); shared by everything it opens.
#[derive(Clone, Debug)]
pub struct Env {
    /// Where "now" comes from on stores without a server of their own, and what every wait goes by.
    pub clock: Arc<dyn Clock>,
    /// Where identifiers come from.
    pub random: Arc<dyn Random>,
    /// Named points at which a test makes the pipeline fail; none in production.
    pub fail: FailPoints,
    /// Where measurements go; opening a configuration takes it from the recorder that is installed.
    pub telemetry: Telemetry,
}

impl Default for Env {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            fail: FailPoints::default(),
            telemetry: Telemetry::default(),
        }
    }
}
