//! What every [`DocumentStore`] must do, as plain functions that any implementation calls, or all at once by
//! [`documents_suite!`](crate::documents_suite).
//!
//! A function panics if its promise is broken. Each uses a database of a new name, so stores may be shared,
//! and old data does no harm.

#![allow(clippy::unwrap_used, reason = "a suite says that a promise is broken by panicking")]

pub mod ensuring;
pub mod guards;
pub mod lifetime;
pub mod looking;
pub mod newest;
pub mod scans;
pub mod sequences;
pub mod writes;

use std::future::Future;
use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Bson, Document};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::documents::filter::key_encoding::value_at;
use crate::documents::{Batch, DocumentStore, Guard, Namespace, Outcome, Scan, Write};

macro_rules! promises {
    ($d:tt $($topic:ident { $($name:ident,)+ })+) => {
        /// Checks every promise, one after the other, on a store of its own that `make` gives.
        pub async fn run_all<F: Future<Output = Arc<dyn DocumentStore>>>(make: impl Fn() -> F) {
            $($($topic::$name(make().await).await;)+)+
        }

        /// Makes a module of tests, one per promise of [`testing::documents`](crate::testing::documents). The
        /// second argument is a future that yields an `Arc<dyn DocumentStore>`; it is evaluated once per
        /// test.
        #[macro_export]
        macro_rules! documents_suite {
            ($d module:ident, $d make:expr) => {
                mod $d module {
                    #[allow(unused_imports)]
                    use super::*;
                    $($(
                        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                        async fn $name() {
                            ::chronos_db::testing::documents::$topic::$name($d make.await).await;
                        }
                    )+)+
                }
            };
        }
    };
}

promises! { $
    writes {
        an_inserted_document_is_read_back_as_it_was,
        an_id_is_taken_only_once,
        numbers_of_different_types_are_the_same_id,
        a_unique_index_names_itself_in_the_conflict,
        a_compound_unique_index_compares_all_its_paths,
        a_partial_unique_index_compares_only_documents_that_have_the_path,
        of_many_concurrent_inserts_of_one_key_one_wins,
        a_put_creates_and_replaces_the_whole_document,
        a_put_may_violate_a_unique_index,
        an_operation_that_requires_a_failed_one_is_skipped,
        operations_without_requirement_come_first,
        each_operation_stands_for_itself,
        a_whole_batch_takes_place_or_nothing_of_it,
        an_empty_batch_has_no_outcomes,
        a_document_without_id_is_refused,
        a_requirement_must_be_an_earlier_operation,
        a_document_of_four_megabytes_survives,
        a_document_nested_beyond_two_hundred_levels_is_refused,
        names_with_spaces_dots_dashes_and_letters_of_all_scripts_work,
        collections_and_databases_do_not_mix,
        what_was_written_is_read_at_once,
        many_writers_lose_nothing,
    }
    guards {
        a_put_that_expects_a_value_needs_the_document,
        a_put_that_expects_a_value_replaces_only_that_one,
        a_guarded_put_takes_every_text_as_it_is,
        every_put_of_a_batch_is_decided_by_itself,
        of_concurrent_swaps_of_one_value_one_wins,
        a_swap_may_expect_any_type_of_value,
        newer_puts_arrive_in_any_order_and_the_newest_stays,
        a_newer_put_creates_the_document,
        a_newer_put_replaces_a_document_without_the_field,
        concurrent_newer_puts_leave_the_newest,
        a_delete_removes_the_document,
        a_delete_that_expects_a_value_removes_only_that_one,
        a_delete_cannot_be_newer,
    }
    sequences {
        a_sequence_begins_at_zero,
        a_sequence_gives_out_ranges_without_gaps,
        concurrent_callers_share_a_sequence_without_gaps_or_repeats,
        a_sequence_goes_on_from_what_others_wrote,
        a_sequence_with_a_wrong_value_is_an_error,
        sequences_do_not_mix,
        no_numbers_cannot_be_asked_for,
        a_batch_is_built_from_its_numbers,
        a_build_that_fails_writes_nothing,
        a_conflict_of_a_built_batch_is_an_outcome,
    }
    scans {
        a_scan_of_nothing_is_empty,
        a_filter_finds_what_the_evaluator_finds,
        a_filter_on_indexed_paths_finds_what_the_evaluator_finds,
        a_count_is_how_many_match,
        an_order_goes_across_types,
        an_order_on_indexed_paths_goes_across_types,
        pages_neither_skip_nor_repeat,
        pages_on_indexed_paths_neither_skip_nor_repeat,
        pages_across_types_neither_skip_nor_repeat,
        pages_hold_while_others_write,
        a_limit_counts_matching_documents,
        fields_left_out_are_still_filtered_by,
        a_large_scan_streams_everything_once,
        a_large_scan_of_any_kind_gives_each_document_once,
        a_scan_may_be_dropped_midway,
        many_scans_at_once_wait_for_nobody,
        an_after_must_fit_its_order,
        documents_are_got_by_their_ids,
    }
    newest {
        the_newest_document_of_every_group_is_found,
        the_newest_are_found_without_an_index_too,
        a_filter_applies_after_the_reduction,
        a_filter_on_the_group_narrows_the_groups,
        the_newest_are_ordered_and_paged,
        a_bound_before_everything_finds_nothing,
    }
    ensuring {
        ensuring_twice_changes_nothing,
        an_index_can_come_after_the_documents,
        an_index_can_follow_another,
        a_unique_index_over_equal_values_is_refused_by_name,
        ensuring_makes_the_collection_usable,
        concurrent_ensures_agree,
    }
    looking {
        a_store_is_the_same_deployment_as_itself,
        a_store_lists_its_databases,
        a_store_lists_the_collections_of_a_database,
    }
    lifetime {
        the_stores_time_never_goes_back,
        the_stores_time_is_about_now,
        a_sequence_tells_the_time,
        a_closed_store_refuses_everything,
    }
}

