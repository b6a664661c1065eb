//! The tables of a server: what each is, what it belongs to, its columns, and what
//! our role may do with it.
//!
//! Invariant: system, temporary and walferry's own tables are never in the list;
//! all others are. No lock is taken but where sizes are asked for
//! ([`Detail::Full`]), so that looking every minute waits for nobody.
//!
//! Source: `pg_class.h`, `pg_inherits.h`; the replica identity is what
//! `RelationGetIndexList` in `src/backend/utils/cache/relcache.c` makes of
//! `relreplident`.

use std::collections::{HashMap, HashSet};

pub use super::identity::{Identity, Instead};
use super::named::{NAMED, lists, oid_of};
use super::types::{BELOW_DOMAINS, ColumnType};
use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::{TableName, ident};

/// Whether a table holds rows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An ordinary table, or a partition that is a leaf.
    Plain,
    /// A partitioned table: its rows are in its partitions.
    Partitioned,
}

/// Whether a table's changes are in the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Persistence {
    /// They are.
    Permanent,
    /// They are not, and its rows are gone after a crash.
    Unlogged,
}

/// What our role may do with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// It has the rights of the owner.
    pub is_owned: bool,
    /// SELECT.
    pub may_read: bool,
    /// USAGE on its schema.
    pub may_use_schema: bool,
    /// Row security hides rows from it.
    pub has_policies: bool,
}

impl Rights {
    /// Whether its rows can be read.
    pub fn reads(self) -> bool {
        self.may_read && self.may_use_schema
    }
}

/// The SQL that lets a role read these tables, as far as it may not; for their owner.
pub fn reading_sql<'t>(tables: impl Iterator<Item = (&'t TableName, Rights)>, role: &str) -> Vec<String> {
    let role = ident(role);
    let (mut schemas, mut of_tables) = (Vec::new(), Vec::new());
    for (table, rights) in tables {
        if !rights.may_use_schema {
            schemas.push(format!("GRANT USAGE ON SCHEMA {} TO {role};", ident(&table.schema)));
        }
        if !rights.may_read {
            of_tables.push(format!("GRANT SELECT ON {} TO {role};", table.sql()));
        }
    }
    schemas.sort_unstable();
    schemas.dedup();
    schemas.into_iter().chain(of_tables).collect()
}

/// A table by oid and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its oid.
    pub oid: u32,
    /// Schema and name.
    pub name: TableName,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its number (`pg_attribute.attnum`): a rename leaves it alone, and it is never
    /// given again.
    pub number: i16,
    /// Its name.
    pub name: String,
    /// Its type's oid.
    pub type_oid: u32,
    /// Its type as SQL.
    pub type_sql: String,
    /// The type below its domains.
    pub below: ColumnType,
    /// The same as SQL.
    pub below_sql: String,
    /// By what the server computes it (GENERATED ALWAYS AS (expression)).
    pub expression: Option<String>,
    /// Whether it is declared NOT NULL.
    pub is_not_null: bool,
    /// Whether a row gets a value for it when none is given: a default, an
    /// identity, an expression.
    pub has_default: bool,
    /// Whether the type is built in and its binary form means the same on
    /// every server: no domain, no enum, nothing that carries an oid by name.
    pub is_binary_safe: bool,
    /// Whether its binary form and its text make the same value to the last byte: a NaN has
    /// many binary forms, and a tsquery is not put together alike.
    pub has_one_image: bool,
    /// What rows have that were there before the column, as text
    /// (`pg_attribute.attmissingval`); `None` where it is NULL, or written in the rows.
    pub missing: Option<String>,
}

