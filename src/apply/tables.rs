//! Which relations are ours: what a change for a relation means when the
//! migration does not know it.
//!
//! ```text
//! known, same oid ............... apply from its snapshot on
//! left out by the filter ........ pass over, counted
//! another stream's, being copied . pass over: see [`Share`]
//! oid known under another name .. renamed on the source: follow it, once the target's table is
//! new, all rows in the stream ... take it in, if the target has it, empty
//! anything else ................. stop with words
//! ```
//!
//! Invariant: nothing is passed over unless the operator's filter says so, or
//! the copy of the table or the other stream brings it.

use std::collections::HashMap;

use futures_util::future::try_join_all;
use tracing::{info, warn};

use super::ApplyError;
use super::source::Source;
use crate::config::{Side, TableFilter};
use crate::lsn::{EndLsn, Lsn};
use crate::relation::Relation;
use crate::session::{DbContext, Session};
use crate::sql::TableName;
use crate::state::State;
use crate::state::tables::{TableRow, TableState};

/// What is to be done with a relation's changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Apply those that are not before this point.
    Apply {
        /// The table's rows were copied as of here.
        from: Option<EndLsn>,
        /// The target's table: of another name while a rename is under way.
        there: TableName,
    },
    /// The operator's filter leaves the table out.
    Filtered,
    /// Its copy, or another stream, brings them.
    Elsewhere,
}

/// Which tables of the migration an applier is for, while some are copied anew
/// beside the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Those that are ready; the others' changes are passed over.
    Main,
    /// Those that have been copied and wait to be taken up by the main stream.
    Joining,
}

impl Share {
    fn has(self, row: &TableRow) -> bool {
        match self {
            Share::Main => !row.is_unfinished(),
            Share::Joining => row.state == TableState::Joining,
        }
    }
}

/// The tables of the migration.
pub struct Tables {
    by_name: HashMap<TableName, TableRow>,
    share: Share,
    filter: TableFilter,
    adopt: TableFilter,
    publishes_all: bool,
    start: Option<EndLsn>,
    /// Present names on the target, looked up ahead; each is good for once.
    ahead: HashMap<TableName, Option<TableName>>,
}

