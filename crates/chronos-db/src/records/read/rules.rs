//! The counter rules that a version matches, from its document.

use super::reader::{Reader, ResolvedVersion};
use crate::Result;
use crate::records::document::{heavy, payload};
use crate::records::model::Row;

impl Reader {
    /// The names of the payload-scope rules that the document of a version matches under the rules of this
    /// configuration, whatever its row recorded under those of its time.
    pub(crate) async fn rules_of(&self, row: &Row) -> Result<Vec<String>> {
        let found = ResolvedVersion::from_row(row.clone(), row.at);
        let bytes = self.bytes(&found).await?;
        let rules = self.index.settings.rules.clone();
        heavy::work(bytes.len() > heavy::BYTES, move || {
            payload::parse_both(&bytes).map(|(document, _)| rules.of_payload(&document))
        })
        .await?
        .map_err(|error| error.on_item(row.id))
    }
}