impl Column {
    /// Whether the server computes it.
    pub fn is_generated(&self) -> bool {
        self.expression.is_some()
    }
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Schema and name.
    pub name: TableName,
    /// Its oid.
    pub oid: u32,
    /// Whether it holds rows itself.
    pub shape: Shape,
    /// Whether its changes are in the WAL.
    pub persistence: Persistence,
    /// Whether CREATE EXTENSION made it.
    pub is_of_extension: bool,
    /// The partitioned tables it is a partition of, nearest first.
    pub ancestors: Vec<Named>,
    /// The versions of the links to these (`pg_inherits.xmin`): others when it was
    /// detached and attached again.
    pub links: Vec<String>,
    /// Its bounds as a partition, in the server's words.
    pub bounds: Option<String>,
    /// The tables it inherits from by INHERITS, by oid.
    pub parents: Vec<u32>,
    /// Its file (`relfilenode`): another one after each rewrite and TRUNCATE. 0
    /// where it has none.
    pub filenode: u32,
    /// Of a partitioned table, one number for all partitions below it that hold rows: another
    /// one when some of them come or go. 0 where it was read alone.
    pub parts: u32,
    /// How old rows of it are identified.
    pub identity: Identity,
    /// Whether its old rows come whole (REPLICA IDENTITY FULL), and may be found by nothing else.
    pub is_told_whole: bool,
    /// Whether an old row may come without some of its large values: it has a TOAST table,
    /// and columns beside its key that may be there.
    pub leaves_values_out: bool,
    /// What our role may do with it.
    pub rights: Rights,
    /// Size on disk with its TOAST, in bytes; 0 but in full detail.
    pub bytes: u64,
    /// Its columns in order; none in an outline.
    pub columns: Vec<Column>,
}

impl Table {
    /// The topmost partitioned table it is a partition of, or itself.
    pub fn root(&self) -> &TableName {
        self.ancestors.last().map_or(&self.name, |root| &root.name)
    }

    /// The table that it is a partition of, or those that it inherits from, by oid.
    pub fn above(&self) -> Vec<u32> {
        self.ancestors.first().map_or_else(|| self.parents.clone(), |parent| vec![parent.oid])
    }

    /// Whether it is a partition, near or far, of the table with this oid.
    pub fn is_below(&self, oid: u32) -> bool {
        self.ancestors.iter().any(|ancestor| ancestor.oid == oid)
    }

    /// ONLY, for a statement about the rows that the table holds itself, with a
    /// blank; nothing for a partitioned one, which holds none.
    pub fn only(&self) -> &'static str {
        only(self.shape)
    }

    /// The SQL that gives it a replica identity that is usable whatever is published.
    pub fn identity_sql(&self) -> Option<String> {
        self.identity.instead_sql(&self.name)
    }
}

/// ONLY, for a statement about the rows that a table of this shape holds itself,
/// with a blank.
pub fn only(shape: Shape) -> &'static str {
    match shape {
        Shape::Plain => "ONLY ",
        Shape::Partitioned => "",
    }
}

/// How much is read of each table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// All of it. Sizes wait for whoever has a table locked.
    Full,
    /// All but sizes.
    Columns,
    /// All but sizes and columns.
    Outline,
}

/// For WITH RECURSIVE: `above` has, for each partition, the partitioned tables over
/// it from the nearest to the root, and the versions of the links to them.
pub(super) const ABOVE: &str = "\
    up (relation, ancestor, depth, version) AS ( \
        SELECT i.inhrelid, i.inhparent, 1, i.xmin::text FROM pg_catalog.pg_inherits i \
        JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE c.relispartition \
        UNION ALL \
        SELECT up.relation, i.inhparent, up.depth + 1, i.xmin::text FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.ancestor \
        JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE c.relispartition), \
    above AS (SELECT up.relation, pg_catalog.array_agg(c.oid ORDER BY up.depth) AS oids, \
            pg_catalog.array_agg(n.nspname::text ORDER BY up.depth) AS schemas, \
            pg_catalog.array_agg(c.relname::text ORDER BY up.depth) AS names, \
            pg_catalog.array_agg(up.version ORDER BY up.depth) AS versions \
        FROM up JOIN pg_catalog.pg_class c ON c.oid = up.ancestor JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        GROUP BY up.relation)";

/// What `above` has in three columns.
pub(super) fn ancestors(oids: Vec<u32>, schemas: Vec<String>, names: Vec<String>) -> Vec<Named> {
    let named = |((oid, schema), name)| Named { oid, name: TableName { schema, name } };
    oids.into_iter().zip(schemas).zip(names).map(named).collect()
}

/// Whether the index `i` keeps every row apart from every other at once, by columns alone:
/// it is neither partial nor deferrable nor over an expression.
pub const IS_UNIQUE_OF_ALL: &str =
    "i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL";

