//! Building a collection that keeps no versions: the heads are written again, in the order of their numbers.

use super::catalog;
use super::restore::{Chunk, Progress, Restorer};
use super::target::Placed;
use crate::documents::{Batch, Guard, Write};
use crate::records::{CV, Head, Row, STABLE};
use crate::{Result, Timestamp};

impl Restorer {
    /// Restores the latest state of items, of a collection that keeps no versions.
    pub(super) async fn state(&self, done: i64, progress: &mut Progress) -> Result<()> {
        for segment in self.chain.segments.iter().filter(|segment| segment.last_cv > done) {
            for member in segment.members.iter().filter(|member| member.last_cv > done) {
                let (mut heads, mut chunk) = (Vec::new(), Chunk::default());
                for entry in catalog::entries(&self.location, &self.chain, segment, member).await? {
                    let created_at = entry.created_at;
                    chunk.damaged += u64::from(entry.damage.is_some());
                    let Placed { row, objects } = self.target.place(entry)?;
                    if row.op.is_bare() {
                        continue;
                    }
                    heads.push(self.head_of(&row, created_at));
                    chunk.versions += 1;
                    chunk.push(row, objects);
                }
                self.write_state(heads, chunk, member.last_cv, progress).await?;
            }
        }
        let last = self.chain.last_cv();
        self.workers.index.raise(CV, last).await?;
        self.workers.index.raise(STABLE, last).await?;
        progress.cv = last;
        Ok(())
    }

    fn head_of(&self, row: &Row, created_at: Option<Timestamp>) -> Head {
        let mut head = row.head_after(None);
        head.created_at = created_at.unwrap_or(row.at);
        if self.workers.index.settings.inline {
            head.inline = row.inline.clone();
            head.row = None;
        }
        head
    }

    async fn write_state(
        &self,
        heads: Vec<Head>,
        chunk: Chunk,
        last: i64,
        progress: &mut Progress,
    ) -> Result<()> {
        let index = &self.workers.index;
        let Chunk { rows, objects, bytes, versions, damaged } = chunk;
        self.put_objects(objects).await?;
        index.env.fail.hit("restore_backup.after_objects")?;
        index.raise(CV, last).await?;
        index.raise(STABLE, last).await?;
        for row in &rows {
            index.note_own(&row.meta).await?;
            index.note_missing(&row.meta).await?;
        }
        // A payload that no object and no head has stays in its row.
        let carrying: Vec<Row> =
            rows.into_iter().filter(|row| row.inline.is_some() && !index.settings.inline).collect();
        self.insert(&carrying).await?;
        index.env.fail.hit("restore_backup.after_rows")?;
        let mut batch = Batch::new();
        for head in &heads {
            batch.push(&index.names.head, Write::put(head.stored(), Guard::Newer { field: "cv".into() }));
        }
        if !heads.is_empty() {
            index.documents.apply(batch).await?;
        }
        self.note_done(last).await?;
        progress.rows += heads.len() as u64;
        progress.versions += versions;
        progress.damaged += damaged;
        progress.bytes += bytes as u64;
        Ok(())
    }
}
