//! The keeper: a session that holds the slot's snapshot and exports it again
//! for pg_dump and for the workers, who read each table in a transaction of its
//! own.
//!
//! Invariant: nobody copies before every transaction that the snapshot counts
//! as committed is finished on the source (an exported snapshot can count a
//! commit whose status is not yet in the commit log). A snapshot that cannot be
//! read ends the copy: passed over, it would pass for one that waits for nothing.
//! No row is read of a table that the snapshot does not show as it was. No lock
//! on a table lasts longer than its rows are being read: the keeper has none.
//!
//! Source: `SnapBuildExportSnapshot` in `src/backend/replication/logical/snapbuild.c`;
//! `pg_snapshot_out` in `src/backend/utils/adt/xid8funcs.c` for the text form.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::CopyError;
use crate::catalog::storage;
use crate::catalog::tables::Shape;
use crate::config::Settings;
use crate::fault::sqlstate;
use crate::session::{DbContext, DbError, Session};
use crate::sql::{TableName, literal};
use crate::wire::{Connection, Purpose, WireError};

/// How long a commit may take to be finished: usually microseconds, longer
/// where it waits for a synchronous standby.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);

/// Pause between two looks at unfinished commits.
const SETTLE_POLL: Duration = Duration::from_millis(20);

/// A snapshot that was exported. Its name is counted in shared memory: after a crash of
/// the server another session's may be called the same, so who imports it looks at it.
#[derive(Clone, Debug)]
pub(super) struct Exported {
    name: String,
    /// Which transactions it sees, and since when the server has run.
    sees: String,
}

/// What tells one snapshot from others, the same text under all settings.
const SEES: &str = "pg_catalog.txid_current_snapshot()::text || ' ' \
    || (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint::text";

impl Exported {
    /// Exports the one that a session's transaction is in.
    pub(super) async fn by(session: &Session) -> Result<Self, DbError> {
        let sql = format!("SELECT pg_catalog.pg_export_snapshot(), {SEES}");
        let row = session.query_one(&sql, &[]).await.during(session.side(), "export the snapshot again")?;
        Ok(Exported { name: row.take(0)?, sees: row.take(1)? })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Begins a transaction in it; has no row, and divides by zero where it is another one.
    fn import(&self) -> String {
        let (begin, sees) = (import(&self.name), literal(&self.sees));
        format!("{begin}; SELECT FROM (SELECT 1 / ({SEES} = {sees})::int OFFSET 0) AS its (own) WHERE its.own = 0")
    }
}

/// The session that holds the snapshot.
pub(super) struct Keeper {
    session: Session,
    exported: Exported,
}

impl Keeper {
    /// Imports the slot's snapshot, and exports it again.
    pub(super) async fn import(settings: &Settings, exported: &str) -> Result<Self, CopyError> {
        let session = enter(settings, exported).await?;
        Ok(Keeper { exported: Exported::by(&session).await?, session })
    }

    /// The session, inside the snapshot's transaction.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// The snapshot, for others.
    pub(super) fn snapshot(&self) -> &Exported {
        &self.exported
    }

    /// Waits until no transaction that the snapshot sees is still in progress.
    pub(super) async fn settle(&self, other: &Session) -> Result<(), CopyError> {
        let ours = current(&self.session).await?;
        let give_up = Instant::now() + SETTLE_DEADLINE;
        loop {
            let now = current(other).await?;
            if !now.in_progress.iter().any(|xid| ours.sees(*xid)) {
                return Ok(());
            }
            if Instant::now() >= give_up {
                return Err(CopyError::Unsettled { seconds: SETTLE_DEADLINE.as_secs() });
            }
            sleep(SETTLE_POLL).await;
        }
    }
}

/// A new session of the source inside a snapshot.
async fn enter(settings: &Settings, snapshot: &str) -> Result<Session, CopyError> {
    let session = Session::connect(&settings.source, &settings.name).await?;
    match session.batch_execute(&import(snapshot)).await.during(session.side(), "import the snapshot") {
        Err(error) if error.sqlstate().is_some_and(sqlstate::is_snapshot_gone) => Err(CopyError::SnapshotGone),
        result => result.map(|()| session).map_err(CopyError::from),
    }
}

/// A new connection to the source, to read rows from: see [`look`].
pub(super) async fn connect(settings: &Settings) -> Result<Connection, WireError> {
    Connection::connect(&settings.source, Purpose::Session, &settings.name).await
}

/// What a snapshot shows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Sight {
    /// What it held then.
    True,
    /// Something else: it was emptied or written anew since, or it is gone.
    Passed,
}