/// In capitals is what [`tables_sql`] fills in.
const TABLES: &str = "\
    WITH RECURSIVE ABOVE \
    SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind = 'p' AS partitioned, \
        c.relpersistence = 'u' AS unlogged, c.relfilenode AS filenode, SIZE AS bytes, \
        EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid \
            AND d.objsubid = 0 AND d.deptype = 'e') AS extension, \
        coalesce(above.oids, '{}') AS ancestor_oids, coalesce(above.schemas, '{}') AS ancestor_schemas, \
        coalesce(above.names, '{}') AS ancestor_names, coalesce(above.versions, '{}') AS links, \
        pg_catalog.pg_get_expr(c.relpartbound, 0) AS bounds, \
        ARRAY(SELECT i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid AND NOT c.relispartition) AS parents, \
        c.relreplident = 'f' OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid \
            AND i.indisvalid AND i.indimmediate AND (c.relreplident = 'd' AND i.indisprimary \
                OR c.relreplident = 'i' AND i.indisreplident)) AS has_identity, \
        ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND COMPUTED AND (WHOLE_ROW AND c.relreplident = 'f' \
            OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND a.attnum = ANY (i.indkey::int2[]) \
                AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident))) ORDER BY a.attnum) AS computed_identity, \
        WHOLE_ROW AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND COMPUTED) AS has_computed, \
        c.relreplident = 'f' AS is_told_whole, c.reltoastrelid <> 0 AND c.relreplident <> 'f' AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid \
            AND a.attnum > 0 AND NOT a.attisdropped AND a.attstorage <> 'p' \
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND a.attnum = ANY (i.indkey::int2[]) \
                AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident))) AS leaves_values_out, \
        (SELECT ic.relname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid \
            WHERE i.indrelid = c.oid AND IS_UNIQUE_OF_ALL \
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey::int2[]) \
                AND (NOT a.attnotnull OR COMPUTED)) \
            ORDER BY i.indisprimary DESC, i.indnatts, ic.relname LIMIT 1) AS unique_index, \
        coalesce(pg_catalog.pg_has_role(c.relowner, 'USAGE'), false) AS is_owned, \
        coalesce(pg_catalog.has_table_privilege(c.oid, 'SELECT'), false) AS may_read, \
        coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false) AS may_use_schema, \
        c.relrowsecurity AND pg_catalog.row_security_active(c.oid) AS has_policies \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    LEFT JOIN above ON above.relation = c.oid \
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence IN ('p', 'u') AND WANTED \
        AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'walferry') \
    ORDER BY n.nspname, c.relname";

fn tables_sql(session: &Session, size: &str, wanted: &str) -> String {
    // From 18 on the whole row is an identity only where all of it is published.
    let (computed, whole_row) = match session.version() {
        ..120_000 => ("false", "false"),
        120_000..180_000 => ("a.attgenerated <> ''", "false"),
        _ => ("a.attgenerated <> ''", "true"),
    };
    let sql = TABLES.replace("ABOVE", ABOVE).replace("IS_UNIQUE_OF_ALL", IS_UNIQUE_OF_ALL);
    let sql = sql.replace("COMPUTED", computed).replace("WHOLE_ROW", whole_row);
    sql.replace("SIZE", size).replace("WANTED", wanted)
}

/// All tables of a server.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn list(session: &Session, detail: Detail) -> Result<Vec<Table>, DbError> {
    let size = match detail {
        Detail::Full => "coalesce(pg_catalog.pg_table_size(c.oid), 0)",
        Detail::Columns | Detail::Outline => "0::bigint",
    };
    let sql = tables_sql(session, size, "true");
    let rows = session.query(&sql, &[]).await.during(session.side(), "list the tables")?;
    let mut tables = rows.iter().map(table).collect::<Result<Vec<Table>, DbError>>()?;
    number_parts(&mut tables);
    if detail != Detail::Outline {
        let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
        let mut columns = columns(session, &oids).await?;
        for table in &mut tables {
            table.columns = columns.remove(&table.oid).unwrap_or_default();
        }
    }
    Ok(tables)
}

