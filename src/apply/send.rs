//! Sends changes into a target transaction: row by row, or as net changes.

use std::sync::Arc;

use tracing::debug;

use super::order::Order;
use super::relations::{Handling, Relations};
use super::set_based::{SetStatement, Statements, Writing};
use super::target::TargetTable;
use super::transaction::Transaction;
use super::{ApplyError, Label, Place};
use crate::assemble::{Change, ChangeKind, Piece};
use crate::coalesce::{Net, Segment, Step, TableWork};
use crate::pgoutput::{Cascade, RestartIdentity};
use crate::relation::Relation;

/// What a target transaction has done, for the counters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    pub(super) transactions: u64,
    pub(super) inserts: u64,
    pub(super) updates: u64,
    pub(super) deletes: u64,
    pub(super) truncates: u64,
    pub(super) filtered: u64,
    /// Source commit time of the last transaction, microseconds since 2000.
    pub(super) commit_time: Option<i64>,
}

impl Work {
    /// Counts the changes of a piece.
    pub(super) fn count(&mut self, relations: &Relations, piece: &Piece) {
        for change in &piece.changes {
            match relations.get(&change.relation) {
                Some(Handling::Apply(apply)) if apply.takes(piece) => {}
                Some(Handling::PassedOver) => {
                    self.filtered += 1;
                    continue;
                }
                _ => continue,
            }
            match &change.kind {
                ChangeKind::Insert { .. } => self.inserts += 1,
                ChangeKind::Update { .. } => self.updates += 1,
                ChangeKind::Delete { .. } => self.deletes += 1,
                ChangeKind::Truncate { .. } => self.truncates += 1,
            }
        }
        self.commit_time = Some(piece.begin.commit_time);
        self.transactions += u64::from(piece.end.is_some());
    }
}

/// Sends changes.
pub(super) struct Sender<'a> {
    pub(super) relations: &'a mut Relations,
}

