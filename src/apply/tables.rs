//! Which relations are ours: what a change for a relation means when the
//! migration does not know it.
//!
//! ```text
//! known by its oid, and streamed . apply from its snapshot on, under the target's name
//! another stream's, being copied . pass over: see [`Share`]
//! known, without a stream ........ pass over, if it still is so; else stop with words
//! unknown, gone on the source .... pass over, and say so: no such table has to be equal
//! known, rows in others' names ... pass over what is in those rows ([`within`]); else stop
//! unknown, and left out .......... pass over; recorded, as it wants a copy should it be let in
//! unknown, all rows in the stream  take it in, if the target has it, empty
//! anything else .................. stop with words
//! ```
//!
//! Invariant: nothing is passed over unless the operator's filter says so, the
//! copy of the table or the other stream brings it, or the source has no such
//! table any more. Who takes part is asked of the state by oid; of tables that it
//! does not know, of [`crate::membership`].

mod within;

use std::collections::HashMap;

use tracing::{info, warn};

use super::ApplyError;
use super::source::Source;
use crate::catalog::contents::{self, Contents, Filled};
use crate::catalog::publication;
use crate::catalog::tables::Table;
use crate::config::{SchemaMode, Settings, TableFilter};
use crate::lsn::{CommitLsn, EndLsn, Lsn};
use crate::membership::{self, Known, Part, letting_go};
use crate::relation::Relation;
use crate::session::Session;
use crate::shell;
use crate::sql::TableName;
use crate::sql::rename::{Rename, Renames};
use crate::state::places::TargetTable;
use crate::state::tables::{TableRow, TableState};
use crate::state::{SCHEMA, State};

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
    /// It does not take part, or is gone.
    PassedOver,
    /// Its copy, or another stream, brings them.
    Elsewhere,
    /// They are in rows of other tables that were copied as of here; of later ones
    /// these words are true.
    WithinUntil(EndLsn, String),
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

/// The point that a table's rows on the target are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowsAsOf {
    /// It is none of ours.
    NotOurs,
    /// Of the stream's beginning.
    Beginning,
    /// Of the point at which it was copied.
    Copied(EndLsn),
    /// Of one that this stream does not know.
    Unknown,
}

impl RowsAsOf {
    /// Whether they may hold what a transaction did that committed here.
    pub(super) fn may_be_after(self, commit: CommitLsn) -> bool {
        match self {
            RowsAsOf::NotOurs | RowsAsOf::Beginning => false,
            RowsAsOf::Copied(point) => !point.is_before(commit),
            RowsAsOf::Unknown => true,
        }
    }
}

/// The tables of the migration.
pub struct Tables {
    by_oid: HashMap<u32, TableRow>,
    share: Share,
    filter: TableFilter,
    adopt: TableFilter,
    schema: SchemaMode,
    publishes_all: bool,
    publications: Vec<String>,
    start: Option<EndLsn>,
    /// Present names on the target by the source's oids, looked up ahead; each is
    /// good for once.
    ahead: HashMap<u32, Option<TableName>>,
}

/// Both ends, to be asked about a table.
type Ends<'a> = (&'a Session, &'a mut Source);

