//! The replication connection: slots, and the stream.
//!
//! ```text
//! connect ─ identify_system, create_slot, drop_slot ─ start ─► CopyBoth ─┬─ ReplicationReader
//!                                                                        └─ StatusWriter
//! ```
//!
//! Invariant: every command is in the grammar of the server's version, and
//! every name in it is quoted.
//!
//! Source: `src/backend/replication/repl_gram.y` and `walsender.c`;
//! `libpqrcv_create_slot` and `libpqrcv_startstreaming` in
//! `libpqwalreceiver.c`.

use super::{CancelKey, Connection, Peer, Purpose, ReplicationReader, StatusWriter, WireError};
use crate::config::conninfo::{ConnInfo, Host};
use crate::fault::sqlstate;
use crate::lsn::{DurableLsn, EndLsn, Lsn};
use crate::sql;

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// Identifies the cluster, the same on its standbys.
    pub system_id: String,
    /// The timeline; another one after a failover.
    pub timeline: i32,
    /// End of the WAL that is flushed (on a standby: replayed).
    pub wal_end: Lsn,
    /// The database of this connection.
    pub dbname: String,
}

/// How long a slot lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is dropped.
    Permanent,
    /// As long as the connection.
    Temporary,
}

/// What becomes of the snapshot at a slot's consistent point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotAction {
    /// Exported; it lives until the next command on this connection.
    Export,
    /// Not kept.
    Nothing,
}

/// Whether a slot is synchronised to standbys (PostgreSQL 17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// Synchronised.
    Yes,
    /// Only here.
    No,
}

/// What kind of slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotOptions {
    /// How long it lives.
    pub lifetime: Lifetime,
    /// What becomes of its snapshot.
    pub snapshot: SnapshotAction,
    /// Whether standbys have it too.
    pub failover: Failover,
}

/// A slot that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedSlot {
    /// Its name.
    pub name: String,
    /// Where it begins: the snapshot has all commits before, the stream all at or after.
    pub consistent_point: EndLsn,
    /// The exported snapshot's name.
    pub snapshot: Option<String>,
}

/// Whether `pg_logical_emit_message` messages are sent (PostgreSQL 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messages {
    /// Sent where the server can.
    Include,
    /// Left out.
    Omit,
}

/// Whether transactions in progress are sent (PostgreSQL 14, protocol 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streaming {
    /// Sent where the server can.
    On,
    /// Only whole transactions.
    Off,
}

/// What pgoutput is asked for. Options that a version does not know are left
/// out; without them it behaves as if they were off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgoutputOptions {
    /// Protocol version: 1, or 2 from PostgreSQL 14 on.
    pub proto_version: u8,
    /// Publications, unquoted; at least one.
    pub publications: Vec<String>,
    /// Logical messages.
    pub messages: Messages,
    /// Transactions in progress.
    pub streaming: Streaming,
}

/// A connection in replication mode.
pub struct Replication {
    connection: Connection,
}

impl Replication {
    /// Connects with `replication=database`.
    ///
    /// # Errors
    /// As [`Connection::connect`]; [`WireError::Pooler`] when one is in between.
    pub async fn connect(info: &ConnInfo, application_name: &str) -> Result<Self, WireError> {
        Ok(Replication { connection: Connection::connect(info, Purpose::Replication, application_name).await? })
    }

    /// The server's `server_version_num`.
    pub fn server_version(&self) -> i32 {
        self.connection.server_version()
    }

    /// The server, for messages.
    pub fn peer(&self) -> &Peer {
        self.connection.peer()
    }

    /// The host that let us in, for [`super::cancel`].
    pub fn host(&self) -> &Host {
        self.connection.host()
    }

    /// What cancels a slot's creation that waits for too long.
    pub fn cancel_key(&self) -> Option<CancelKey> {
        self.connection.cancel_key()
    }