impl Tables {
    /// Reads the list from the state.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn load(
        state: &State,
        filter: &TableFilter,
        adopt: &TableFilter,
        share: Share,
    ) -> Result<Self, ApplyError> {
        let (migration, rows) = tokio::try_join!(state.load(), state.tables_settled())?;
        Ok(Tables {
            by_name: rows.into_iter().map(|row| (row.table.clone(), row)).collect(),
            share,
            filter: filter.clone(),
            adopt: adopt.clone(),
            publishes_all: migration.as_ref().is_some_and(|m| m.publishes_all_tables),
            start: migration.and_then(|m| m.consistent_point),
            ahead: HashMap::new(),
        })
    }

    /// The point that a table's rows on the target are of: changes before it
    /// are passed over. `None` when they are none of ours.
    pub(super) fn rows_as_of(&self, table: &TableName) -> Option<EndLsn> {
        let row = self.by_name.get(table)?;
        match row.state {
            TableState::Excluded => None,
            _ if self.share.has(row) => row.snapshot_lsn,
            // Of a point that this stream does not know.
            _ => Some(EndLsn(Lsn(u64::MAX))),
        }
    }

    /// Looks up, all at once, what [`Self::admit`] will ask for about these.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn look_ahead(
        &mut self,
        tables: impl Iterator<Item = &TableName>,
        state: &State,
    ) -> Result<(), ApplyError> {
        let names = tables
            .filter(|table| self.by_name.contains_key(*table))
            .map(|table| async { Ok::<_, ApplyError>((table.clone(), state.target_name(table).await?)) });
        self.ahead = try_join_all(names).await?.into_iter().collect();
        Ok(())
    }

    /// Decides about a relation; may record a table that is new or renamed.
    ///
    /// # Errors
    /// [`ApplyError::Unknown`] when it is not for walferry to decide.
    pub async fn admit(
        &mut self,
        relation: &Relation,
        at: Lsn,
        (target, source): (&Session, &mut Source),
        state: &State,
    ) -> Result<Admission, ApplyError> {
        let table = &relation.table;
        // Another migration's state on the source is never part of this one.
        if !self.filter.includes(table) || table.schema == "walferry" {
            return Ok(Admission::Filtered);
        }
        let is_it = |row: &&TableRow| row.source_oid == relation.id;
        let ours = self.by_name.get(table).filter(is_it).or_else(|| self.by_name.values().find(is_it)).cloned();
        match ours {
            Some(row) if !self.share.has(&row) => Ok(Admission::Elsewhere),
            None if self.share == Share::Joining => Ok(Admission::Elsewhere),
            Some(row) if row.state == TableState::Excluded => Err(unknown(table, at, LEFT_OUT)),
            Some(row) => self.follow(row, table, at, (target, source), state).await,
            None => {
                self.displace(table, at, (target, source), state).await?;
                self.take_in(relation, at, target, state).await
            }
        }
    }

    /// A table of ours, under the name it had on the source then. The target's
    /// table must have that name or the one it has on the source now: a batch
    /// may hold changes from before and after a rename.
    async fn follow(
        &mut self,
        row: TableRow,
        table: &TableName,
        at: Lsn,
        (target, source): (&Session, &mut Source),
        state: &State,
    ) -> Result<Admission, ApplyError> {
        let there = match self.ahead.remove(&row.table) {
            Some(known) => known,
            None => state.target_name(&row.table).await?,
        };
        let there = match there {
            Some(name) => name,
            // Made anew on the target: its name alone tells.
            None if row.table == *table || is_empty(target, table).await?.is_some() => table.clone(),
            None => row.table.clone(),
        };
        if there != *table {
            let now = source.name_of(row.source_oid).await?;
            if now.as_ref() != Some(&there) {
                let wanted = now.unwrap_or_else(|| table.clone());
                let why = format!(
                    "it is {} under a new name; rename it on the target as well, then start again: {}",
                    row.table,
                    rename_sql(&there, &wanted)
                );
                return Err(unknown(table, at, &why));
            }
        }
        let from = row.snapshot_lsn;
        if row.table != there {
            if let Some(holder) = self.by_name.get(&there).cloned() {
                self.set_aside(holder, state).await?;
            }
            info!(from = %row.table, to = %there, "a table was renamed on both sides");
            self.rename(row, there.clone(), state).await?;
        }
        Ok(Admission::Apply { from, there })
    }

    /// A new table has a name that another table of ours had when it was
    /// copied: that one was renamed, and must be on the target as well before
    /// the name can mean the new one, or it was dropped.
    async fn displace(
        &mut self,
        table: &TableName,
        at: Lsn,
        (target, source): (&Session, &mut Source),
        state: &State,
    ) -> Result<(), ApplyError> {
        let Some(holder) = self.by_name.get(table).cloned() else { return Ok(()) };
        let now = source.name_of(holder.source_oid).await?;
        let is_in_the_way = state.target_name(table).await?.as_ref() == Some(table);
        match (now, is_in_the_way) {
            (Some(now), true) => {
                let why = format!(
                    "another table has this name now; the one that was copied is {now}. Rename it on the target as \
                     well, create the new one there, and start again: {}",
                    rename_sql(table, &now)
                );
                Err(unknown(table, at, &why))
            }
            (Some(_), false) => self.set_aside(holder, state).await,
            (None, true) if matches!(is_empty(target, table).await?, Some(Emptiness::Rows)) => {
                Err(unknown(table, at, &created_again(table)))
            }
            // Nothing of the old one is left; its row is replaced.
            (None, _) => Ok(()),
        }
    }

    /// Lets a table give up its name: for the one it has on the target, or for
    /// one that says what it was until a change of it tells.
    async fn set_aside(&mut self, row: TableRow, state: &State) -> Result<(), ApplyError> {
        let there = state.target_name(&row.table).await?.filter(|name| !self.by_name.contains_key(name));
        let aside = || TableName::new(row.table.schema.clone(), format!("{} (oid {})", row.table.name, row.source_oid));
        let to = there.unwrap_or_else(aside);
        info!(from = %row.table, to = %to, "a table gave its name to another");
        self.rename(row, to, state).await
    }

    async fn rename(&mut self, row: TableRow, to: TableName, state: &State) -> Result<(), ApplyError> {
        state.rename_table(&row.table, &to).await?;
        self.by_name.remove(&row.table);
        self.by_name.insert(to.clone(), TableRow { table: to, ..row });
        Ok(())
    }

    async fn take_in(
        &mut self,
        relation: &Relation,
        at: Lsn,
        target: &Session,
        state: &State,
    ) -> Result<Admission, ApplyError> {
        let table = &relation.table;
        let vouched = !self.adopt.is_empty() && self.adopt.includes(table);
        if !self.publishes_all && !vouched {
            return Err(unknown(table, at, &unvouched(table)));
        }
        match is_empty(target, table).await? {
            None => return Err(unknown(table, at, &absent(table))),
            Some(Emptiness::Rows) => return Err(unknown(table, at, &occupied(table))),
            Some(Emptiness::Empty) => {}
        }
        warn!(table = %table, "a table that was created on the source after the copy is taken in: all its rows come with the stream");
        let row = TableRow {
            table: table.clone(),
            source_oid: relation.id,
            state: TableState::Ready,
            rows: 0,
            bytes: 0,
            snapshot_lsn: self.start,
        };
        state.adopt_table(&row).await?;
        state.journal(&format!("took in table {table}, first changed at {at}")).await?;
        self.by_name.insert(table.clone(), row);
        Ok(Admission::Apply { from: self.start, there: table.clone() })
    }
}