impl Tables {
    /// Reads the list from the state.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn load(state: &State, settings: &Settings, share: Share) -> Result<Self, ApplyError> {
        let (migration, rows) = tokio::try_join!(state.load(), state.tables_settled())?;
        Ok(Tables {
            by_oid: rows.into_iter().map(|row| (row.source_oid, row)).collect(),
            share,
            filter: settings.filter.clone(),
            adopt: settings.adopt.clone(),
            schema: settings.schema,
            publishes_all: migration.as_ref().is_some_and(|m| m.publishes_all_tables),
            publications: migration.as_ref().map(|m| m.publications.names().to_vec()).unwrap_or_default(),
            start: migration.and_then(|m| m.consistent_point),
            ahead: HashMap::new(),
        })
    }

    /// The one that streams into the target's table of this name.
    fn holder_of(&self, name: &TableName) -> Option<&TableRow> {
        self.by_oid.values().find(|row| row.state.is_streamed() && row.table == *name)
    }

    /// The point that the rows of a table of the target are of: changes before it
    /// are passed over.
    pub(super) fn rows_as_of(&self, table: &TableName) -> RowsAsOf {
        let Some(row) = self.holder_of(table) else { return RowsAsOf::NotOurs };
        match row.snapshot_lsn {
            _ if !self.share.has(row) => RowsAsOf::Unknown,
            Some(point) => RowsAsOf::Copied(point),
            None => RowsAsOf::Beginning,
        }
    }

    /// Looks up, all at once, what [`Self::admit`] will ask for about these.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn look_ahead(&mut self, relations: impl Iterator<Item = u32>, state: &State) -> Result<(), ApplyError> {
        let oids: Vec<u32> = relations.filter(|oid| self.by_oid.contains_key(oid)).collect();
        // One oid may come twice: with its name from before and after a rename.
        let names = state.target_names(&oids).await?;
        self.ahead = oids.into_iter().map(|oid| (oid, names.get(&oid).cloned())).collect();
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
        ends: Ends<'_>,
        state: &State,
    ) -> Result<Admission, ApplyError> {
        // Another migration's state on the source is never part of this one.
        if relation.table.schema == SCHEMA {
            return Ok(Admission::PassedOver);
        }
        match self.by_oid.get(&relation.id).cloned() {
            Some(row) if row.state.is_streamed() && self.share.has(&row) => {
                self.follow(row, &relation.table, at, ends, state).await
            }
            Some(row) if row.state.is_streamed() => Ok(Admission::Elsewhere),
            _ if self.share == Share::Joining => Ok(Admission::Elsewhere),
            row => {
                let (target, source) = ends;
                let Some(table) = source.table(relation.id).await? else {
                    gone(&relation.table, at, state).await?;
                    return Ok(Admission::PassedOver);
                };
                match row {
                    Some(row) if row.state == TableState::Within => self.within(&table, relation, at, source).await,
                    Some(row) => self.still_without_stream(&row, &table, relation, at),
                    None => self.meet(&table, relation, at, (target, source), state).await,
                }
            }
        }
    }

    fn known(&self) -> Known {
        self.by_oid.values().map(|row| (row.source_oid, row.state)).collect()
    }

    /// A table that is known and has no stream of its own, and of which there are
    /// changes.
    fn still_without_stream(
        &self,
        row: &TableRow,
        table: &Table,
        relation: &Relation,
        at: Lsn,
    ) -> Result<Admission, ApplyError> {
        let why = match row.state {
            TableState::Excluded if membership::part(table, &self.filter, &self.known()) != Part::LetIn => {
                return Ok(Admission::PassedOver);
            }
            TableState::Extension => return Ok(Admission::PassedOver),
            TableState::Unlogged => was_unlogged(&table.name),
            _ => left_out(&table.name),
        };
        Err(unknown(&relation.table, at, &why))
    }

    /// A table that the state does not know.
    async fn meet(
        &mut self,
        table: &Table,
        relation: &Relation,
        at: Lsn,
        ends: Ends<'_>,
        state: &State,
    ) -> Result<Admission, ApplyError> {
        let without_stream = match membership::part(table, &self.filter, &self.known()) {
            Part::Included => {
                let (target, source) = ends;
                let is_streamed = |oid| self.by_oid.get(&oid).is_some_and(|row| row.state.is_streamed());
                if table.ancestors.iter().any(|above| is_streamed(above.oid)) {
                    return self.within(table, relation, at, source).await;
                }
                let name = self.name_to_take(table, relation, target, state).await?;
                self.displace(&name, at, (target, &mut *source), state).await?;
                return self.take_in(table, &name, at, (target, source), state).await;
            }
            Part::Unlogged => TableState::Unlogged,
            Part::OfExtension => TableState::Extension,
            Part::Filtered | Part::LetIn => TableState::Excluded,
        };
        // Recorded before the position moves past it: should it be let in one day,
        // its rows are not all in the stream.
        let row = TableRow::new(table.name.clone(), table.oid, without_stream);
        state.enter_tables(std::slice::from_ref(&row)).await?;
        state.journal(&format!("passes over changes of {}, from {at} on", row.table)).await?;
        info!(table = %row.table, "passing over the changes of a table that does not take part");
        self.by_oid.insert(row.source_oid, row);
        Ok(Admission::PassedOver)
    }

    /// The name that a table which nobody knows has on the target: the one that it had
    /// then, if such a table is there and no other's, and else the present one.
    async fn name_to_take(
        &self,
        table: &Table,
        relation: &Relation,
        target: &Session,
        state: &State,
    ) -> Result<TableName, ApplyError> {
        if relation.table == table.name {
            return Ok(table.name.clone());
        }
        let known: Vec<u32> = self.by_oid.keys().copied().collect();
        let is_anothers = state.target_names(&known).await?.values().any(|name| *name == relation.table);
        let is_there = !is_anothers && contents::is_there(target, &relation.table).await?;
        Ok(if is_there { relation.table.clone() } else { table.name.clone() })
    }

    /// A table of ours, under the name it had on the source then. The target's
    /// table must have that name or the one it has on the source now: a batch
    /// may hold changes from before and after a rename.
    async fn follow(
        &mut self,
        row: TableRow,
        table: &TableName,
        at: Lsn,
        (target, source): Ends<'_>,
        state: &State,
    ) -> Result<Admission, ApplyError> {
        let there = match self.ahead.remove(&row.source_oid) {
            Some(known) => known,
            None => state.target_names(&[row.source_oid]).await?.remove(&row.source_oid),
        };
        let there = match there {
            Some(name) => name,
            None => match self.made_anew(&row, table, at, (target, &mut *source), state).await? {
                Some(name) => name,
                None => return Ok(Admission::PassedOver),
            },
        };
        if there != *table {
            // One that is gone by now has no name to follow.
            let now = source.table(row.source_oid).await?.map(|table| table.name);
            if let Some(wanted) = now.filter(|now| *now != there) {
                let why = format!(
                    "it is {} under a new name; rename it on the target as well, then start again: {}",
                    row.table,
                    self.rename_sql(there, wanted, source, state).await?
                );
                return Err(unknown(table, at, &why));
            }
        }
        let from = row.snapshot_lsn;
        if row.table != there {
            info!(from = %row.table, to = %there, "a table was renamed on both sides");
            self.rename(row, there.clone(), state).await?;
        }
        Ok(Admission::Apply { from, there })
    }

    /// The name of a table of ours that is not on the target any more: of one that was made
    /// anew there, which its name alone tells, unless it is another's. `None` where it is
    /// gone on both sides.
    async fn made_anew(
        &mut self,
        row: &TableRow,
        table: &TableName,
        at: Lsn,
        (target, source): Ends<'_>,
        state: &State,
    ) -> Result<Option<TableName>, ApplyError> {
        let Some(now) = source.table(row.source_oid).await? else {
            gone(table, at, state).await?;
            state.forget_tables(&[row.source_oid]).await?;
            self.by_oid.remove(&row.source_oid);
            return Ok(None);
        };
        let is_known = row.table == *table || contents::is_there(target, table).await?;
        let name = if is_known { table.clone() } else { row.table.clone() };
        let others: Vec<u32> = self.by_oid.keys().copied().filter(|oid| *oid != row.source_oid).collect();
        if state.target_names(&others).await?.values().any(|other| *other == name) {
            return Err(unknown(table, at, &replaced(&name, &now.name)));
        }
        Ok(Some(name))
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
        let Some(holder) = self.holder_of(table).cloned() else { return Ok(()) };
        let now = source.table(holder.source_oid).await?.map(|table| table.name);
        let there = state.target_names(&[holder.source_oid]).await?.remove(&holder.source_oid);
        let is_in_the_way = there.as_ref() == Some(table);
        match (now, is_in_the_way) {
            (Some(now), true) => {
                let why = format!(
                    "another table has this name now; the one that was copied is {now}. Rename it on the target as \
                     well, create the new one there, and start again: {}",
                    self.rename_sql(table.clone(), now.clone(), source, state).await?
                );
                Err(unknown(table, at, &why))
            }
            (Some(_), false) => match there {
                Some(there) => {
                    info!(from = %holder.table, to = %there, "a table gave its name to another");
                    self.rename(holder, there, state).await
                }
                None => Ok(()),
            },
            // Empty it may be, and yet have other keys and indexes than the new one.
            (None, true) if self.schema == SchemaMode::Create => {
                let there = state.target_tables().await?;
                let here = source.names(there.iter().map(|there| there.source_oid)).await?;
                let sql = letting_go::drop_sql(state.session(), table, &there, |oid| here.contains_key(&oid)).await?;
                Err(unknown(table, at, &created_again(table, Old::Drop(sql))))
            }
            (None, in_the_way) => {
                if let (true, Contents::Rows(rows)) = (in_the_way, contents::of(target, table).await?) {
                    return Err(unknown(table, at, &created_again(table, Old::Empty(rows))));
                }
                // Nothing of the old one is left.
                state.forget_tables(&[holder.source_oid]).await?;
                state.journal(&format!("{table} was dropped on both sides")).await?;
                self.by_oid.remove(&holder.source_oid);
                Ok(())
            }
        }
    }

    /// The SQL that renames a table of the target, with those that have to make way
    /// for it: renamed as well, or dropped where the source has done so.
    async fn rename_sql(
        &self,
        from: TableName,
        to: TableName,
        source: &mut Source,
        state: &State,
    ) -> Result<String, ApplyError> {
        let there = state.target_tables().await?;
        let here = source.names(there.iter().map(|there| there.source_oid)).await?;
        let rename = |there: &TargetTable| {
            let to = here.get(&there.source_oid).filter(|to| **to != there.name)?;
            Some(Rename { from: there.name.clone(), to: to.clone() })
        };
        let all: Vec<Rename> = there.iter().filter_map(rename).collect();
        let mut group = Renames::of(&all).group(&from);
        if group.is_empty() {
            group.push(Rename { from, to });
        }
        let has = |oid| here.contains_key(&oid);
        Ok(letting_go::rename_sql_with_drops(state.session(), &group, &there, has).await?)
    }

    async fn rename(&mut self, row: TableRow, to: TableName, state: &State) -> Result<(), ApplyError> {
        state.rename_table(row.source_oid, &to).await?;
        self.by_oid.insert(row.source_oid, TableRow { table: to, ..row });
        Ok(())
    }

    /// Whether the publication for all tables is the one under which the rows of the
    /// others were read: else it may have been gone for a while.
    async fn is_the_same_publication(&self, source: &mut Source) -> Result<bool, ApplyError> {
        let found = publication::find(source.session().await?, &self.publications).await?;
        let mut vias = self.by_oid.values().filter_map(|row| row.origin.via.as_deref());
        Ok(!vias.any(|via| publication::is_of_former_all_tables(via, &found)))
    }

    async fn take_in(
        &mut self,
        now: &Table,
        table: &TableName,
        at: Lsn,
        (target, source): Ends<'_>,
        state: &State,
    ) -> Result<Admission, ApplyError> {
        let vouched = !self.adopt.is_empty() && self.adopt.includes(table);
        // A table is made with the file of its oid; with another one it has been
        // written to by what is in no stream, as when it was unlogged at first.
        let is_whole = self.publishes_all && now.filenode == now.oid && self.is_the_same_publication(source).await?;
        if !is_whole && !vouched {
            return Err(unknown(table, at, &unvouched(table)));
        }
        match contents::of(target, table).await? {
            Contents::Absent => return Err(unknown(table, at, &absent(table))),
            Contents::Rows(rows) => return Err(unknown(table, at, &occupied(table, rows))),
            Contents::Empty => {}
        }
        warn!(table = %table, "a table that was created on the source after the copy is taken in: all its rows come with the stream");
        let row = TableRow { snapshot_lsn: self.start, ..TableRow::new(table.clone(), now.oid, TableState::Ready) };
        state.enter_tables(std::slice::from_ref(&row)).await?;
        state.came_later(&[row.source_oid]).await?;
        state.journal(&format!("took in table {table}, first changed at {at}")).await?;
        self.by_oid.insert(row.source_oid, row);
        Ok(Admission::Apply { from: self.start, there: table.clone() })
    }
}