/// Sums a hash of the oids of what holds rows up to all that is above it.
fn number_parts(tables: &mut [Table]) {
    let mut parts: HashMap<u32, u32> = HashMap::new();
    for table in tables.iter().filter(|table| table.shape == Shape::Plain) {
        let hash = u64::from(table.oid).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        for above in &table.ancestors {
            let sum = parts.entry(above.oid).or_default();
            *sum = sum.wrapping_add(u32::try_from(hash).unwrap_or_default());
        }
    }
    for table in tables.iter_mut().filter(|table| table.shape == Shape::Partitioned) {
        table.parts = parts.get(&table.oid).copied().unwrap_or_default();
    }
}

/// The outline of the table with this oid; `None` when there is none (any more).
///
/// # Errors
/// When the catalog cannot be read.
pub async fn find(session: &Session, oid: u32) -> Result<Option<Table>, DbError> {
    let sql = tables_sql(session, "0::bigint", "c.oid = $1");
    let row = session.query_opt(&sql, &[&oid]).await.during(session.side(), "look for a table by its oid")?;
    row.as_ref().map(table).transpose()
}

fn table(row: &Row) -> Result<Table, DbError> {
    Ok(Table {
        name: TableName { schema: row.take("schema")?, name: row.take("name")? },
        oid: row.take("oid")?,
        shape: if row.take("partitioned")? { Shape::Partitioned } else { Shape::Plain },
        persistence: if row.take("unlogged")? { Persistence::Unlogged } else { Persistence::Permanent },
        is_of_extension: row.take("extension")?,
        ancestors: ancestors(row.take("ancestor_oids")?, row.take("ancestor_schemas")?, row.take("ancestor_names")?),
        links: row.take("links")?,
        bounds: row.take("bounds")?,
        parents: row.take("parents")?,
        filenode: row.take("filenode")?,
        parts: 0,
        identity: Identity::of(row)?,
        is_told_whole: row.take("is_told_whole")?,
        leaves_values_out: row.take("leaves_values_out")?,
        rights: Rights {
            is_owned: row.take("is_owned")?,
            may_read: row.take("may_read")?,
            may_use_schema: row.take("may_use_schema")?,
            has_policies: row.take("has_policies")?,
        },
        bytes: u64::try_from(row.take::<i64>("bytes")?).unwrap_or_default(),
        columns: Vec::new(),
    })
}

/// The columns of these tables, by oid, in order.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn columns(session: &Session, oids: &[u32]) -> Result<HashMap<u32, Vec<Column>>, DbError> {
    // With the expression's very parentheses, so that it can be set again.
    let generated = if session.version() >= 120_000 {
        "CASE WHEN a.attgenerated <> '' THEN (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d \
             WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum) END"
    } else {
        "NULL::text"
    };
    let missing = missing(session);
    // Oids below 10000 are assigned by hand in pg_type.dat and never change.
    let sql = format!(
        "SELECT a.attrelid, a.attname::text, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod), {generated}, \
         t.oid < 10000 AND t.typtype IN ('b', 'r', 'm') AND t.typsend::oid <> 0 AND t.typreceive::oid <> 0 \
         AND t.typname !~ '^_?reg', a.attnotnull, a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL, below.oid, below.modifier, \
         pg_catalog.format_type(below.oid, below.modifier), a.attnum, {missing}, \
         t.typname !~ '^_?(float4|float8|point|lseg|path|box|polygon|line|circle|tsquery)$' \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid CROSS JOIN {BELOW_DOMAINS} AS below \
         WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum"
    );
    let rows = session.query(&sql, &[&oids]).await.during(session.side(), "list the columns")?;
    let mut columns: HashMap<u32, Vec<Column>> = HashMap::new();
    for row in &rows {
        columns.entry(row.take(0)?).or_default().push(Column {
            name: row.take(1)?,
            type_oid: row.take(2)?,
            type_sql: row.take(3)?,
            expression: row.take(4)?,
            is_binary_safe: row.take(5)?,
            is_not_null: row.take(6)?,
            has_default: row.take(7)?,
            below: ColumnType { oid: row.take(8)?, modifier: row.take(9)? },
            below_sql: row.take(10)?,
            number: row.take(11)?,
            missing: row.take(12)?,
            has_one_image: row.take(13)?,
        });
    }
    Ok(columns)
}

