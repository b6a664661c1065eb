//! Row filters that come, go or change after rows were read: of a table whose publication
//! has other rows by now, the stream tells no more of those that it has left out.
//!
//! Invariant: a publication of walferry's own carries all rows. What the operator's had
//! when rows were read is the operator's choice; by which condition that was is kept with
//! the table ([`Published::via`]), and another one is named until the table is copied by it.
//!
//! Source: `AlterPublicationOptions` and `AlterPublicationTables` in
//! `src/backend/commands/publicationcmds.c` (another condition is another entry),
//! `pgoutput_row_filter` in `src/backend/replication/pgoutput/pgoutput.c`.

use std::collections::HashMap;

use super::publishing::published_as;
use super::{Part, SourceTable};
use crate::catalog::publication::{self, Operation, Published, RowsOfKind, RowsRead};
use crate::config::Publications;
use crate::config::publications::who;
use crate::shell;
use crate::sql::{TableName, ident};
use crate::state::tables::{TableRow, TableState};

/// A table of which other rows are published than those that were read, or of which
/// only some are and all are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RowFilter {
    /// The table.
    pub table: TableName,
    /// The publications that have it with a condition, or have it at all where none has.
    publications: Vec<String>,
    /// The condition by now.
    now: Option<String>,
    /// Which rows were read, as far as known.
    was: RowsRead,
    /// The SQL that publishes all of its rows.
    sql: String,
    /// Whether that is the only way on: the publication is walferry's own.
    is_refused: bool,
    /// The SQL that has all values of its rows come, where some may not.
    whole: Option<String>,
}

impl RowFilter {
    fn of(table: &SourceTable, published: &Published, was: RowsRead, publications: &Publications) -> Self {
        let now = published.row_filter();
        let only = format!("{}{}", table.only(), table.name.sql());
        let (mut names, mut sql) = (Vec::new(), Vec::new());
        for portion in published.portions.iter().filter(|portion| now.is_none() || portion.row_filter.is_some()) {
            let columns: Vec<String> = portion.columns.iter().map(|column| ident(column)).collect();
            let columns =
                if portion.left_out.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
            let name = ident(&portion.publication);
            sql.push(format!("ALTER PUBLICATION {name} DROP TABLE {only};"));
            sql.push(format!("ALTER PUBLICATION {name} ADD TABLE {only}{columns};"));
            names.push(portion.publication.clone());
        }
        let is_refused = now.is_some() && matches!(publications, Publications::Ours(_));
        let whole = leaves_out(table, published).then(|| whole_row_sql(table));
        RowFilter { table: table.name.clone(), publications: names, now, was, sql: sql.join(" "), is_refused, whole }
    }

    /// What is published of it: "publication p publishes only rows WHERE … of t".
    pub fn said(&self) -> String {
        let rest = |verb: &str| match &self.now {
            Some(now) => format!("{verb} only rows WHERE {now} of {}", self.table),
            None => format!("{verb} all rows of {}", self.table),
        };
        who(&self.publications, &rest("publishes"), &rest("publish"))
    }

    /// Behind the table's name: what has become of it.
    pub fn what(&self) -> String {
        let was = match &self.was {
            RowsRead::Unknown => String::new(),
            RowsRead::All => ", and all were published then".to_owned(),
            RowsRead::Meeting(condition) => format!(", and rows WHERE {condition} were published then"),
        };
        format!("is published otherwise than when its rows were read: {}{was}", self.said())
    }

    /// The SQL that publishes all of its rows.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// What mends it.
    pub fn remedy(&self) -> String {
        let resync = format!("walferry resync {}", shell::table(&self.table));
        match (&self.now, self.is_refused) {
            (None, _) => format!("copy it anew: {resync}"),
            (Some(_), true) => {
                format!("let its owner publish all of its rows ({}), and copy it anew: {resync}", self.sql)
            }
            (Some(_), false) => {
                let whole = self.whole.as_ref();
                let whole = whole.map(|sql| format!(", or have all large values of its rows come ({sql})"));
                format!(
                    "if all of its rows are wanted, let its owner publish them ({}){}; then copy it anew as it is published, \
                     which takes rows that are not from the target: {resync}",
                    self.sql,
                    whole.unwrap_or_default()
                )
            }
        }
    }
}

/// What has become of the rows that are published of a table since all of them were copied.
pub(super) fn since_copied(
    row: &TableRow,
    table: &SourceTable,
    published: &HashMap<u32, Published>,
    publications: &Publications,
) -> Option<RowFilter> {
    changed(row, table, published, publications).filter(|_| row.state == TableState::Ready)
}

/// What has become of the rows that are published of a table since they were read.
fn changed(
    row: &TableRow,
    table: &SourceTable,
    published: &HashMap<u32, Published>,
    publications: &Publications,
) -> Option<RowFilter> {
    let published = published.get(&table.oid)?;
    let was = publication::other_rows(row.origin.via.as_deref()?, published)?;
    Some(RowFilter::of(table, published, was, publications))
}

/// Tables of these of which only some rows are published.
pub fn filtered(
    tables: &[SourceTable],
    published: &HashMap<u32, Published>,
    publications: &Publications,
) -> Vec<RowFilter> {
    let of_table = |table: &SourceTable| {
        let published = published.get(&table.oid).filter(|_| table.part == Part::Included)?;
        published.row_filter()?;
        Some(RowFilter::of(table, published, RowsRead::Unknown, publications))
    };
    tables.iter().filter_map(of_table).collect()
}

/// Tables of these of which only some rows are published, and whose changes may leave large
/// values out, each with the SQL that has all values come. An UPDATE by which a row comes to
/// meet the condition is an INSERT in the stream, and has all values from the old row alone.
pub fn leaving_out(tables: &[SourceTable], published: &HashMap<u32, Published>) -> Vec<(TableName, String)> {
    let of_table = |table: &SourceTable| {
        let published = published_as(published, table)?;
        let is_meant = table.part == Part::Included && leaves_out(table, published);
        is_meant.then(|| (table.name.clone(), whole_row_sql(table)))
    };
    tables.iter().filter_map(of_table).collect()
}

/// Where only some columns are published, the whole row is no identity: the application's UPDATE
/// would fail (`CheckCmdReplicaIdentity`). There such a change stops the stream.
fn leaves_out(table: &SourceTable, published: &Published) -> bool {
    let is_whole = published.portions.iter().all(|portion| portion.left_out.is_empty());
    table.leaves_values_out && is_whole && matches!(published.rows(Operation::Update), RowsOfKind::Meeting(_))
}

fn whole_row_sql(table: &SourceTable) -> String {
    format!("ALTER TABLE {} REPLICA IDENTITY FULL;", table.name.sql())
}

/// The first table of these that must not be copied by the condition that it is published
/// with: walferry's own publication was made without any, and a first copy (`rows`) goes on
/// as it began.
pub fn refused(
    tables: &[SourceTable],
    published: &HashMap<u32, Published>,
    publications: &Publications,
    (is_created_by_us, rows): (bool, &[TableRow]),
) -> Option<RowFilter> {
    let recorded: HashMap<u32, &TableRow> = rows.iter().map(|row| (row.source_oid, row)).collect();
    let is_other = |table: &SourceTable| {
        recorded.get(&table.oid).and_then(|row| changed(row, table, published, publications)).is_some()
    };
    let is_refused = |table: &&SourceTable| is_created_by_us || is_other(table);
    let wanted: Vec<SourceTable> = tables.iter().filter(is_refused).cloned().collect();
    filtered(&wanted, published, publications).into_iter().next()
}
