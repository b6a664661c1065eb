//! Settings of what is moved.

use super::value::{Patterns, Switch};
use super::{About, Heading, Optional, Setting, Taker, Words};
use crate::config::SchemaMode;
use crate::lsn::Lsn;

const MOVED: About = About::under(Heading::Moved, Taker::Mover);

super::settings! {
    /// Read by [`TableFilter`](crate::config::TableFilter).
    TABLES: Optional<Patterns> = Setting::new(
        About {
            name: "tables",
            help: "Only these tables: [schema.]table with * and ?, several by commas",
            why: "Patterns are those of psql: * for any letters, ? for one, schema.table, several by commas; letters \
                  fold to lower case outside double quotes, so that a table \"Audit\" is '\"Audit\"' here. A partition \
                  goes with its table unless it is named itself. A table that is left out takes along the views on it \
                  and the foreign keys to it. Sequences go with the tables that own or use them.",
            ..MOVED
        },
        Words("all"),
    );

    /// Exclusion wins.
    EXCLUDE_TABLES: Optional<Patterns> = Setting::new(
        About { name: "exclude-tables", help: "Not these tables", ..MOVED },
        Words("none"),
    );

    /// Adds to the tables.
    SCHEMAS: Optional<Patterns> = Setting::new(
        About { name: "schemas", help: "Only the tables of these schemas (added to --tables)", ..MOVED },
        Words("all"),
    );

    /// Exclusion wins.
    EXCLUDE_SCHEMAS: Optional<Patterns> = Setting::new(
        About { name: "exclude-schemas", help: "Not the tables of these schemas", ..MOVED },
        Words("none"),
    );

    /// The operator vouches for them.
    ADOPT_TABLES: Optional<Patterns> = Setting::new(
        About {
            name: "adopt-tables",
            help: "Take in these tables, which appeared after the copy: all of their rows came through the stream",
            why: "Only for tables that were published while they were still empty. \"walferry add\" copies them \
                  instead, whatever they hold.",
            ..MOVED
        },
        Words("none"),
    );

    /// Only for a publication of our own.
    ALL_TABLES: Setting<Switch> = Setting::new(
        About {
            name: "all-tables",
            help: "Publish with FOR ALL TABLES, tables to come included",
            why: "Off, the publication lists the tables that take part, each by its name. This needs a superuser on \
                  the source, and a table that the application creates later is published at once: without a primary \
                  key or REPLICA IDENTITY its UPDATE and DELETE fail on the source. Not together with --publication.",
            ..MOVED
        },
        Switch::Off,
    );

    /// What the default is, the baseline decides.
    SCHEMA: Optional<SchemaMode> = Setting::new(
        About {
            name: "schema",
            help: "Where the schema on the target comes from",
            why: "create: from the source by pg_dump; foreign keys and triggers come at the end. existing: its columns \
                  are compared with the source's by name, missing ones and ones that no row would have a value for \
                  are an error that names them all, other types, expressions and NOT NULLs a warning each; its \
                  foreign keys are dropped and its triggers and rules disabled until --finish, all recorded with \
                  their SQL. none: what fires there goes over each row (check names it; unless session_replication_role can \
                  be set, all triggers do), and tables with triggers go row by row then. Foreign keys at work there \
                  refuse a copy. With --no-copy they are checked while changes are applied; those with ON DELETE \
                  CASCADE and the like are better not in force this way: where they would do harm the run stops.",
            ..MOVED
        },
        Words("create; existing with --no-copy"),
    );

    /// Given at `--finish`.
    OWNERS: Setting<Switch> = Setting::new(
        About {
            name: "owners",
            help: "Give objects their owners of the source at the end (catchup --finish)",
            why: "With --schema create; large objects also with existing. Until then all belongs to walferry's role. \
                  The roles must be on the target, and walferry's role a member of them (from 16 on WITH SET); what \
                  is missing is an error with the SQL before anything is copied. A new owner needs CREATE in its \
                  objects' schemas. An object whose owner the role may not give is named at the end with its SQL.",
            ..MOVED
        },
        Switch::Off,
    );

    /// Granted at `--finish`.
    ACL: Setting<Switch> = Setting::new(
        About {
            name: "acl",
            help: "Grant the source's privileges at the end",
            why: "Default privileges too, under the same conditions as --owners.",
            ..MOVED
        },
        Switch::Off,
    );

    /// Needs a slot.
    NO_COPY: Setting<Switch> = Setting::new(
        About {
            name: "no-copy",
            help: "Copy no rows: they are on the target already, restored by other means, as of the beginning of the \
                   slot that --slot names (or of --start-lsn)",
            why: "Needs --slot, and means --schema existing unless none is said.",
            ..MOVED
        },
        Switch::Off,
    );

    /// Needs `--no-copy`.
    START_LSN: Optional<Lsn> = Setting::new(
        About {
            name: "start-lsn",
            help: "With --no-copy: the target has exactly the transactions whose commit is before this point",
            ..MOVED
        },
        Words("where the slot begins"),
    );
}
