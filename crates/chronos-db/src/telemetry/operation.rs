//! The operations that metrics and events distinguish.

macro_rules! operations {
    ($($name:ident: $label:literal, $event:literal;)*) => {
        /// An operation, as metrics and events name it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Operation {
            $($name,)*
        }

        impl Operation {
            /// All of them, in their order.
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name as a label.
            pub(crate) const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// Its name in events.
            pub(crate) const fn event_name(self) -> &'static str {
                match self { $(Self::$name => $event,)* }
            }
        }
    };
}

operations! {
    Create: "create", "CREATE";
    Update: "update", "UPDATE";
    Replace: "replace", "REPLACE";
    Enrich: "enrich", "ENRICH";
    Delete: "delete", "DELETE";
    Restore: "restore", "RESTORE";
    SmartInsert: "smart_insert", "SMART_INSERT";
    InsertWithEntities: "insert_with_entities", "INSERT_WITH_ENTITIES";
    Import: "import", "IMPORT";
    RestoreCollection: "restore_collection", "RESTORE_COLLECTION";
    Get: "get", "GET";
    GetWithEntities: "get_with_entities", "GET_WITH_ENTITIES";
    GetTiered: "get_tiered", "GET_TIERED";
    List: "list", "LIST";
    Count: "count", "COUNT";
    History: "history", "HISTORY";
    Erase: "erase", "ERASE";
    HardDelete: "hard_delete", "HARD_DELETE";
    Lock: "lock", "LOCK";
    MarkProcessed: "mark_processed", "MARK_PROCESSED";
    ShrinkShadows: "shrink_shadows", "SHRINK_SHADOWS";
    Manifests: "manifests", "MANIFESTS";
    RollUp: "roll_up", "ROLL_UP";
    Prune: "prune", "PRUNE";
    BackUp: "back_up", "BACK_UP";
    RestoreBackup: "restore_backup", "RESTORE_BACKUP";
    ListBackups: "list_backups", "LIST_BACKUPS";
    VerifyBackups: "verify_backups", "VERIFY_BACKUPS";
    Certificates: "certificates", "CERTIFICATES";
    Verify: "verify", "VERIFY";
    Counters: "counters", "COUNTERS";
    Recount: "recount", "RECOUNT";
    Follow: "follow", "FOLLOW";
    RunAnalytics: "run_analytics", "RUN_ANALYTICS";
    AnalyticsResults: "analytics_results", "ANALYTICS_RESULTS";
    Health: "health", "HEALTH";
    CheckStorage: "check_storage", "CHECK_STORAGE";
    CheckSpaces: "check_spaces", "CHECK_SPACES";
    EnsureBuckets: "ensure_buckets", "ENSURE_BUCKETS";
    Fallback: "fallback", "FALLBACK";
    Route: "route", "ROUTE";
}
