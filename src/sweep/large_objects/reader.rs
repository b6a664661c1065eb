//! Reading large objects: lists, lengths, hashes and contents.
//!
//! Invariant: both ways of reading give the same bytes. As pages of
//! `pg_largeobject` (superuser, pg_read_all_data, or a GRANT): absent pages and
//! the rest of a short page that is not the last are zeros, as `inv_read` has
//! them. Through `lo_get` (owner, ACL, superuser): the server does that.

use std::collections::HashMap;

use crate::session::Row;
use prometheus::IntCounter;

use super::PIECE_BYTES;
use crate::observe::metrics::Metrics;
use crate::session::{DbContext, DbError, Param, Session};

/// `INV_READ` of `src/include/libpq/libpq-fs.h`.
const INV_READ: i32 = 0x0004_0000;

/// How contents are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// From the pages of `pg_largeobject`; bytes of a full page (`LOBLKSIZE`).
    Pages(i64),
    /// Through `lo_get`.
    Functions,
}

/// The hash that both servers compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Digest {
    /// From PostgreSQL 11; works on servers that refuse md5 (FIPS).
    Sha256,
    /// Where one of the servers is older.
    Md5,
}

impl Digest {
    /// By the older server's version.
    pub fn of(version: i32) -> Self {
        if version >= 110_000 { Digest::Sha256 } else { Digest::Md5 }
    }

    pub fn sql(self, bytes: &str) -> String {
        match self {
            Digest::Sha256 => format!("sha256({bytes})"),
            Digest::Md5 => format!("decode(md5({bytes}), 'hex')"),
        }
    }
}

/// An object of the source.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub oid: u32,
    pub is_readable: bool,
    pub comment: Option<String>,
}

/// An object's length, and its hash where it was asked for and fits one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub oid: u32,
    pub bytes: i64,
    pub hash: Option<Vec<u8>>,
}

/// Reads the large objects of one side.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    session: &'a Session,
    access: Access,
    digest: Digest,
    /// Counts the bytes of rows that the source sends.
    read: Option<&'a IntCounter>,
}

/// What tells who may read the object `m` through functions.
/// has_largeobject_privilege is of 18; this is what it does
/// (`pg_largeobject_aclmask_snapshot` in aclchk.c).
pub(crate) const READABLE_SQL: &str = "(pg_has_role(m.lomowner, 'USAGE') OR current_setting('is_superuser')::boolean \
    OR current_setting('lo_compat_privileges')::boolean \
    OR EXISTS (SELECT FROM aclexplode(m.lomacl) a WHERE a.privilege_type = 'SELECT' \
               AND CASE WHEN a.grantee = 0 THEN true ELSE pg_has_role(a.grantee, 'USAGE') END))";

impl<'a> Reader<'a> {
    /// A reader of the source: pages where we may, functions otherwise.
    pub async fn of_source(session: &'a Session, metrics: &'a Metrics) -> Result<Self, DbError> {
        let row = session
            .query_one(
                "SELECT has_table_privilege('pg_catalog.pg_largeobject', 'SELECT'), current_setting('block_size')::bigint / 4",
                &[],
            )
            .await
            .during(session.side(), "find out how large objects can be read")?;
        let access = if row.take(0)? { Access::Pages(row.take(1)?) } else { Access::Functions };
        let read = Some(&metrics.large_object_read_bytes);
        Ok(Reader { session, access, digest: Digest::Sha256, read })
    }

    /// A reader of the target, where the objects are our own.
    pub fn of_target(session: &'a Session) -> Self {
        Reader { session, access: Access::Functions, digest: Digest::Sha256, read: None }
    }

    /// The same with the hash that both sides know.
    pub fn with(self, digest: Digest) -> Self {
        Reader { digest, ..self }
    }

