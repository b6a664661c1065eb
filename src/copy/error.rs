//! Why a copy did not come to its end.

use super::cuts::Failure;
use crate::catalog::foreign_keys::KeyInForce;
use crate::config::Side;
use crate::fault::{Fault, Trouble, sqlstate};
use crate::lsn::Lsn;
use crate::membership::gap::Gap;
use crate::membership::{Part, SourceTable, Unmatched};
use crate::observe::status::human_bytes;
use crate::schema::{self, SchemaError};
use crate::session::DbError;
use crate::shell;
use crate::sql::TableName;
use crate::sql::printed::printed;
use crate::state::StateError;
use crate::state::resume::ResyncError;
use crate::sweep::SweepError;
use crate::wire::WireError;
use crate::words::listed;

/// Why a copy did not come to its end. Run again, it goes on where it was.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A connection was refused or lost.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A statement failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The rows of a table could not be read.
    #[error("cannot read {table}: {source}")]
    Read {
        /// The table.
        table: TableName,
        /// What the source said, or how it was lost.
        #[source]
        source: WireError,
    },
    /// The state could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The schema could not be brought over, or does not fit.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Sequences or large objects could not be carried.
    #[error(transparent)]
    Sweep(#[from] SweepError),
    /// The slot no longer holds what a copy that was cut off needs.
    #[error(transparent)]
    Resync(#[from] ResyncError),
    /// Patterns of the filter fit nothing.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unmatched(Vec<Unmatched>),
    /// Publishing would make UPDATE and DELETE fail on the source.
    #[error(
        "the source would refuse UPDATE and DELETE on {} once published, for want of a replica identity; on the source:\n  {}",
        listed(.tables), printed(&.sql.join("\n  "))
    )]
    ReplicaIdentity {
        /// The tables without one.
        tables: Vec<TableName>,
        /// What gives each of them one.
        sql: Vec<String>,
    },
    /// Tables that are published with a condition, and whose changes may leave values out.
    #[error(
        "only some rows of {} are published, and a row that comes to meet the condition would come without the large values \
         that it has already; let the owner run this on the source, then run this again:\n  {}",
        listed(.tables), .sql.join("\n  ")
    )]
    LeavesValuesOut {
        /// The tables.
        tables: Vec<TableName>,
        /// What has all values come.
        sql: Vec<String>,
    },
    /// Tables that our role may not read.
    #[error("role {role} may not read {} on the source; let their owner run this, then run this again:\n  {}", listed(.tables), printed(&.sql.join("\n  ")))]
    Unreadable {
        /// The role.
        role: String,
        /// The tables.
        tables: Vec<TableName>,
        /// What lets it.
        sql: Vec<String>,
    },
    /// A publication is not there, or they do not publish what they must.
    #[error("on the source {problem}; the owner of the tables can mend it:\n  {}", printed(.sql))]
    Publication {
        /// What is wrong, in a sentence.
        problem: String,
        /// What mends it.
        sql: String,
    },
    /// The operator's own slot cannot be the start of a copy.
    #[error(
        "slot \"{0}\" was named as an existing one, but only a new slot gives the snapshot that a copy begins with: \
         leave out --slot, or say --no-copy if the rows are on the target already"
    )]
    ExistingSlot(String),
    /// A slot of this name is not known to be ours.
    #[error(
        "slot \"{slot}\" exists on the source and was not made for this migration ({why}): choose another --name, or, if nobody \
         needs it: SELECT pg_drop_replication_slot('{slot}');"
    )]
    ForeignSlot {
        /// The slot.
        slot: String,
        /// What tells it from ours.
        why: String,
    },
    /// The slot of an earlier attempt is still in use.
    #[error(
        "slot \"{slot}\" of an earlier attempt is still in use on the source by process {pid}: wait until that ends, or: \
         SELECT pg_terminate_backend({pid});"
    )]
    SlotInUse {
        /// The slot.
        slot: String,
        /// The server process that uses it.
        pid: i32,
    },
    /// Transactions on the source did not end in time.
    #[error(
        "the slot could not be created within {minutes} minutes, as transactions on the source did not end: {blockers}; \
         end them and start again"
    )]
    SlotBlocked {
        /// How long was waited.
        minutes: u64,
        /// Who is in the way.
        blockers: String,
    },
    /// The server gave a slot but no snapshot.
    #[error("the source exported no snapshot with slot \"{0}\"")]
    NoSnapshot(String),
    /// The session that held the snapshot is gone.
    #[error("the snapshot of the copy is gone from the source")]
    SnapshotGone,
    /// A commit of the snapshot is not complete on the source.
    #[error(
        "transactions that the snapshot holds are still not finished on the source after {seconds} s; \
         is a synchronous standby missing? Start again when it is back"
    )]
    Unsettled {
        /// How long was waited.
        seconds: u64,
    },
    /// A snapshot's text form is not what PostgreSQL writes.
    #[error(
        "the source described a snapshot as \"{0}\", which walferry cannot read, so it cannot tell which commits to wait for; \
         this is a bug, please report it"
    )]
    UnreadableSnapshot(String),
    /// Both ends of a COPY disagree about the rows.
    #[error("{table}: the source sent {sent} rows, the target took {taken}; this is a bug, please report it")]
    RowCount {
        /// The table.
        table: TableName,
        /// Rows the source sent.
        sent: u64,
        /// Rows the target says it has taken.
        taken: u64,
    },
    /// A table that was asked for cannot be copied.
    #[error("table {table} cannot be copied: {why}")]
    NotHere {
        /// As it was asked for.
        table: String,
        /// Why not.
        why: &'static str,
    },
    /// A partition whose rows come in the name of another table was asked for.
    #[error(
        "table {table} cannot be copied by itself: its rows come in the name of {root}, the table that it is a partition of; \
         copy that one: walferry resync {}",
        shell::table(root)
    )]
    InAnothersName {
        /// As it was asked for.
        table: String,
        /// In whose name.
        root: TableName,
    },
    /// Foreign keys of the target are in the way of a table that comes anew.
    #[error(
        "foreign keys in force on the target would refuse rows that are copied, or carry the emptying of a table to others; drop \
         them there:\n  {}\nand, when the migration has ended, add them again:\n  {}",
        .0.iter().map(KeyInForce::drop_sql).collect::<Vec<_>>().join("\n  "),
        .0.iter().map(KeyInForce::add_sql).collect::<Vec<_>>().join("\n  ")
    )]
    KeysInForce(Vec<KeyInForce>),
    /// Another process has moved a table on.
    #[error("table {0} is not where this copy left it: another process is at work on the migration")]
    Elsewhere(TableName),
    /// Every attempt at a table was cut off.
    #[error(
        "table {table} could not be copied: its connections were lost {} times before it was complete, {}. \
         The last time: {last}", .failures.len(), attempts(.failures, *.expected_bytes)
    )]
    CutOff {
        /// The table.
        table: TableName,
        /// Its size on the source's disk.
        expected_bytes: u64,
        /// How far each attempt came.
        failures: Vec<Failure>,
        /// The side that was lost last.
        side: Side,
        /// Its words.
        last: String,
    },
    /// A table was written anew on the source before each attempt to read it.
    #[error(
        "table {table} was emptied or written anew on the source {times} times after a snapshot was taken and before it \
         could be read under it (TRUNCATE, or ALTER TABLE, VACUUM FULL or CLUSTER)"
    )]
    Rewritten {
        /// The table.
        table: TableName,
        /// How often.
        times: usize,
    },
    /// What belongs to a table's rows cannot be built on them.
    #[error("all rows of table {table} are there, but what comes after them cannot be built: {source}")]
    NotBuilt {
        /// The table.
        table: TableName,
        /// What the target said.
        #[source]
        source: DbError,
    },
    /// A table that is not copied yet has a new name on the source.
    #[error(
        "table {table} was renamed on the source to {now} before it was copied: give it its name back until the copy is \
         complete, or leave it out with --exclude-tables"
    )]
    Renamed {
        /// As the copy knows it.
        table: TableName,
        /// As the source has it.
        now: TableName,
    },
    /// A table that is not copied yet cannot be any more.
    #[error(
        "table {table} was to be copied, and is {what} on the source by now: {remedy} there, or leave it out with --exclude-tables"
    )]
    Unfit {
        /// The table.
        table: TableName,
        /// What it is.
        what: &'static str,
        /// The SQL that makes it what it was.
        remedy: String,
    },
    /// What a table inherits from is left out.
    #[error(
        "table {table} cannot be created on the target: it inherits from {parent}, which the filter leaves out; let that in as \
         well, or leave {table} out with --exclude-tables"
    )]
    LacksParent {
        /// The table.
        table: TableName,
        /// What it inherits from.
        parent: TableName,
    },
    /// A table, or what it is a part of, has another name on the target.
    #[error(
        "table {table} cannot be copied as long as {renamed} has another name on the target: rename it there first: {sql}"
    )]
    RenameFirst {
        /// The table.
        table: TableName,
        /// It, what it is a partition of, or what it inherits from.
        renamed: TableName,
        /// The SQL that gives all tables their present names.
        sql: String,
    },
    /// The target has the table that was dropped on the source, not the new one.
    #[error(
        "table {table} was dropped on the source and created again, and the target still has the old one; if that can go, on the \
         target: {sql} (with --schema existing create the new one there, too), then run this again"
    )]
    CreatedAgain {
        /// Its name.
        table: TableName,
        /// The SQL that drops the old one.
        sql: String,
    },
    /// A table is a partition of another table than on the target, or of none.
    #[error("{0} (then run this again)")]
    Misplaced(Box<Gap>),
    /// A new partition does not go beside those that the source has no more.
    #[error("{source}; {} (then run this again)", .dropped.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))]
    Overlaps {
        /// The target's words.
        source: SchemaError,
        /// Partitions of the same tables that were dropped on the source.
        dropped: Vec<Gap>,
    },
    /// Rows that belong to a new partition are in the default one on the target.
    #[error("{source}; of the default partition {default} they belong to it by now: {} (then run this again)", match is_copied {
        true => format!("all rows of {table} come anew: TRUNCATE {};", .default.sql()),
        false => format!("copy {table} anew, walferry resync {}", shell::table(table)),
    })]
    HeldByDefault {
        /// The target's words.
        source: SchemaError,
        /// The default partition.
        default: TableName,
        /// The table in whose name its rows come.
        table: TableName,
        /// It is to be copied anew.
        is_copied: bool,
    },
    /// Unlogged tables cannot be filled behind triggers.
    #[error(
        "unlogged tables are copied whole at the end, but their triggers or rules are in force on the target already and \
         would act on every row once more. Run there: {disable} Then run catchup --finish again, and after it: {enable}"
    )]
    Triggers {
        /// The SQL that silences them.
        disable: String,
        /// The SQL that wakes them up.
        enable: String,
    },
    /// The filter lets in what it left out when the copy began.
    #[error(
        "the filter left {} out when the copy began, and does not any more: leave the filter as it was until the copy is complete; walferry add takes them in then",
        listed(.0)
    )]
    FilterGrown(Vec<TableName>),
    /// The source gave up the WAL of the slot, or is about to.
    #[error(
        "slot \"{slot}\" {} while the rows were being copied: it holds back {retained_bytes} bytes of WAL, \
         and max_slot_wal_keep_size is {limit} on the source; as a superuser there: \
         ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf();",
        .stage.words()
    )]
    WalRunsOut {
        /// The slot.
        slot: String,
        /// Whether it is too late.
        stage: WalStage,
        /// WAL it holds back.
        retained_bytes: i64,
        /// max_slot_wal_keep_size, as the source shows it.
        limit: String,
    },
    /// The baseline cannot be from the future.
    #[error("--start-lsn {start} is ahead of the source, which has written up to {end}: is it another server's?")]
    StartAhead {
        /// What was given.
        start: Lsn,
        /// The end of the source's WAL.
        end: Lsn,
    },
    /// A server refused something before anything had been created.
    #[error(transparent)]
    Refused(Box<CopyError>),
    /// The process was asked to stop.
    #[error("the copy was stopped; it goes on next time")]
    Stopped,
}

