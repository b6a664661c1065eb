//! Settings of how it is moved: workers, memory, pace, pauses.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::value::ListenToken;
use super::{About, Heading, Optional, Secrecy, Setting, Taker, Words};
use crate::config::ListenAddress;

const HOW: About = About::under(Heading::How, Taker::Mover);

/// The least that a stream of rows can be worked in.
const LEAST_SIZE: ByteSize = ByteSize::mib(1);

/// Every worker holds a connection on both sides.
const MOST_JOBS: usize = 128;

/// `MAX_PARALLEL_WORKER_LIMIT` in `src/include/postmaster/bgworker_internals.h`.
const MOST_PARALLEL_WORKERS: u32 = 1024;

super::settings! {
    /// One connection each on both sides.
    JOBS: Optional<usize> = Setting::new(
        About {
            name: "jobs",
            help: "Copy workers",
            why: "One connection each on both sides; the source serves an application meanwhile.",
            ..HOW
        },
        Words("the cores, at most 4"),
    )
    .within(1, MOST_JOBS);

    /// A part of the workers.
    INDEX_JOBS: Optional<usize> = Setting::new(
        About {
            name: "index-jobs",
            help: "Workers that may build indexes at the same time",
            why: "The others go on with rows.",
            ..HOW
        },
        Words("as --jobs"),
    )
    .within(1, MOST_JOBS);

    /// `maintenance_work_mem` of the sessions.
    INDEX_MEMORY: Optional<ByteSize> = Setting::new(
        About {
            name: "index-memory",
            help: "Memory of each index build, maintenance_work_mem",
            why: "Its parallel workers are included. --index-jobs times this should fit the target.",
            ..HOW
        },
        Words("the target's, 256MiB if that is less"),
    )
    .at_least(LEAST_SIZE);

    /// `max_parallel_maintenance_workers` of the sessions.
    INDEX_WORKERS: Optional<u32> = Setting::new(
        About {
            name: "index-workers",
            help: "Parallel workers of each index build, max_parallel_maintenance_workers",
            why: "0 leaves the target's other cores alone.",
            ..HOW
        },
        Words("the target's"),
    )
    .within(0, MOST_PARALLEL_WORKERS);

    /// Counted as COPY sends them.
    COPY_RATE: Optional<ByteSize> = Setting::new(
        About {
            name: "copy-rate",
            help: "Bytes a second at which rows are read from the source at most, all workers together, for example 50MB",
            why: "Counted as COPY sends them. Large objects are not counted.",
            ..HOW
        },
        Words("no limit"),
    )
    .at_least(LEAST_SIZE);

    /// Copied in seconds to minutes, so that workers stay evenly busy to the end,
    /// and large beside what a statement of its own costs.
    PART_SIZE: Setting<ByteSize> = Setting::new(
        About {
            name: "part-size",
            help: "Larger tables are copied in parts of this size, side by side",
            why: "A part takes seconds to minutes, so that no worker is left alone with the largest table. Before 14 a \
                  source reads parts by the first column of the primary key where that is an integer; a table without \
                  such a key is copied by one worker. TRUNCATE, VACUUM FULL, CLUSTER and ALTER TABLE wait only while a \
                  part of the table is being read.",
            ..HOW
        },
        ByteSize::mib(256),
    )
    .at_least(LEAST_SIZE);

    /// A snapshot costs a slot's creation and a look at all tables: not more
    /// often than once a second; and a day of WAL and dead rows is more than any
    /// source should bear. The default is long enough for all tables of most
    /// databases; a source that is written to for longer without VACUUM bloats.
    SNAPSHOT_AGE: Setting<Duration> = Setting::new(
        About {
            name: "snapshot-age",
            help: "Tables that are not begun by then get a new snapshot, so that the source can vacuum",
            why: "As long as a snapshot is held, VACUUM on the source removes no row that was deleted since.",
            ..HOW
        },
        Duration::from_secs(30 * 60),
    )
    .within(Duration::from_secs(1), Duration::from_secs(24 * 3600));

    /// Only a warning: the copy goes on.
    WAL_WARN: Optional<ByteSize> = Setting::new(
        About {
            name: "wal-warn",
            help: "Warn when the slot holds back this much WAL during the copy",
            ..HOW
        },
        Words("half of max_slot_wal_keep_size where it is set, else 50GiB"),
    )
    .at_least(LEAST_SIZE);

    /// The newest writes for every older source and target best.
    PG_BIN: Optional<PathBuf> = Setting::new(
        About {
            name: "pg-bin",
            help: "Folder of pg_dump",
            why: "It must not be older than the source. The newest writes for every older source and target best, but \
                  one that came out before the source's own minor is taken only where there is no other.",
            ..HOW
        },
        Words("the newest in PATH and the usual places"),
    );

    /// Long enough for a failover or a restart of a managed server.
    RETRY_FOR: Setting<Duration> = Setting::new(
        About {
            name: "retry-for",
            help: "How long lost connections are retried, for example 15m or 900s",
            why: "The default is long enough for a restart of a managed server, or a failover of the target.",
            ..HOW
        },
        Duration::from_secs(15 * 60),
    );

    /// Beyond this a larger batch hardly gains throughput and costs memory and
    /// latency.
    BATCH_ROWS: Setting<usize> = Setting::new(
        About { name: "batch-rows", help: "Row changes gathered into one commit on the target", ..HOW },
        10_000,
    )
    .at_least(1);

    /// What a batch of that many rows mostly has.
    BATCH_BYTES: Setting<ByteSize> = Setting::new(
        About {
            name: "batch-bytes",
            help: "Bytes of changes gathered into one commit",
            why: "A larger transaction is applied in parts, in one transaction of the target.",
            ..HOW
        },
        ByteSize::mib(16),
    )
    .at_least(LEAST_SIZE);

    /// Two batches: one is applied while the next gathers.
    QUEUE_BYTES: Setting<ByteSize> = Setting::new(
        About {
            name: "queue-bytes",
            help: "Bytes that may wait between receiving and applying",
            why: "One batch is applied while the next gathers. Bounds the memory.",
            ..HOW
        },
        ByteSize::mib(32),
    )
    .at_least(LEAST_SIZE);

    /// Until the end a pass is one query; more often would do nothing but that.
    SEQUENCE_INTERVAL: Setting<Duration> = Setting::new(
        About {
            name: "sequence-interval",
            help: "Time from one pass over the sequences to the next",
            why: "They are exact at the end anyway.",
            ..HOW
        },
        Duration::from_secs(30),
    )
    .at_least(Duration::from_millis(100));

    /// For keys that are given out before the switch is complete.
    SEQUENCE_MARGIN: Setting<u64> = Setting::new(
        About {
            name: "sequence-margin",
            help: "Values of each sequence that the last pass (catchup) leaves unused",
            ..HOW
        },
        0,
    );

    /// What rows name is carried at once; the pauses bound how much is left for
    /// the end.
    LARGE_OBJECT_INTERVAL: Setting<Duration> = Setting::new(
        About {
            name: "large-object-interval",
            help: "Pause between two passes over the large objects",
            why: "At least three times as long as the last pass took. What rows name is carried at once, and everything \
                  is exact at the end anyway.",
            ..HOW
        },
        Duration::from_secs(30),
    );

    /// One-shot commands are not scraped.
    LISTEN: Optional<ListenAddress> = Setting::new(
        About {
            name: "listen",
            help: "Serve /metrics, /livez, /readyz and /status here",
            why: "An address that other machines can reach needs --listen-token. Requests must name the server by an IP \
                  address, localhost, the machine's host name or the name given here, or carry the token: otherwise a \
                  page of the web could read it in somebody's browser.",
            alone: "127.0.0.1:9187",
            taker: Taker::Daemon,
            ..HOW
        },
        Words("nowhere"),
    );

    /// As a password.
    LISTEN_TOKEN: Optional<ListenToken> = Setting::new(
        About {
            name: "listen-token",
            help: "Serve only requests that carry this token; none serves everybody who reaches the port",
            why: "They carry it as \"Authorization: Bearer TOKEN\"; /livez and /readyz need none. On the command line every \
                  user of the machine can see it: prefer the variable, or the file that it names.",
            taker: Taker::Daemon,
            secrecy: Secrecy::Secret,
            ..HOW
        },
        Words("none with an address of this machine alone, else it must be said"),
    );
}
