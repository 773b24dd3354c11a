//! Times as whole milliseconds, as they are stored.

use std::time::Duration;

/// The whole milliseconds of a time, at most as many as there can be.
pub(crate) fn to_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The same for sums with times of day.
pub(crate) fn to_signed_millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A time without what is less than a millisecond, as it will be read back.
pub(super) fn whole(time: Duration) -> Duration {
    Duration::from_millis(to_millis(time))
}

/// For `#[serde(with = …)]`: a number of milliseconds.
pub(super) mod one {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(in crate::hot) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(super::to_millis(*time))
    }

    pub(in crate::hot) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// For `#[serde(with = …)]`: a number of milliseconds, or null.
pub(super) mod maybe {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(in crate::hot) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(super::to_millis).serialize(to)
    }

    pub(in crate::hot) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
    }
}

/// For `#[serde(with = …)]`: a list of numbers of milliseconds.
pub(super) mod list {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(in crate::hot) fn serialize<S: Serializer>(times: &[Duration], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(times.iter().copied().map(super::to_millis))
    }

    pub(in crate::hot) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Duration>, D::Error> {
        Ok(Vec::<u64>::deserialize(from)?.into_iter().map(Duration::from_millis).collect())
    }
}