/// A store and a database name nobody used before.
#[derive(Clone, Debug)]
pub(crate) struct Fresh {
    pub(crate) store: Arc<dyn DocumentStore>,
    pub(crate) database: String,
}

impl Fresh {
    pub(crate) fn new(store: Arc<dyn DocumentStore>) -> Self {
        Self { store, database: format!("suite-{}", ObjectId::new()) }
    }

    pub(crate) fn namespace(&self, collection: &str) -> Namespace {
        Namespace::new(self.database.as_str(), collection)
    }

    pub(crate) async fn one(&self, namespace: &Namespace, write: Write) -> Outcome {
        let mut batch = Batch::new();
        batch.push(namespace, write);
        self.store.apply(batch).await.unwrap().remove(0)
    }

    pub(crate) async fn insert(&self, namespace: &Namespace, document: Document) -> Outcome {
        self.one(namespace, Write::insert(document)).await
    }

    pub(crate) async fn put(&self, namespace: &Namespace, document: Document, guard: Guard) -> Outcome {
        self.one(namespace, Write::put(document, guard)).await
    }

    /// Inserts documents that violate nothing.
    pub(crate) async fn fill(&self, namespace: &Namespace, documents: impl IntoIterator<Item = Document>) {
        let mut batch = Batch::new();
        for document in documents {
            batch.push(namespace, Write::insert(document));
        }
        let outcomes = self.store.apply(batch).await.unwrap();
        assert!(outcomes.iter().all(Outcome::is_applied), "{outcomes:?}");
    }

    pub(crate) async fn get(&self, namespace: &Namespace, id: impl Into<Bson>) -> Option<Document> {
        self.store.get(namespace, vec![id.into()]).await.unwrap().pop()
    }

    pub(crate) async fn scan(&self, namespace: &Namespace, scan: Scan) -> Vec<Document> {
        self.store.scan(namespace, scan).try_collect().await.unwrap()
    }

    pub(crate) async fn count(&self, namespace: &Namespace) -> usize {
        self.store.scan(namespace, Scan::default()).count().await
    }

    /// All documents of a scan, in pages of `size`.
    pub(crate) async fn pages(&self, namespace: &Namespace, scan: &Scan, size: u64) -> Vec<Document> {
        let mut all: Vec<Document> = Vec::new();
        loop {
            let after = all.last().map(|last| position(last, scan));
            let page = self.scan(namespace, Scan { after, limit: Some(size), ..scan.clone() }).await;
            assert!(page.len() as u64 <= size);
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }
}

/// Where a document stands in the order of a scan.
pub(crate) fn position(document: &Document, scan: &Scan) -> Vec<Bson> {
    scan.order.iter().map(|(path, _)| value_at(document, path).cloned().unwrap_or(Bson::Null)).collect()
}

/// The `_id`s.
pub(crate) fn ids(documents: &[Document]) -> Vec<Bson> {
    documents.iter().map(|document| document.get("_id").cloned().unwrap_or(Bson::Null)).collect()
}

/// A conflict whose index has this name.
pub(crate) fn conflict(index: &str) -> Outcome {
    Outcome::Conflict { index: Some(index.to_owned()) }
}
