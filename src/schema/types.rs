//! Types that somebody has made, of columns on both sides: what differs, what mends it, and
//! what is refused before rows are written. What a comparison is, is in
//! [`crate::membership::made`].
//!
//! Invariant: one that was paired is known by that, whatever its name is, and others by their
//! names. Labels that an enum lacks are no reason to refuse rows: the target refuses the
//! values.

use std::collections::{HashMap, HashSet};

use super::SchemaError;
use crate::catalog::added::default_sql;
use crate::catalog::tables::{Column, Found};
use crate::catalog::types::{self, Made, MadeKind, User, is_built_in};
use crate::membership::made::{self, Compared};
use crate::membership::placement::Hierarchy;
use crate::membership::{SourceTable, alter};
use crate::session::{DbError, Session};
use crate::sql::{TableName, ident};
use crate::state::types::TypePairs;

/// The types of columns that take part, against their counterparts.
#[derive(Default)]
pub struct Types {
    /// What values of a column's type consist of, by the type's oid on the source.
    of_column: HashMap<u32, Vec<u32>>,
    /// The same by that on the target.
    of_column_there: HashMap<u32, HashSet<u32>>,
    /// Of each of the source's what was found.
    compared: HashMap<u32, Compared>,
    /// Row types of tables that take part, whose columns are compared by themselves.
    of_members: HashSet<u32>,
    /// Those that are enums.
    enums: HashSet<u32>,
}

/// Which types are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// All.
    All,
    /// All but row types of tables that take part: their columns are.
    ButMembers,
    /// Of these those that would change values.
    Unfit,
}

/// What mends the types of a table's columns.
pub struct Mending {
    /// The table's oid on the source.
    pub source_oid: u32,
    /// The table on the target.
    pub table: TableName,
    /// The statements.
    pub sql: Vec<String>,
}

impl Types {
    /// Compares those of these tables with those of the target's, which were paired so.
    ///
    /// # Errors
    /// When either side cannot be asked.
    pub async fn of(
        tables: &[&SourceTable],
        there: impl Iterator<Item = &Found>,
        (source, target): (&Session, &Session),
        (known, hierarchy): (&HashMap<u32, TypePairs>, Hierarchy),
    ) -> Result<Self, DbError> {
        let ours = own(&mut tables.iter().flat_map(|table| &table.columns));
        if ours.is_empty() {
            return Ok(Types::default());
        }
        let theirs = own(&mut there.flat_map(|found| &found.columns));
        let (here, there) = tokio::try_join!(types::made(source, &ours), types::made(target, &theirs))?;
        let by_name: HashMap<&str, &Made> = there.values().flatten().map(|made| (made.name.as_str(), made)).collect();
        let by_oid: HashMap<u32, &Made> = there.values().flatten().map(|made| (made.oid, made)).collect();
        let oids = |made: &[Made]| -> Vec<u32> { made.iter().map(|made| made.oid).collect() };
        let mut types = Types {
            of_column: here.iter().map(|(column, made)| (*column, oids(made))).collect(),
            of_column_there: there.iter().map(|(column, made)| (*column, oids(made).into_iter().collect())).collect(),
            ..Types::default()
        };
        for ours in here.values().flatten() {
            if types.compared.contains_key(&ours.oid) {
                continue;
            }
            let was = known.get(&ours.oid);
            // One that was renamed is still that one.
            let theirs = was.and_then(|was| by_oid.get(&was.of)).or_else(|| by_name.get(ours.name.as_str()));
            // Of another name, or kind, is another type: with its column.
            let theirs = theirs.filter(|theirs| theirs.kind == ours.kind).copied();
            let mut compared = made::compare(ours, theirs, was, hierarchy);
            if let Some((theirs, sql)) = theirs.zip(compared.sql.as_ref()) {
                compared.sql = Some(possible(target, (ours, theirs), sql).await?);
            }
            types.compared.insert(ours.oid, compared);
            if ours.kind == MadeKind::Row && tables.iter().any(|table| table.name == ours.called) {
                types.of_members.insert(ours.oid);
            }
            types.enums.extend((ours.kind == MadeKind::Enum).then_some(ours.oid));
        }
        Ok(types)
    }

    /// What was found, by the source's oids.
    pub fn compared(&self) -> impl Iterator<Item = (u32, &Compared)> {
        self.compared.iter().map(|(oid, compared)| (*oid, compared))
    }

    /// The same of what values of a table consist of.
    pub fn of_table(&self, table: &SourceTable) -> impl Iterator<Item = &Compared> {
        table.columns.iter().flat_map(|column| self.of_column(column)).map(|(_, compared)| compared)
    }

    /// Whether a column of the target's is of a type that is not as its counterpart is.
    pub fn differ(&self, table: &SourceTable, theirs: &Found) -> bool {
        table.columns.iter().any(|column| {
            let theirs = theirs.columns.iter().find(|c| c.name == column.name && !c.is_generated());
            let differs =
                |theirs| self.of_column(column).any(|(_, one)| one.sql.is_some() && self.is_there(theirs, one));
            theirs.is_some_and(differs)
        })
    }

    fn of_column(&self, column: &Column) -> impl Iterator<Item = (u32, &Compared)> {
        let made = self.of_column.get(&column.below.oid).into_iter().flatten();
        made.filter_map(|oid| Some((*oid, self.compared.get(oid)?)))
    }