/// Begins a transaction in the snapshot and locks the table in it, so that it is
/// read as it was looked at: both last until [`leave`].
///
/// # Errors
/// [`CopyError::SnapshotGone`]; when the table cannot be read.
pub(super) async fn look(
    connection: &mut Connection,
    snapshot: &Exported,
    (table, oid, shape): (&TableName, u32, Shape),
) -> Result<Sight, CopyError> {
    let reading = |source| CopyError::Read { table: table.clone(), source };
    let sql = format!("{}; {}", snapshot.import(), storage::lock_and_compare(table, oid, shape));
    let sight = match connection.simple_query(&sql).await {
        Ok(rows) => sight(&rows),
        Err(error) if error.sqlstate().is_some_and(sqlstate::is_restricted) => {
            view_or_gone(connection, snapshot, (table, oid, shape), error).await?
        }
        Err(error) if error.sqlstate().is_some_and(is_gone) => return Err(CopyError::SnapshotGone),
        Err(error) if has_passed(&error) => Sight::Passed,
        Err(error) => return Err(reading(error)),
    };
    if sight == Sight::Passed {
        connection.simple_query("ROLLBACK").await?;
    }
    Ok(sight)
}

/// The snapshot is gone, or the table has become a view, or one of its partitions may not be read.
async fn view_or_gone(
    connection: &mut Connection,
    snapshot: &Exported,
    (table, oid, shape): (&TableName, u32, Shape),
    refused: WireError,
) -> Result<Sight, CopyError> {
    connection.simple_query("ROLLBACK").await?;
    let sql = format!("{}; {}", snapshot.import(), storage::compare(table, oid, shape));
    match connection.simple_query(&sql).await {
        Ok(rows) if sight(&rows) == Sight::True => Err(CopyError::Read { table: table.clone(), source: refused }),
        Ok(_) => Ok(Sight::Passed),
        Err(error) if error.sqlstate().is_some_and(is_gone) => Err(CopyError::SnapshotGone),
        Err(error) => Err(error.into()),
    }
}

/// What the comparison has said.
fn sight(rows: &[Vec<Option<String>>]) -> Sight {
    let is_same = rows.first().and_then(|row| row.first()).is_some_and(|value| value.as_deref() == Some("t"));
    if is_same { Sight::True } else { Sight::Passed }
}

/// Ends the transaction that [`look`] began.
pub(super) async fn leave(connection: &mut Connection) -> Result<(), WireError> {
    connection.simple_query("COMMIT").await.map(drop)
}

/// Whether a table or a column that the snapshot has is no longer there: a
/// statement goes by names, and these are those of now.
pub(super) fn has_passed(error: &WireError) -> bool {
    error.sqlstate().is_some_and(sqlstate::is_undefined)
}

/// Whether a snapshot is gone, or another one has its name.
fn is_gone(code: &str) -> bool {
    code == sqlstate::DIVISION_BY_ZERO || sqlstate::is_snapshot_gone(code)
}

fn import(snapshot: &str) -> String {
    format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}", literal(snapshot))
}

async fn current(session: &Session) -> Result<Horizon, CopyError> {
    let row = session
        .query_one("SELECT pg_catalog.txid_current_snapshot()::text", &[])
        .await
        .during(session.side(), "read the snapshot")?;
    let text: &str = row.take(0)?;
    Horizon::parse(text).ok_or_else(|| CopyError::UnreadableSnapshot(text.to_owned()))
}

/// What a snapshot sees: the text form "xmin:xmax:xip,xip".
#[derive(Debug, PartialEq, Eq)]
struct Horizon {
    xmax: u64,
    in_progress: Vec<u64>,
}