/// A table that neither side has any more, if the target ever had it: whatever its rows
/// were, none of them is there to be equal to.
async fn gone(table: &TableName, at: Lsn, state: &State) -> Result<(), ApplyError> {
    warn!(table = %table, %at, "its changes are passed over: it is gone on the source by now, and has no place on the target");
    state.journal(&format!("passed over changes of {table}, from {at} on: it is gone on the source")).await?;
    Ok(())
}

fn replaced(name: &TableName, now: &TableName) -> String {
    format!(
        "the table that it was copied to is gone, and {name} on the target is another's. Create {now} there, then \
         walferry resync {}, and start again",
        shell::table(now)
    )
}

fn was_unlogged(table: &TableName) -> String {
    let word = shell::table(table);
    format!(
        "it was unlogged when the rows were copied, so rows of it are in no stream. Copy it by walferry add {word}, \
         and start again"
    )
}

fn left_out(table: &TableName) -> String {
    let word = shell::table(table);
    format!(
        "a filter left it out when the rows were copied, and it does not any more. Take it in by walferry add {word}, \
         or start again with --exclude-tables {word}"
    )
}

fn unvouched(table: &TableName) -> String {
    let word = shell::table(table);
    format!(
        "it was created or published after the copy. Take it in, with the rows it has, by \
         walferry add {word}, and start again. If it was empty when it was published (a new partition, say), it is \
         enough to create it on the target and start again with --adopt-tables {word}; to leave it out, start again \
         with --exclude-tables {word}"
    )
}