    /// Whether values of the target's column consist of this counterpart.
    fn is_there(&self, column: &Column, compared: &Compared) -> bool {
        self.of_column_there.get(&column.below.oid).is_some_and(|made| made.contains(&compared.pairs.of))
    }

    fn is_told(&self, oid: u32, told: Told) -> bool {
        let is_unfit = || !self.of_members.contains(&oid) && !self.enums.contains(&oid);
        match told {
            Told::All => true,
            Told::ButMembers => !self.of_members.contains(&oid),
            Told::Unfit => is_unfit(),
        }
    }

    /// What mends them, each with the first table that has it, and then the columns that are
    /// to be of the new ones. `names` and `there` are the target's.
    ///
    /// # Errors
    /// When the target cannot be asked.
    pub async fn mending(
        &self,
        tables: &[&SourceTable],
        (names, there): (&HashMap<u32, TableName>, &HashMap<TableName, Found>),
        (target, told): (&Session, Told),
    ) -> Result<Vec<Mending>, DbError> {
        let mut said = HashSet::new();
        let (mut of_types, mut of_columns) = (Vec::new(), Vec::new());
        for table in tables {
            let Some((name, found)) = names.get(&table.oid).and_then(|name| Some((name, there.get(name)?))) else {
                continue;
            };
            let mending = |sql| Mending { source_oid: table.oid, table: name.clone(), sql };
            let (mut unsaid, mut given) = (Vec::new(), Vec::new());
            for column in &table.columns {
                let Some(theirs) = found.columns.iter().find(|c| c.name == column.name && !c.is_generated()) else {
                    continue;
                };
                let told =
                    self.of_column(column).filter(|(oid, one)| self.is_told(*oid, told) && self.is_there(theirs, one));
                let told: Vec<&Compared> = told.map(|(_, compared)| compared).collect();
                let sql = told.iter().filter_map(|compared| compared.sql.as_ref());
                unsaid.extend(sql.filter(|sql| !sql.is_empty() && said.insert(*sql)).cloned());
                // An ALTER TABLE of what is above reaches it.
                if table.above().is_empty() && told.iter().any(|compared| compared.is_anew) {
                    // In words that name the new type by then.
                    let default = default_sql(target, found.oid, theirs.number).await?;
                    given.push(alter::given_anew(name, column, default.as_deref()));
                }
            }
            of_types.extend((!unsaid.is_empty()).then(|| mending(unsaid)));
            of_columns.extend((!given.is_empty()).then(|| mending(given)));
        }
        of_types.extend(of_columns);
        Ok(of_types)
    }
}

/// The types of columns that may be others on each server.
fn own(columns: &mut dyn Iterator<Item = &Column>) -> Vec<u32> {
    let own: HashSet<u32> = columns.map(|column| column.below).filter(|t| !is_built_in(*t)).map(|t| t.oid).collect();
    own.into_iter().collect()
}

/// Checks that no value of these tables would be rounded, cut or refused by a type within its
/// column's type.
///
/// # Errors
/// [`SchemaError::Mismatch`] with everything that is wrong, and the SQL that mends it.
pub async fn require_fit<'a>(
    tables: impl Iterator<Item = &'a SourceTable>,
    there: &HashMap<TableName, Found>,
    sessions: (&Session, &Session),
    paired: (&HashMap<u32, TypePairs>, Hierarchy),
) -> Result<(), SchemaError> {
    let wrong = unfit(tables, there, sessions, paired).await?;
    if wrong.is_empty() { Ok(()) } else { Err(SchemaError::Mismatch(wrong)) }
}

/// What [`require_fit`] refuses, a line for each table.
///
/// # Errors
/// When a catalog cannot be read.
pub async fn unfit<'a>(
    tables: impl Iterator<Item = &'a SourceTable>,
    there: &HashMap<TableName, Found>,
    sessions: (&Session, &Session),
    paired: (&HashMap<u32, TypePairs>, Hierarchy),
) -> Result<Vec<String>, DbError> {
    let tables: Vec<&SourceTable> = tables.collect();
    let names: HashMap<u32, TableName> = tables.iter().map(|table| (table.oid, table.name.clone())).collect();
    let types = Types::of(&tables, there.values(), sessions, paired).await?;
    let mending = types.mending(&tables, (&names, there), (sessions.1, Told::Unfit)).await?;
    let line = |Mending { table, sql, .. }: Mending| {
        format!(
            "values of {table} consist of types that are others on the target, where they may be refused, rounded or cut: {}",
            sql.join(" ")
        )
    };
    Ok(mending.into_iter().map(line).collect())
}

/// The statements with what makes them possible: the server alters no attribute's type as long
/// as a column has values of it, so the columns are texts meanwhile.
async fn possible(target: &Session, (ours, theirs): (&Made, &Made), sql: &str) -> Result<String, DbError> {
    if !made::retypes_attributes(ours, theirs) {
        return Ok(sql.to_owned());
    }
    let users = types::users(target, theirs.oid).await?;
    let alter = |user: &User, kind: &str| {
        let (table, column) = (user.table.sql(), ident(&user.column));
        format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE {kind} USING {column}::text::{kind};")
    };
    let out = users.iter().map(|user| alter(user, "text"));
    let back = users.iter().map(|user| alter(user, &user.kind));
    Ok(out.chain([sql.to_owned()]).chain(back).collect::<Vec<_>>().join(" "))
}