/// The columns of a table that are computed from this one, by name.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn computed_from(session: &Session, table: &TableName, column: &str) -> Result<Vec<String>, DbError> {
    if session.version() < 120_000 {
        return Ok(Vec::new());
    }
    // Of the column itself before 15, of its expression from then on.
    let sql = format!(
        "SELECT DISTINCT g.attname::text FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_attribute g ON g.attrelid = a.attrelid \
             AND g.attgenerated <> '' LEFT JOIN pg_catalog.pg_attrdef e ON e.adrelid = g.attrelid AND e.adnum = g.attnum \
         JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = a.attrelid \
             AND d.refobjsubid = a.attnum AND (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = g.attrelid \
                 AND d.objsubid = g.attnum OR d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = e.oid) \
         WHERE a.attrelid = {} AND a.attname = $3 AND a.attnum <> g.attnum ORDER BY 1",
        oid_of("$1", "$2")
    );
    let rows = session.query(&sql, &[&table.schema, &table.name, &column]).await;
    rows.during(session.side(), "look for computed columns")?.iter().map(|row| row.take(0)).collect()
}

/// The highest number that a column of this table was ever given, also one that is gone.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn last_column(session: &Session, oid: u32) -> Result<i16, DbError> {
    let sql = "SELECT coalesce(pg_catalog.max(attnum), 0)::int2 FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attnum > 0";
    session.query_one(sql, &[&oid]).await.during(session.side(), "look for the last column")?.take(0)
}

/// What rows have that were there before the column `a` (`pg_attribute`), as text.
pub(super) fn missing(session: &Session) -> &'static str {
    if session.version() >= 110_000 {
        // An array of one, by its element's output function: not each type's delimiter is a comma.
        "CASE WHEN a.atthasmissing THEN pg_catalog.array_to_string(a.attmissingval, '') END"
    } else {
        "NULL::text"
    }
}

/// The table where an ALTER TABLE reaches this column of the table with this oid, if it has it.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn top_with_column(session: &Session, oid: u32, column: &str) -> Result<Option<TableName>, DbError> {
    Ok(with_column_above(session, oid, column).await?.into_iter().next().map(|table| table.name))
}

/// The table and those above it, by partition or inheritance, that have a column of this
/// name, the topmost first: an ALTER TABLE of the column is refused further down.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn with_column_above(session: &Session, oid: u32, column: &str) -> Result<Vec<Named>, DbError> {
    let sql = "WITH RECURSIVE up (oid, depth) AS (SELECT $1::oid, 0 UNION ALL SELECT i.inhparent, up.depth + 1 \
             FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.oid WHERE EXISTS (SELECT FROM pg_catalog.pg_attribute a \
             WHERE a.attrelid = i.inhparent AND a.attname = $2::text AND NOT a.attisdropped)) \
         SELECT c.oid, n.nspname::text, c.relname::text FROM (SELECT oid, max(depth) AS depth FROM up GROUP BY oid) AS up \
         JOIN pg_catalog.pg_class c ON c.oid = up.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY up.depth DESC";
    let rows = session.query(sql, &[&oid, &column]).await.during(session.side(), "look for the tables above")?;
    let named =
        |row: &Row| Ok(Named { oid: row.take(0)?, name: TableName { schema: row.take(1)?, name: row.take(2)? } });
    rows.iter().map(named).collect()
}

/// The number of a table's column of this name, if it has one.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn column_number(session: &Session, oid: u32, name: &str) -> Result<Option<i16>, DbError> {
    let sql = "SELECT attnum FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attname = $2::text AND attnum > 0";
    let row = session.query_opt(sql, &[&oid, &name]).await.during(session.side(), "look for a column")?;
    row.map(|row| row.take(0)).transpose()
}

/// The table with all above it and all below those, by partition or inheritance.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn family(session: &Session, oid: u32) -> Result<Vec<u32>, DbError> {
    let sql = "WITH RECURSIVE up (oid) AS (SELECT $1::oid UNION SELECT i.inhparent FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.oid), \
         family (oid) AS (SELECT oid FROM up UNION SELECT i.inhrelid FROM family JOIN pg_catalog.pg_inherits i ON i.inhparent = family.oid \
             JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relkind IN ('r', 'p')) SELECT oid FROM family";
    let rows = session.query(sql, &[&oid]).await.during(session.side(), "look for the tables above and below")?;
    rows.iter().map(|row| row.take(0)).collect()
}

