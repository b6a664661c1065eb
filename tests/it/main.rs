//! The integration tests: one binary, a module a theme. They run real servers
//! and the real binary; what they stand on is in `tests/support`.

// Their helper functions are tests as well.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod added;
mod baseline;
mod beside;
mod bounds;
mod catalogs;
mod cleanup;
mod column_identity;
mod columns;
mod computed;
mod copy;
mod copy_again;
mod coverage;
mod crash;
mod ends;
mod environment;
mod existing;
mod exits;
mod fallback;
mod firing;
mod followed;
mod gentle;
mod held_back;
mod hostile_names;
mod identity;
mod journey;
mod large_objects;
mod lease;
mod left_out;
mod let_go;
mod made_types;
mod membership;
mod migration;
mod network;
mod plans;
mod preflight;
mod publications;
mod random;
mod ready;
mod ready_features;
mod referential;
mod replaced;
mod resume;
mod resync;
mod roles;
mod rooted;
mod row_filters;
mod schema;
mod secrets;
mod sequence_kinds;
mod sequence_names;
mod sequence_strangers;
mod sequences;
mod settings;
mod snapshots;
mod stopping;
mod stops;
mod story;
mod strangers;
mod terminal;
mod toast;
mod transactions;
mod trial;
mod truncate;
mod types;
mod values;
mod versions;
mod ways_out;
mod whole_way;
mod without_stream;