    /// The same over another session.
    pub fn over<'b>(self, session: &'b Session) -> Reader<'b>
    where
        'a: 'b,
    {
        Reader { session, ..self }
    }

    /// Lengths of objects that are there.
    pub async fn lengths(&self, oids: &[u32]) -> Result<HashMap<u32, i64>, DbError> {
        let facts = self.facts(oids, &vec![false; oids.len()]).await?;
        Ok(facts.into_iter().map(|facts| (facts.oid, facts.bytes)).collect())
    }

    /// The bytes of a full page, where pages may be read.
    pub fn page_bytes(&self) -> Option<i64> {
        match self.access {
            Access::Pages(bytes) => Some(bytes),
            Access::Functions => None,
        }
    }

    /// The hash that both sides know.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The session that is read.
    pub fn session(&self) -> &'a Session {
        self.session
    }

    /// The rows of a statement; what they weigh is counted.
    pub async fn rows(&self, sql: &str, params: &[&dyn Param], action: &str) -> Result<Vec<Row>, DbError> {
        let rows = self.session.query(sql, params).await.during(self.session.side(), action)?;
        self.count(&rows);
        Ok(rows)
    }

    /// The row of a statement that has exactly one.
    pub async fn row(&self, sql: &str, params: &[&dyn Param], action: &str) -> Result<Row, DbError> {
        let row = self.session.query_one(sql, params).await.during(self.session.side(), action)?;
        self.count(std::slice::from_ref(&row));
        Ok(row)
    }

    fn count(&self, rows: &[Row]) {
        if let Some(read) = self.read {
            read.inc_by(rows.iter().map(|row| row.raw_size_bytes() as u64).sum());
        }
    }

    /// Our role, quoted for SQL.
    pub async fn role(&self) -> Result<String, DbError> {
        let row = self
            .session
            .query_one("SELECT quote_ident(current_user)", &[])
            .await
            .during(self.session.side(), "ask for the role")?;
        row.take(0)
    }

    /// Objects above an oid (from the first with `None`), in order.
    pub async fn list(&self, above: Option<u32>, limit: i64) -> Result<Vec<Listed>, DbError> {
        let sql = format!("{} WHERE $1::oid IS NULL OR m.oid > $1 ORDER BY m.oid LIMIT $2", self.list_sql());
        let rows = self.rows(&sql, &[&above, &limit], "list the large objects").await?;
        rows.iter().map(listed).collect()
    }

    /// Those of the oids that are there.
    pub async fn listed(&self, oids: &[u32]) -> Result<Vec<Listed>, DbError> {
        let sql = format!("{} WHERE m.oid = ANY ($1::oid[])", self.list_sql());
        let rows = self.rows(&sql, &[&oids], "look for large objects").await?;
        rows.iter().map(listed).collect()
    }

    fn list_sql(&self) -> String {
        let readable = match self.access {
            Access::Pages(_) => "true",
            Access::Functions => READABLE_SQL,
        };
        format!("SELECT m.oid, {readable}, obj_description(m.oid, 'pg_largeobject') FROM pg_largeobject_metadata m")
    }

    /// Which of the oids are not (any more) there.
    pub async fn missing(&self, oids: &[u32]) -> Result<Vec<u32>, DbError> {
        let sql = "SELECT o FROM unnest($1::oid[]) o \
                   WHERE NOT EXISTS (SELECT FROM pg_largeobject_metadata m WHERE m.oid = o)";
        let rows = self.rows(sql, &[&oids], "look for removed large objects").await?;
        rows.iter().map(|row| row.take(0)).collect()
    }

    /// Lengths of objects, and hashes of those that are marked and fit a piece.
    pub async fn facts(&self, oids: &[u32], hashed: &[bool]) -> Result<Vec<Facts>, DbError> {
        if oids.is_empty() {
            return Ok(Vec::new());
        }
        let hash = self.digest.sql(&self.piece_sql("o.oid", "s.bytes", "0::bigint"));
        let sql = format!(
            "SELECT o.oid, s.bytes, CASE WHEN o.hashed AND s.bytes <= {PIECE_BYTES} THEN {hash} END \
             FROM unnest($1::oid[], $2::boolean[]) AS o (oid, hashed) CROSS JOIN LATERAL {} s",
            self.bytes_sql()
        );
        let rows = self.rows(&sql, &[&oids, &hashed], "compare large objects").await?;
        rows.iter().map(|row| Ok(Facts { oid: row.take(0)?, bytes: row.take(1)?, hash: row.take(2)? })).collect()
    }

    /// Contents of objects of at most one piece, of the given lengths.
    pub async fn contents(&self, oids: &[u32], bytes: &[i64]) -> Result<Vec<(u32, Vec<u8>)>, DbError> {
        let sql = format!(
            "SELECT o.oid, {} FROM unnest($1::oid[], $2::bigint[]) AS o (oid, bytes)",
            self.piece_sql("o.oid", "o.bytes", "0::bigint")
        );
        let rows = self.rows(&sql, &[&oids, &bytes], "read large objects").await?;
        rows.iter().map(|row| Ok((row.take(0)?, row.take(1)?))).collect()
    }

    /// Hashes of the pieces `first..end` of an object of `bytes` bytes.
    pub async fn piece_hashes(&self, oid: u32, bytes: i64, first: i64, end: i64) -> Result<Vec<Vec<u8>>, DbError> {
        let piece = self.piece_sql("$1::oid", "$2::bigint", &format!("(piece * {PIECE_BYTES})"));
        let sql = format!(
            "SELECT {}, $2::bigint FROM generate_series($3::bigint, $4::bigint - 1) piece ORDER BY piece",
            self.digest.sql(&piece)
        );
        let rows = self.rows(&sql, &[&oid, &bytes, &first, &end], &format!("compare large object {oid}")).await?;
        rows.iter().map(|row| row.take(0)).collect()
    }

    /// The piece at an offset of an object of `bytes` bytes.
    pub async fn piece(&self, oid: u32, bytes: i64, offset: i64) -> Result<Vec<u8>, DbError> {
        let sql = format!("SELECT {}, $2::bigint", self.piece_sql("$1::oid", "$2::bigint", "$3::bigint"));
        let row = self.row(&sql, &[&oid, &bytes, &offset], &format!("read large object {oid}")).await?;
        row.take(0)
    }

    /// A derived table with the length of the object `o.oid` as `bytes`.
    fn bytes_sql(&self) -> String {
        match self.access {
            // OFFSET 0 here: looked up once, not wherever the length is used.
            Access::Pages(page) => format!(
                "(SELECT coalesce((SELECT l.pageno::bigint * {page} + length(l.data) FROM pg_largeobject l \
                 WHERE l.loid = o.oid ORDER BY l.pageno DESC LIMIT 1), 0) AS bytes OFFSET 0)"
            ),
            // OFFSET 0 keeps each call apart: one descriptor, asked and closed,
            // however many objects a statement looks at.
            Access::Functions => format!(
                "(SELECT lo_lseek64(f.fd, 0, 2) AS bytes, lo_close(f.fd) \
                 FROM (SELECT lo_open(o.oid, {INV_READ}) AS fd OFFSET 0) f OFFSET 0)"
            ),
        }
    }

    /// An expression for one piece of an object: oid, length and offset are SQL
    /// expressions; the offset is a multiple of [`PIECE_BYTES`].
    fn piece_sql(&self, oid: &str, bytes: &str, offset: &str) -> String {
        match self.access {
            Access::Functions => format!("lo_get({oid}, {offset}, {PIECE_BYTES})"),
            Access::Pages(page) => {
                let first = format!("{offset} / {page}");
                let last = format!("(least({offset} + {PIECE_BYTES}, {bytes}) - 1) / {page}");
                format!(
                    "(SELECT coalesce(string_agg(substr(coalesce(p.data, '') || decode(repeat('00', {page}), 'hex'), 1, \
                     least({page}, {bytes} - g.n * {page})::integer), '' ORDER BY g.n), '') \
                     FROM (SELECT n FROM generate_series({first}, {last}) n WHERE {bytes} > 0) g \
                     LEFT JOIN (SELECT l.pageno, l.data FROM pg_largeobject l \
                     WHERE l.loid = {oid} AND l.pageno BETWEEN ({first})::integer AND ({last})::integer) p ON p.pageno = g.n)"
                )
            }
        }
    }
}

fn listed(row: &Row) -> Result<Listed, DbError> {
    Ok(Listed { oid: row.take(0)?, is_readable: row.take(1)?, comment: row.take(2)? })
}
