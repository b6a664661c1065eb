//! What gives partitions on the target the place and the bounds that they have on the
//! source by now.
//!
//! Invariant: the statements run as they are printed. Partitions that are in each other's
//! way (two whose bounds were exchanged, say) get their places by one text, in which all are
//! detached before one is attached; and what holds rows that the bounds keep out is emptied
//! in between, to be copied anew.

use std::collections::{HashMap, HashSet};

use super::SourceTable;
use super::gap::{Cause, Gap};
use super::placement::Home;
use super::publishing::root_in_name;
use crate::catalog::bounds::{self, DEFAULT, Rows};
use crate::catalog::publication::Published;
use crate::catalog::tables::Shape;
use crate::session::{DbError, Session};
use crate::shell;
use crate::sql::TableName;
use crate::sql::printed::printed;
use crate::state::places::TargetTable;
use crate::state::tables::{Origin, TableState};
use crate::state::{State, StateError};

/// How a partition on the target gets its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Placing {
    /// Not said yet.
    #[default]
    Unsaid,
    /// By these statements; these tables are copied anew behind them.
    Sql(Vec<String>, Vec<TableName>),
    /// With this other one, whose statements place both.
    With(TableName),
}

impl Placing {
    /// For people; `first` is to be taken in before.
    pub(super) fn said(&self, first: Option<&TableName>) -> String {
        let first = first.map(|parent| format!("take that one in first: walferry add {}", shell::table(parent)));
        let how = match self {
            Placing::Unsaid => String::new(),
            Placing::Sql(statements, copied) => {
                let copies: Vec<String> =
                    copied.iter().map(|table| format!("walferry resync {}", shell::table(table))).collect();
                let then = if copies.is_empty() { "" } else { " then copy anew what that empties: " };
                format!("{}{then}{}", printed(&statements.join(" ")), copies.join(", "))
            }
            Placing::With(other) => return format!("what places {other} on the target places it as well"),
        };
        let both: Vec<String> = [Some(how).filter(|how| !how.is_empty()), first].into_iter().flatten().collect();
        format!("do the same there: {}", both.join(" "))
    }
}

/// Both sides, as far as it is about places.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    /// The tables of the source.
    pub tables: &'a [SourceTable],
    /// The target's tables by the source's oids.
    pub there: &'a HashMap<u32, TargetTable>,
    /// What is published.
    pub published: &'a HashMap<u32, Published>,
}

/// A table of the target with rows that bounds of the source keep out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InTheWay {
    /// The oid of the partition on the source that is to get the bounds.
    pub placed: u32,
    /// The oid of the counterpart of the table that holds the rows.
    pub holder: u32,
}

/// What is in the way of the partitions of `gaps` that are to be attached: rows of their
/// own, and those of default partitions beside them.
///
/// # Errors
/// When either side cannot be asked.
pub async fn in_the_way(
    (source, target): (&Session, &Session),
    gaps: &[Gap],
    sides: Sides<'_>,
) -> Result<Vec<InTheWay>, DbError> {
    let mut found = Vec::new();
    for gap in gaps {
        let Cause::Attached { source: Some(home), is_there: true, .. } = &gap.cause else { continue };
        let Some(condition) = bounds::constraint(source, gap.source_oid).await? else { continue };
        let shape = |oid: u32| sides.tables.iter().find(|table| table.oid == oid).map_or(Shape::Plain, |t| t.shape);
        let own = (&gap.table, shape(gap.source_oid));
        if bounds::has(target, own, &condition, Rows::Others).await? {
            found.push(InTheWay { placed: gap.source_oid, holder: gap.source_oid });
        }
        let is_default = |there: &&TargetTable| {
            let is_beside = there.parent.as_ref().is_some_and(|(_, parent)| *parent == home.parent);
            is_beside && there.bounds.as_deref() == Some(DEFAULT) && there.source_oid != gap.source_oid
        };
        if let Some(default) = sides.there.values().find(is_default)
            && home.bounds != DEFAULT
            && bounds::has(target, (&default.name, shape(default.source_oid)), &condition, Rows::Meeting).await?
        {
            found.push(InTheWay { placed: gap.source_oid, holder: default.source_oid });
        }
    }
    Ok(found)
}

