//! Constructors and setters of the parts of a configuration. Their values are checked by
//! [`ConfigBuilder::build`](super::ConfigBuilder::build).

use std::time::Duration;

use super::{
    Base64Property, Buckets, CollectionMap, DevShadow, ObjectSpace, Retention, Transactions, Warning,
};

impl CollectionMap {
    /// Indexes these properties instead of every top-level one: dotted paths, with `[]` behind an array.
    ///
    /// ```
    /// use chronos_db::config::{Base64Property, CollectionMap};
    ///
    /// let users = CollectionMap::default()
    ///     .indexed(["email", "tags[]", "address.city"])
    ///     .required(["email"])
    ///     .base64("photo", Base64Property::new("image/png"));
    /// assert_eq!(users.required, ["email"]);
    /// ```
    #[must_use]
    pub fn indexed<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.indexed = paths.into_iter().map(Into::into).collect();
        self
    }

    /// Refuses documents in which one of these indexed properties is absent, null or empty. Default: none.
    #[must_use]
    pub fn required<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.required = paths.into_iter().map(Into::into).collect();
        self
    }

    /// Stores the base64 text of the property at `path` (dotted, without `[]`) as an object of its own.
    #[must_use]
    pub fn base64(mut self, path: impl Into<String>, property: Base64Property) -> Self {
        self.base64.insert(path.into(), property);
        self
    }
}

impl Base64Property {
    /// A property of this media type; a text rendition is kept where the type is a text, as `utf8`.
    ///
    /// ```
    /// use chronos_db::config::Base64Property;
    ///
    /// let cv = Base64Property::new("application/x-cv").preferred_text(true).text_charset("latin1");
    /// assert_eq!(cv.text_charset, "latin1");
    /// ```
    #[must_use]
    pub fn new(content_type: impl Into<String>) -> Self {
        Self { content_type: content_type.into(), preferred_text: false, text_charset: "utf8".to_owned() }
    }

    /// Whether a text rendition is wanted whatever the type. Default: no.
    #[must_use]
    pub fn preferred_text(mut self, wanted: bool) -> Self {
        self.preferred_text = wanted;
        self
    }

    /// The text's character set. Default `utf8`.
    #[must_use]
    pub fn text_charset(mut self, charset: impl Into<String>) -> Self {
        self.text_charset = charset.into();
        self
    }
}

impl DevShadow {
    /// Keeps the latest payload in the head for so long: whole hours, at least one. Payloads of any size.
    ///
    /// ```
    /// use std::time::Duration;
    /// use chronos_db::config::DevShadow;
    ///
    /// let shadow = DevShadow::new(Duration::from_secs(24 * 3_600)).max_bytes(64 * 1024);
    /// assert_eq!(shadow.max_bytes, Some(65_536));
    /// ```
    #[must_use]
    pub const fn new(ttl: Duration) -> Self {
        Self { ttl, max_bytes: None }
    }

    /// Payloads of more bytes are not kept.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = Some(bytes);
        self
    }
}

impl Retention {
    /// Versions that are older may leave the index: whole days, at least one. Default: never.
    ///
    /// ```
    /// use std::time::Duration;
    /// use chronos_db::config::Retention;
    ///
    /// let bounds = Retention::default().max_age(Duration::from_secs(30 * 86_400)).max_per_item(100);
    /// assert_eq!(bounds.max_per_item, Some(100));
    /// ```
    #[must_use]
    pub const fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Versions beyond so many of an item, at least one, may leave the index. Default: never.
    #[must_use]
    pub const fn max_per_item(mut self, versions: u32) -> Self {
        self.max_per_item = Some(versions);
        self
    }

    /// Objects of items that no version names, wherever its row is, are removed when they were found so long ago, and
    /// still have no name: whole days, at least one. Payloads of versions always stay. Default: never.
    #[must_use]
    pub const fn objects(mut self, grace: Duration) -> Self {
        self.objects = Some(grace);
        self
    }
}

impl Transactions {
    /// Whether they are used. Default: yes.
    ///
    /// ```
    /// use chronos_db::config::Transactions;
    ///
    /// let transactions = Transactions::default().enabled(true).auto_detect(false);
    /// assert!(transactions.enabled && !transactions.auto_detect);
    /// ```
    #[must_use]
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Whether they are used only where the server has them. Default: yes.
    #[must_use]
    pub const fn auto_detect(mut self, only_there: bool) -> Self {
        self.auto_detect = only_there;
        self
    }
}

impl Default for Transactions {
    fn default() -> Self {
        Self { enabled: true, auto_detect: true }
    }
}

impl Buckets {
    /// One bucket for everything.
    #[must_use]
    pub fn one(bucket: impl Into<String>) -> Self {
        let bucket = bucket.into();
        Self { json: bucket.clone(), content: bucket.clone(), backups: bucket }
    }
}

impl ObjectSpace {
    /// Buckets of a spaces connection; without a reference, of the local folder
    /// ([`Config::local_storage`](super::Config::local_storage)).
    ///
    /// ```
    /// use chronos_db::config::{Buckets, ObjectSpace};
    ///
    /// let space = ObjectSpace::new(Some("s3".to_owned()), Buckets::one("app"));
    /// assert_eq!(space.buckets.content, "app");
    /// ```
    #[must_use]
    pub fn new(connection: Option<String>, buckets: Buckets) -> Self {
        Self { connection, buckets }
    }
}

impl Warning {
    /// A warning about the option at a JSON path.
    ///
    /// ```
    /// use chronos_db::config::Warning;
    ///
    /// let warning = Warning::new("redis.retryMs", "is not used");
    /// assert_eq!(warning.to_string(), "redis.retryMs: is not used");
    /// ```
    #[must_use]
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}