impl CopyError {
    /// A table of the migration that is not what it was.
    pub(super) fn unfit(table: &SourceTable) -> Self {
        let sql = table.name.sql();
        let (what, remedy) = match table.part {
            Part::Unlogged => ("unlogged", format!("ALTER TABLE {sql} SET LOGGED;")),
            Part::OfExtension => ("an extension's own", format!("ALTER EXTENSION … DROP TABLE {sql};")),
            Part::Included | Part::Filtered | Part::LetIn => ("left out", "let it in".to_owned()),
        };
        CopyError::Unfit { table: table.name.clone(), what, remedy }
    }

    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            CopyError::Wire(error) => error.fault(),
            CopyError::Read { source, .. } => source.fault(),
            CopyError::Db(error) => error.fault(),
            CopyError::State(error) => error.fault(),
            CopyError::Schema(error) => error.fault(),
            CopyError::Sweep(error) => error.fault(),
            CopyError::Resync(error) => error.fault(),
            CopyError::Refused(error) => error.fault().before_anything(),
            CopyError::WalRunsOut { stage: WalStage::Lost, .. } => Fault::NeedsResync,
            CopyError::WalRunsOut { stage: WalStage::Ending, .. } => Fault::Server(Side::Source, Trouble::WalEnding),
            CopyError::Rewritten { .. } => Fault::Server(Side::Source, Trouble::Rewritten),
            CopyError::NotBuilt { source, .. } if schema::is_taken(source) => {
                Fault::Server(Side::Target, Trouble::NameTaken)
            }
            CopyError::NotBuilt { source, .. } if schema::is_missing(source) => {
                Fault::Server(Side::Target, Trouble::NotFound)
            }
            CopyError::NotBuilt { source, .. } if source.sqlstate().is_some_and(sqlstate::is_of_the_machine) => {
                source.fault()
            }
            CopyError::NotBuilt { .. } => Fault::Server(Side::Target, Trouble::NotBuilt),
            CopyError::CutOff { side, .. } => Fault::Server(*side, Trouble::CutOff),
            CopyError::RowCount { .. } | CopyError::UnreadableSnapshot(_) => Fault::Bug,
            CopyError::Unmatched(_)
            | CopyError::FilterGrown(_)
            | CopyError::ReplicaIdentity { .. }
            | CopyError::LeavesValuesOut { .. }
            | CopyError::Unreadable { .. }
            | CopyError::Publication { .. }
            | CopyError::ForeignSlot { .. } => Fault::Refused,
            CopyError::SlotBlocked { .. }
            | CopyError::NoSnapshot(_)
            | CopyError::Renamed { .. }
            | CopyError::Unfit { .. }
            | CopyError::Unsettled { .. } => Fault::lasting(Side::Source),
            CopyError::Overlaps { .. }
            | CopyError::HeldByDefault { .. }
            | CopyError::RenameFirst { .. }
            | CopyError::CreatedAgain { .. }
            | CopyError::Misplaced(_)
            | CopyError::Elsewhere(_)
            | CopyError::KeysInForce(_)
            | CopyError::Triggers { .. } => Fault::lasting(Side::Target),
            CopyError::SlotInUse { .. } | CopyError::SnapshotGone => Fault::passing(Side::Source),
            CopyError::NotHere { .. }
            | CopyError::InAnothersName { .. }
            | CopyError::LacksParent { .. }
            | CopyError::ExistingSlot(_)
            | CopyError::StartAhead { .. } => Fault::Usage,
            CopyError::Stopped => Fault::Interrupted,
        }
    }

    /// Whether the copy itself tries again, beside what goes on.
    pub(super) fn is_retried(&self) -> bool {
        self.fault().is_retried()
    }

    /// The same where nothing has been created: what the servers said then is
    /// what `check` finds.
    pub(super) fn before_anything(self) -> Self {
        match self {
            CopyError::Wire(_) | CopyError::Db(_) => CopyError::Refused(Box::new(self)),
            other => other,
        }
    }
}

/// Whether a slot that runs out of WAL can still be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalStage {
    /// The next checkpoint takes WAL away that it needs.
    Ending,
    /// It has been taken away.
    Lost,
}

impl WalStage {
    fn words(self) -> &'static str {
        match self {
            WalStage::Ending => "loses the WAL it needs at the source's next checkpoint",
            WalStage::Lost => "was invalidated by the source",
        }
    }
}

/// How long each attempt's connection lived, and how far the best one came.
fn attempts(failures: &[Failure], expected: u64) -> String {
    let lives: Vec<String> = failures.iter().map(|f| format!("{:.1} s", f.lived.as_secs_f64())).collect();
    let lives = lives.join(", ");
    match failures.iter().filter_map(|failure| failure.bytes).max() {
        Some(best) => format!(
            "after they had lived for {lives}; at most {} of about {} had come over",
            human_bytes(best as f64),
            human_bytes(expected as f64)
        ),
        None => format!("after they had lived for {lives}; its rows are there, its indexes were being built"),
    }
}