/// Has the rows of what is to be emptied compared once it is; the tables' oids.
///
/// # Errors
/// When the target refuses it.
pub async fn doubt(state: &State, tables: &[SourceTable], in_the_way: &[InTheWay]) -> Result<HashSet<u32>, StateError> {
    let holders: HashSet<u32> = in_the_way.iter().map(|found| found.holder).collect();
    if holders.is_empty() {
        return Ok(holders);
    }
    let is_below = |oid: u32| {
        let table = tables.iter().find(|table| table.oid == oid);
        table.is_some_and(|table| table.ancestors.iter().any(|above| holders.contains(&above.oid)))
    };
    let rows = state.tables().await?.into_iter();
    let rows = rows.filter(|row| matches!(row.state, TableState::Ready | TableState::Within));
    let doubted = rows.filter(|row| holders.contains(&row.source_oid) || is_below(row.source_oid));
    let doubted: Vec<(u32, Origin)> = doubted
        .map(|row| (row.source_oid, Origin { filenode: Some(Origin::COLUMNS_CAME), via: row.origin.via }))
        .collect();
    state.record_origins(&doubted).await?;
    Ok(doubted.into_iter().map(|(oid, _)| oid).collect())
}

/// Fills in how partitions get their places on the target: those that are in each other's
/// way by one text, with the first of them.
pub fn say_how_to_place(gaps: &mut [Gap], sides: Sides<'_>, in_the_way: &[InTheWay]) {
    let moves: Vec<Move> = gaps.iter().filter_map(Move::of).collect();
    let mut said: HashMap<u32, TableName> = HashMap::new();
    let mut texts: HashMap<u32, Placing> = HashMap::new();
    for (place, first) in moves.iter().enumerate() {
        if said.contains_key(&first.oid) {
            continue;
        }
        let group = group(&moves, place);
        said.extend(group.iter().map(|one| (one.oid, first.table.clone())));
        texts.insert(first.oid, text(&group, sides, in_the_way));
    }
    for gap in gaps {
        let Cause::Attached { how, .. } = &mut gap.cause else { continue };
        let with = || said.get(&gap.source_oid).map(|first| Placing::With(first.clone()));
        *how = texts.get(&gap.source_oid).cloned().or_else(with).unwrap_or_default();
    }
}

/// Of a partition that is to get another place.
struct Move {
    oid: u32,
    table: TableName,
    from: Option<TableName>,
    to: Option<Home>,
}

impl Move {
    fn of(gap: &Gap) -> Option<Self> {
        let Cause::Attached { source, target, is_there, .. } = &gap.cause else { return None };
        let from = target.as_ref().map(|home| home.parent.clone());
        let to = source.clone().filter(|_| *is_there);
        Some(Move { oid: gap.source_oid, table: gap.table.clone(), from, to })
    }

    /// Whether this one goes where the other one is.
    fn is_after(&self, other: &Move) -> bool {
        self.to.as_ref().map(|home| &home.parent).is_some_and(|parent| other.from.as_ref() == Some(parent))
    }
}

/// The move at this place, and those that it goes with.
fn group(moves: &[Move], place: usize) -> Vec<&Move> {
    let mut members: Vec<usize> = vec![place];
    let mut next = 0;
    while let Some(one) = members.get(next).and_then(|place| moves.get(*place)) {
        next += 1;
        let goes_with = |other: &Move| one.is_after(other) || other.is_after(one);
        let others: Vec<usize> = moves.iter().enumerate().filter(|(_, o)| goes_with(o)).map(|(n, _)| n).collect();
        members.extend(others.into_iter().filter(|n| !members.contains(n)).collect::<Vec<_>>());
    }
    members.sort_unstable();
    members.into_iter().filter_map(|place| moves.get(place)).collect()
}

