//! The statements that make a table's columns on the target what they are on the source.
//!
//! Invariant: each is printed at the topmost table that has the column, as PostgreSQL
//! refuses an ALTER TABLE of a column that is inherited (`renameatt_internal`,
//! `ATExecDropColumn`, `ATPrepAlterColumnType` in `tablecmds.c`), and the same statement
//! stands there once.

use std::collections::HashMap;

use super::columns::Difference;
use crate::catalog::added::{add_column_sql, default_sql};
use crate::catalog::tables::{self, Column};
use crate::catalog::types::has_cast;
use crate::session::{DbError, Session};
use crate::sql::rename::{Rename, Renamed, rename_sql};
use crate::sql::{TableName, ident};
use crate::state::{State, StateError};

/// The first version that gives a column another expression (ALTER COLUMN … SET EXPRESSION).
const SETS_EXPRESSIONS: i32 = 170_000;

/// A table of the source and its counterpart.
#[derive(Clone, Copy, Debug)]
pub struct Altered<'a> {
    /// The source's.
    pub oid: u32,
    /// Its columns by now.
    pub columns: &'a [Column],
    /// The target's.
    pub there: u32,
    /// Its name.
    pub name: &'a TableName,
}

/// The statements that mend these differences of a table, each where an ALTER TABLE reaches
/// the column.
///
/// # Errors
/// When either side cannot be asked.
pub async fn mended(
    (source, target): (&Session, &Session),
    table: Altered<'_>,
    differences: &[Difference<'_>],
    state: &State,
) -> Result<Vec<String>, StateError> {
    let mut by_table: Vec<(TableName, Vec<Difference<'_>>)> = Vec::new();
    for difference in differences {
        let there = match difference {
            Difference::Renamed { from: name, .. } | Difference::InTheWay(name) => Some(*name),
            Difference::Unlike { there, .. } => Some(there.name.as_str()),
            Difference::Lacks(_) => None,
        };
        let altered = match (there, difference) {
            (Some(name), _) => tables::top_with_column(target, table.there, name).await?,
            (None, Difference::Lacks(column)) => {
                let now = table.columns.iter().find(|now| now.number == column.number);
                let name = now.map_or(&column.name, |now| &now.name);
                Some(extended(source, (table.oid, table.name), name, state).await?)
            }
            (None, _) => None,
        };
        let altered = altered.unwrap_or_else(|| table.name.clone());
        match by_table.iter_mut().find(|(table, _)| *table == altered) {
            Some((_, of_table)) => of_table.push(*difference),
            None => by_table.push((altered, vec![*difference])),
        }
    }
    let mut statements = Vec::new();
    for (altered, differences) in &by_table {
        let definitions = definitions((source, target), table.oid, altered, differences).await?;
        statements.extend(sql(altered, differences, &definitions));
    }
    Ok(statements)
}

/// The table on the target that is to get a column which this table of the source, whose
/// counterpart is `there`, has under this name by now: the topmost one that has it on the source.
///
/// # Errors
/// When the source cannot be asked.
pub async fn extended(
    source: &Session,
    (oid, there): (u32, &TableName),
    column: &str,
    state: &State,
) -> Result<TableName, StateError> {
    let above = tables::with_column_above(source, oid, column).await?;
    let names = state.target_names(&above.iter().map(|table| table.oid).collect::<Vec<_>>()).await?;
    Ok(above.iter().find_map(|table| names.get(&table.oid)).unwrap_or(there).clone())
}

/// The statements that mend it, in their order. `table` is where an ALTER reaches the
/// column; `definitions` has what the source was asked for, by the columns' names.
pub fn sql(table: &TableName, differences: &[Difference<'_>], definitions: &HashMap<String, String>) -> Vec<String> {
    let (mut drops, mut renames, mut others) = (Vec::new(), Vec::new(), Vec::new());
    let alter = |what: String| format!("ALTER TABLE {} {what};", table.sql());
    let name = |column: &str| TableName::new("", column);
    for difference in differences {
        match difference {
            Difference::InTheWay(column) => drops.push(alter(format!("DROP COLUMN {}", ident(column)))),
            Difference::Renamed { from, to } => renames.push(Rename { from: name(from), to: name(to) }),
            Difference::Lacks(column) => others.extend(definitions.get(&column.name).cloned()),
            Difference::Unlike { column, there } if there.is_generated() && !column.is_generated() => {
                others.push(alter(format!("ALTER COLUMN {} DROP EXPRESSION", ident(&column.name))));
            }
            Difference::Unlike { column, there } if column.is_generated() && !there.is_generated() => {
                others.push(alter(format!("DROP COLUMN {}", ident(&column.name))));
                others.extend(definitions.get(&column.name).cloned());
            }
            Difference::Unlike { column, there } => {
                let retyped = || retype(table, (column, there), Values::of(column, there), None);
                others.push(definitions.get(&column.name).cloned().unwrap_or_else(retyped));
            }
        }
    }
    let renamed =
        if renames.is_empty() { String::new() } else { rename_sql(Renamed::Column(table), &renames, |_| false) };
    drops.into_iter().chain((!renamed.is_empty()).then_some(renamed)).chain(others).collect()
}

/// How the values of a column become those of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    /// They stay what they are.
    Kept,
    /// By a cast.
    Cast,
    /// Not at all.
    Lost,
}

impl Values {
    /// Where there are casts.
    fn of(column: &Column, there: &Column) -> Self {
        let is_kept = column.below.is_kept_in(there.below) && there.below.is_kept_in(column.below);
        if is_kept && !there.below.loses_in(column.below) { Values::Kept } else { Values::Cast }
    }
}

/// The statements that give a column another type; of another kind its default `there` is
/// dropped, and the source's is set.
fn retype(table: &TableName, (column, there): (&Column, &Column), values: Values, default: Option<&str>) -> String {
    let (sql, name, kind) = (table.sql(), ident(&column.name), &column.below_sql);
    let using = match values {
        Values::Kept => return format!("ALTER TABLE {sql} ALTER COLUMN {name} TYPE {kind};"),
        Values::Cast => format!("{name}::{kind}"),
        Values::Lost => format!("NULL::{kind}"),
    };
    let alter = format!("ALTER COLUMN {name} TYPE {kind} USING {using}");
    let drop = if there.has_default { format!("ALTER COLUMN {name} DROP DEFAULT, ") } else { String::new() };
    let set = default.map_or_else(String::new, |default| format!(", ALTER COLUMN {name} SET DEFAULT {default}"));
    let alter = format!("ALTER TABLE {sql} {drop}{alter}{set};");
    match values {
        Values::Kept | Values::Cast => alter,
        Values::Lost => format!(
            "TRUNCATE {sql}; {alter} (there is no cast from what the column is there: the rows come with walferry resync '{table}')"
        ),
    }
}

/// What [`sql`] wants of the source: the statements that add columns, and those that give
/// them another type, by the columns' names. `oid` is the source's table.
///
/// # Errors
/// When the source cannot be asked.
async fn definitions(
    (source, target): (&Session, &Session),
    oid: u32,
    table: &TableName,
    differences: &[Difference<'_>],
) -> Result<HashMap<String, String>, DbError> {
    let mut found = HashMap::new();
    for difference in differences {
        let (name, sql) = match difference {
            Difference::Lacks(column) => {
                let sql = add_column_sql(source, oid, table, (column.number, &column.name)).await?;
                // The source has dropped it again; its changes before that still come.
                let gone =
                    || format!("ALTER TABLE {} ADD COLUMN {} {};", table.sql(), ident(&column.name), column.below_sql);
                (&column.name, Some(sql.unwrap_or_else(gone)))
            }
            Difference::Unlike { column, there } if column.is_generated() && !there.is_generated() => {
                (&column.name, add_column_sql(source, oid, table, (column.number, &column.name)).await?)
            }
            Difference::Unlike { there, column } if there.is_generated() == column.is_generated() => {
                (&column.name, Some(retyped((source, target), oid, table, (column, there)).await?))
            }
            _ => continue,
        };
        found.extend(sql.map(|sql| (name.clone(), sql)));
    }
    Ok(found)
}

async fn retyped(
    (source, target): (&Session, &Session),
    oid: u32,
    table: &TableName,
    (column, there): (&Column, &Column),
) -> Result<String, DbError> {
    if let Some(expression) = &column.expression {
        let (sql, name) = (table.sql(), ident(&column.name));
        return Ok(if target.version() >= SETS_EXPRESSIONS {
            format!("ALTER TABLE {sql} ALTER COLUMN {name} SET EXPRESSION AS ({expression});")
        } else {
            let add = add_column_sql(source, oid, table, (column.number, &column.name)).await?.unwrap_or_default();
            format!("ALTER TABLE {sql} DROP COLUMN {name}; {add}")
        });
    }
    // What is computed from it is in the way; the source has had to drop that as well.
    let computed = tables::computed_from(target, table, &there.name).await?;
    let drop = |name: &String| format!("ALTER TABLE {} DROP COLUMN IF EXISTS {}; ", table.sql(), ident(name));
    let drops: String = computed.iter().map(drop).collect();
    let values = match Values::of(column, there) {
        Values::Kept => Values::Kept,
        _ if has_cast(source, &there.below_sql, &column.below_sql).await? => Values::Cast,
        _ => Values::Lost,
    };
    let default = if there.has_default { default_sql(source, oid, column.number).await? } else { None };
    Ok(drops + &retype(table, (column, there), values, default.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::columns::testing::column;

    #[test]
    fn a_default_is_dropped_before_the_type_is_another_and_the_sources_is_set() {
        let (column, there) = (column(1, "a"), Column { has_default: true, ..column(1, "a") });
        let retyped = |default| retype(&TableName::new("s", "t"), (&column, &there), Values::Cast, default);
        assert_eq!(
            retyped(None),
            r#"ALTER TABLE "s"."t" ALTER COLUMN "a" DROP DEFAULT, ALTER COLUMN "a" TYPE integer USING "a"::integer;"#
        );
        assert_eq!(
            retyped(Some("'x'::text")),
            r#"ALTER TABLE "s"."t" ALTER COLUMN "a" DROP DEFAULT, ALTER COLUMN "a" TYPE integer USING "a"::integer, ALTER COLUMN "a" SET DEFAULT 'x'::text;"#
        );
    }
}