    /// `IDENTIFY_SYSTEM`.
    ///
    /// # Errors
    /// [`WireError::Pooler`] when an ordinary session answers: the connection
    /// did not reach a walsender.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, WireError> {
        let rows = self.connection.ask("IDENTIFY_SYSTEM").await.map_err(|error| match error {
            WireError::Server { peer, error } if error.sqlstate == sqlstate::SYNTAX_ERROR => {
                WireError::Pooler { peer, error }
            }
            other => other,
        })?;
        let mut row = rows.into_iter().next().unwrap_or_default().into_iter().flatten();
        let mut field = |name| row.next().ok_or_else(|| self.malformed(format!("IDENTIFY_SYSTEM without {name}")));
        let (system_id, timeline, wal_end) = (field("systemid")?, field("timeline")?, field("xlogpos")?);
        let dbname = field("dbname")?;
        let timeline =
            timeline.parse().map_err(|_| self.malformed(format!("the timeline \"{timeline}\" is no number")))?;
        let wal_end = wal_end.parse().map_err(|e| self.malformed(format!("{e}")))?;
        Ok(SystemIdentity { system_id, timeline, wal_end, dbname })
    }

    /// `CREATE_REPLICATION_SLOT … LOGICAL pgoutput`. Waits for every
    /// transaction of the cluster that has written and is still open. The next
    /// command on this connection ends an exported snapshot.
    ///
    /// # Errors
    /// `Server` with 42710 (it exists), 53400 (no slot is free), 55000
    /// (`wal_level`), 42501; [`WireError::TooOld`] for failover below 17.
    pub async fn create_slot(&mut self, name: &str, options: &SlotOptions) -> Result<CreatedSlot, WireError> {
        let version = self.server_version();
        if options.failover == Failover::Yes && version < 170_000 {
            return Err(WireError::TooOld { peer: self.peer().clone(), what: "a failover slot", needs: 17 });
        }
        let rows = self.connection.simple_query(&create_slot_command(name, options, version)).await?;
        let mut row = rows.into_iter().next().unwrap_or_default().into_iter();
        let (Some(Some(name)), Some(Some(point)), Some(snapshot)) = (row.next(), row.next(), row.next()) else {
            return Err(self.malformed("CREATE_REPLICATION_SLOT did not say what it made".into()));
        };
        if options.snapshot == SnapshotAction::Export && snapshot.is_none() {
            return Err(self.malformed("CREATE_REPLICATION_SLOT exported no snapshot".into()));
        }
        let consistent_point = point.parse().map_err(|e| self.malformed(format!("{e}")))?;
        Ok(CreatedSlot { name, consistent_point: EndLsn::of_slot(consistent_point), snapshot })
    }

    /// `DROP_REPLICATION_SLOT`.
    ///
    /// # Errors
    /// `Server` with 42704 (there is none), 55006 (in use).
    pub async fn drop_slot(&mut self, name: &str) -> Result<(), WireError> {
        self.connection.simple_query(&format!("DROP_REPLICATION_SLOT {}", sql::plain_ident(name))).await.map(drop)
    }

    /// `START_REPLICATION … LOGICAL`: sends everything that committed at or
    /// after `from`. A position before the slot's `confirmed_flush_lsn` is
    /// silently moved forward by the server: compare them before.
    ///
    /// # Errors
    /// `Server` with 42704 (no such slot or publication), 55006 (in use),
    /// 55000 (the slot was invalidated).
    pub async fn start(
        mut self,
        slot: &str,
        from: DurableLsn,
        options: &PgoutputOptions,
    ) -> Result<(ReplicationReader, StatusWriter), WireError> {
        let command = start_command(slot, from, options, self.server_version());
        self.connection.send_query(&command).await?;
        let frame = self.connection.next().await?;
        if frame.tag != b'W' {
            let (reader, _writer) = self.connection.split();
            return Err(reader.unexpected(&frame, "the start of the stream"));
        }
        let (frames, writer) = self.connection.split();
        Ok((ReplicationReader::new(frames), StatusWriter::new(writer)))
    }

    fn malformed(&self, what: String) -> WireError {
        WireError::Protocol { peer: self.peer().clone(), what }
    }
}