impl Horizon {
    /// `None` for anything but the three parts, all of numbers; the list may be empty.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (xmin, xmax, list) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || xmin.parse::<u64>().is_err() {
            return None;
        }
        let list = list.split_terminator(',').map(str::parse).collect::<Result<_, _>>();
        Some(Horizon { xmax: xmax.parse().ok()?, in_progress: list.ok()? })
    }

    fn sees(&self, xid: u64) -> bool {
        xid < self.xmax && !self.in_progress.contains(&xid)
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::config::SchemaMode;
    use crate::copy::testing::{SUPERUSER, Server};
    use crate::fault::Fault;

    /// The story: names of snapshots are counted from the start again after a crash of the
    /// server; rows of another session's were taken for those of ours, and came twice.
    #[tokio::test(flavor = "multi_thread")]
    async fn another_snapshot_of_the_same_name_is_not_read() {
        let server = Server::start().await;
        let settings = server.settings(SUPERUSER, SchemaMode::Create);
        let (ours, others) = (server.source(SUPERUSER).await, server.source(SUPERUSER).await);
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        ours.batch_execute(begin).await.unwrap();
        let exported = Exported::by(&ours).await.unwrap();
        others.batch_execute("CREATE TABLE public.t (i int)").await.unwrap();
        others.batch_execute(begin).await.unwrap();
        let later = Exported::by(&others).await.unwrap();
        let mistaken = Exported { name: later.name, sees: exported.sees };
        let mut connection = connect(&settings).await.unwrap();
        let table = TableName::new("public", "t");
        let looked = look(&mut connection, &mistaken, (&table, 1, Shape::Plain)).await;
        assert!(matches!(looked, Err(CopyError::SnapshotGone)), "{looked:?}");
    }

    /// An ordinary user with a table, a partitioned one, and a function that the planner runs.
    const BAIT: &str = "SET ROLE app; CREATE TABLE public.t (id int); \
        CREATE TABLE public.p (id int) PARTITION BY LIST (id); CREATE TABLE public.leaf PARTITION OF public.p DEFAULT; \
        CREATE FUNCTION public.bait() RETURNS int LANGUAGE plpgsql IMMUTABLE AS \
            $$ BEGIN PERFORM pg_catalog.pg_advisory_lock(4711); RETURN 7; END $$";

    /// The story: the look at a table was a SELECT without rows, which the planner folded the
    /// function of a view into that had its name by then: it ran as a superuser.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_table_that_becomes_a_view_before_it_is_read_is_passed_and_the_view_is_not_run() {
        let server = Server::start().await;
        let settings = server.settings(SUPERUSER, SchemaMode::Create);
        let (ours, app) = (server.source(SUPERUSER).await, server.source(SUPERUSER).await);
        app.batch_execute(BAIT).await.unwrap();
        let count = async |sql: &str| app.query_one(sql, &[]).await.unwrap().take::<i64>(0).unwrap();
        for (name, shape) in [("t", Shape::Plain), ("p", Shape::Partitioned)] {
            for setting in ["view, foreign-table", ""] {
                ours.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.unwrap();
                let exported = Exported::by(&ours).await.unwrap();
                let oid = format!("SELECT 'public.{name}'::regclass::oid");
                let oid: u32 = app.query_one(&oid, &[]).await.unwrap().take(0).unwrap();
                let mut connection = connect(&settings).await.unwrap();
                connection.simple_query(&format!("SET restrict_nonsystem_relation_kind = '{setting}'")).await.unwrap();
                let swap = format!(
                    "BEGIN; ALTER TABLE public.{name} RENAME TO away; CREATE VIEW public.{name} AS SELECT 1 AS id WHERE public.bait() > 0"
                );
                app.batch_execute(&swap).await.unwrap();
                let let_go = async {
                    while count("SELECT count(*) FROM pg_catalog.pg_locks WHERE NOT granted").await == 0 {
                        tokio::task::yield_now().await;
                    }
                    app.batch_execute("COMMIT").await.unwrap();
                };
                let table = TableName::new("public", name);
                let (looked, ()) = tokio::join!(look(&mut connection, &exported, (&table, oid, shape)), let_go);
                assert_eq!(looked.unwrap(), Sight::Passed, "{name} with '{setting}'");
                assert_eq!(
                    count("SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory'").await,
                    0,
                    "{name} with '{setting}'"
                );
                ours.batch_execute("ROLLBACK").await.unwrap();
                let back = format!("DROP VIEW public.{name}; ALTER TABLE public.away RENAME TO {name}");
                app.batch_execute(&back).await.unwrap();
            }
        }
    }

    #[test]
    fn a_snapshot_sees_what_is_before_its_end_and_not_in_progress() {
        let horizon = Horizon::parse("100:104:100,102").unwrap();
        let seen: Vec<u64> = (98..106).filter(|xid| horizon.sees(*xid)).collect();
        assert_eq!(seen, [98, 99, 101, 103]);
        assert_eq!(Horizon::parse("7:7:"), Some(Horizon { xmax: 7, in_progress: Vec::new() }));
    }

    /// The story: whatever could not be read counted as a snapshot that sees
    /// nothing, which waits for no commit.
    #[test]
    fn a_snapshot_that_cannot_be_read_is_none_and_ends_the_copy_as_a_bug() {
        for text in
            ["", "7", "7:9", "x:9:", "7:x:", "7::", "7:9:x", "7:9:8,x", "7:9:8,,8", "7:9:8:8", "7:-9:", "7:9:8;9"]
        {
            assert_eq!(Horizon::parse(text), None, "{text}");
        }
        let error = CopyError::UnreadableSnapshot("7:x:".to_owned());
        assert!(error.to_string().contains("\"7:x:\"") && error.to_string().contains("report"), "{error}");
        assert_eq!(error.fault(), Fault::Bug);
    }
}
