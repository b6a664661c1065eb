//! Settings of the messages.

use std::borrow::Cow;

use super::value::Directives;
use super::{About, Heading, Setting, Taker};
use crate::config::LogFormat;

const LOG: About = About::under(Heading::Log, Taker::Everyone);

super::settings! {
    /// Results are asked for as JSON with `--json`.
    LOG_FORMAT: Setting<LogFormat> = Setting::new(
        About { name: "log-format", help: "Form of the log on standard error", ..LOG },
        LogFormat::Human,
    );

    /// Progress is told on `info`.
    LOG_LEVEL: Setting<Directives> = Setting::new(
        About {
            name: "log-level",
            help: "What is logged: error, warn, info, debug, trace, or directives such as walferry::apply=debug",
            ..LOG
        },
        Directives(Cow::Borrowed("info")),
    );
}
