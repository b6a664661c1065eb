//! Settings of the two ends, and of the migration between them.

use std::borrow::Cow;
use std::path::PathBuf;

use super::value::{SlotLetters, Uri};
use super::{About, Heading, InFile, Optional, Secrecy, Setting, Taker, Variables, Words};
use crate::config::publications::Names;

const MIGRATION: About = About::under(Heading::Connections, Taker::Migration);

/// Bytes of a migration's name: it is a part of names of at most 63
/// (NAMEDATALEN - 1), some of which get a suffix.
const LONGEST_NAME: usize = 40;

super::settings! {
    /// Variables: ours, a common pair, pgcopydb's.
    SOURCE: Optional<Uri> = Setting::new(
        About {
            name: "source",
            help: "Connection string of the source: a URI or keyword=value pairs, as libpq understands them",
            why: "A password on the command line can be seen by every user of the machine: prefer the variable, \
                  the file that it names, or ~/.pgpass.",
            variables: Variables::These(&["WALFERRY_SOURCE_PGURI", "PG_URI_SRC", "PGCOPYDB_SOURCE_PGURI"]),
            secrecy: Secrecy::Secret,
            ..MIGRATION
        },
        Words(""),
    );

    /// Variables: ours, a common pair, pgcopydb's.
    TARGET: Optional<Uri> = Setting::new(
        About {
            name: "target",
            help: "Connection string of the target",
            variables: Variables::These(&["WALFERRY_TARGET_PGURI", "PG_URI_DST", "PGCOPYDB_TARGET_PGURI"]),
            secrecy: Secrecy::Secret,
            ..MIGRATION
        },
        Words(""),
    );

    /// Slot, publication, state, lease and application_name.
    NAME: Setting<SlotLetters<LONGEST_NAME>> = Setting::new(
        About {
            name: "name",
            help: "Name of the migration: slot, publication and state carry it",
            why: "Also the connections' application_name. Several migrations can share a server under several names.",
            ..MIGRATION
        },
        SlotLetters(Cow::Borrowed("walferry")),
    );

    /// A name of 63 at most, as all of the server's.
    SLOT: Optional<SlotLetters<63>> = Setting::new(
        About {
            name: "slot",
            help: "Use this replication slot, which exists, and never drop it",
            why: "Only with --no-copy: a copy begins with the snapshot that a new slot gives.",
            placeholder: "SLOT",
            ..MIGRATION
        },
        Words("walferry makes one, under the migration's name"),
    );

    /// Any names.
    PUBLICATION: Optional<Names> = Setting::new(
        About {
            name: "publication",
            help: "Use this publication, which exists, and never drop it; several by commas",
            why: "For a role that does not own the tables. Together they must publish all that takes part. As in SQL, \
                  letters fold to lower case outside double quotes: a publication \"Mine\" is '\"Mine\"' here.",
            placeholder: "PUBLICATION",
            ..MIGRATION
        },
        Words("walferry makes one, under the migration's name"),
    );

    /// Settings are named there like the flags.
    CONFIG: Optional<PathBuf> = Setting::new(
        About {
            name: "config",
            help: "Read settings from this file",
            why: "Keys are the flags' names without the dashes. A key that is no setting is an error.",
            placeholder: "FILE",
            in_file: InFile::Nothing,
            ..MIGRATION
        },
        Words("./walferry.toml if it exists"),
    );
}