/// A table that is looked up by its name.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its oid.
    pub oid: u32,
    /// Whether it holds rows itself.
    pub shape: Shape,
    /// Whether its changes are in the WAL.
    pub persistence: Persistence,
    /// Its columns in order.
    pub columns: Vec<Column>,
}

/// The tables of these names, as far as they are there. A foreign table counts
/// as plain: rows can be written to it.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn by_name(
    session: &Session,
    names: impl Iterator<Item = &TableName>,
) -> Result<HashMap<TableName, Found>, DbError> {
    let names: HashSet<&TableName> = names.collect();
    let (schemas, tables) = lists(names);
    let sql = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p', c.relpersistence = 'u' \
         FROM {NAMED} WHERE c.relkind IN ('r', 'p', 'f')"
    );
    let rows = session.query(&sql, &[&schemas, &tables]).await.during(session.side(), "look for the tables")?;
    let oids = rows.iter().map(|row| row.take(0)).collect::<Result<Vec<u32>, DbError>>()?;
    let mut columns = columns(session, &oids).await?;
    let found = |row: &Row| {
        let oid: u32 = row.take(0)?;
        let shape = if row.take(3)? { Shape::Partitioned } else { Shape::Plain };
        let persistence = if row.take(4)? { Persistence::Unlogged } else { Persistence::Permanent };
        let columns = columns.remove(&oid).unwrap_or_default();
        Ok((TableName { schema: row.take(1)?, name: row.take(2)? }, Found { oid, shape, persistence, columns }))
    };
    rows.iter().map(found).collect()
}

/// What a relation is that holds no rows of its own to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherKind {
    /// A view.
    View,
    /// Filled by REFRESH.
    MaterializedView,
    /// Its rows live elsewhere.
    ForeignTable,
    /// A sequence.
    Sequence,
}

/// A relation that is no table of rows.
#[derive(Clone, Debug)]
pub struct Other {
    /// Its number.
    pub oid: u32,
    /// Schema and name.
    pub name: TableName,
    /// What it is.
    pub kind: OtherKind,
    /// What our role may do with it.
    pub rights: Rights,
}

/// The default partitions.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn default_partitions(session: &Session) -> Result<HashSet<TableName>, DbError> {
    let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_partitioned_table p \
         JOIN pg_catalog.pg_class c ON c.oid = p.partdefid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";
    let rows = session.query(sql, &[]).await.during(session.side(), "look for the default partitions")?;
    rows.iter().map(|row| Ok(TableName { schema: row.take(0)?, name: row.take(1)? })).collect()
}

/// Views, foreign tables and sequences, less those of extensions.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn others(session: &Session) -> Result<Vec<Other>, DbError> {
    let sql = "SELECT n.nspname::text, c.relname::text, c.relkind::text, \
         coalesce(pg_catalog.pg_has_role(c.relowner, 'USAGE'), false), \
         coalesce(CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT') \
             ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') END, false), \
         coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false), c.oid \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('v', 'm', 'f', 'S') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' \
             AND n.nspname NOT IN ('information_schema', 'walferry') \
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
                 AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e') ORDER BY 1, 2";
    let rows = session.query(sql, &[]).await.during(session.side(), "list views, foreign tables and sequences")?;
    let other = |row: &Row| {
        let kind = match row.take::<&str>(2)? {
            "v" => OtherKind::View,
            "m" => OtherKind::MaterializedView,
            "f" => OtherKind::ForeignTable,
            _ => OtherKind::Sequence,
        };
        let rights = Rights {
            is_owned: row.take(3)?,
            may_read: row.take(4)?,
            may_use_schema: row.take(5)?,
            has_policies: false,
        };
        Ok(Other { oid: row.take(6)?, name: TableName { schema: row.take(0)?, name: row.take(1)? }, kind, rights })
    };
    rows.iter().map(other).collect()
}