impl Sender<'_> {
    /// Sends every change by itself.
    pub(super) async fn pieces(
        &mut self,
        transaction: &mut Transaction<'_>,
        pieces: &[Piece],
    ) -> Result<(), ApplyError> {
        for piece in pieces {
            for change in &piece.changes {
                self.change(transaction, piece, change).await?;
            }
        }
        Ok(())
    }

    /// Sends net changes, and what cannot be netted row by row.
    pub(super) async fn segments(
        &mut self,
        transaction: &mut Transaction<'_>,
        segments: &[Segment<'_>],
        order: Order,
    ) -> Result<(), ApplyError> {
        for segment in segments {
            match segment {
                Segment::Truncate(piece, change) => self.truncate(transaction, piece, change).await?,
                Segment::Tables(tables) if order == Order::ParentsFirst => {
                    self.parents_first(transaction, tables).await?;
                }
                Segment::Tables(tables) => {
                    for table in tables {
                        self.table(transaction, table).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn table(&mut self, transaction: &mut Transaction<'_>, table: &TableWork<'_>) -> Result<(), ApplyError> {
        for step in &table.steps {
            match step {
                Step::Row(piece, change) => self.change(transaction, piece, change).await?,
                Step::Net(net) => {
                    let statements = self.net(table.relation, net, self.relations.writing(table.relation.id))?;
                    self.statements(transaction, table.relation, statements.iter()).await?;
                }
            }
        }
        Ok(())
    }

    /// Tables whose foreign keys are in force: inserts parents first, updates,
    /// deletes children first. There are no single rows among them.
    async fn parents_first(
        &mut self,
        transaction: &mut Transaction<'_>,
        tables: &[TableWork<'_>],
    ) -> Result<(), ApplyError> {
        let out_of_step = || ApplyError::OutOfStep("tables without an order in one that has one".to_owned());
        let mut sorted = Vec::with_capacity(tables.len());
        for place in self.relations.parents_first(tables).ok_or_else(out_of_step)? {
            let relation = tables[place].relation;
            let [Step::Net(net)] = tables[place].steps.as_slice() else { return Err(out_of_step()) };
            sorted.push((relation, self.net(relation, net, Writing::Keeping)?));
        }
        for (relation, statements) in &sorted {
            self.statements(transaction, relation, statements.inserts.iter()).await?;
        }
        for (relation, statements) in &sorted {
            self.statements(transaction, relation, statements.updates.iter()).await?;
        }
        for (relation, statements) in sorted.iter().rev() {
            self.statements(transaction, relation, statements.deletes.iter()).await?;
        }
        Ok(())
    }

    fn net(&mut self, relation: &Arc<Relation>, net: &Net<'_>, writing: Writing) -> Result<Statements, ApplyError> {
        let Some(Handling::Apply(apply)) = self.relations.get_mut(relation) else {
            return Err(not_admitted(relation));
        };
        let mapping = &apply.rows.mapping;
        let rendered = apply.sets.render(mapping, net, writing);
        rendered.map_err(|error| ApplyError::NetRender { label: Arc::clone(&mapping.label), error })
    }

    async fn statements(
        &self,
        transaction: &mut Transaction<'_>,
        relation: &Arc<Relation>,
        statements: impl Iterator<Item = &SetStatement>,
    ) -> Result<(), ApplyError> {
        let Some(Handling::Apply(apply)) = self.relations.get(relation) else {
            return Err(not_admitted(relation));
        };
        for statement in statements {
            transaction.net(statement, &apply.rows.mapping).await?;
        }
        Ok(())
    }

    async fn change(
        &mut self,
        transaction: &mut Transaction<'_>,
        piece: &Piece,
        change: &Change,
    ) -> Result<(), ApplyError> {
        match &change.kind {
            ChangeKind::Truncate { .. } => self.truncate(transaction, piece, change).await,
            _ => self.row(transaction, piece, change).await,
        }
    }

    async fn row(
        &mut self,
        transaction: &mut Transaction<'_>,
        piece: &Piece,
        change: &Change,
    ) -> Result<(), ApplyError> {
        let apply = match self.relations.get_mut(&change.relation) {
            Some(Handling::Apply(apply)) if apply.takes(piece) => apply,
            Some(_) => return Ok(()),
            None => return Err(not_admitted(&change.relation)),
        };
        let place = place(change, Arc::clone(&apply.rows.mapping.label), piece);
        match apply.rows.render(&change.kind) {
            Ok(Some(statement)) => transaction.row(&statement, place).await,
            Ok(None) => Err(ApplyError::OutOfStep("a TRUNCATE among rows".to_owned())),
            Err(error) => Err(ApplyError::Render { place: Box::new(place), error }),
        }
    }

    async fn truncate(
        &mut self,
        transaction: &mut Transaction<'_>,
        piece: &Piece,
        change: &Change,
    ) -> Result<(), ApplyError> {
        let ChangeKind::Truncate { relations, restart_identity, cascade } = &change.kind else { return Ok(()) };
        // The tables that CASCADE reached are listed by the source itself; to
        // say CASCADE here would empty tables that the source did not.
        debug!(cascaded = (*cascade == Cascade::Yes), "applying a TRUNCATE");
        let target = |relation| match self.relations.get(relation) {
            Some(Handling::Apply(apply)) if apply.takes(piece) => Some(&apply.rows.mapping.target),
            _ => None,
        };
        let targets: Vec<&TargetTable> = relations.iter().filter_map(target).collect();
        let names: Vec<String> = targets.iter().map(|target| target.only_sql()).collect();
        let deferrable: Vec<String> = targets.iter().flat_map(|target| target.deferrable.iter().cloned()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let restart = if *restart_identity == RestartIdentity::Yes { " RESTART IDENTITY" } else { "" };
        let sql = format!("TRUNCATE {}{restart}", names.join(", "));
        let label = Arc::new(Label { table: change.relation.table.clone(), key: Vec::new() });
        transaction.truncate(&sql, &deferrable, place(change, label, piece)).await
    }
}

fn not_admitted(relation: &Relation) -> ApplyError {
    ApplyError::OutOfStep(format!("{} was not admitted", relation.table))
}

fn place(change: &Change, label: Arc<Label>, piece: &Piece) -> Place {
    let operation = match &change.kind {
        ChangeKind::Insert { .. } => "INSERT",
        ChangeKind::Update { .. } => "UPDATE",
        ChangeKind::Delete { .. } => "DELETE",
        ChangeKind::Truncate { .. } => "TRUNCATE",
    };
    Place { label, operation, commit: piece.begin.commit_lsn, xid: piece.begin.xid }
}
