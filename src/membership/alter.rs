//! The statements that make a table's columns on the target what they are on the source.
//!
//! Invariant: each is printed at the topmost table that has the column, as PostgreSQL
//! refuses an ALTER TABLE of a column that is inherited (`renameatt_internal`,
//! `ATExecDropColumn`, `ATPrepAlterColumnType` in `tablecmds.c`), and the same statement
//! stands there once. What it adds or sets there is what the source has there, not what a
//! table below has; what that one has for itself comes with it. What a column needs and the
//! target lacks (types, functions, sequences) is created before.

use std::collections::HashMap;

use super::columns::Difference;
use crate::catalog::added::{Below, add_column_sql, default_sql, otherwise_below};
use crate::catalog::needed::needed_sql;
use crate::catalog::tables::{self, Column};
use crate::catalog::types::has_cast;
use crate::session::Session;
use crate::shell;
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

/// A column of the source where an ALTER TABLE reaches it on both sides.
#[derive(Clone, Debug)]
pub struct Top {
    /// The table of the source.
    pub oid: u32,
    /// The column's number there; `None` when it is gone.
    pub number: Option<i16>,
    /// The table on the target.
    pub there: TableName,
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
    let mut definitions = Definitions::default();
    for difference in differences {
        let there = match difference {
            Difference::Renamed { from: name, .. } | Difference::InTheWay(name) => Some(*name),
            Difference::Unlike { there, .. } => Some(there.name.as_str()),
            Difference::Lacks(_) => None,
        };
        let is_own =
            matches!(difference, Difference::Unlike { column, there } if column.is_generated() && there.is_generated());
        let mut altered = match there {
            // Below it each table may have an expression of its own.
            Some(_) if is_own && target.version() >= SETS_EXPRESSIONS => Some(table.name.clone()),
            Some(name) => tables::top_with_column(target, table.there, name).await?,
            None => None,
        };
        if let Difference::Lacks(column) | Difference::Unlike { column, .. } = difference {
            let now = table.columns.iter().find(|now| now.number == column.number);
            let name = now.map_or(&column.name, |now| &now.name);
            let mut top = top(source, (table.oid, table.name), name, state).await?;
            // Another one may have its name by now.
            top.number = now.and(top.number);
            let altered = altered.get_or_insert_with(|| top.there.clone());
            definitions.add((source, target), (&top, altered), difference, state).await?;
        }
        let altered = altered.unwrap_or_else(|| table.name.clone());
        match by_table.iter_mut().find(|(table, _)| *table == altered) {
            Some((_, of_table)) => of_table.push(*difference),
            None => by_table.push((altered, vec![*difference])),
        }
    }
    let mut statements = definitions.needed;
    for (altered, differences) in &by_table {
        statements.extend(sql(altered, differences, &definitions.columns));
    }
    Ok(statements)
}

/// Where an ALTER TABLE reaches the column that this table of the source, whose counterpart
/// is `there`, has under this name by now: the topmost one that has it on the source.
///
/// # Errors
/// When the source cannot be asked.
pub async fn top(
    source: &Session,
    (oid, there): (u32, &TableName),
    column: &str,
    state: &State,
) -> Result<Top, StateError> {
    let above = tables::with_column_above(source, oid, column).await?;
    let names = state.target_names(&above.iter().map(|table| table.oid).collect::<Vec<_>>()).await?;
    let known = above.iter().find_map(|table| Some((table.oid, names.get(&table.oid)?)));
    let (oid, there) = known.unwrap_or((oid, there));
    Ok(Top { oid, number: tables::column_number(source, oid, column).await?, there: there.clone() })
}

/// The statements that add the column of the source at this top, under this name, with what
/// it needs; `None` when the source has dropped it again.
///
/// # Errors
/// When either side cannot be asked.
pub async fn addition(
    sessions: (&Session, &Session),
    top: &Top,
    name: &str,
    state: &State,
) -> Result<Option<String>, StateError> {
    let Some(number) = top.number else { return Ok(None) };
    let add = added(sessions.0, top, (&top.there, name), state).await?;
    let mut statements = needed_sql(sessions, (top.oid, number)).await?;
    statements.extend(add);
    Ok(Some(statements.join(" ")))
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

/// The statement that gives a column of the table there its type of the source, whose name
/// another one had there so far, with its default.
pub fn given_anew(table: &TableName, column: &Column, default: Option<&str>) -> String {
    let (sql, name, kind) = (table.sql(), ident(&column.name), &column.type_sql);
    let drop = default.map_or_else(String::new, |_| format!("ALTER COLUMN {name} DROP DEFAULT, "));
    let set = default.map_or_else(String::new, |default| format!(", ALTER COLUMN {name} SET DEFAULT {default}"));
    format!("ALTER TABLE {sql} {drop}ALTER COLUMN {name} TYPE {kind} USING {name}::text::{kind}{set};")
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
            "TRUNCATE {sql}; {alter} (there is no cast from what the column is there: the rows come with walferry resync {})",
            shell::table(table)
        ),
    }
}