/// The statements of a group.
fn text(group: &[&Move], sides: Sides<'_>, in_the_way: &[InTheWay]) -> Placing {
    let detach = |parent: &TableName, table: &TableName| {
        format!("ALTER TABLE {} DETACH PARTITION {};", parent.sql(), table.sql())
    };
    let into: HashSet<&TableName> = group.iter().filter_map(|one| one.to.as_ref().map(|home| &home.parent)).collect();
    let mut statements: Vec<String> =
        group.iter().filter_map(|one| one.from.as_ref().map(|parent| detach(parent, &one.table))).collect();
    let mut dropped: Vec<(&TableName, &TableName)> = Vec::new();
    for there in sides.there.values().filter(|there| is_left_over(there, sides)) {
        dropped.extend(there.parent.as_ref().map(|(_, parent)| (parent, &there.name)));
    }
    dropped.retain(|(parent, _)| into.contains(parent));
    dropped.sort_unstable();
    statements.extend(dropped.into_iter().map(|(parent, table)| detach(parent, table)));
    let (mut emptied, mut copied): (Vec<&TableName>, Vec<TableName>) = (Vec::new(), Vec::new());
    for found in in_the_way.iter().filter(|found| group.iter().any(|one| one.oid == found.placed)) {
        let Some(holder) = sides.there.get(&found.holder) else { continue };
        let table = sides.tables.iter().find(|table| table.oid == found.holder);
        let root = table.and_then(|table| root_in_name(sides.published, table).or(Some(&table.name)));
        if !emptied.contains(&&holder.name) {
            emptied.push(&holder.name);
        }
        copied.extend(root.filter(|root| !copied.contains(root)).cloned().into_iter().collect::<Vec<_>>());
    }
    statements.extend(emptied.into_iter().map(|table| format!("TRUNCATE {};", table.sql())));
    let attach = |table: &TableName, home: &Home| {
        format!("ALTER TABLE {} ATTACH PARTITION {} {};", home.parent.sql(), table.sql(), home.bounds)
    };
    statements.extend(group.iter().filter_map(|one| one.to.as_ref().map(|home| attach(&one.table, home))));
    Placing::Sql(statements, copied)
}

/// Whether the source has a partition of the target no more, nor another one in its place.
fn is_left_over(there: &TargetTable, sides: Sides<'_>) -> bool {
    let is_replaced = |table: &SourceTable| table.name == there.name && root_in_name(sides.published, table).is_some();
    !sides.tables.iter().any(|table| table.oid == there.source_oid || is_replaced(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(oid: u32, table: &str, source: Option<(&str, &str)>, target: Option<&str>) -> Gap {
        let name = |name: &str| TableName::new("s", name);
        let home = |(parent, bounds): (&str, &str)| Home { parent: name(parent), bounds: bounds.to_owned() };
        let target = target.map(|parent| home((parent, "FOR VALUES IN (0)")));
        let cause = Cause::Attached { source: source.map(home), target, is_there: true, how: Placing::Unsaid };
        Gap { source_oid: oid, table: name(table), cause }
    }

    #[test]
    fn all_that_are_in_each_others_way_are_detached_before_one_is_attached() {
        let mut gaps = [
            gap(1, "a", Some(("p", "IN (2)")), Some("p")),
            gap(2, "b", None, Some("p")),
            gap(3, "c", Some(("p", "IN (3)")), None),
            gap(4, "d", None, Some("q")),
        ];
        let there = TargetTable {
            source_oid: 1,
            name: TableName::new("s", "a"),
            parent: None,
            bounds: None,
            is_bare_root: false,
            inherits: Vec::new(),
        };
        let (there, published) = (HashMap::from([(1, there)]), HashMap::new());
        let sides = Sides { tables: &[], there: &there, published: &published };
        say_how_to_place(&mut gaps, sides, &[InTheWay { placed: 1, holder: 1 }]);
        let said: Vec<String> = gaps.iter().map(ToString::to_string).collect();
        let first = r#"do the same there: ALTER TABLE "s"."p" DETACH PARTITION "s"."a"; ALTER TABLE "s"."p" DETACH PARTITION "s"."b"; TRUNCATE "s"."a"; ALTER TABLE "s"."p" ATTACH PARTITION "s"."a" IN (2); ALTER TABLE "s"."p" ATTACH PARTITION "s"."c" IN (3);"#;
        assert!(said[0].ends_with(first), "{}", said[0]);
        for with in &said[1..3] {
            assert!(with.ends_with("what places s.a on the target places it as well"), "{with}");
        }
        assert!(
            said[3].ends_with(r#"do the same there: ALTER TABLE "s"."q" DETACH PARTITION "s"."d";"#),
            "{}",
            said[3]
        );
    }
}