fn absent(table: &TableName) -> String {
    let word = shell::table(table);
    format!(
        "it was created on the source after the copy, and the target does not have it. Bring its definition and rows \
         over by walferry add {word}, and start again; to leave it out, start again with --exclude-tables {word}"
    )
}

fn occupied(table: &TableName, rows: Filled) -> String {
    let word = shell::table(table);
    format!(
        "it was created on the source after the copy, so all its rows come with the stream, but on the target it is \
         not empty. Run on the target: {} then start again; to leave it out, start again with --exclude-tables {word}",
        contents::truncate(&[rows])
    )
}

/// What is to be done with an old table.
enum Old {
    /// Drop it, by this SQL.
    Drop(String),
    /// Empty it of these rows.
    Empty(Filled),
}

/// What an old table there is of, keys and indexes, is not what the new one is to have.
fn created_again(table: &TableName, old: Old) -> String {
    let word = shell::table(table);
    let what = "it was dropped and created again on the source after the copy, and the target still has the old one";
    match old {
        Old::Drop(sql) => format!(
            "{what}. If that can go, run on the target: {sql} then take the new one in by walferry add {word}, \
             and start again"
        ),
        Old::Empty(rows) => format!(
            "{what} with its rows, while all rows of the new one come with the stream. Run on the target: {} then start \
             again, once its columns, keys and indexes are those of the new one",
            contents::truncate(&[rows])
        ),
    }
}

fn unknown(table: &TableName, at: Lsn, why: &str) -> ApplyError {
    ApplyError::Unknown { table: table.clone(), at, why: why.to_owned() }
}
