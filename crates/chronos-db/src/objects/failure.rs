//! What a storage's error means, without the credentials that servers like to repeat in their answers.

use std::error::Error as StdError;
use std::{fmt, io};

#[cfg(any(feature = "s3", feature = "azure"))]
use object_store::client::HttpError;

/// Longest reason that is shown.
const MAX_REASON_CHARS: usize = 300;

/// The status that stands for 501 on its way through the client, which would repeat that.
pub(super) const NOT_IMPLEMENTED: u16 = 471;

/// An error of a storage, taken apart.
#[derive(Debug)]
pub(super) struct Failure {
    /// What went wrong, for people. Not yet redacted.
    pub(super) reason: String,
    /// The HTTP status, if a server answered.
    status: Option<u16>,
    /// The code in the body of the answer, such as `NoSuchBucket`.
    code: Option<String>,
    /// The operating system's verdict, if a file was concerned.
    io: Option<io::ErrorKind>,
    class: Class,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Missing,
    Exists,
    /// The request itself cannot work.
    Unusable,
    /// No answer came in time.
    Silence,
    Other,
}

impl Failure {
    /// No answer in time.
    pub(super) fn timeout(limit: std::time::Duration) -> Self {
        Self::new(format!("no answer within {} s", limit.as_secs()), Class::Silence)
    }

    /// A request that cannot be made.
    #[cfg(any(feature = "s3", feature = "azure"))]
    pub(super) fn unusable(why: impl fmt::Display) -> Self {
        Self::new(why.to_string(), Class::Unusable)
    }

    /// A server's refusal, by its status and the body of its answer.
    #[cfg(any(feature = "s3", feature = "azure"))]
    pub(super) fn answered(status: u16, body: &str) -> Self {
        let mut failure = Self::new(String::new(), if status == 404 { Class::Missing } else { Class::Other });
        failure.set_answer(status, body);
        failure
    }

