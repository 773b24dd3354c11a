//! The options of connection strings: those of other drivers too, so that a string that worked with the
//! legacy packages works here.

use std::time::Duration;

/// A connection string with the options our driver takes, and what becomes of the others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sorted {
    /// The string as our driver takes it.
    pub(crate) uri: String,
    /// How long a call may take.
    pub(crate) timeout: Option<Duration>,
    /// Options without effect, each with the reason.
    pub(crate) without_effect: Vec<(String, &'static str)>,
}

/// What becomes of an option.
enum Fate {
    Kept,
    Renamed(&'static str),
    /// How long a call may take, in milliseconds. The first kind wins over the second.
    Timeout,
    SocketTimeout,
    /// 0 means "no limit" or "by default", which is what our driver has without it.
    NotZero,
    Dropped(&'static str),
}

const DURABLE: &str = "every write is journaled by a majority";
const BOUNDED: &str = "a write waits for its majority as long as a call may take; `timeoutMS` sets that";
const COMMITTED: &str = "every read sees what a majority has";
const PRIMARY: &str = "every read goes to the primary";
const UNCOMPRESSED: &str = "connections are not compressed";
const BUILT_IN: &str = "it does so by itself";
const NOT_HERE: &str = "it means nothing to this driver";

fn fate(name: &str) -> Fate {
    match name.to_ascii_lowercase().as_str() {
        "timeoutms" => Fate::Timeout,
        "sockettimeoutms" => Fate::SocketTimeout,
        "poolsize" => Fate::Renamed("maxPoolSize"),
        "maxpoolsize"
        | "serverselectiontimeoutms"
        | "srvmaxhosts"
        | "waitqueuetimeoutms"
        | "maxidletimems"
        | "connecttimeoutms" => Fate::NotZero,
        "w" | "j" | "journal" | "safe" | "fsync" => Fate::Dropped(DURABLE),
        "wtimeout" | "wtimeoutms" => Fate::Dropped(BOUNDED),
        "readconcern" | "readconcernlevel" => Fate::Dropped(COMMITTED),
        "readpreference" | "readpreferencetags" | "maxstalenessseconds" | "slaveok" => Fate::Dropped(PRIMARY),
        "compressors" | "compression" | "zlibcompressionlevel" => Fate::Dropped(UNCOMPRESSED),
        "usenewurlparser"
        | "useunifiedtopology"
        | "autoreconnect"
        | "reconnecttries"
        | "reconnectinterval"
        | "keepalive"
        | "keepaliveinitialdelay"
        | "nodelay"
        | "family"
        | "autoselectfamily"
        | "autoselectfamilyattempttimeout"
        | "ha"
        | "hainterval" => Fate::Dropped(BUILT_IN),
        "usecreateindex"
        | "usefindandmodify"
        | "autoindex"
        | "autocreate"
        | "autoencryption"
        | "buffercommands"
        | "buffermaxentries"
        | "buffertimeoutms"
        | "connectwithnoprimary"
        | "acceptablelatencyms"
        | "secondaryacceptablelatencyms"
        | "waitqueuemultiple"
        | "forceserverobjectid"
        | "ignoreundefined"
        | "serializefunctions"
        | "promotevalues"
        | "promotelongs"
        | "promotebuffers"
        | "bsonregexp"
        | "raw"
        | "fieldsasraw"
        | "enableutf8validation"
        | "monitorcommands"
        | "loggerlevel"
        | "logger"
        | "pkfactory"
        | "promiselibrary"
        | "validateoptions"
        | "domainsenabled"
        | "minsize"
        | "numberofretries"
        | "uuidrepresentation" => Fate::Dropped(NOT_HERE),
        _ => Fate::Kept,
    }
}

/// Sorts the options of a connection string. What is not known stays, for the driver to refuse.
pub(crate) fn sort(uri: &str) -> Sorted {
    let Some((place, query)) = uri.split_once('?') else {
        return Sorted { uri: uri.to_owned(), ..Sorted::default() };
    };
    let mut sorted = Sorted::default();
    let mut socket_timeout = None;
    let mut kept: Vec<String> = Vec::new();
    for option in query.split('&') {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let millis = || value.parse::<u64>().ok();
        match fate(name) {
            // The driver says what is wrong with it.
            Fate::Timeout | Fate::SocketTimeout if millis().is_none() => kept.push(option.to_owned()),
            Fate::Timeout => sorted.timeout = limit(millis()),
            Fate::SocketTimeout => socket_timeout = limit(millis()),
            Fate::NotZero if millis() == Some(0) => {}
            Fate::Kept | Fate::NotZero => kept.push(option.to_owned()),
            Fate::Renamed(to) if millis() != Some(0) => kept.push(format!("{to}={value}")),
            Fate::Renamed(_) => {}
            Fate::Dropped(why) => sorted.without_effect.push((name.to_owned(), why)),
        }
    }
    sorted.timeout = sorted.timeout.or(socket_timeout);
    sorted.uri = if kept.is_empty() { place.to_owned() } else { format!("{place}?{}", kept.join("&")) };
    sorted
}

/// 0 means that nothing is set.
fn limit(millis: Option<u64>) -> Option<Duration> {
    millis.filter(|millis| *millis > 0).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_legacy_packages_are_honoured_or_dropped_with_a_reason() {
        let sorted = sort(
            "mongodb://ann:hush@a:1,b:2/db?replicaSet=rs&useNewUrlParser=true&useUnifiedTopology=true&poolSize=5&socketTimeoutMS=45000&w=1&\
             wtimeout=100&readConcernLevel=local&readPreference=secondary&compressors=zlib&family=4&keepAlive=true&authSource=admin",
        );
        assert_eq!(sorted.uri, "mongodb://ann:hush@a:1,b:2/db?replicaSet=rs&maxPoolSize=5&authSource=admin");
        assert_eq!(sorted.timeout, Some(Duration::from_secs(45)));
        let named: Vec<_> = sorted.without_effect.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "useNewUrlParser",
            "useUnifiedTopology",
            "w",
            "wtimeout",
            "readConcernLevel",
            "readPreference",
            "compressors",
            "family",
            "keepAlive",
        ];
        assert_eq!(named, expected);
    }

    #[test]
    fn a_limit_of_nought_is_none() {
        let sorted =
            sort("mongodb://a/?socketTimeoutMS=0&maxPoolSize=0&serverSelectionTimeoutMS=0&srvMaxHosts=0");
        assert_eq!((sorted.uri.as_str(), sorted.timeout), ("mongodb://a/", None));
        assert_eq!(
            sort("mongodb://a/?socketTimeoutMS=1000&timeoutMS=2000").timeout,
            Some(Duration::from_secs(2))
        );
    }

    #[test]
    fn what_nobody_knows_is_left_for_the_driver_to_refuse() {
        assert_eq!(sort("mongodb://a/?tpyo=1").uri, "mongodb://a/?tpyo=1");
        assert_eq!(sort("mongodb://a").uri, "mongodb://a");
    }
}