/// What [`sql`] wants of the source.
#[derive(Debug, Default)]
struct Definitions {
    /// The statements that add columns, and those that give them another type, by the
    /// columns' names.
    columns: HashMap<String, String>,
    /// What creates what these need.
    needed: Vec<String>,
}

impl Definitions {
    /// Asks for those of one difference: of what the source has at the `top`, for the table
    /// of the target that is altered.
    async fn add(
        &mut self,
        (source, target): (&Session, &Session),
        (top, altered): (&Top, &TableName),
        difference: &Difference<'_>,
        state: &State,
    ) -> Result<(), StateError> {
        let (column, sql) = match difference {
            Difference::Lacks(column) => {
                // The source has dropped it again; its changes before that still come.
                let (table, name, kind) = (altered.sql(), ident(&column.name), &column.below_sql);
                let gone = format!("ALTER TABLE {table} ADD COLUMN {name} {kind};");
                let sql = added(source, top, (altered, &column.name), state).await?;
                (column, Some(sql.unwrap_or(gone)))
            }
            Difference::Unlike { column, there } if column.is_generated() && !there.is_generated() => {
                (column, added(source, top, (altered, &column.name), state).await?)
            }
            Difference::Unlike { column, there } if there.is_generated() == column.is_generated() => {
                (column, Some(retyped((source, target), top, altered, (column, there), state).await?))
            }
            _ => return Ok(()),
        };
        self.columns.extend(sql.map(|sql| (column.name.clone(), sql)));
        if let Some(number) = top.number {
            let needed = needed_sql((source, target), (top.oid, number)).await?;
            self.needed.extend(needed.into_iter().filter(|sql| !self.needed.contains(sql)).collect::<Vec<_>>());
        }
        Ok(())
    }
}

/// The statements that add the source's column at this top to `table` of the target under
/// this name: with those below that had it by themselves first, and their own
/// defaults last, as the other way round an ALTER TABLE would give them those of the top.
async fn added(
    source: &Session,
    top: &Top,
    (table, name): (&TableName, &str),
    state: &State,
) -> Result<Option<String>, StateError> {
    let Some(number) = top.number else { return Ok(None) };
    let Some(add) = add_column_sql((source, state.session()), top.oid, table, (number, name)).await? else {
        return Ok(None);
    };
    let below = otherwise_below(source, top.oid, number).await?;
    let names = state.target_names(&below.iter().map(|one| one.oid).collect::<Vec<_>>()).await?;
    let mut statements = Vec::new();
    for (one, there) in below.iter().filter_map(|one| Some((one, names.get(&one.oid)?))) {
        if one.has_own_values {
            let own = add_column_sql((source, state.session()), one.oid, there, (one.number, name)).await?;
            statements.extend(own.map(|sql| sql.replacen(" ADD COLUMN ", " ADD COLUMN IF NOT EXISTS ", 1)));
        }
    }
    statements.push(add);
    statements.extend(defaults(&below, &names, name));
    Ok(Some(statements.join(" ")))
}

/// The statements that give tables below the defaults of their own.
fn defaults(below: &[Below], names: &HashMap<u32, TableName>, column: &str) -> Vec<String> {
    let set = |one: &Below| {
        let (there, default) = (names.get(&one.oid)?.sql(), one.own_default.as_ref()?);
        let what = default.as_ref().map_or_else(|| "DROP DEFAULT".to_owned(), |sql| format!("SET DEFAULT {sql}"));
        Some(format!("ALTER TABLE ONLY {there} ALTER COLUMN {} {what};", ident(column)))
    };
    below.iter().filter_map(set).collect()
}

async fn retyped(
    (source, target): (&Session, &Session),
    top: &Top,
    table: &TableName,
    (column, there): (&Column, &Column),
    state: &State,
) -> Result<String, StateError> {
    if let Some(expression) = &column.expression {
        let (sql, name) = (table.sql(), ident(&column.name));
        return Ok(if target.version() >= SETS_EXPRESSIONS {
            format!("ALTER TABLE {sql} ALTER COLUMN {name} SET EXPRESSION AS ({expression});")
        } else {
            let add = added(source, top, (table, &column.name), state).await?.unwrap_or_default();
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
    let (mut default, mut others) = (None, Vec::new());
    if let Some(number) = top.number.filter(|_| there.has_default && values != Values::Kept) {
        default = default_sql(source, top.oid, number).await?;
        let below = otherwise_below(source, top.oid, number).await?;
        let names = state.target_names(&below.iter().map(|one| one.oid).collect::<Vec<_>>()).await?;
        others = defaults(&below, &names, &column.name);
    }
    let retype = retype(table, (column, there), values, default.as_deref());
    Ok(std::iter::once(drops + &retype).chain(others).collect::<Vec<_>>().join(" "))
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