    /// A file operation that failed.
    pub(super) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        let mut failure = Self::new(format!("{what}: {error}"), Class::Other);
        failure.set_io(error.kind());
        failure
    }

    fn new(reason: String, class: Class) -> Self {
        Self { reason, status: None, code: None, io: None, class }
    }

    fn set_answer(&mut self, status: u16, body: &str) {
        let status = if status == NOT_IMPLEMENTED { 501 } else { status };
        self.status = Some(status);
        self.code = element(body, "Code").map(str::to_owned);
        let said = element(body, "Message").unwrap_or(body);
        let first_line = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        self.reason = match (status, &self.code) {
            (401 | 403, _) => "the storage refused the credentials, ".to_owned(),
            _ => "the storage answered ".to_owned(),
        };
        self.reason += &status.to_string();
        for part in [self.code.as_deref().unwrap_or_default(), first_line] {
            if !part.is_empty() {
                self.reason += " ";
                self.reason += part;
            }
        }
        if let Some((end, _)) = self.reason.char_indices().nth(MAX_REASON_CHARS) {
            self.reason.truncate(end);
            self.reason.push('…');
        }
    }

    fn set_io(&mut self, kind: io::ErrorKind) {
        self.io = Some(kind);
        self.reason += match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room on the disk",
            io::ErrorKind::ReadOnlyFilesystem => "; the folder must be on a writable disk",
            io::ErrorKind::PermissionDenied => "; give this process the right to read and write the folder",
            _ => "",
        };
    }

    /// There is no such object, or no such bucket.
    pub(super) fn is_missing(&self) -> bool {
        self.class == Class::Missing || self.status == Some(404)
    }

    /// A conditional create found an object. Not every conflict says so: others mean a lock, a container that
    /// is going away, or a race whose outcome is open.
    pub(super) fn is_existing(&self) -> bool {
        self.class == Class::Exists
            && (self.status != Some(409) || self.code.as_deref() == Some("BlobAlreadyExists"))
    }

    /// Another client is writing the same object; the next try will tell how it ended.
    pub(super) fn is_open_race(&self) -> bool {
        self.status == Some(409)
            && matches!(self.code.as_deref(), Some("ConditionalRequestConflict" | "OperationAborted"))
    }

    /// The storage did not understand the request.
    #[cfg(any(feature = "s3", feature = "azure"))]
    pub(super) fn is_bad_request(&self) -> bool {
        matches!(self.status, Some(400 | 411 | 415 | 501))
    }

    /// The storage has no such request, such as a conditional put.
    pub(super) fn is_unsupported(&self) -> bool {
        self.status == Some(501)
    }

    /// There is no such bucket.
    pub(super) fn no_bucket() -> Self {
        Self::new("there is no such bucket".to_owned(), Class::Missing)
    }

    /// A folder went away while it was being used.
    pub(super) fn is_lost_folder(&self) -> bool {
        self.io == Some(io::ErrorKind::NotFound)
    }

    /// The bucket that was to be created is there.
    #[cfg(any(feature = "s3", feature = "azure"))]
    pub(super) fn is_created_already(&self) -> bool {
        self.status == Some(409) && self.code.as_deref() != Some("ContainerBeingDeleted")
    }

    /// Nobody answered; whether the request was carried out is open.
    pub(super) fn is_silence(&self) -> bool {
        self.class == Class::Silence
    }

    /// Whether the same request may succeed later.
    pub(super) fn is_passing(&self) -> bool {
        if self.class == Class::Unusable {
            return false;
        }
        match (self.status, self.io) {
            (Some(status), _) => matches!(status, 408 | 409 | 429 | 500..),
            (None, Some(kind)) => !matches!(
                kind,
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::IsADirectory
            ),
            (None, None) => true,
        }
    }
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as E;
        let class = match &error {
            E::NotFound { .. } => Class::Missing,
            E::AlreadyExists { .. } | E::Precondition { .. } => Class::Exists,
            E::InvalidPath { .. }
            | E::NotSupported { .. }
            | E::NotImplemented { .. }
            | E::UnknownConfigurationKey { .. } => Class::Unusable,
            _ => Class::Other,
        };
        let mut failure = Self::new(String::new(), class);
        let text = error.to_string();
        if let Some((status, body)) = answer(&text) {
            failure.set_answer(status, body);
            return failure;
        }
        let chain: Vec<&(dyn StdError + 'static)> =
            std::iter::successors(Some(&error as &(dyn StdError + 'static)), |&e| e.source()).collect();
        #[cfg(any(feature = "s3", feature = "azure"))]
        if chain.iter().any(|e| e.is::<HttpError>()) {
            // The innermost cause says what happened ("Connection refused"); what is around it repeats the
            // URL.
            failure.reason = chain.last().map(ToString::to_string).unwrap_or_default();
            return failure;
        }
        failure.reason = chain.get(1).map_or(text, ToString::to_string);
        if let Some(io) = chain.iter().find_map(|e| e.downcast_ref::<io::Error>()) {
            failure.set_io(io.kind());
        }
        failure
    }
}

/// The status and body in the text of a failed request: the crate keeps the type that holds them to itself.
fn answer(text: &str) -> Option<(u16, &str)> {
    const MARK: &str = "non-2xx status code: ";
    let rest = &text[text.find(MARK)? + MARK.len()..];
    let status = rest.get(..3)?.parse().ok()?;
    Some((status, rest.split_once(": ").map_or("", |(_, body)| body)))
}

fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let start = body.find(&format!("<{name}>"))? + name.len() + 2;
    let length = body[start..].find(&format!("</{name}>"))?;
    Some(&body[start..start + length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_gives_its_status_its_code_and_the_first_line_of_its_message() {
        let text = "Generic S3 error: Error performing PUT http://h/b/k in 1ms - Server returned non-2xx status code: 403 Forbidden: \
            <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>It differs.\nRequestId: 7</Message></Error>";
        let failure = Failure::from(object_store::Error::Generic { store: "S3", source: text.into() });
        assert_eq!(
            failure.reason,
            "the storage refused the credentials, 403 SignatureDoesNotMatch It differs."
        );
        assert!(!failure.is_passing());
    }

    #[test]
    fn only_a_conflict_that_says_so_means_that_the_object_exists() {
        let conflict = |code: &str| {
            let text = format!(
                "Server returned non-2xx status code: 409 Conflict: <Error><Code>{code}</Code></Error>"
            );
            Failure::from(object_store::Error::AlreadyExists { path: "k".into(), source: text.into() })
        };
        assert!(conflict("BlobAlreadyExists").is_existing());
        assert!(!conflict("ConditionalRequestConflict").is_existing());
        assert!(conflict("ConditionalRequestConflict").is_open_race());
        assert!(!conflict("ContainerBeingDeleted").is_existing());
        assert!(conflict("ContainerBeingDeleted").is_passing());
    }

    #[test]
    fn a_full_disk_may_pass_and_a_read_only_one_does_not() {
        let failure = |kind: io::ErrorKind| Failure::io("cannot write", &io::Error::from(kind));
        assert!(failure(io::ErrorKind::StorageFull).is_passing());
        assert!(!failure(io::ErrorKind::ReadOnlyFilesystem).is_passing());
        assert!(failure(io::ErrorKind::ReadOnlyFilesystem).reason.contains("writable disk"));
    }
}