const LEFT_OUT: &str = "a filter left it out when the rows were copied, and it does not any more. Take it in with \"walferry add\", or start \
     again with --exclude-tables naming it";

fn unvouched(table: &TableName) -> String {
    format!(
        "it was created or published after the copy. Take it in, with the rows it has, by \
         walferry add '{table}', and start again. If it was empty when it was published (a new partition, say), it is \
         enough to create it on the target and start again with --adopt-tables '{table}'; to leave it out, start again \
         with --exclude-tables '{table}'"
    )
}

fn absent(table: &TableName) -> String {
    format!(
        "it was created on the source after the copy, and the target does not have it. Bring its definition and rows \
         over by walferry add '{table}', and start again; to leave it out, start again with --exclude-tables '{table}'"
    )
}

fn occupied(table: &TableName) -> String {
    format!(
        "it was created on the source after the copy, so all its rows come with the stream, but on the target it is \
         not empty. Run on the target: TRUNCATE {}; then start again; to leave it out, start again with \
         --exclude-tables '{table}'",
        table.sql()
    )
}

fn created_again(table: &TableName) -> String {
    format!(
        "it was dropped and created again on the source after the copy, so all its rows come with the stream, but the \
         target still has the old ones. Run on the target: TRUNCATE {}; then start again",
        table.sql()
    )
}

fn unknown(table: &TableName, at: Lsn, why: &str) -> ApplyError {
    ApplyError::Unknown { table: table.clone(), at, why: why.to_owned() }
}

fn rename_sql(from: &TableName, to: &TableName) -> String {
    let mut sql = String::new();
    if from.name != to.name {
        sql = format!("ALTER TABLE {} RENAME TO {}; ", from.sql(), crate::sql::ident(&to.name));
    }
    if from.schema != to.schema {
        let moved = TableName::new(from.schema.clone(), to.name.clone());
        sql.push_str(&format!("ALTER TABLE {} SET SCHEMA {};", moved.sql(), crate::sql::ident(&to.schema)));
    }
    sql.trim_end().to_owned()
}

enum Emptiness {
    Empty,
    Rows,
}

/// Whether a table on the target has rows; `None` when there is no such table.
async fn is_empty(target: &Session, table: &TableName) -> Result<Option<Emptiness>, ApplyError> {
    let action = || format!("look at {table}");
    let exists = target
        .query_one("SELECT pg_catalog.to_regclass($1) IS NOT NULL", &[&table.sql()])
        .await
        .during(Side::Target, action())?;
    if !exists.get::<_, bool>(0) {
        return Ok(None);
    }
    let sql = format!("SELECT EXISTS (SELECT FROM {})", table.sql());
    let row = target.query_one(&sql, &[]).await.during(Side::Target, action())?;
    Ok(Some(if row.get(0) { Emptiness::Rows } else { Emptiness::Empty }))
}
