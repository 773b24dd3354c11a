//! Options that several actions have, each written once.

macro_rules! attribution_options {
    () => {
        /// Records who makes this change.
        pub fn actor(mut self, actor: impl Into<String>) -> Self {
            self.options.actor = Some(actor.into());
            self
        }

        /// Records why.
        pub fn reason(mut self, reason: impl Into<String>) -> Self {
            self.options.reason = Some(reason.into());
            self
        }

        /// Records the caller's own identifier of this request.
        pub fn request_id(mut self, id: impl Into<String>) -> Self {
            self.options.request_id = Some(id.into());
            self
        }

        /// Returns when the payload is stored as an object, too. By default a write returns when its version
        /// is committed.
        pub fn ack_stored(mut self) -> Self {
            self.options.stored = true;
            self
        }
    };
}

macro_rules! write_options {
    () => {
        attribution_options!();

        /// Gives the time of an imported change. It must be after the item's newest version and not more than
        /// 5 minutes ahead of the store's clock.
        pub fn at(mut self, at: $crate::Timestamp) -> Self {
            self.options.at = Some(at);
            self
        }
    };
}

macro_rules! change_options {
    () => {
        /// Fails with `OPTIMISTIC_LOCK` unless the item is at this version (`ov`). Without it a conflict is
        /// repeated on the newest state.
        pub fn expect_ov(mut self, ov: i64) -> Self {
            self.options.expected_ov = Some(ov);
            self
        }

        /// Makes a version even if nothing changes.
        pub fn force(mut self) -> Self {
            self.options.force = true;
            self
        }
    };
}

macro_rules! lineage_options {
    () => {
        /// Names the item a new one was made from. The new item's origin is that of its parent, unless
        /// [`origin`](Self::origin) names another.
        pub fn parent(mut self, id: &ItemId, collection: &str) -> Self {
            self.lineage.set_parent(id, collection);
            self
        }

        /// Names the first item of the chain of a new one: `collection` in this system, or
        /// `system:collection` in another.
        pub fn origin(mut self, id: impl Into<String>, collection: &str, system: Option<&str>) -> Self {
            self.lineage.set_origin(id.into(), collection, system);
            self
        }
    };
}

macro_rules! read_options {
    () => {
        /// Shows deleted items too, with `deletedAt`.
        pub fn include_deleted(mut self) -> Self {
            self.options().include_deleted = true;
            self
        }

        /// Keeps only these top-level properties (`_system` is one of them).
        pub fn project<S: Into<String>>(mut self, properties: impl IntoIterator<Item = S>) -> Self {
            self.options().projection = Some(properties.into_iter().map(Into::into).collect());
            self
        }

        /// Signs URLs for externalised properties, good for `ttl` (1 s to 7 days). S3 and Azure can.
        pub fn presign(mut self, ttl: Duration) -> Self {
            self.options().presign = Some(ttl);
            self
        }
    };
}

/// An action that makes a new version of one item.
macro_rules! change_action {
    ($(#[$doc:meta])* $name:ident, $($field:ident: $type:ty)? => |$this:ident| $change:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        #[must_use = "an action runs when it is awaited"]
        pub struct $name {
            collection: Collection,
            id: ItemId,
            $($field: $type,)?
            options: WriteOptions,
        }

        impl $name {
            pub(crate) fn new(collection: &Collection, id: ItemId $(, $field: impl Into<$type>)?) -> Self {
                Self { collection: collection.clone(), id, $($field: $field.into(),)? options: WriteOptions::default() }
            }

            write_options!();
            change_options!();

            /// Writes as the holder of a lock: the change must follow the version the holder saw.
            ///
            /// # Errors
            /// `VALIDATION_ERROR` if the lock is of another item; `OPTIMISTIC_LOCK` if the item moved on,
            /// which means the lease was lost.
            pub async fn with_lock(self, lock: &ItemLock) -> Result<Written> {
                let observed = self.collection.observed($crate::telemetry::Operation::$name);
                let write = async {
                    if lock.id() != self.id {
                        return Err(Error::validation("this lock is of another item").on_item(self.id));
                    }
                    let $this = self;
                    let change = $change;
                    let scope = $this.collection.scope().await?;
                    let (id, options) = ($this.id, &$this.options);
                    let call = WriteCall { id, change: &change, options, scope, lock: Some(lock) };
                    Ok($this.collection.workers.writer.write(call).await?.into())
                };
                observed.watch(write, |_| None).await
            }

        }

        impl Action for $name {
            type Output = Written;

            fn observed(&self) -> Option<$crate::telemetry::Observed> {
                Some(self.collection.observed($crate::telemetry::Operation::$name))
            }

            async fn run(self) -> Result<Written> {
                let $this = self;
                let request = Request::Change($change);
                $this.collection.submit($this.id, request, $this.options).await
            }
        }

        awaitable!($name);
    };
}