/// PostgreSQL 15 put the options into parentheses; the older grammar is gone from no version yet.
fn create_slot_command(name: &str, options: &SlotOptions, version: i32) -> String {
    let mut command = format!("CREATE_REPLICATION_SLOT {}", sql::plain_ident(name));
    if options.lifetime == Lifetime::Temporary {
        command.push_str(" TEMPORARY");
    }
    command.push_str(" LOGICAL pgoutput");
    if version < 150_000 {
        command.push_str(match options.snapshot {
            SnapshotAction::Export => " EXPORT_SNAPSHOT",
            SnapshotAction::Nothing => " NOEXPORT_SNAPSHOT",
        });
        return command;
    }
    command.push_str(match options.snapshot {
        SnapshotAction::Export => " (SNAPSHOT 'export'",
        SnapshotAction::Nothing => " (SNAPSHOT 'nothing'",
    });
    if options.failover == Failover::Yes {
        command.push_str(", FAILOVER");
    }
    command.push(')');
    command
}

/// The options in pgoutput's own order.
fn start_command(slot: &str, from: DurableLsn, options: &PgoutputOptions, version: i32) -> String {
    // A list of quoted identifiers inside a literal. The replication grammar
    // knows no E'' literals and no backslashes: doubling quotes is all.
    let names = options.publications.iter().map(|name| sql::plain_ident(name)).collect::<Vec<_>>().join(",");
    let mut command = format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '{}', publication_names '{}'",
        sql::plain_ident(slot),
        from.lsn(),
        options.proto_version,
        names.replace('\'', "''"),
    );
    if version >= 140_000 && options.messages == Messages::Include {
        command.push_str(", messages 'true'");
    }
    if version >= 140_000 && options.streaming == Streaming::On {
        command.push_str(", streaming 'on'");
    }
    command.push(')');
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::durable;

    fn slot(lifetime: Lifetime, snapshot: SnapshotAction, failover: Failover) -> SlotOptions {
        SlotOptions { lifetime, snapshot, failover }
    }

    #[test]
    fn slots_are_created_in_the_grammar_of_the_version() {
        let plain = slot(Lifetime::Permanent, SnapshotAction::Export, Failover::No);
        let temporary = slot(Lifetime::Temporary, SnapshotAction::Nothing, Failover::No);
        let failover = slot(Lifetime::Permanent, SnapshotAction::Export, Failover::Yes);
        let cases = [
            (&plain, 100_000, "CREATE_REPLICATION_SLOT \"w\" LOGICAL pgoutput EXPORT_SNAPSHOT"),
            (&temporary, 140_000, "CREATE_REPLICATION_SLOT \"w\" TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT"),
            (&plain, 150_000, "CREATE_REPLICATION_SLOT \"w\" LOGICAL pgoutput (SNAPSHOT 'export')"),
            (&temporary, 180_000, "CREATE_REPLICATION_SLOT \"w\" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')"),
            (&failover, 170_000, "CREATE_REPLICATION_SLOT \"w\" LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER)"),
        ];
        for (options, version, command) in cases {
            assert_eq!(create_slot_command("w", options, version), command);
        }
    }

    #[test]
    fn the_stream_is_asked_only_for_what_the_version_knows() {
        let options = PgoutputOptions {
            proto_version: 1,
            publications: vec!["a".into(), "it's \"b\"".into()],
            messages: Messages::Include,
            streaming: Streaming::On,
        };
        let head = "START_REPLICATION SLOT \"s\" LOGICAL 1/F (proto_version '1', publication_names \
            '\"a\",\"it''s \"\"b\"\"\"'";
        let from = durable(0x1_0000_000f);
        assert_eq!(start_command("s", from, &options, 130_000), format!("{head})"));
        assert_eq!(start_command("s", from, &options, 140_000), format!("{head}, messages 'true', streaming 'on')"));
    }
}
